// What is for sale: concerts, their sessions, and the seats of these, numbered or by a plan of the hall.
import { count, fill, h, link, main, newKey, note } from '/assets/lib/kit.js';
import { badge, call, day, errorText, field, forInput, fromInput, go, heading, input, may, needs, openForm, read, reasonField, select, sheet, tell, title, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').ListedConcert} ListedConcert */
/** @typedef {import('./types.js').ListedSession} ListedSession */
/** @typedef {import('./types.js').PlanReport} PlanReport */
/** @typedef {import('./types.js').Sale} Sale */
/** @typedef {import('./types.js').Child} Child */

const PAGE = 1_000;
/** A large hall takes a while to be sent and looked through. */
const PLAN_TIMEOUT_MS = 120_000;
/** How often refunds that are under way are looked at. */
const REFUNDS_MS = 2_000;

/** All pages of a list. @returns {Promise<{ answer: import('./types.js').Answer, items: any[] }>} */
async function readAll(/** @type {string} */ path, /** @type {string} */ name) {
  const items = [];
  for (let after = '', answer; ;) {
    answer = await read(`${path}${path.includes('?') ? '&' : '?'}limit=${PAGE}${after}`);
    if (!answer.ok) return { answer, items };
    items.push(...answer.body[name]);
    if (answer.body.next === null) return { answer, items };
    after = `&after=${answer.body.next}`;
  }
}

// ---- All concerts.

async function make() {
  const key = newKey();
  const queues = await call('/queues');
  const name = input('name', { maxLength: 200 });
  const venue = input('venue', { maxLength: 200 });
  const opens = input('opens', { type: 'datetime-local' });
  const closes = input('closes', { type: 'datetime-local' });
  const queue = select('queue', (queues.body.queues ?? []).map((/** @type {{ queue: string }} */ it) => [it.queue, it.queue]));
  const { reason, row } = reasonField();
  openForm({
    title: words.newConcert, verb: words.makeConcert,
    body: [field(words.name, name), field(words.venue, venue), h('div', { className: 'fields' }, field(words.opens, opens), field(words.closes, closes)), field(words.queue, queue), row],
    submit: async () => {
      const body = { name: name.value.trim(), venue: venue.value.trim(), reservationOpensAt: fromInput(opens.value), reservationClosesAt: fromInput(closes.value), queue: queue.value };
      const answer = await call('/concerts', { method: 'POST', key, body, reason: reason.value });
      if (!answer.ok) return errorText(answer);
      tell(words.concertMade(body.name));
      go(`/ops/concerts/${answer.body.concertId}`);
      return undefined;
    },
  });
}

function saleState(/** @type {ListedConcert} */ it) {
  return badge(it.state, it.state === 'OPEN' ? words.states.OPEN_SALE : undefined);
}

async function showAll(/** @type {AbortSignal} */ signal) {
  title(words.concerts);
  const { answer, items } = await readAll('/concerts', 'concerts');
  if (signal.aborted) return;
  const concerts = /** @type {ListedConcert[]} */ (items);
  fill(main, heading(words.concerts, may('admin') ? h('button', { type: 'button', id: 'new', className: 'primary', onclick: make }, words.newConcert) : needs('admin')),
    h('section', { className: 'card' }, !answer.ok ? h('p', { className: 'wrong' }, errorText(answer)) : concerts.length === 0 ? h('p', { className: 'soft' }, words.nothingForSale) : sheet(words.concerts, [
      { name: words.name, cell: (it) => link('', `/ops/concerts/${it.concertId}`, it.name) },
      { name: words.status, cell: saleState },
      { name: words.venue, cell: (it) => it.venue },
      { name: words.queue, cell: (it) => link('', `/ops/queues/${it.queue}`, it.queue) },
      { name: words.opens, cell: (it) => day(it.reservationOpensAt) },
      { name: words.closes, cell: (it) => day(it.reservationClosesAt) },
    ], concerts)));
}

// ---- One concert.

/** Asks for the name, for what cannot be undone. */
function callOff(/** @type {string} */ path, /** @type {string} */ what, /** @type {string} */ name, /** @type {number} */ sold, /** @type {() => void} */ then) {
  const typed = input('typed', { spellcheck: false });
  const { reason, row } = reasonField();
  openForm({
    title: words.callOffAsk(what), verb: words.callOff, kind: 'danger',
    body: [h('p', {}, words.callOffText(count(sold))), field(words.callOffType(name), typed), row],
    submit: async () => {
      if (typed.value.trim().normalize() !== name.trim().normalize()) {
        typed.focus();
        return words.callOffWrong;
      }
      const answer = await call(`${path}/cancel`, { method: 'POST', reason: reason.value });
      if (!answer.ok) return errorText(answer);
      tell(words.calledOff(what));
      then();
      return undefined;
    },
  });
}

function remove(/** @type {string} */ path, /** @type {string} */ what, /** @type {() => void} */ then) {
  const { reason, row } = reasonField();
  openForm({
    title: words.removeAsk(what), verb: words.remove, kind: 'danger', body: [h('p', {}, words.removeText), row],
    submit: async () => {
      const answer = await call(path, { method: 'DELETE', reason: reason.value });
      if (!answer.ok) return errorText(answer);
      tell(words.removed(what));
      then();
      return undefined;
    },
  });
}

function correct(/** @type {ListedConcert} */ it, /** @type {() => void} */ then) {
  const name = input('name', { maxLength: 200, value: it.name });
  const venue = input('venue', { maxLength: 200, value: it.venue });
  const opens = input('opens', { type: 'datetime-local', value: forInput(it.reservationOpensAt) });
  const closes = input('closes', { type: 'datetime-local', value: forInput(it.reservationClosesAt) });
  const { reason, row } = reasonField();
  const had = [name, venue, opens, closes].map((field) => field.value);
  openForm({
    title: words.correct, verb: words.save, body: [field(words.name, name), field(words.venue, venue), h('div', { className: 'fields' }, field(words.opens, opens), field(words.closes, closes)), row],
    submit: async () => {
      // Only what was corrected is sent: somebody else may correct the rest at the same time.
      const body = {
        ...(name.value !== had[0] && { name: name.value.trim() }), ...(venue.value !== had[1] && { venue: venue.value.trim() }),
        ...(opens.value !== had[2] && { reservationOpensAt: fromInput(opens.value) }), ...(closes.value !== had[3] && { reservationClosesAt: fromInput(closes.value) }),
      };
      if (Object.keys(body).length === 0) return words.nothingChanged;
      const answer = await call(`/concerts/${it.concertId}`, { method: 'PATCH', body, reason: reason.value });
      if (!answer.ok) return errorText(answer);
      tell(words.saved);
      then();
      return undefined;
    },
  });
}

function correctSession(/** @type {string} */ path, /** @type {ListedSession} */ it, /** @type {() => void} */ then) {
  const at = input('at', { type: 'datetime-local', value: forInput(it.concertAt) });
  const { reason, row } = reasonField();
  openForm({
    title: words.correct, verb: words.save, body: [field(words.sessionAt, at), row],
    submit: async () => {
      const answer = await call(path, { method: 'PATCH', body: { concertAt: fromInput(at.value) }, reason: reason.value });
      if (!answer.ok) return errorText(answer);
      tell(words.saved);
      then();
      return undefined;
    },
  });
}

function addSeats(/** @type {string} */ path, /** @type {() => void} */ then) {
  const key = newKey();
  const seats = input('seats', { inputMode: 'numeric', maxLength: 6 });
  const price = input('price', { inputMode: 'numeric', maxLength: 13 });
  const { reason, row } = reasonField();
  openForm({
    title: words.addSeats, verb: words.addSeats, body: [h('div', { className: 'fields' }, field(words.seatCount, seats), field(words.priceOfSeat, price, null, words.points)), row],
    submit: async () => {
      const answer = await call(`${path}/seats`, { method: 'POST', key, body: { seatCount: Number(seats.value), price: Number(price.value) }, reason: reason.value });
      if (!answer.ok) return errorText(answer);
      tell(words.seatsAdded(count(answer.body.seatCount)));
      then();
      return undefined;
    },
  });
}

async function showOne(/** @type {string} */ id, /** @type {AbortSignal} */ signal) {
  title(words.concerts);
  const path = `/concerts/${id}`;
  const again = () => showOne(id, signal);
  const [list, { answer, items }, sales, progress] = await Promise.all([
    read(`/concerts?limit=1&after=${Number(id) - 1}`.replace('&after=0', '')), readAll(`${path}/sessions`, 'sessions'), read(`/sales?concert=${id}&limit=${PAGE}`), call(`${path}/cancel`),
  ]);
  if (signal.aborted) return;
  const concert = /** @type {ListedConcert | undefined} */ (list.body.concerts?.[0]);
  if (!concert || String(concert.concertId) !== id || !answer.ok) return fill(main, heading(words.concerts), h('p', { className: 'card wrong' }, answer.ok ? words.errors.CONCERT_NOT_FOUND : errorText(answer)), link('', '/ops/concerts', words.concerts));
  title(concert.name);
  const sessions = /** @type {ListedSession[]} */ (items);
  const grades = Map.groupBy(/** @type {Sale[]} */ (sales.body.sales ?? []), (it) => it.sessionId);
  const refunds = new Map((progress.body.sessions ?? []).map((/** @type {{ sessionId: number, refunded: number, left: number }} */ it) => [it.sessionId, it]));
  const sold = sessions.reduce((sum, it) => sum + (it.cancelledAt ? 0 : it.soldSeatCount), 0);
  const isOff = sessions.length > 0 && sessions.every((it) => it.cancelledAt);
  // What was called off may have refunded somebody.
  const isEmpty = sessions.every((it) => it.soldSeatCount === 0 && !it.cancelledAt);
  const row = (/** @type {string} */ name, /** @type {Child} */ value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  const button = (/** @type {string} */ text, /** @type {() => void} */ onclick, kind = 'second', of = '') => h('button', { type: 'button', className: kind, ariaLabel: of ? `${text}: ${of}` : null, onclick }, text);

  const acts = (/** @type {ListedSession} */ it) => {
    const its = `${path}/sessions/${it.sessionId}`;
    const when = day(it.concertAt);
    const hasPlan = (grades.get(it.sessionId) ?? []).some((grade) => grade.grade !== null);
    return h('div', { className: 'row' },
      button(words.correct, () => correctSession(its, it, again), 'quiet', when), !hasPlan && button(words.addSeats, () => addSeats(its, again), 'quiet', when),
      it.soldSeatCount === 0 && button(words.remove, () => remove(its, when, again), 'quiet', when),
      button(words.callOff, () => callOff(its, when, concert.name, it.soldSeatCount, again), 'danger quiet', when));
  };
  fill(main,
    heading(concert.name, h('div', { className: 'row' }, isOff ? badge('CANCELLED') : saleState(concert))),
    h('section', { className: 'card' }, h('dl', { className: 'facts' }, row(words.venue, concert.venue), row(words.queue, link('', `/ops/queues/${concert.queue}`, concert.queue)), row(words.opens, day(concert.reservationOpensAt)), row(words.closes, day(concert.reservationClosesAt))),
      may('admin') ? h('div', { className: 'row' }, button(words.correct, () => correct(concert, again)), isEmpty && button(words.remove, () => remove(path, concert.name, () => go('/ops/concerts'))),
        sessions.length > 0 && !isOff && button(words.callOff, () => callOff(path, concert.name, concert.name, sold, again), 'danger'), link('button quiet', `/ops/sales?concert=${id}`, words.sales)) : needs('admin')),
    h('section', { className: 'card', ariaLabel: words.sessions }, h('h2', {}, words.sessions), sessions.length === 0 ? h('p', { className: 'soft' }, words.noSessions) : sheet(words.sessions, [
      { name: words.sessionAt, cell: (it) => day(it.concertAt) },
      { name: words.status, cell: (it) => {
        const refund = refunds.get(it.sessionId);
        return it.cancelledAt ? [badge('CANCELLED'), refund && h('small', { className: 'tab' }, ' ', words.refunds(count(refund.refunded), count(refund.left)))] : badge('OPEN', words.states.TAKES_PLACE);
      } },
      { name: words.prices, cell: (it) => h('ul', {}, ...(grades.get(it.sessionId) ?? []).map((grade) => h('li', { className: 'tab' }, grade.grade && h('strong', {}, grade.grade, ' '), words.money(count(grade.price))))) },
      { name: words.seatsAll, isNumber: true, cell: (it) => count(it.totalSeatCount) },
      { name: words.sold, isNumber: true, cell: (it) => count(it.soldSeatCount) },
      ...(may('admin') ? [{ name: words.actions, isActs: true, cell: (/** @type {ListedSession} */ it) => (it.cancelledAt ? words.nothing : acts(it)) }] : []),
    ], sessions)),
    may('admin') && !isOff && newSession(path, again));
  // Refunds go on while one looks.
  if ([...refunds.values()].some((it) => it.left > 0)) setTimeout(() => !signal.aborted && !document.querySelector('dialog') && again(), REFUNDS_MS);
}

// ---- A new session, with its seats.

/** What of a plan's text its form needs: the grades that its seats have, and the areas without seats. */
function outline(/** @type {any} */ plan) {
  const zones = Array.isArray(plan?.zones) ? plan.zones : [];
  const seats = zones.flatMap((/** @type {any} */ zone) => (zone?.rows ?? []).flatMap((/** @type {any} */ row) => row?.seats ?? []));
  const used = new Set(seats.map((/** @type {any} */ seat) => seat?.category));
  const named = (Array.isArray(plan?.categories) ? plan.categories : []).map((/** @type {any} */ it) => it?.name);
  const grades = [...new Set([...named.filter((/** @type {string} */ it) => used.has(it)), ...used])].filter((it) => typeof it === 'string' && it !== '');
  const areas = zones.flatMap((/** @type {any} */ zone) => zone?.areas ?? []).map((/** @type {any} */ area) => ({ key: String(area?.uuid || area?.text?.text || ''), text: String(area?.text?.text || area?.uuid || '') })).filter((/** @type {{ key: string }} */ it) => it.key);
  return { grades: /** @type {string[]} */ (grades), named: /** @type {string[]} */ (named.filter((/** @type {unknown} */ it) => typeof it === 'string')), areas: /** @type {{ key: string, text: string }[]} */ (areas) };
}

function newSession(/** @type {string} */ path, /** @type {() => void} */ then) {
  let key = newKey();
  const at = input('new-at', { type: 'datetime-local' });
  const kinds = /** @type {const} */ (['plain', 'plan']).map((it) => /** @type {HTMLInputElement} */ (h('input', { type: 'radio', name: 'kind', id: `kind-${it}`, value: it, checked: it === 'plain' })));
  const seats = input('new-seats', { inputMode: 'numeric', maxLength: 6 });
  const price = input('new-price', { inputMode: 'numeric', maxLength: 13 });
  const file = input('plan', { type: 'file', accept: '.json,application/json' });
  const plain = h('div', { className: 'fields' }, field(words.seatCount, seats), field(words.priceOfSeat, price, null, words.points));
  const prices = h('div', { className: 'fields' });
  const standing = h('div', { className: 'form' });
  const addArea = h('button', { type: 'button', id: 'add-area', className: 'quiet', onclick: () => addRow() }, words.addStanding);
  const areaPart = h('fieldset', { className: 'form', hidden: true }, h('legend', { className: 'label' }, words.standing), h('small', {}, words.standingHint), standing, h('div', {}, addArea));
  const report = h('div', { className: 'form', id: 'report' });
  const hall = h('div', { className: 'form', hidden: true }, field(words.planFile, file, words.planHint), prices, areaPart, report);
  const wrong = h('p', { className: 'wrong', role: 'alert' });
  const checkButton = h('button', { type: 'button', id: 'check-plan', className: 'second', hidden: true, onclick: () => send(true) }, words.checkPlan);
  const makeButton = /** @type {HTMLButtonElement} */ (h('button', { id: 'make-session', className: 'primary' }, words.makeSession));
  const { reason, row } = reasonField('new-reason');

  /** @type {any} */
  let plan = null;
  let parts = outline(null);
  /** Whether what would be sent was looked through as it is now. */
  let isChecked = false;
  const isPlan = () => kinds[1]?.checked ?? false;
  function reset() {
    isChecked = false;
    key = newKey();
    wrong.textContent = '';
    fill(report);
    arrange();
  }
  function arrange() {
    plain.hidden = isPlan();
    hall.hidden = !isPlan();
    checkButton.hidden = !isPlan() || !plan;
    makeButton.hidden = isPlan() && !isChecked;
    areaPart.hidden = parts.areas.length === 0;
  }
  /** Prices that were entered stay, when a corrected plan is chosen. */
  const entered = new Map();
  function drawPrices() {
    const rows = [...standing.querySelectorAll('[data-grade]')].map((it) => /** @type {HTMLSelectElement} */ (it).value);
    fill(prices, [...new Set([...parts.grades, ...rows])].filter(Boolean).map((grade, at) => {
      const amount = input(`price-${at}`, { inputMode: 'numeric', maxLength: 13, value: entered.get(grade) ?? '' });
      amount.dataset.price = grade;
      amount.addEventListener('input', () => {
        entered.set(grade, amount.value);
        reset();
      });
      return field(words.priceOf(grade), amount, null, words.points);
    }));
  }
  let areas = 0;
  function addRow() {
    areas += 1;
    const area = select(`area-${areas}`, parts.areas.map(({ key, text }) => [key, text]), '', { 'data-area': '' });
    const people = input(`people-${areas}`, { inputMode: 'numeric', maxLength: 6, 'data-people': '' });
    const grade = select(`grade-${areas}`, parts.named.map((it) => [it, it]), '', { 'data-grade': '' });
    const line = h('div', { className: 'fields', 'data-line': '' }, field(words.area, area), field(words.howMany, people), field(words.grade, grade), h('div', { className: 'field' }, h('button', {
      type: 'button', className: 'quiet', onclick: () => { line.remove(); drawPrices(); reset(); },
    }, words.remove)));
    for (const it of [area, people, grade]) it.addEventListener('input', () => { drawPrices(); reset(); });
    standing.append(line);
    drawPrices();
    reset();
    area.focus();
  }
  file.addEventListener('change', async () => {
    plan = null;
    parts = outline(null);
    fill(standing);
    const [chosen] = file.files ?? [];
    try {
      if (chosen) plan = JSON.parse(await chosen.text());
      parts = outline(plan);
      reset();
    } catch {
      reset();
      wrong.textContent = words.planWrong;
    }
    drawPrices();
  });
  for (const it of kinds) it.addEventListener('change', reset);

  /** @returns {object} */
  function body() {
    const concertAt = fromInput(at.value);
    if (!isPlan()) return { concertAt, seatCount: Number(seats.value), price: Number(price.value) };
    const lines = [...standing.querySelectorAll('[data-line]')].map((line) => {
      const value = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (line.querySelector(`[data-${name}]`)).value;
      return { area: value('area'), count: Number(value('people')), category: value('grade') };
    });
    const its = Object.fromEntries([.../** @type {NodeListOf<HTMLInputElement>} */ (prices.querySelectorAll('[data-price]'))].filter((it) => it.value.trim()).map((it) => [it.dataset.price, Number(it.value)]));
    return { concertAt, plan, prices: its, ...(lines.length > 0 && { standing: lines }) };
  }
  function draw(/** @type {PlanReport} */ it) {
    const problems = /** @type {Record<string, string>} */ (words.problems);
    fill(report,
      h('h3', {}, words.planReads(it.name)),
      it.problemCount === 0 ? note('good', h('p', {}, `✓ ${words.planClean}`)) : note('warn', h('p', {}, words.planProblems(count(it.problemCount)))),
      it.problemCount > 0 && sheet(words.problem, [{ name: words.problem, cell: (one) => problems[one.what] ?? one.what }, { name: words.where, cell: (one) => one.where }, { name: words.with, cell: (one) => one.with ?? words.nothing }], it.problems),
      it.problemCount > it.problems.length && h('p', { className: 'soft' }, words.problemsMore(count(it.problemCount - it.problems.length))),
      h('div', { className: 'fields' },
        sheet(words.section, [{ name: words.section, cell: (one) => one.name }, { name: words.places, isNumber: true, cell: (one) => count(one.placeCount) }], it.sections, [words.total, count(it.placeCount)]),
        sheet(words.grade, [{ name: words.grade, cell: (one) => one.grade }, { name: words.places, isNumber: true, cell: (one) => count(one.placeCount) }], it.grades, [words.total, count(it.grades.reduce((sum, one) => sum + one.placeCount, 0))])));
  }
  async function send(/** @type {boolean} */ isTrial) {
    if (makeButton.ariaBusy === 'true') return;
    wrong.textContent = '';
    if (!fromInput(at.value)) {
      wrong.textContent = words.whenWanted;
      return at.focus();
    }
    makeButton.ariaBusy = 'true';
    checkButton.ariaBusy = 'true';
    const answer = await call(`${path}/sessions${isTrial ? '?dry_run=true' : ''}`, { method: 'POST', body: body(), timeoutMs: PLAN_TIMEOUT_MS, ...(!isTrial && { key, reason: reason.value }) });
    makeButton.ariaBusy = null;
    checkButton.ariaBusy = null;
    if (answer.ok && !isTrial) {
      tell(words.sessionMade(count(answer.body.seatCount ?? answer.body.placeCount)));
      return then();
    }
    if (answer.ok) {
      isChecked = answer.body.problemCount === 0;
      draw(answer.body);
      arrange();
    } else {
      wrong.textContent = errorText(answer);
    }
    return undefined;
  }
  const form = h('form', {
    className: 'card form', noValidate: true, ariaLabel: words.newSession,
    onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      send(isPlan() && !isChecked);
    },
  }, h('h2', {}, words.newSession), h('div', { className: 'fields' }, field(words.sessionAt, at)),
  h('fieldset', { className: 'row' }, h('legend', { className: 'label' }, words.halls), ...kinds.map((it, at) => h('label', { className: 'check' }, it, at === 0 ? words.plain : words.plan))),
  plain, hall, row, wrong, h('div', { className: 'row' }, checkButton, makeButton));
  arrange();
  return form;
}

export const show = (/** @type {import('./types.js').View} */ { rest, signal }) => (rest ? showOne(rest, signal) : showAll(signal));
