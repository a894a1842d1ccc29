// A ticket: what was bought, to show at the entrance, to print and to keep; and the way back, where there is one.
import { badge, confirm, dayTime, download, errorText, fill, frame, gradedName, h, holdOf, insist, isPassing, keepHold, keepTicket, link, listOf, longDayTime, main, newKey, note, notShown, organiser, points, readConcert, readReservation, say, seatName, serverNow, svg, ticketOf, until, user, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').Answer} Answer */
/** @typedef {import('../types.js').Child} Child */
/** @typedef {import('../types.js').Concert} Concert */
/** @typedef {import('../types.js').Reservation} Reservation */
/** @typedef {import('../types.js').Session} Session */

/** The address by which it is kept. */
const PAGE = '/t/';
/** The quiet zone of a QR code, in modules. */
const QUIET = 4;
/** A ticket that is looked at again after so long is asked for anew. */
const FRESH_MS = 60_000;

const rid = location.pathname.split('/')[2] ?? '';
/** @type {Reservation} */
let reservation;
/** @type {Concert | null} */
let concert = null;
let token = '';
let isBusy = false;
let problem = '';
/** What is shown at the entrance. @type {import('../types.js').Code | null} */
let code = null;
/** When it was signed, by the service's clock, where the service did not answer since. */
let keptAt = 0;
let isLoading = false;
let loadedAt = 0;

const seatNames = () => listOf(reservation.reservedSeats.map(seatName));

/** A code as a picture, dark on white whatever the page's colours: scanners want it so. */
function picture(/** @type {import('../types.js').Code} */ { size, path }) {
  const all = size + 2 * QUIET;
  return svg('svg', { id: 'qr', class: 'qr', viewBox: `${-QUIET} ${-QUIET} ${all} ${all}`, role: 'img', 'aria-label': words.qr(seatNames()) }, svg('path', { d: path }));
}

/** A line of a calendar file (RFC 5545): 75 bytes at the most, then it goes on in the next. */
function folded(/** @type {string} */ line) {
  let [done, bytes] = ['', 0];
  for (const character of line) {
    const its = new TextEncoder().encode(character).length;
    if (bytes + its > 75) [done, bytes] = [`${done}\r\n `, 1];
    done += character;
    bytes += its;
  }
  return `${done}\r\n`;
}
const escaped = (/** @type {string} */ text) => text.replace(/[\\;,]/g, '\\$&').replace(/\r\n|[\r\n]/g, '\\n');
const stamp = (/** @type {number} */ at) => new Date(at).toISOString().replace(/[-:]|\.\d+/g, '');
/** How long it takes nobody says, so it has no end. */
function calendar(/** @type {Concert} */ { name, venue }, /** @type {Session} */ session) {
  return ['BEGIN:VCALENDAR', 'VERSION:2.0', 'PRODID:-//boxoffice//EN', 'BEGIN:VEVENT', `UID:reservation-${rid}@${location.hostname}`, `DTSTAMP:${stamp(serverNow())}`,
    `DTSTART:${stamp(Date.parse(session.concertAt))}`, `SUMMARY:${escaped(name)}`, `LOCATION:${escaped(venue)}`, `DESCRIPTION:${escaped(`${words.order} ${rid}: ${seatNames()}`)}`,
    `URL:${location.origin}/t/${rid}`, 'END:VEVENT', 'END:VCALENDAR'].map(folded).join('');
}

function render() {
  const { status, reservedSeats, totalPrice } = reservation;
  const session = concert?.sessions.find((it) => it.sessionId === reservation.sessionId);
  const isPaid = status === 'PAID';
  const fact = (/** @type {string} */ name, /** @type {Child} */ value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  document.title = `${words.ticket} · ${concert?.name ?? organiser}`;
  fill(main,
    h('div', { className: 'hero' }, h('h1', { id: 'title', tabIndex: -1 }, isPaid ? words.ticketHead : status === 'REFUNDED' ? words.refunded : words.notPaid),
      !isPaid && h('p', {}, status === 'REFUNDED' ? words.refundedText(points(totalPrice)) : status === 'EXPIRED' ? words.holdOverText : status === 'CANCELLED' ? words.givenBackText : words.notPaidText)),
    keptAt > 0 && note('', h('p', {}, words.qrKept(dayTime(new Date(keptAt).toISOString())))),
    session?.cancelled && note('warn', h('p', {}, words.errors.SESSION_CANCELLED)),
    h('article', { className: `ticket ${isPaid ? '' : 'void'}` },
      h('div', { className: 'ticket-head' }, h('p', {}, badge(status)), h('h2', {}, concert?.name ?? words.ticket), session && h('p', {}, h('time', { dateTime: session.concertAt }, longDayTime(session.concertAt)))),
      isPaid && code && !session?.cancelled && h('div', { className: 'show' }, picture(code), h('p', { className: 'small' }, words.qrHint)),
      h('dl', {}, concert && fact(words.where, concert.venue), fact(words.seats, h('span', { className: 'seats' }, reservedSeats.map((it) => h('b', {}, gradedName(it))))),
        fact(isPaid ? words.paid : words.total, points(totalPrice)), fact(words.member, String(reservation.userId))),
      h('div', { className: 'stub' }, h('span', {}, words.order), h('strong', {}, String(reservation.reservationId)), h('small', {}, dayTime(reservation.reservedAt)))),
    problem && note('warn', h('p', {}, problem)),
    h('div', { className: 'actions' },
      isPaid && h('button', { type: 'button', id: 'print', className: 'primary', onclick: () => print() }, words.print),
      isPaid && concert && session && !session.cancelled && h('button', { type: 'button', id: 'calendar', className: 'second', onclick: () => concert && download(`${rid}.ics`, new Blob([calendar(concert, session)], { type: 'text/calendar' })) }, words.calendar),
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
  if (answer.ok || answer.code === 'ALREADY_REFUNDED') return read();
  problem = isPassing(answer) ? words.refundUnknown : errorText(answer);
  render();
  say(problem);
}

/** Keeps this page, which is the same for every ticket, for where there is no network. */
async function keepPage() {
  try {
    const types = /** @type {any} */ (globalThis).trustedTypes?.createPolicy('boxoffice', { createScriptURL: (/** @type {string} */ url) => url });
    const worker = '/assets/lib/worker.js';
    await navigator.serviceWorker.register(types?.createScriptURL(worker) ?? worker, { scope: PAGE });
    const page = await fetch(location.pathname);
    // Another version has other parts.
    if (!(await page.clone().text()).includes(new URL(import.meta.url).pathname)) return;
    // The language may be changed there, too.
    const parts = ['/assets/i18n/en.js', '/assets/i18n/ko.js', ...performance.getEntriesByType('resource').map((it) => new URL(it.name).pathname).filter((it) => it.startsWith('/assets'))];
    const cache = await caches.open('boxoffice');
    await cache.addAll([...new Set(parts)]);
    await cache.put(PAGE, page);
    for (const { url } of await cache.keys()) if (![PAGE, ...parts].includes(new URL(url).pathname)) await cache.delete(url);
  } catch {
    // Without TLS, or where a browser keeps nothing, it is there as long as it is open.
  }
}

/** Shows no ticket, and why; or the one that is kept, where it is only that nobody can tell now. */
function withoutAnswer(/** @type {Answer} */ answer) {
  if (answer.code.startsWith('RESERVATION_')) keepTicket(rid, null);
  else if (code) {
    problem = errorText(answer);
    return render();
  }
  notShown(answer);
}

async function read() {
  const { answer, token: its } = await readReservation(rid);
  if (!answer.ok) return withoutAnswer(answer);
  [reservation, token, problem] = [answer.body, its, ''];
  // A session may have been moved or called off since.
  const about = await readConcert(reservation.concertId);
  if (about.ok) concert = about.body;
  keepHold({ ...holdOf(rid), rid: Number(rid), user: user(), token, concert: reservation.concertId, session: reservation.sessionId, status: reservation.status, expiresAt: reservation.expiresAt, name: concert?.name });
  if (reservation.status !== 'PAID') code = null;
  render();
  if (reservation.status === 'PAID') {
    const signed = await insist(`/reservations/${rid}/ticket`, { token });
    code = signed.ok ? signed.body : null;
  }
  keptAt = 0;
  if (code) keepPage();
  keepTicket(rid, code && { reservation, concert, code, at: serverNow() });
  render();
  say(document.getElementById('title')?.textContent ?? '');
}

async function load() {
  if (isLoading) return;
  [isLoading, loadedAt] = [true, Date.now()];
  await read().finally(() => { isLoading = false; });
}

frame(words.ticket);
const before = ticketOf(rid);
if (before && String(before.reservation.userId) === user()) {
  // At the entrance nobody waits for an answer that may never come.
  ({ reservation, concert, code, at: keptAt } = before);
  render();
} else {
  fill(main, h('p', { className: 'loading' }, words.loading));
}
await load();
// Whoever looks at it again sees what is so, not what was.
addEventListener('pageshow', (event) => event.persisted && load());
document.addEventListener('visibilitychange', () => !document.hidden && Date.now() - loadedAt > FRESH_MS && load());
