// Seats of a session: how many and which, the hold, and what was got. The best ones are a tap away; others are chosen in the
// hall. Whoever has a seat is told by shape, sign and text, never by colour alone.
import { apology, ask, chip, clockOf, confirm, count, dayTime, errorText, everySecond, fill, frame, gradedName, gradesOf, h, holdOf, insist, intentOf, isPassing, keepHold, keepIntent, keepPlace, link, listOf, main, newKey, note, placeIn, points, readConcert, say, signInLink, unpaid, until, user, whoIsMissing, words } from '/assets/lib/kit.js';
import { FREE, SOLD, freeOf, gradeOf, hallOf, hallOfNumbers, idOf, keepUp, nearest, numberOf, pictureOf, placeName, placeNames, sectionOf, stateOf, take, together } from '/assets/lib/hall.js';

/** @typedef {import('../types.js').Answer} Answer */
/** @typedef {import('../types.js').Concert} Concert */
/** @typedef {import('../types.js').Grade} Grade */
/** @typedef {import('../types.js').Hall} Hall */
/** @typedef {import('../types.js').Intent} Intent */
/** @typedef {import('../types.js').Look} Look */
/** @typedef {import('../types.js').Reservation} Reservation */
/** @typedef {import('../types.js').Session} Session */

/** As many as the service takes in one hold by default; it says where it takes fewer. */
const MOST = 4;
const ATTEMPTS = 6;

const [, , concertId = '', , sessionId = ''] = location.pathname.split('/');
const path = `/concerts/${concertId}/sessions/${sessionId}`;
/** @type {Concert} */
let concert;
/** @type {Session} */
let session;
let token = '';
/** @type {Hall} */
let hall;
/** @type {ReturnType<typeof pictureOf>} */
let picture;
/** @type {ReturnType<typeof keepUp>} */
let news;
/** Numbers of the seats chosen. @type {Set<number>} */
let chosen = new Set();
/** Of those that somebody else got first. @type {Set<number>} */
const lost = new Set();
/** What is held now, where the best was asked for. @type {Reservation | null} */
let got = null;
let wanted = 2;
/** The grade that is looked for; below 0, any. */
let grade = -1;
let isBusy = false;

const isFree = (/** @type {number} */ number) => stateOf(hall, number) === FREE;
const isOpenTo = (/** @type {number} */ number) => isFree(number) || chosen.has(number);
const names = (/** @type {number[]} */ numbers) => listOf(placeNames(hall, numbers));
const mine = () => [...chosen].sort((a, b) => a - b);
const priceOf = (/** @type {number} */ number) => gradeOf(hall, number)?.price ?? 0;
const sumOf = (/** @type {number[]} */ numbers) => numbers.reduce((sum, it) => sum + priceOf(it), 0);
const choiceName = () => `boxoffice.chosen.${sessionId}.${user()}`;

function rememberChoice() {
  try {
    sessionStorage.setItem(choiceName(), JSON.stringify(mine().map((it) => idOf(hall, it))));
  } catch {
    // Then it does not outlive a reload.
  }
}
function rememberedChoice() {
  try {
    return /** @type {number[]} */ (JSON.parse(sessionStorage.getItem(choiceName()) ?? '[]'));
  } catch {
    return [];
  }
}

// ---- The parts of the page, each filled by itself: what has the focus is not to vanish.

const turn = h('div', { className: 'turn' }, h('span', { id: 'clock-name' }, words.turnEnds), h('strong', { id: 'clock', role: 'timer' }));
const hero = h('div', { className: 'hero' });
const tools = h('form', { className: 'card tools', onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); best(); } });
const message = h('div', { id: 'message' });
const have = h('div', { className: 'have' });
const basket = h('section', { className: 'basket', ariaLabel: words.basket });
/** Stays in sight wherever one looks: what is said about the choice, and the choice. */
const dock = h('div', { className: 'dock' }, message, basket);
const columns = matchMedia('(min-width: 48rem)');

