// One screen for the moment at which everybody comes: what a queue does now, and what can be done about it.
import { clockOf, count, everySecond, fill, h, main, svg } from '/assets/lib/kit.js';
import { badge, change, clock, curvesOf, day, deedText, feed, history, hour, isSilent, live, may, moment, pace, pause, queueOf, rate, serviceNow, span, title, undoableUntil, undoButton, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').LiveQueue} LiveQueue */
/** @typedef {import('./types.js').Curves} Curves */
/** @typedef {import('./types.js').Deed} Deed */
/** @typedef {import('./types.js').Child} Child */

/** Grades that are shown one by one. */
const GRADES_MAX = 8;
/** What the curves show. */
const WINDOW_S = 900;
/** Deeds that are listed: the log has all. */
const DEEDS_MAX = 8;
/** How near marks of deeds may come to each other before they become one, as a part of the curves' width. */
const NEAR = 0.06;
/** Queues that are offered at the top. */
const QUEUES_MAX = 12;

/** The queue that most needs to be seen. */
function likeliest() {
  const queues = [...(live?.queues ?? [])];
  const weight = (/** @type {LiveQueue} */ it) => (['OPEN', 'PAUSED'].includes(it.state) ? 1e12 : it.state === 'SCHEDULED' ? 1e11 : 0) + it.waiting + it.active;
  return queues.sort((a, b) => weight(b) - weight(a))[0]?.queue ?? '';
}

/** A figure, and what there is to say of it. */
function figure(/** @type {string} */ name, /** @type {Child} */ button = null, /** @type {Child} */ below = null) {
  const value = h('p', { className: 'value' }, '–');
  const note = h('p', { className: 'said' }, '\u00a0');
  const box = h('section', { className: 'figure', ariaLabel: name }, h('h2', {}, name, button), value, note, below);
  return {
    box, note,
    set(/** @type {string} */ text, /** @type {string} */ said, unit = '', isWarning = false) {
      const all = text + unit;
      if (value.dataset.all !== all) {
        value.dataset.all = all;
        value.classList.toggle('long', text.length > 7);
        fill(value, text, unit && h('small', {}, ' ', unit));
      }
      if (note.textContent !== said) note.textContent = said || '\u00a0';
      note.classList.toggle('warn', isWarning);
    },
  };
}

/** How many points a quarter of an hour has. */
const pointsOf = () => Math.round(WINDOW_S / (history?.everySeconds ?? 5));
/** The next round number, for the top of a scale. */
function roundUp(/** @type {number} */ n) {
  const power = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return power * ([1, 2, 3, 5, 10].find((it) => it * power >= n) ?? 10);
}

/** Where marks stand, and what they say: those that would lie upon each other are one. @returns {[number, string][]} */
function gathered(/** @type {[number, number][]} */ deeds) {
  /** @type {{ from: number, x: number, first: number, last: number }[]} */
  const groups = [];
  for (const [x, number] of [...deeds].sort(([a], [b]) => a - b)) {
    const group = groups.at(-1);
    if (group && x - group.x < NEAR) Object.assign(group, { x, last: number });
    else groups.push({ from: x, x, first: number, last: number });
  }
  return groups.map(({ from, x, first, last }) => [(from + x) / 2, first === last ? String(first) : `${first}–${last}`]);
}

/**
 * Curves that share a scale.
 * @param {string} name
 * @param {{ name: string, of: 'waiting' | 'joinsPerSecond' | 'admittedPerSecond' | 'active' | 'paymentsPerSecond', colour: string }[]} series
 * @param {(n: number) => string} told
 */
function plot(name, series, told) {
  const most = h('span', { className: 'most' });
  const picture = svg('svg', { preserveAspectRatio: 'none', role: 'img' });
  const marks = h('div', {});
  const box = h('div', { className: 'curve' }, h('h3', {}, series.length > 1 ? series.map((it) => h('span', {}, h('i', { className: it.colour }), it.name)) : name), h('div', { className: 'plot' }, picture, most, marks), h('p', { className: 'times', 'aria-hidden': 'true' }, ...[15, 10, 5].map((it) => h('span', {}, words.ago(it))), h('span', {}, words.nowShort)));
  return {
    box,
    draw(/** @type {Curves | undefined} */ curves, /** @type {[number, number][]} */ deeds) {
      const points = pointsOf();
      const columns = series.map((it) => curves?.[it.of] ?? []);
      const known = columns.flat().filter((it) => it !== null);
      const top = roundUp(Math.max(1, ...known));
      most.textContent = count(top);
      picture.setAttribute('viewBox', `0 0 ${points - 1} 100`);
      const lines = columns.map((column, at) => {
        const first = points - column.length;
        let isOn = false;
        let path = '';
        let from = 0;
        column.forEach((value, x) => {
          if (value === null) isOn = false;
          else {
            path += `${isOn ? 'L' : 'M'}${first + x} ${(100 - (value / top) * 100).toFixed(2)}`;
            if (!isOn) from = first + x;
            isOn = true;
          }
        });
        const colour = series[at]?.colour ?? '';
        const line = svg('path', { d: path, class: colour });
        return at === 0 && path && series.length === 1 ? [svg('path', { d: `${path}V100H${from}Z`, class: `area ${colour}` }), line] : [line];
      });
      picture.replaceChildren(...lines.flat(), ...deeds.map(([x]) => svg('line', { x1: x * (points - 1), x2: x * (points - 1), y1: 0, y2: 100 })));
      const column = columns[0] ?? [];
      const values = column.filter((it) => it !== null);
      picture.setAttribute('aria-label', values.length > 0 ? words.curvesOf(name, told(values[0] ?? 0), told(values.at(-1) ?? 0), told(Math.max(...values))) : name);
      fill(marks, gathered(deeds).map(([x, text]) => {
        const mark = h('span', { className: 'mark', 'aria-hidden': 'true' }, text);
        mark.style.insetInlineStart = `${x * 100}%`;
        return mark;
      }));
    },
  };
}

export function show(/** @type {import('./types.js').View} */ { query, signal }) {
  title(words.now);
  /** What was chosen, or what was shown first: it does not change by itself. */
  let name = query.get('q') ?? '';

  const lines = h('div', { className: 'lines' });
  const time = h('p', { className: 'clock' });
  const zone = h('small', {}, words.serverClock);
  const stateText = h('strong', {});
  const stateNote = h('p', { className: 'soft small' });
  const stop = h('button', { type: 'button', id: 'pause', className: 'stop', 'aria-keyshortcuts': 'Alt+P', onclick: () => pause(name) }, h('span', { 'aria-hidden': 'true' }, '❚❚'), words.pause, h('kbd', { 'aria-hidden': 'true' }, 'Alt P'));
  const resume = h('button', { type: 'button', id: 'resume', className: 'stop on', hidden: true, onclick: () => change(name, 'resume') }, h('span', { 'aria-hidden': 'true' }, '▶'), words.resume);
  const opening = h('button', { type: 'button', id: 'set-opening', className: 'quiet', onclick: () => change(name, 'opening') }, words.setOpening);
  const hero = h('section', { className: 'hero', 'aria-labelledby': 'line' },
    h('div', {}, time),
    h('div', { className: 'state' }, h('p', { className: 'soft small', id: 'line' }), stateText, h('div', { className: 'row' }, stateNote, may('operator') && opening)),
    may('operator') ? h('div', {}, stop, resume) : h('p', { className: 'soft small', id: 'may-look' }, words.cannotPause));

  const setter = (/** @type {string} */ id, /** @type {string} */ text, /** @type {'rate' | 'bound'} */ what) => may('operator') && h('button', { type: 'button', id, className: 'quiet', onclick: () => change(name, what) }, text);
  const room = /** @type {HTMLMeterElement} */ (h('meter', { min: 0, max: 1, ariaLabel: words.inside, hidden: true }));
  const waiting = figure(words.waiting);
  const inside = figure(words.inside, setter('set-bound', words.setBound, 'bound'), room);
  const admitted = figure(words.admitted, setter('set-rate', words.setRate, 'rate'));
  const payments = figure(words.payments);
  const joins = figure(words.joins);
  const seats = figure(words.seats);
  const sellOut = figure(words.sellOut);
  const refused = figure(words.refused);
  const p95 = figure(words.p95);
  p95.box.classList.add('wide');

  const plots = [
    plot(words.waiting, [{ name: words.waiting, of: 'waiting', colour: 'c1' }], count),
    plot(words.inside, [{ name: words.inside, of: 'active', colour: 'c1' }], count),
    plot(words.joinsAndAdmitted, [{ name: `${words.joins}${words.perSecondShort}`, of: 'joinsPerSecond', colour: 'c2' }, { name: `${words.admitted}${words.perSecondShort}`, of: 'admittedPerSecond', colour: 'c1' }], rate),
    plot(`${words.payments}${words.perSecondShort}`, [{ name: words.payments, of: 'paymentsPerSecond', colour: 'c3' }], rate),
  ];
  const grades = h('ul', { className: 'bars' });
  const leftOut = h('p', { className: 'soft small', hidden: true });
  const key = h('p', { className: 'key' }, ...['sold', 'held', 'free'].map((it) => h('span', {}, h('i', { className: it }), words[/** @type {'sold' | 'held' | 'free'} */ (it)])));
  const parts = h('ul', { className: 'parts' });
  const version = h('p', { className: 'soft small' });
  const deeds = h('ol', { className: 'deeds' });
  const card = (/** @type {string} */ text, /** @type {Child[]} */ ...inside) => h('section', { className: 'card', ariaLabel: text }, h('h2', {}, text), ...inside);
  const screen = h('div', { id: 'screen', className: 'form' },
    hero,
    h('div', { className: 'figures' }, waiting.box, inside.box, admitted.box, payments.box),
    h('div', { className: 'figures more' }, seats.box, sellOut.box, joins.box, refused.box, p95.box),
    h('div', { className: 'split three' },
      card(words.curves, h('div', { className: 'curves' }, ...plots.map((it) => it.box))),
      h('div', { className: 'form' }, card(words.grades, grades, key, leftOut), card(words.parts, parts, version)), card(words.deeds, deeds)));
  const none = h('p', { className: 'loading' }, words.loading);
  fill(main, h('h1', { className: 'unseen', tabIndex: -1 }, words.now), lines, none, screen);
  screen.hidden = true;

  /** What stood in a list before: it is made anew only where it says something else. */
  const before = new Map();
  function list(/** @type {HTMLElement} */ element, /** @type {unknown} */ what, /** @type {() => Child[]} */ items) {
    const text = JSON.stringify(what);
    if (before.get(element) === text) return;
    before.set(element, text);
    fill(element, items());
  }

  function drawState(/** @type {LiveQueue} */ queue) {
    const { state, openingAt, paused } = queue;
    hero.dataset.state = state;
    const left = Date.parse(openingAt ?? '') - serviceNow();
    const texts = { OPEN: words.open, PAUSED: words.isPaused, SOLD_OUT: words.isSoldOut, ENDED: words.isEnded, SCHEDULED: left > 0 ? words.opensIn(clockOf(left)) : words.scheduledNow };
    stateText.textContent = texts[state];
    stateNote.textContent = state === 'SCHEDULED' && openingAt ? `${words.opensAt(moment(openingAt))} · ${words.stateNote.SCHEDULED}` : words.stateNote[state];
    // What had the focus goes on having it, though it is another button.
    const had = document.activeElement;
    [stop.hidden, resume.hidden] = [paused, !paused];
    if (had === stop && paused) resume.focus();
    if (had === resume && !paused) stop.focus();
  }

  function drawFigures(/** @type {LiveQueue} */ queue) {
    const perSecond = words.perSecondShort;
    waiting.set(count(queue.waiting), queue.waiting === 0 ? words.nobodyWaits : queue.lastWaitSeconds === null ? words.lastUnknown : words.lastGetsIn(span(queue.lastWaitSeconds)));
    inside.set(count(queue.active), queue.maxActive === null ? words.unbounded : words.ofBound(count(queue.maxActive)));
    room.hidden = queue.maxActive === null;
    if (queue.maxActive !== null) {
      room.max = queue.maxActive;
      room.value = queue.active;
    }
    const isSlowed = queue.state === 'OPEN' && (live?.governor.share ?? 1) < 0.995;
    admitted.set(pace(queue.admittedPerSecond), isSlowed ? words.slowed(rate(queue.admittingPerSecond), live?.governor.reason ?? 'full') : words.ofRate(rate(queue.admitPerSecond)), perSecond, isSlowed);
    payments.set(pace(queue.paymentsPerSecond), words.seatsASecond(pace(queue.seatsSoldPerSecond)), perSecond);
    const growth = queue.joinsPerSecond - queue.admittedPerSecond;
    joins.set(pace(queue.joinsPerSecond), Math.abs(growth) < 0.05 ? words.steady : growth > 0 ? words.grows(pace(growth)) : words.shrinks(pace(-growth)), perSecond);
    seats.set(count(queue.seatsLeft), words.ofSeats(count(queue.seatsTotal)));
    const minutes = queue.minutesToSellOut;
    if (queue.seatsLeft === 0 && queue.seatsTotal > 0) sellOut.set('0', words.soldOutAlready, words.sellOutMinutes);
    else if (minutes === null) sellOut.set('–', words.sellOutUnknown);
    else if (minutes < 100) sellOut.set(minutes < 10 ? pace(minutes) : count(Math.ceil(minutes)), words.sellOutAt(hour(serviceNow() + minutes * 60_000)), words.sellOutMinutes);
    else sellOut.set(pace(minutes / 60), words.sellOutAt((minutes < 1_200 ? hour : day)(serviceNow() + minutes * 60_000)), words.sellOutHours);
    const requests = live?.requests;
    refused.set(count(requests?.unavailable ?? 0), words.lastMinute(count(requests?.asked ?? 0)));
    const ms = requests?.p95Ms.purchases ?? null;
    p95.set(ms === null ? '–' : ms < 10 ? pace(ms) : count(Math.round(ms)), words.p95Note, ms === null ? '' : 'ms');
  }

  function drawGrades() {
    const all = new Map();
    for (const concert of live?.concerts ?? []) {
      if (concert.queue !== name) continue;
      for (const { grades: its } of concert.sessions) {
        for (const { grade, price, total, free, held, sold } of its) {
          const of = grade ?? words.money(count(price));
          const sum = all.get(of) ?? { of, price, total: 0, free: 0, held: 0, sold: 0 };
          for (const [word, n] of /** @type {const} */ ([['total', total], ['free', free], ['held', held], ['sold', sold]])) sum[word] += n;
          all.set(of, sum);
        }
      }
    }
    const rows = [...all.values()].sort((a, b) => b.price - a.price).slice(0, GRADES_MAX);
    list(grades, rows, () => (rows.length === 0 ? [h('li', { className: 'soft' }, words.noSeats)] : rows.map((it) => {
      const part = (/** @type {'sold' | 'held'} */ of) => {
        const bar = h('i', { className: of });
        bar.style.width = `${(it[of] / Math.max(1, it.total)) * 100}%`;
        return bar;
      };
      return h('li', {}, h('p', { className: 'row' }, h('strong', {}, it.of), h('span', {}, words.freeOf(count(it.free), count(it.total)))), h('span', { className: 'bar', 'aria-hidden': 'true' }, part('sold'), part('held')));
    })));
    key.hidden = rows.length === 0;
    leftOut.hidden = !live?.sessionsLeftOut;
    leftOut.textContent = words.leftOut(count(live?.sessionsLeftOut ?? 0));
  }

  function drawParts() {
    if (!live) return;
    const ago = (/** @type {string} */ at) => Math.max(0, Math.round((Date.parse(live?.at ?? at) - Date.parse(at)) / 1_000));
    const instances = live.instances.map((it) => [it.instance, ago(it.seenAt)]);
    const dependencies = live.health.dependencies;
    list(parts, [dependencies, instances.length > 1 && instances], () => [
      ...dependencies.map((it) => h('li', {}, h('span', {}, /** @type {Record<string, string>} */ (words.partNames)[it.name] ?? it.name), badge(it.status))),
      ...(instances.length > 1 ? instances.map(([instance, seconds]) => h('li', {}, h('span', {}, instance), Number(seconds) > 5 ? badge('DEGRADED', words.seenAgo(count(Number(seconds)))) : badge('UP'))) : []),
    ]);
    version.textContent = words.version(live.version);
  }

  /** What was done with this queue, or with what is sold behind it. */
  function ours() {
    const concerts = live?.concerts.filter((it) => it.queue === name) ?? [];
    const targets = [`queue ${name}`, ...concerts.flatMap((it) => [`concert ${it.concertId}`, ...it.sessions.map((session) => `session ${session.sessionId}`)])];
    return live?.actions.filter((it) => targets.includes(it.target)) ?? [];
  }
  function drawDeeds() {
    const all = ours();
    const actions = all.slice(0, DEEDS_MAX);
    const untils = actions.map(undoableUntil);
    list(deeds, [all.length, actions, untils], () => (actions.length === 0 ? [h('li', { className: 'soft' }, words.noDeeds)] : actions.map((it, at) => h('li', {},
      h('span', { className: 'mark' }, String(all.length - at)),
      h('span', {}, deedText(it), h('br'), h('small', { className: 'tab' }, `${clock(it.at)} · ${it.who}${it.reason ? ` · ${it.reason}` : ''}`)),
      untils[at] ? undoButton(it.id, untils[at], deedText(it)) : null))));
  }

  function drawCurves() {
    const until = Date.parse(history?.until ?? '');
    const all = ours();
    const marks = all.map((it, at) => /** @type {[number, number]} */ ([Math.min(1, 1 - (until - Date.parse(it.at)) / (WINDOW_S * 1_000)), all.length - at])).filter(([x]) => x >= 0);
    for (const it of plots) it.draw(curvesOf(name), marks);
  }

  function drawLines() {
    const queues = live?.queues ?? [];
    const offered = queues.length > QUEUES_MAX ? queues.filter((it) => it.queue === name || ['OPEN', 'PAUSED', 'SCHEDULED'].includes(it.state)).slice(0, QUEUES_MAX) : queues;
    lines.hidden = queues.length < 2;
    list(lines, [name, offered.map((it) => [it.queue, it.state])], () => offered.map((it) => h('a', { id: `line-${it.queue}`, href: `/ops?q=${it.queue}`, 'aria-current': it.queue === name ? 'page' : null }, it.queue, badge(it.state))));
  }

  function draw() {
    if (!live || signal.aborted) return;
    name ||= likeliest();
    const queue = queueOf(name);
    if (!queue && live.queues.length > 0) name = likeliest();
    const shown = queueOf(name);
    none.hidden = Boolean(shown);
    none.textContent = live.queues.length > 0 ? words.loading : words.noQueues;
    screen.hidden = !shown;
    drawLines();
    if (!shown) return;
    const line = document.querySelector('#line');
    if (line) line.textContent = words.line(name);
    drawState(shown);
    drawFigures(shown);
    drawGrades();
    drawParts();
    drawDeeds();
    drawCurves();
  }
  feed.addEventListener('news', draw, { signal });
  draw();
  const timer = everySecond(() => {
    fill(time, clock(serviceNow()), zone);
    const queue = queueOf(name);
    if (queue && !isSilent) drawState(queue);
  });
  signal.addEventListener('abort', () => clearInterval(timer));
}
