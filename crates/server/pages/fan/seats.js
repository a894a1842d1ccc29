// Seats of a session: how many, which, and the hold. Seats have numbers and prices; whoever has them is told by shape, sign
// and text, never by colour alone.
import { apology, ask, clockOf, count, dayTime, errorText, everySecond, fill, frame, h, insist, intentOf, isPassing, keepHold, keepIntent, keepPlace, link, listOf, main, newKey, note, placeIn, points, readConcert, say, signInLink, unpaid, until, user, whoIsMissing, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').Concert} Concert */
/** @typedef {import('../types.js').Seat} Seat */
/** @typedef {import('../types.js').Answer} Answer */

const REFRESH_MS = 8_000;
/** Seats drawn at a time: more would be slow on a phone, and mute nobody. */
const PART = 500;
/** As many as the service takes in one hold by default; it says where it takes fewer. */
const MOST = 4;
const ATTEMPTS = 6;

const [, , concertId = '', , sessionId = ''] = location.pathname.split('/');
const path = `/concerts/${concertId}/sessions/${sessionId}`;
/** @type {Concert} */
let concert;
let token = '';
let etag = '';
/** By number. @type {Seat[]} */
let seats = [];
/** @type {Map<number, Seat>} */
let byNumber = new Map();
/** Prices from high to low; the first is A. @type {number[]} */
let prices = [];
/** Ids of the seats chosen. @type {Set<number>} */
let chosen = new Set();
/** Ids of those that somebody else got first. @type {Set<number>} */
let lost = new Set();
let part = 0;
let wanted = 2;
let wantedPrice = 0;
let isBusy = false;

const isFree = (/** @type {Seat} */ seat) => seat.status === 'AVAILABLE';
const gradeOf = (/** @type {Seat} */ seat) => (prices.length > 1 ? String.fromCharCode(65 + Math.min(25, prices.indexOf(seat.price))) : '');
const chosenSeats = () => seats.filter((it) => chosen.has(it.seatId));
const names = (/** @type {Seat[]} */ some) => listOf(some.map((it) => words.seat(String(it.number))));
const choiceName = `boxoffice.chosen.${sessionId}`;

function rememberChoice() {
  try {
    sessionStorage.setItem(choiceName, JSON.stringify([...chosen]));
  } catch {
    // Then it does not outlive a reload.
  }
}
function rememberedChoice() {
  try {
    return /** @type {number[]} */ (JSON.parse(sessionStorage.getItem(choiceName) ?? '[]'));
  } catch {
    return [];
  }
}

// ---- The parts of the page, each filled by itself: what has the focus is not to vanish.

const turn = h('div', { className: 'turn' }, h('span', {}, words.turnEnds), h('strong', { id: 'clock', role: 'timer' }));
const tools = h('form', { className: 'card tools', onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); findTogether(); } });
const parts = h('div', { className: 'parts', role: 'group', ariaLabel: words.parts });
const grid = h('div', { className: 'grid', role: 'grid', ariaMultiSelectable: 'true' });
const message = h('div', { id: 'message' });
const basket = h('section', { className: 'basket', ariaLabel: words.basket });
const columns = matchMedia('(min-width: 48rem)');
/** @type {Map<number, HTMLElement>} */
const buttons = new Map();

/** Whether numbers are so long that fewer fit beside one another. */
const isLong = () => (seats.at(-1)?.number ?? 0) >= 10_000;
const perRow = () => (columns.matches ? 20 : isLong() ? 8 : 10);
const partSeats = () => seats.slice(part * PART, (part + 1) * PART);