function drawHero() {
  fill(hero, h('h1', { id: 'title', tabIndex: -1 }, got ? words.gotTitle : words.seatsTitle), h('p', { className: 'soft' }, concert.name, ' · ', h('time', { dateTime: session.concertAt }, dayTime(session.concertAt))));
}

function drawTools() {
  tools.hidden = got !== null;
  const pick = (/** @type {number} */ n) => h('label', { className: 'pick' }, h('input', { type: 'radio', name: 'wanted', id: `wanted${n}`, value: n, checked: n === wanted, onchange: () => { wanted = n; drawTools(); picture.drawHead(); } }), h('span', {}, String(n)));
  const kind = (/** @type {number} */ index, /** @type {Grade | undefined} */ it) => {
    const free = freeOf(hall, -1, index);
    return h('label', { className: 'kind' },
      h('input', { type: 'radio', name: 'grade', id: `grade${index}`, checked: index === grade, onchange: () => { grade = index; drawTools(); picture.look(grade); } }),
      h('span', {}, it ? chip(it.sign, index) : h('b', {}, words.anyGrade), it && it.name !== it.sign && h('b', {}, it.name), it && h('span', { className: 'cost' }, points(it.price)), h('small', {}, free > 0 ? words.partFree(count(free)) : words.noSeats)));
  };
  fill(tools,
    h('fieldset', {}, h('legend', {}, words.howMany), h('div', { className: 'picks' }, Array.from({ length: MOST }, (_, index) => pick(index + 1)))),
    hall.grades.length > 1 && h('fieldset', {}, h('legend', {}, words.whichGrade), h('div', { className: 'kinds' }, kind(-1, undefined), hall.grades.map((it, index) => kind(index, it)))),
    h('div', { className: 'go' }, h('button', { id: 'best', className: 'primary', ariaDisabled: String(isBusy), ariaBusy: String(isBusy) }, isBusy ? words.holding : words.best(wanted)),
      h('p', { className: 'small' }, hall.hasPlan ? words.bestText : words.bestNumbersText)));
}

/** The way into a section without choosing a seat of it. */
function wayInto(/** @type {number} */ section) {
  const it = hall.sections[section];
  if (!it || got || freeOf(hall, section) === 0) return null;
  const name = words.section(it.name);
  return h('button', { type: 'button', id: 'best-here', className: it.isStanding ? 'primary' : 'second', ariaDisabled: String(isBusy), onclick: () => hold({ best: { count: wanted, section: it.name } }) },
    it.isStanding ? words.standingIn(wanted, name) : words.bestIn(wanted, name));
}

/** What a seat is, for whoever looks at it. @returns {Look} */
function lookOf(/** @type {number} */ number) {
  const [state, { status }] = [stateOf(hall, number), words];
  if (chosen.has(number)) return { look: 'chosen', sign: '✓', status: status.chosen };
  if (state === FREE) return { look: 'free', sign: '', status: status.free };
  if (lost.has(number)) return { look: 'lost', sign: '!', status: status.lost };
  return state === SOLD ? { look: 'sold', sign: '✕', status: status.sold } : { look: 'held', sign: '◷', status: status.held };
}

function drawBasket() {
  const numbers = mine();
  basket.hidden = numbers.length === 0 || got !== null;
  if (basket.hidden) return;
  fill(basket,
    h('ul', { className: 'chips' }, numbers.map((number) => h('li', {}, h('button', { type: 'button', id: `chip${number}`, className: 'chip', ariaLabel: words.removeSeat(placeName(hall, number)), onclick: () => toggle(number) }, placeName(hall, number), h('span', { ariaHidden: 'true' }, ' ✕'))))),
    h('div', { className: 'checkout' }, h('p', {}, h('small', {}, words.total), h('strong', {}, points(sumOf(numbers)))),
      h('button', { type: 'button', id: 'hold', className: 'primary', ariaDisabled: String(isBusy), ariaBusy: String(isBusy), onclick: () => hold({}) }, isBusy ? words.holding : words.hold)));
}

