// A ticket: what was bought, to show and to print; and the way back, where there is one.
import { badge, confirm, dayTime, errorText, fill, frame, h, holdOf, insist, isPassing, keepHold, link, longDayTime, main, newKey, note, notShown, points, readConcert, readReservation, say, until, user, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').Child} Child */
/** @typedef {import('../types.js').Concert} Concert */
/** @typedef {import('../types.js').Reservation} Reservation */

const rid = location.pathname.split('/')[2] ?? '';
/** @type {Reservation} */
let reservation;
/** @type {Concert | null} */
let concert = null;
let token = '';
let isBusy = false;
let problem = '';

function render() {
  const { status, reservedSeats, totalPrice } = reservation;
  const session = concert?.sessions.find((it) => it.sessionId === reservation.sessionId);
  const isPaid = status === 'PAID';
  const fact = (/** @type {string} */ name, /** @type {Child} */ value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  document.title = `${words.ticket} · ${concert?.name ?? 'boxoffice'}`;
  fill(main,
    h('div', { className: 'hero' }, h('h1', { id: 'title', tabIndex: -1 }, isPaid ? words.ticketHead : status === 'REFUNDED' ? words.refunded : words.notPaid),
      !isPaid && h('p', {}, status === 'REFUNDED' ? words.refundedText(points(totalPrice)) : status === 'EXPIRED' ? words.holdOverText : status === 'CANCELLED' ? words.givenBackText : words.notPaidText)),
    session?.cancelled && note('warn', h('p', {}, words.errors.SESSION_CANCELLED)),
    h('article', { className: `ticket ${isPaid ? '' : 'void'}` },
      h('div', { className: 'ticket-head' }, h('p', {}, badge(status)), h('h2', {}, concert?.name ?? words.ticket), session && h('p', {}, h('time', { dateTime: session.concertAt }, longDayTime(session.concertAt)))),
      h('dl', {}, concert && fact(words.where, concert.venue), fact(words.seats, h('span', { className: 'seats' }, reservedSeats.map((it) => h('b', {}, words.seat(String(it.number)))))),
        fact(isPaid ? words.paid : words.total, points(totalPrice)), fact(words.member, String(reservation.userId))),
      h('div', { className: 'stub' }, h('span', {}, words.order), h('strong', {}, String(reservation.reservationId)), h('small', {}, dayTime(reservation.reservedAt)))),
    problem && note('warn', h('p', {}, problem)),
    h('div', { className: 'actions' },
      isPaid && h('button', { type: 'button', id: 'print', className: 'primary', onclick: () => print() }, words.print),
      status === 'HELD' && link('primary', `/pay/${rid}`, words.toPay),
      link('second', '/me', words.mine),
      // Until when is a rule of the service, which tells; nothing is given back once the concert has begun.
      isPaid && reservation.paymentId !== null && session && until(session.concertAt) > 0 && !session.cancelled
        && h('button', { type: 'button', id: 'refund', className: 'quiet danger', ariaDisabled: String(isBusy), onclick: refund }, isBusy ? words.refunding : words.refund)));
}

async function refund() {
  if (isBusy || !await confirm(words.refundAsk(points(reservation.totalPrice)), words.refundYes, words.refundNo)) return;
  isBusy = true;
  problem = '';
  render();
  const hold = holdOf(rid);
  const key = hold?.refundKey ?? newKey();
  if (hold) keepHold({ ...hold, refundKey: key });
  const answer = await insist(`/payments/${reservation.paymentId}/refund`, { method: 'POST', token, key, body: { userId: reservation.userId } }, 6);
  isBusy = false;
  if (answer.ok || answer.code === 'ALREADY_REFUNDED') return load();
  problem = isPassing(answer) ? words.refundUnknown : errorText(answer);
  render();
  say(problem);
}

async function load() {
  const read = await readReservation(rid);
  if (!read.answer.ok) return notShown(read.answer);
  reservation = read.answer.body;
  token = read.token;
  if (!concert) {
    const answer = await readConcert(reservation.concertId);
    if (answer.ok) concert = answer.body;
  }
  keepHold({ ...holdOf(rid), rid: Number(rid), user: user(), token, concert: reservation.concertId, session: reservation.sessionId, status: reservation.status, expiresAt: reservation.expiresAt, name: concert?.name });
  render();
  say(document.getElementById('title')?.textContent ?? '');
}

frame(words.ticket);
fill(main, h('p', { className: 'loading' }, words.loading));
await load();
addEventListener('pageshow', (event) => event.persisted && load());