function drawTools() {
  const choice = (/** @type {number} */ n) => h('label', { className: 'pick' }, h('input', { type: 'radio', name: 'wanted', value: n, checked: n === wanted, onchange: () => { wanted = n; } }), h('span', {}, String(n)));
  fill(tools,
    h('fieldset', {}, h('legend', {}, words.howMany), h('div', { className: 'picks' }, [1, 2, 3, 4].map(choice))),
    prices.length > 1 && h('label', { className: 'select' }, h('span', {}, words.price), h('select', { id: 'price', onchange: (/** @type {Event} */ event) => { wantedPrice = Number(/** @type {HTMLSelectElement} */ (event.target).value); } },
      h('option', { value: '-1', selected: wantedPrice === 0 }, words.anyPrice), prices.map((price, index) => h('option', { value: price, selected: price === wantedPrice }, `${String.fromCharCode(65 + index)} · ${points(price)}`)))),
    h('button', { id: 'together', className: 'second' }, words.findTogether));
}

function drawParts() {
  const pages = Math.ceil(seats.length / PART);
  parts.hidden = pages < 2;
  if (parts.hidden) return;
  fill(parts, Array.from({ length: pages }, (_, index) => {
    const some = seats.slice(index * PART, (index + 1) * PART);
    const free = count(some.filter(isFree).length);
    const [from, to] = [String(some[0]?.number ?? ''), String(some.at(-1)?.number ?? '')];
    return h('button', { type: 'button', id: `part${index}`, className: 'part', ariaPressed: String(index === part), onclick: () => { part = index; drawParts(); drawGrid(); } },
      h('b', {}, words.part(from, to)), ' ', h('small', {}, words.partFree(free)));
  }));
}

function drawGrid() {
  const some = partSeats();
  const width = perRow();
  buttons.clear();
  grid.classList.toggle('long', isLong());
  grid.ariaLabel = words.grid(String(some[0]?.number ?? ''), String(some.at(-1)?.number ?? ''));
  /** @type {HTMLElement[]} */
  const rows = [];
  for (let from = 0; from < some.length; from += width) {
    rows.push(h('div', { role: 'row' }, some.slice(from, from + width).map((seat) => {
      const button = h('button', { type: 'button', className: 'seat', tabIndex: -1, onclick: () => toggle(seat.seatId) }, h('span', {}, String(seat.number)), ' ', h('i', {}));
      button.dataset.seat = String(seat.seatId);
      buttons.set(seat.seatId, button);
      return h('div', { role: 'gridcell' }, button);
    })));
  }
  grid.replaceChildren(...rows);
  paint();
  const first = some.find((it) => chosen.has(it.seatId)) ?? some.find(isFree) ?? some[0];
  const target = first && buttons.get(first.seatId);
  if (target) target.tabIndex = 0;
}

/** What a seat is, for whoever looks at it. */
function lookOf(/** @type {Seat} */ seat) {
  if (chosen.has(seat.seatId)) return { look: 'chosen', sign: '✓' };
  if (lost.has(seat.seatId) && !isFree(seat)) return { look: 'lost', sign: '!' };
  if (seat.status === 'CONFIRMED') return { look: 'sold', sign: '✕' };
  if (seat.status === 'TEMPORARY_RESERVED') return { look: 'held', sign: '◷' };
  return { look: 'free', sign: gradeOf(seat) };
}

/** Writes only what has changed: most of 500 seats has not. */
function paint() {
  for (const seat of partSeats()) {
    const button = buttons.get(seat.seatId);
    if (!button) continue;
    const { look, sign } = lookOf(seat);
    const mark = `${look}${sign}`;
    if (button.dataset.mark === mark) continue;
    button.dataset.mark = mark;
    button.dataset.look = look;
    const state = look === 'chosen' ? words.status.chosen : look === 'lost' ? words.status.lost : words.status[seat.status];
    const grade = gradeOf(seat);
    button.ariaLabel = words.seatLabel(`${seat.number} ${grade}`.trim(), points(seat.price), state);
    button.ariaPressed = String(look === 'chosen');
    button.ariaDisabled = String(look !== 'chosen' && look !== 'free');
    if (button.lastElementChild) button.lastElementChild.textContent = sign;
  }
}