function drawHave() {
  have.hidden = got === null;
  if (!got) return;
  const it = got;
  fill(have,
    h('section', { className: 'card' },
      h('table', {}, h('caption', { className: 'unseen' }, words.seats), h('tbody', {}, it.reservedSeats.map((seat) => h('tr', {}, h('th', { scope: 'row' }, gradedName(seat)), h('td', {}, points(seat.price))))),
        h('tfoot', {}, h('tr', {}, h('th', { scope: 'row' }, words.total), h('td', { className: 'sum' }, points(it.totalPrice)))))),
    h('div', { className: 'actions' },
      link('primary', `/pay/${it.reservationId}`, words.pay(points(it.totalPrice))),
      h('button', { type: 'button', id: 'others', className: 'second', ariaDisabled: String(isBusy), onclick: others }, words.othersInstead)));
  have.querySelector('a')?.setAttribute('id', 'to-pay');
}

function tellAbout(/** @type {'warn' | 'good' | ''} */ kind, /** @type {string} */ text, /** @type {HTMLElement | null} */ way = null) {
  fill(message, text !== '' && note(kind, h('p', {}, text), way));
  if (text) say(text, kind === 'warn');
}
/** What can be done about it. */
const offer = (/** @type {string} */ text, /** @type {() => void} */ onclick) => h('button', { type: 'button', id: 'instead', className: 'second', onclick }, text);

function changed(/** @type {Iterable<number>} */ numbers) {
  rememberChoice();
  picture.repaint(numbers);
  drawBasket();
}

// ---- Choosing.

function toggle(/** @type {number} */ number) {
  if (isBusy || got) return;
  if (chosen.has(number)) {
    const isChip = document.activeElement?.id === `chip${number}`;
    chosen.delete(number);
    changed([number]);
    // The chip that was pressed is gone.
    if (isChip) picture.focus(number);
  } else if (!isFree(number)) {
    return say(`${placeName(hall, number)}, ${lookOf(number).status}`, true);
  } else if (chosen.size >= MOST) {
    return tellAbout('warn', words.atMost(MOST));
  } else {
    chosen.add(number);
    changed([number]);
  }
  tellAbout('', '');
  say(`${placeName(hall, number)}, ${lookOf(number).status}. ${words.total}: ${points(sumOf(mine()))}`);
}

function choose(/** @type {number[]} */ numbers) {
  const before = chosen;
  chosen = new Set(numbers);
  picture.show(sectionOf(hall, numbers[0] ?? 1), numbers[0]);
  changed([...before, ...chosen]);
  tellAbout('', '');
  say(words.foundTogether(names(numbers)));
  document.getElementById('hold')?.focus();
}

function best() {
  if (isBusy) return;
  const it = hall.grades[grade];
  if (!it || hall.hasPlan) return hold({ best: { count: wanted, ...(it ? { grade: it.name } : {}) } });
  // A price is no grade that the service knows: chosen here, and not the same for everybody.
  const free = Array.from({ length: hall.total }, (_, at) => at + 1).filter((number) => isFree(number) && hall.grade[number - 1] === grade);
  const found = together(hall, wanted, isFree, { grade, near: free[Math.floor(Math.random() * Math.min(free.length, 100))] ?? 1 });
  if (found) return choose(found);
  return tellAbout('warn', free.length < wanted ? words.notEnough(wanted, count(free.length)) : words.errors.NOT_TOGETHER);
}

// ---- The news.

/** What was chosen and is somebody else's now. */
function dropLost() {
  const gone = mine().filter((it) => !isFree(it));
  for (const number of gone) {
    chosen.delete(number);
    lost.add(number);
  }
  return gone;
}

