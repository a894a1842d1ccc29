// Payment of seats that are held. Nothing here is done twice, however often it is pressed and whatever gets lost.
import { apology, badge, clockOf, confirm, dayTime, errorText, everySecond, fill, frame, gradedName, h, holdOf, insist, isKnown, isPassing, keepHold, keepPlace, link, main, newKey, note, notShown, placeIn, places, points, readConcert, readReservation, say, until, user, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').Concert} Concert */
/** @typedef {import('../types.js').Reservation} Reservation */

/** So many times the same is asked again by itself; then the fan is asked. */
const ATTEMPTS = 6;
/** What the clock tells readers of screens, in seconds before the end. */
const MARKS = [120, 60, 30];

const rid = location.pathname.split('/')[2] ?? '';
/** @type {Reservation} */
let reservation;
/** @type {Concert | null} */
let concert = null;
let token = '';
/** @type {number | null} */
let balance = null;
/** @type {'' | 'pay' | 'charge' | 'back'} */
let busy = '';
let problem = '';
let good = '';
let isOver = false;
let isCalledOff = false;

const hold = () => holdOf(rid) ?? { rid: Number(rid), user: user(), token, concert: reservation.concertId, session: reservation.sessionId, status: reservation.status, expiresAt: reservation.expiresAt };
/** The key of a deed, kept before what it is for is sent. */
function keyFor(/** @type {'payKey'} */ name) {
  const kept = hold();
  const key = kept[name] ?? newKey();
  keepHold({ ...kept, [name]: key });
  return key;
}

function seatsLink() {
  const place = concert && placeIn(concert.queue);
  const isActive = place?.status === 'ACTIVATED' && until(place.activeUntil ?? '') > 0;
  if (isActive) return link('primary', `/c/${reservation.concertId}/s/${reservation.sessionId}`, words.chooseAgain);
  return link('primary', `/c/${reservation.concertId}`, words.back);
}

const sessionOf = () => concert?.sessions.find((it) => it.sessionId === reservation.sessionId);
const calledOff = () => apology(words.sessionGone, words.errors.SESSION_CANCELLED, link('primary', `/c/${reservation.concertId}`, words.back));

function render() {
  if (isOver) return apology(words.holdOver, words.holdOverText, seatsLink());
  const { reservedSeats, totalPrice } = reservation;
  const session = sessionOf();
  if (isCalledOff || session?.cancelled) return calledOff();
  const missing = balance === null ? 0 : totalPrice - balance;
  // Round sums are what people charge.
  const amount = Math.ceil(missing / 10_000) * 10_000;
  fill(main,
    h('div', { className: 'hero' }, h('p', {}, badge('HELD')), h('h1', { id: 'title', tabIndex: -1 }, words.payTitle),
      concert && h('p', { className: 'soft' }, concert.name, ' · ', concert.venue)),
    h('div', { className: 'turn' }, h('span', {}, words.holdEnds), h('strong', { id: 'clock', role: 'timer' })),
    h('section', { className: 'card' },
      session && h('p', { className: 'soft' }, h('time', { dateTime: session.concertAt }, dayTime(session.concertAt))),
      h('table', {}, h('caption', { className: 'unseen' }, words.seats), h('tbody', {}, reservedSeats.map((it) => h('tr', {}, h('th', { scope: 'row' }, gradedName(it)), h('td', {}, points(it.price))))),
        h('tfoot', {}, h('tr', {}, h('th', { scope: 'row' }, words.total), h('td', { className: 'sum' }, points(totalPrice))))),
      balance !== null && h('dl', { className: 'lines' }, h('div', {}, h('dt', {}, words.balance), h('dd', {}, points(balance))),
        missing <= 0 && h('div', {}, h('dt', {}, words.after), h('dd', {}, points(balance - totalPrice))))),
    problem && note('warn', h('p', {}, problem)),
    good && note('good', h('p', {}, good)),
    missing > 0 && note('warn', h('p', {}, h('strong', {}, words.tooFew(points(missing)))), h('p', {}, isKnown ? words.tooFewKnown : words.tooFewText),
      !isKnown && h('button', { type: 'button', id: 'charge', className: 'second', ariaDisabled: String(busy !== ''), onclick: () => charge(amount) }, busy === 'charge' ? words.charging : words.charge(points(amount)))),
    h('div', { className: 'actions' },
      h('button', { type: 'button', id: 'pay', className: 'primary', disabled: missing > 0, ariaDisabled: String(busy !== ''), ariaBusy: String(busy === 'pay'), onclick: pay }, busy === 'pay' ? words.paying : words.pay(points(totalPrice))),
      h('button', { type: 'button', id: 'back', className: 'quiet danger', ariaDisabled: String(busy !== ''), onclick: giveBack }, words.giveBack)));
  tick();
}

/** A deed, one at a time. */
async function during(/** @type {typeof busy} */ what, /** @type {() => Promise<void>} */ deed) {
  if (busy) return;
  busy = what;
  problem = '';
  good = '';
  render();
  try {
    await deed();
  } finally {
    busy = '';
  }
  if (reservation.status === 'HELD') render();
  if (problem || good) say(problem || good, problem !== '');
}

const toTicket = () => location.replace(`/t/${rid}`);

const pay = () => during('pay', async () => {
  const answer = await insist('/payments', { method: 'POST', token, key: keyFor('payKey'), body: { userId: reservation.userId, reservationId: Number(rid) } }, ATTEMPTS);
  if (answer.ok || answer.code === 'ALREADY_PAID') {
    keepHold({ ...hold(), status: 'PAID' });
    // It spent the ticket.
    for (const place of places()) if (place.token === token) keepPlace({ ...place, status: 'EXPIRED', reason: 'PAID' });
    reservation = { ...reservation, status: 'PAID' };
    return toTicket();
  }
  if (isPassing(answer)) {
    problem = words.payUnknown;
    return;
  }
  balance = null;
  isCalledOff = answer.code === 'SESSION_CANCELLED';
  await load();
  if (reservation.status === 'HELD' && !isOver) problem = errorText(answer);
});

const charge = (/** @type {number} */ amount) => during('charge', async () => {
  // The key goes with the amount: another amount is another charge.
  const kept = hold();
  const key = kept.chargeAmount === amount && kept.chargeKey ? kept.chargeKey : newKey();
  keepHold({ ...kept, chargeKey: key, chargeAmount: amount });
  const answer = await insist(`/users/${reservation.userId}/points/charge`, { method: 'PATCH', key, body: { amount } }, ATTEMPTS);
  if (answer.ok) {
    balance = Number(answer.body.totalAmount);
    good = words.charged(points(balance));
    keepHold({ ...hold(), chargeKey: undefined, chargeAmount: undefined });
  } else {
    problem = errorText(answer);
  }
});

async function giveBack() {
  if (busy || !await confirm(words.giveBackAsk, words.giveBackYes, words.giveBackNo)) return;
  await during('back', async () => {
    const answer = await insist(`/reservations/${rid}`, { method: 'DELETE', token }, ATTEMPTS);
    if (answer.ok) {
      reservation = { ...reservation, status: 'CANCELLED' };
      keepHold({ ...hold(), status: 'CANCELLED' });
      apology(words.givenBack, words.givenBackText, seatsLink());
      document.getElementById('title')?.focus();
      return;
    }
    if (isPassing(answer)) {
      problem = errorText(answer);
      return;
    }
    await load();
  });
}

let isChecking = false;
let told = Infinity;
function tick() {
  const clock = document.getElementById('clock');
  if (!clock || isOver) return;
  const left = until(reservation.expiresAt);
  clock.textContent = clockOf(left);
  document.title = `${clockOf(left)} · ${words.payTitle}`;
  const mark = MARKS.findLast((it) => left <= it * 1_000);
  if (mark !== undefined && mark < told && left > 0) {
    // Not where the page was opened just before.
    if (told !== Infinity || left > (mark - 5) * 1_000) say(words.holdNear(clockOf(left)));
    told = mark;
  }
  // The service knows whether it is over, not this clock.
  if (left <= 0 && !isChecking && !busy) {
    isChecking = true;
    say(words.checking);
    setTimeout(() => load().finally(() => { isChecking = false; }), 1_000);
  }
}

async function load() {
  const read = await readReservation(rid);
  if (!read.answer.ok) {
    isOver = false;
    return notShown(read.answer);
  }
  reservation = read.answer.body;
  token = read.token;
  keepHold({ ...hold(), rid: Number(rid), user: user(), token, status: reservation.status, expiresAt: reservation.expiresAt });
  if (reservation.status === 'PAID' || reservation.status === 'REFUNDED') return toTicket();
  const isFree = reservation.status === 'CANCELLED';
  if (!concert || isFree) {
    const answer = await readConcert(reservation.concertId);
    if (answer.ok) concert = answer.body;
  }
  // By whoever held them, perhaps on another device, or because the session was called off.
  if (isFree) return isCalledOff || sessionOf()?.cancelled ? calledOff() : apology(words.notHeld, words.givenBackText, seatsLink());
  isOver = reservation.status === 'EXPIRED';
  if (!isOver && balance === null) {
    const answer = await insist(`/users/${reservation.userId}/points`, {}, 3);
    if (answer.ok) balance = Number(answer.body.totalAmount);
  }
  render();
}

frame(words.payTitle);
fill(main, h('p', { className: 'loading' }, words.loading));
await load();
everySecond(() => reservation?.status === 'HELD' && tick());
// Whoever comes back sees what is so, not what was.
addEventListener('pageshow', (event) => {
  if (!event.persisted) return;
  balance = null;
  load();
});