function drawBasket() {
  const mine = chosenSeats();
  const total = mine.reduce((sum, it) => sum + it.price, 0);
  fill(basket,
    mine.length === 0 ? h('p', { className: 'soft' }, words.basketEmpty)
      : h('ul', { className: 'chips' }, mine.map((seat) => h('li', {}, h('button', { type: 'button', id: `chip${seat.seatId}`, className: 'chip', ariaLabel: words.removeSeat(String(seat.number)), onclick: () => toggle(seat.seatId) }, words.seat(String(seat.number)), h('span', { ariaHidden: 'true' }, ' ✕'))))),
    h('div', { className: 'checkout' }, h('p', {}, h('small', {}, words.total), h('strong', {}, points(total))),
      h('button', { type: 'button', id: 'hold', className: 'primary', disabled: mine.length === 0, ariaDisabled: String(isBusy), ariaBusy: String(isBusy), onclick: hold }, isBusy ? words.holding : words.hold)));
}

function tellAbout(/** @type {'warn' | 'good' | ''} */ kind, /** @type {string} */ text, /** @type {HTMLElement | null} */ way = null) {
  fill(message, text !== '' && note(kind, h('p', {}, text), way));
  if (text) say(text, kind === 'warn');
}

function changed() {
  rememberChoice();
  paint();
  drawBasket();
}

// ---- Choosing.

function toggle(/** @type {number} */ id) {
  const seat = seats.find((it) => it.seatId === id);
  if (!seat || isBusy) return;
  const button = buttons.get(id);
  if (button && grid.contains(document.activeElement)) moveTo(button);
  if (chosen.has(id)) {
    chosen.delete(id);
    // The chip that was pressed is gone.
    if (document.activeElement?.id === `chip${id}`) button?.focus();
  } else if (!isFree(seat)) {
    return say(button?.ariaLabel ?? '', true);
  } else if (chosen.size >= MOST) {
    return tellAbout('warn', words.atMost(MOST));
  } else {
    chosen.add(id);
  }
  tellAbout('', '');
  changed();
  say(`${words.seat(String(seat.number))}, ${chosen.has(id) ? words.status.chosen : words.status.AVAILABLE}. ${words.total}: ${points(chosenSeats().reduce((sum, it) => sum + it.price, 0))}`);
}

/**
 * So many free seats side by side; null where there are none. Those that leave no single seat behind come first, then those
 * in one row, then those nearest to `near`. Without that it is one of the first twenty at random: otherwise everybody would
 * be offered the same.
 * @returns {Seat[] | null}
 */
function together(/** @type {number} */ n, near = 0) {
  const free = (/** @type {number} */ number) => {
    const seat = byNumber.get(number);
    return seat !== undefined && (isFree(seat) || chosen.has(seat.seatId));
  };
  /** @type {{ group: Seat[], cost: number }[]} */
  const found = [];
  for (const seat of seats) {
    if (wantedPrice > 0 && seat.price !== wantedPrice) continue;
    const group = Array.from({ length: n }, (_, index) => byNumber.get(seat.number + index));
    if (!group.every((it) => it !== undefined && free(it.number) && it.price === seat.price)) continue;
    const [first, last] = [seat.number, seat.number + n - 1];
    const leavesOne = (free(first - 1) && !free(first - 2)) || (free(last + 1) && !free(last + 2));
    const isSplit = Math.floor((first - 1) / 10) !== Math.floor((last - 1) / 10);
    found.push({ group: /** @type {Seat[]} */ (group), cost: (leavesOne ? 2e9 : 0) + (isSplit ? 1e9 : 0) + Math.abs(first - near) });
  }
  if (found.length === 0) return null;
  found.sort((a, b) => a.cost - b.cost);
  const best = near > 0 ? found.slice(0, 1) : found.slice(0, 20).filter((it) => it.cost < 1e9 || (found[0]?.cost ?? 0) >= 1e9);
  return best[Math.floor(Math.random() * best.length)]?.group ?? null;
}