function tellLost(/** @type {number[]} */ gone) {
  const kept = mine();
  const text = kept.length > 0 ? words.lost(names(gone)) : words.lostAll(names(gone));
  const near = kept[0] ?? gone[0] ?? 1;
  // The whole group side by side where that is possible, or else those that are nearest to the rest.
  const like = { near, grade: hall.grade[(gone[0] ?? 1) - 1] ?? -1 };
  const others = nearest(hall, gone.length, (it) => isFree(it) && !chosen.has(it), like);
  const numbers = together(hall, gone.length + kept.length, isOpenTo, like) ?? [...kept, ...others].sort((a, b) => a - b);
  tellAbout('warn', text, numbers.length > kept.length ? offer(words.instead(names(numbers)), () => choose(numbers)) : null);
}

function takeNews(/** @type {import('../types.js').States} */ states) {
  const numbers = take(hall, states);
  if (got || isBusy) return picture.repaint(numbers);
  const gone = dropLost();
  // What is about to be pressed is not to be drawn anew under the finger.
  if (gone.length > 0) changed(numbers);
  else picture.repaint(numbers);
  // Which grade is chosen stays as it is; how many are left of each is written anew.
  for (const [index] of hall.grades.entries()) {
    const left = document.querySelector(`#grade${index} + span small`);
    const free = freeOf(hall, -1, index);
    if (left) left.textContent = free > 0 ? words.partFree(count(free)) : words.noSeats;
  }
  return gone.length > 0 ? tellLost(gone) : undefined;
}

// ---- The hold: of what is chosen, or of the best.

async function hold(/** @type {Pick<Intent, 'best'>} */ what) {
  if (isBusy || (!what.best && chosen.size === 0)) return;
  const seats = what.best ? [] : mine().map((it) => idOf(hall, it));
  const before = intentOf(sessionId);
  const isSame = before && before.token === token && JSON.stringify([before.seats, before.best]) === JSON.stringify([seats, what.best]);
  const intent = isSame ? before : { key: newKey(), token, seats, ...what };
  // Kept before it is sent: whatever becomes of the answer, the same is asked again.
  keepIntent(sessionId, intent);
  tellAbout('', '');
  await settle(intent);
}

function nowBusy(/** @type {boolean} */ is) {
  isBusy = is;
  drawTools();
  drawBasket();
  drawHave();
  picture.drawHead();
}

async function settle(/** @type {Intent} */ intent) {
  nowBusy(true);
  const { best: wish, seats } = intent;
  const answer = await insist(`${path}/reservations`, { method: 'POST', token, key: intent.key, body: { userId: Number(user()), ...(wish ? { best: wish } : { seatIds: seats }) } }, ATTEMPTS);
  if (answer.ok) {
    const { reservationId: rid, expiresAt } = answer.body;
    keepHold({ rid, user: user(), token, concert: Number(concertId), session: Number(sessionId), status: 'HELD', expiresAt, name: concert.name });
    keepIntent(sessionId, null);
    chosen.clear();
    rememberChoice();
    if (!wish) return location.assign(`/pay/${rid}`);
    nowBusy(false);
    return showGot(answer.body);
  }
  nowBusy(false);
  if (isPassing(answer)) return tellAbout('warn', words.holdUnknown);
  keepIntent(sessionId, null);
  return refused(answer, wish);
}

/** What was got, where it is, and what to do with it. */
function showGot(/** @type {Reservation} */ it) {
  got = it;
  const numbers = it.reservedSeats.map((seat) => seat.number);
  chosen = new Set(numbers);
  fill(message);
  drawHero();
  drawTools();
  drawHave();
  drawBasket();
  choice.textContent = words.whereTitle;
  const section = sectionOf(hall, numbers[0] ?? 1);
  if (hall.sections[section]?.isStanding) picture.show(-1);
  else picture.show(section, numbers[0]);
  document.getElementById('to-pay')?.focus({ preventScroll: true });
  scrollTo({ top: 0 });
  say(`${words.gotTitle}: ${listOf(it.reservedSeats.map(gradedName))}`);
  tick();
}

async function others() {
  const it = got;
  if (!it || isBusy || !await confirm(words.giveBackAsk, words.giveBackYes, words.giveBackNo)) return;
  nowBusy(true);
  const answer = await insist(`/reservations/${it.reservationId}`, { method: 'DELETE', token }, ATTEMPTS);
  nowBusy(false);
  const kept = holdOf(String(it.reservationId));
  if (!answer.ok && answer.code !== 'HOLD_CANCELLED' && answer.code !== 'HOLD_EXPIRED') return tellAbout('warn', errorText(answer));
  if (kept) keepHold({ ...kept, status: 'CANCELLED' });
  chooseAgain(words.othersText);
}

function chooseAgain(/** @type {string} */ text) {
  got = null;
  chosen.clear();
  drawHero();
  drawHave();
  drawTools();
  drawBasket();
  choice.textContent = words.orChoose;
  picture.draw();
  tellAbout('', text);
  document.getElementById('title')?.focus();
  news.now();
  tick();
}

async function refused(/** @type {Answer} */ answer, /** @type {Intent['best']} */ wish) {
  const { code } = answer;
  if (['TOKEN_EXPIRED', 'TOKEN_SPENT', 'TOKEN_NOT_ACTIVATED', 'TOKEN_INVALID', 'TOKEN_OUTDATED'].includes(code)) return over(answer);
  if (['SESSION_CANCELLED', 'SESSION_NOT_FOUND', 'CONCERT_NOT_FOUND', 'RESERVATION_CLOSED', 'SESSION_STARTED'].includes(code)) return gone(answer);
  const before = new Set(chosen);
  await news.now();
  if (wish) return refusedBest(answer, wish);
  if (code === 'SEAT_TAKEN') {
    // The news may have told of it already.
    if ([...before].every((it) => chosen.has(it))) tellAbout('warn', words.listLate);
    return undefined;
  }
  if (code === 'LEAVES_SINGLE_SEAT') {
    const numbers = mine();
    const first = numbers[0] ?? 1;
    const like = { near: first, grade: hall.grade[first - 1] ?? -1 };
    const fit = together(hall, numbers.length, isOpenTo, { ...like, section: sectionOf(hall, first) }) ?? together(hall, numbers.length, isOpenTo, like);
    return tellAbout('warn', words.leavesSingle, fit && String(fit) !== String(numbers) ? offer(words.instead(names(fit)), () => choose(fit)) : null);
  }
  return tellAbout('warn', errorText(answer), code === 'LIVE_HOLD_LIMIT' ? await heldAlready() : null);
}

async function refusedBest(/** @type {Answer} */ answer, /** @type {NonNullable<Intent['best']>} */ wish) {
  const { code } = answer;
  if (code === 'NOT_TOGETHER') return tellAbout('warn', words.notTogether(wish.count), offer(words.takeApart(wish.count), () => hold({ best: { ...wish, together: false } })));
  if (code === 'NOT_ENOUGH_SEATS') {
    const section = hall.sections.findIndex((it) => it.name === wish.section);
    const left = freeOf(hall, section, hall.grades.findIndex((it) => it.name === wish.grade));
    const isNarrow = wish.section !== undefined || wish.grade !== undefined;
    return tellAbout('warn', words.notEnough(wish.count, count(left)), isNarrow && freeOf(hall) >= wish.count ? offer(words.takeAny(wish.count), () => hold({ best: { count: wish.count } })) : null);
  }
  return tellAbout('warn', errorText(answer), code === 'LIVE_HOLD_LIMIT' ? await heldAlready() : null);
}

/** The way to the seats that are held already, perhaps from another browser. */
async function heldAlready() {
  const answer = await ask('/reservations', { token });
  const held = answer.ok && /** @type {Reservation[]} */ (answer.body.reservations).find((it) => it.status === 'HELD');
  if (!held) return null;
  keepHold({ rid: held.reservationId, user: user(), token, concert: held.concertId, session: held.sessionId, status: 'HELD', expiresAt: held.expiresAt, name: concert.name });
  return link('second', `/pay/${held.reservationId}`, words.payOn);
}