function choose(/** @type {Seat[]} */ some) {
  chosen = new Set(some.map((it) => it.seatId));
  part = Math.floor(seats.findIndex((it) => chosen.has(it.seatId)) / PART);
  drawParts();
  drawGrid();
  changed();
  buttons.get(some[0]?.seatId ?? 0)?.scrollIntoView({ block: 'center', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
}

function findTogether() {
  const group = together(wanted);
  if (!group) return tellAbout('warn', words.noTogether(wanted));
  choose(group);
  tellAbout('', '');
  say(words.foundTogether(names(group)));
}

// ---- The keyboard: the grid is one stop, arrows move in it.

function moveTo(/** @type {HTMLElement} */ button) {
  for (const other of grid.querySelectorAll('[tabindex="0"]')) /** @type {HTMLElement} */ (other).tabIndex = -1;
  button.tabIndex = 0;
  button.focus();
}
grid.onkeydown = (event) => {
  const all = [...buttons.values()];
  const at = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  if (at < 0 || event.altKey || event.metaKey) return;
  const width = perRow();
  const row = Math.floor(at / width) * width;
  const end = all.length - 1;
  const to = {
    ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - width, ArrowDown: at + width, PageUp: Math.max(at % width, at - 5 * width), PageDown: Math.min(end, at + 5 * width),
    Home: event.ctrlKey ? 0 : row, End: event.ctrlKey ? end : Math.min(end, row + width - 1),
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const target = all[to];
  if (target) moveTo(target);
};
columns.onchange = () => drawGrid();

// ---- The list.

/** Reads the seats. Returns the answer where there is none, and nobody can go on. @returns {Promise<Answer | null>} */
async function readSeats(read = ask) {
  const answer = await read(`${path}/seats`, { token, etag });
  if (answer.status === 304) return null;
  if (!answer.ok) return answer;
  etag = answer.etag;
  seats = [...answer.body.availableSeats, ...answer.body.unavailableSeats].sort((a, b) => a.number - b.number);
  byNumber = new Map(seats.map((it) => [it.number, it]));
  prices = [...new Set(seats.map((it) => it.price))].sort((a, b) => b - a);
  return null;
}

/** What was chosen and is somebody else's now. */
function dropLost() {
  const gone = chosenSeats().filter((it) => !isFree(it));
  for (const seat of gone) {
    chosen.delete(seat.seatId);
    lost.add(seat.seatId);
  }
  return gone;
}

function tellLost(/** @type {Seat[]} */ gone) {
  const kept = chosenSeats();
  const near = kept[0]?.number ?? gone[0]?.number ?? 1;
  const text = kept.length > 0 ? words.lost(names(gone)) : words.lostAll(names(gone));
  const price = wantedPrice;
  wantedPrice = 0;
  // The whole group side by side where that is possible, or else those that are nearest to the rest.
  const group = together(gone.length + kept.length, near);
  wantedPrice = price;
  const others = seats.filter((it) => isFree(it) && !chosen.has(it.seatId)).sort((a, b) => Math.abs(a.number - near) - Math.abs(b.number - near));
  const offer = group ?? [...kept, ...others.slice(0, gone.length)].sort((a, b) => a.number - b.number);
  tellAbout('warn', text, offer.length > kept.length ? h('button', {
    type: 'button', id: 'instead', className: 'second', onclick: () => {
      choose(offer);
      tellAbout('', '');
      say(words.foundTogether(names(offer)));
      document.getElementById('hold')?.focus();
    },
  }, words.instead(names(offer))) : null);
}

async function refresh() {
  if (isBusy || document.hidden || !seats.length || isOver) return;
  const problem = await readSeats();
  // A refresh that fails is made up for by the next one; a turn that is over is not.
  if (problem) return problem.status === 403 || problem.status === 401 ? over(problem) : undefined;
  if (isBusy) return;
  const gone = dropLost();
  drawParts();
  changed();
  if (gone.length > 0) tellLost(gone);
}

// ---- The hold.

async function hold() {
  if (isBusy || chosen.size === 0) return;
  const ids = [...chosen].sort((a, b) => a - b);
  const before = intentOf(sessionId);
  const intent = before && String(before.seats) === String(ids) ? before : { key: newKey(), seats: ids };
  // Kept before it is sent: whatever becomes of the answer, the same is asked again.
  keepIntent(sessionId, intent);
  isBusy = true;
  drawBasket();
  await settle(intent);
}

async function settle(/** @type {{ key: string, seats: number[] }} */ intent) {
  const answer = await insist(`${path}/reservations`, { method: 'POST', token, key: intent.key, body: { userId: Number(user()), seatIds: intent.seats } }, ATTEMPTS);
  if (answer.ok) {
    keepHold({ rid: answer.body.reservationId, user: user(), token, concert: Number(concertId), session: Number(sessionId), status: 'HELD', expiresAt: answer.body.expiresAt, name: concert.name });
    keepIntent(sessionId, null);
    chosen.clear();
    rememberChoice();
    return location.assign(`/pay/${answer.body.reservationId}`);
  }
  isBusy = false;
  if (isPassing(answer)) {
    drawBasket();
    return tellAbout('warn', words.holdUnknown);
  }
  keepIntent(sessionId, null);
  await refused(answer);
}

async function refused(/** @type {Answer} */ answer) {
  if (['TOKEN_EXPIRED', 'TOKEN_SPENT', 'TOKEN_NOT_ACTIVATED', 'TOKEN_INVALID', 'TOKEN_OUTDATED'].includes(answer.code)) return over(answer);
  etag = '';
  await readSeats();
  const gone = answer.code === 'SEAT_TAKEN' ? dropLost() : [];
  drawParts();
  changed();
  if (gone.length > 0) return tellLost(gone);
  if (answer.code === 'SEAT_TAKEN') return tellAbout('warn', words.listLate);
  const way = answer.code === 'LIVE_HOLD_LIMIT' ? await heldAlready() : null;
  tellAbout('warn', errorText(answer), way);
}

/** The way to the seats that are held already, perhaps from another browser. */
async function heldAlready() {
  const answer = await ask('/reservations', { token });
  const held = answer.ok && /** @type {import('../types.js').Reservation[]} */ (answer.body.reservations).find((it) => it.status === 'HELD');
  if (!held) return null;
  keepHold({ rid: held.reservationId, user: user(), token, concert: held.concertId, session: held.sessionId, status: 'HELD', expiresAt: held.expiresAt, name: concert.name });
  return link('second', `/pay/${held.reservationId}`, words.payOn);
}

// ---- The turn.

let isOver = false;
let isNear = false;
function over(/** @type {Answer} */ answer) {
  isOver = true;
  const place = placeIn(concert.queue);
  const isSpent = answer.code === 'TOKEN_SPENT';
  if (place && place.token === token && (isSpent || answer.code === 'TOKEN_EXPIRED')) keepPlace({ ...place, status: 'EXPIRED', reason: isSpent ? 'PAID' : 'TIMED_OUT' });
  const wait = link('primary', `/wait/${concert.queue}?c=${concertId}`, words.toLine);
  const held = unpaid();
  if (isSpent) apology(words.turnOver, words.errors.TOKEN_SPENT, link('second', '/me', words.mine), wait);
  else if (answer.code === 'TOKEN_EXPIRED') apology(words.turnOver, held.length > 0 ? words.turnOverHeld : words.turnOverText, ...held, wait, link('second', '/me', words.mine));
  else apology(words.notYourTurn, errorText(answer), wait);
  document.getElementById('title')?.focus();
}

function tick() {
  if (isOver) return;
  const left = until(placeIn(concert.queue)?.activeUntil ?? '');
  // Another tab may be asking about the place, which says nothing of the end until it is answered.
  if (Number.isNaN(left)) return;
  const clock = document.getElementById('clock');
  if (clock) clock.textContent = clockOf(left);
  document.title = `${clockOf(left)} · ${words.seatsTitle}`;
  turn.classList.toggle('near', left < 60_000);
  if (left < 60_000 && !isNear) {
    isNear = true;
    say(words.turnNear(clockOf(left)), true);
  }
  // A hold on its way is answered first: it may have been in time.
  if (left <= -1_000 && !isBusy) over({ status: 403, ok: false, code: 'TOKEN_EXPIRED', body: {}, retryAfter: 0, etag: '' });
}

async function start() {
  frame(words.seatsTitle);
  fill(main, h('p', { className: 'loading' }, words.loading));
  const read = await readConcert(concertId);
  if (!read.ok) return apology(errorText(read), '', link('primary', '/', words.allConcerts));
  concert = read.body;
  const toConcert = link('primary', `/c/${concertId}`, words.back);
  if (whoIsMissing()) return apology(words.notYourTurn, whoIsMissing(), signInLink() || toConcert);
  const session = concert.sessions.find((it) => String(it.sessionId) === sessionId);
  if (!session || session.cancelled) return apology(words.sessionGone, session ? words.errors.SESSION_CANCELLED : words.errors.SESSION_NOT_FOUND, toConcert);
  const place = placeIn(concert.queue);
  const toLine = link('primary', `/wait/${concert.queue}?c=${concertId}`, words.toLine);
  if (!place?.token) return apology(words.notYourTurn, words.errors.TOKEN_MISSING, toLine);
  token = place.token;
  const poll = await insist('/waiting-queues', { token });
  if (!poll.ok) return over(poll);
  if (poll.body.status !== 'ACTIVATED') {
    const code = poll.body.status === 'WAITING' ? 'TOKEN_NOT_ACTIVATED' : poll.body.reason === 'TIMED_OUT' ? 'TOKEN_EXPIRED' : 'TOKEN_SPENT';
    return over({ ...poll, ok: false, code });
  }
  keepPlace({ ...place, status: 'ACTIVATED', activeUntil: poll.body.activeUntil, concert: concertId });
  const problem = await readSeats(insist);
  if (problem) return over(problem);
  chosen = new Set(rememberedChoice().filter((id) => seats.some((it) => it.seatId === id && isFree(it))));
  const sign = (/** @type {string} */ look, /** @type {string} */ mark, /** @type {string} */ text) => {
    const seat = h('span', { className: 'seat', ariaHidden: 'true' }, h('i', {}, mark));
    seat.dataset.look = look;
    return h('li', {}, seat, text);
  };
  fill(main,
    h('div', { className: 'hero' }, h('h1', { id: 'title', tabIndex: -1 }, words.seatsTitle), h('p', { className: 'soft' }, concert.name, ' · ', h('time', { dateTime: session.concertAt }, dayTime(session.concertAt)))),
    turn, tools, message,
    h('section', { className: 'card hall' }, parts, grid, h('p', { className: 'small' }, words.noPlan),
      h('ul', { className: 'legend', ariaLabel: words.legend }, sign('free', '', words.status.AVAILABLE), sign('chosen', '✓', words.status.chosen), sign('held', '◷', words.status.TEMPORARY_RESERVED), sign('sold', '✕', words.status.CONFIRMED)),
      prices.length > 1 && h('ul', { className: 'legend', ariaLabel: words.price }, prices.map((price, index) => h('li', {}, h('b', { className: 'grade' }, String.fromCharCode(65 + index)), points(price))))),
    basket);
  const at = seats.findIndex((it) => chosen.has(it.seatId) || (chosen.size === 0 && isFree(it)));
  part = Math.max(0, Math.floor(at / PART));
  drawTools();
  drawParts();
  drawGrid();
  drawBasket();
  fill(message, unpaid());
  everySecond(tick);
  const intent = intentOf(sessionId);
  if (intent) {
    // The page was left before the answer came: what it is, is asked with the same key.
    isBusy = true;
    chosen = new Set(intent.seats);
    changed();
    await settle(intent);
  }
  // Not everybody at the same time.
  const again = () => setTimeout(() => refresh().finally(again), REFRESH_MS * (0.75 + Math.random() / 2));
  again();
  document.addEventListener('visibilitychange', refresh);
  addEventListener('pageshow', (event) => event.persisted && location.reload());
}
await start();