// ---- The turn.

let isOver = false;
let isNear = false;
/** Nothing more is chosen here. */
function end() {
  isOver = true;
  news?.stop();
}
function gone(/** @type {Answer} */ answer) {
  end();
  apology(words.sessionGone, errorText(answer), link('primary', `/c/${concertId}`, words.back));
  document.getElementById('title')?.focus();
}
function over(/** @type {Answer} */ answer) {
  end();
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
  const turnLeft = until(placeIn(concert.queue)?.activeUntil ?? '');
  // What is held outlives the turn.
  const left = got ? until(got.expiresAt) : turnLeft;
  // Another tab may be asking about the place, which says nothing of the end until it is answered.
  if (Number.isNaN(left)) return;
  const [clock, name, others] = ['clock', 'clock-name', 'others'].map((id) => document.getElementById(id));
  if (clock) clock.textContent = clockOf(left);
  if (name) name.textContent = got ? words.holdEnds : words.turnEnds;
  // Who gives seats back after the turn gets no others.
  if (others) others.hidden = turnLeft <= 0;
  document.title = `${clockOf(left)} · ${got ? words.gotTitle : words.seatsTitle}`;
  turn.classList.toggle('near', left < 60_000);
  if (left < 60_000 && !isNear) {
    isNear = true;
    say(got ? words.holdNear(clockOf(left)) : words.turnNear(clockOf(left)), true);
  }
  if (left > -1_000 || isBusy) return;
  // A hold on its way is answered first: it may have been in time. Whether one is over the service knows.
  if (got) location.assign(`/pay/${got.reservationId}`);
  else over({ status: 403, ok: false, code: 'TOKEN_EXPIRED', body: {}, retryAfter: 0, etag: '' });
}

/** Reads the hall and how its places stand, at the same time. @returns {Promise<Answer | string>} What is wrong, or the version. */
async function readHall() {
  const grades = gradesOf(session);
  // Which seat has which price stands only in the list.
  const needsList = !session.plan && grades.length > 1;
  const [plan, list, states] = await Promise.all([
    session.plan ? insist(`/plans/${session.plan}`, { cache: 'default' }) : null,
    needsList ? insist(`${path}/seats`, { token }) : null,
    insist(`${path}/seats?since=0`, { token }),
  ]);
  const wrong = [states, plan, list].find((it) => it && !it.ok);
  if (wrong) return wrong;
  const prices = new Map(list ? [...list.body.availableSeats, ...list.body.unavailableSeats].map((/** @type {import('../types.js').Seat} */ it) => [it.number, it.price]) : []);
  const width = () => (columns.matches ? 20 : states.body.count >= 10_000 ? 8 : 10);
  const numbers = () => hallOfNumbers(states.body.count, (it) => Math.max(0, grades.findIndex(({ price }) => price === prices.get(it))), grades, width());
  hall = plan ? hallOf(plan.body, grades) : numbers();
  take(hall, states.body);
  if (plan) return states.body.version;
  columns.onchange = () => {
    const { states: now, ids, sections } = hall;
    const free = sections[0]?.free ?? [];
    hall = Object.assign(numbers(), { states: now, ids });
    if (hall.sections[0]) hall.sections[0].free = free;
    makePicture();
  };
  return states.body.version;
}

const choice = h('h2', { id: 'choose' }, words.orChoose);
const room = h('div', {});
function makePicture() {
  picture = pictureOf(hall, { lookOf, press: toggle, wayInto, marked: () => (got ? sectionOf(hall, mine()[0] ?? 1) : -1) });
  fill(room, picture.element);
  const first = mine()[0] ?? 0;
  if (first > 0) picture.show(sectionOf(hall, first), first);
  else picture.draw();
}

async function start() {
  frame(words.seatsTitle);
  fill(main, h('p', { className: 'loading' }, words.loading));
  const read = await readConcert(concertId);
  if (!read.ok) return apology(errorText(read), '', link('primary', '/', words.allConcerts));
  concert = read.body;
  const toConcert = link('primary', `/c/${concertId}`, words.back);
  if (whoIsMissing()) return apology(words.notYourTurn, whoIsMissing(), signInLink() || toConcert);
  const found = concert.sessions.find((it) => String(it.sessionId) === sessionId);
  if (!found || found.cancelled) return apology(words.sessionGone, found ? words.errors.SESSION_CANCELLED : words.errors.SESSION_NOT_FOUND, toConcert);
  session = found;
  const place = placeIn(concert.queue);
  const toLine = link('primary', `/wait/${concert.queue}?c=${concertId}`, words.toLine);
  if (!place?.token) return apology(words.notYourTurn, words.errors.TOKEN_MISSING, toLine);
  token = place.token;
  const askBoth = () => Promise.all([insist('/waiting-queues', { token }), readHall()]);
  let [poll, version] = await askBoth();
  // Another instance than the one that let somebody in hears of it a moment later.
  const isLate = () => poll.body?.status === 'WAITING' || (typeof version !== 'string' && version.code === 'TOKEN_NOT_ACTIVATED');
  for (let tries = 0; place.status === 'ACTIVATED' && isLate() && tries < 4; tries += 1) {
    await new Promise((later) => setTimeout(later, 500));
    [poll, version] = await askBoth();
  }
  if (!poll.ok) return over(poll);
  if (poll.body.status !== 'ACTIVATED') {
    const code = poll.body.status === 'WAITING' ? 'TOKEN_NOT_ACTIVATED' : poll.body.reason === 'TIMED_OUT' ? 'TOKEN_EXPIRED' : 'TOKEN_SPENT';
    return over({ ...poll, ok: false, code });
  }
  keepPlace({ ...place, status: 'ACTIVATED', activeUntil: poll.body.activeUntil, concert: concertId });
  if (typeof version !== 'string') return refusedNews(version);
  chosen = new Set(rememberedChoice().map((id) => numberOf(hall, id)).filter(isFree));
  const sign = (/** @type {string} */ look, /** @type {string} */ mark, /** @type {string} */ text) => {
    const seat = h('span', { className: 'seat', ariaHidden: 'true' }, h('i', {}, mark));
    seat.dataset.look = look;
    return h('li', {}, seat, text);
  };
  const { status } = words;
  fill(main, hero, turn, unpaid(), have, tools,
    h('section', { className: 'card hall', ariaLabelledby: 'choose' }, choice, room,
      h('ul', { className: 'legend', ariaLabel: words.legend }, sign('free', '', status.free), sign('chosen', '✓', status.chosen), sign('held', '◷', status.held), sign('sold', '✕', status.sold))),
    dock);
  makePicture();
  drawHero();
  drawTools();
  drawHave();
  drawBasket();
  everySecond(tick);
  news = keepUp({ path, token, version, told: takeNews, refused: refusedNews });
  const intent = intentOf(sessionId);
  // Of another turn it is nothing that is wanted now.
  if (intent && intent.token !== token) keepIntent(sessionId, null);
  else if (intent) {
    // The page was left before the answer came: what it is, is asked with the same key.
    chosen = new Set(intent.seats.map((id) => numberOf(hall, id)));
    changed(chosen);
    await settle(intent);
  }
  addEventListener('pageshow', (event) => event.persisted && location.reload());
}

/** The places are not told any more. */
function refusedNews(/** @type {Answer} */ answer) {
  // Whose sign-in is over is told so, and may go on.
  if (isOver || isBusy || answer.code.startsWith('PERSON_')) return;
  if (answer.status !== 401 && answer.status !== 403) return gone(answer);
  // Seats that are held can still be paid.
  if (got) return news.stop();
  return over(answer);
}
await start();
