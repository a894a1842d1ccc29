// A concert: when, what is left, at which price, and the way into the line or, at one's turn, to the seats.
import { apology, ask, badge, chip, clockOf, count, dayTime, errorText, everySecond, fill, frame, gradesOf, h, keepPlace, link, longDayTime, main, note, organiser, placeIn, points, readConcert, saleOf, say, signInLink, unpaid, until, whoIsMissing, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').Concert} Concert */
/** @typedef {import('../types.js').Session} Session */

const REFRESH_MS = 15_000;
const id = location.pathname.split('/')[2] ?? '';
/** @type {Concert} */
let concert;
/** How the line stands; it may be open for other concerts. */
let line = '';

const place = () => placeIn(concert.queue);
const isMyTurn = () => place()?.status === 'ACTIVATED' && until(place()?.activeUntil ?? '') > 0;

function session(/** @type {Session} */ it) {
  const canChoose = isMyTurn() && !it.cancelled && it.availableSeatCount > 0 && saleOf(concert) === 'OPEN';
  const state = it.cancelled ? words.calledOff : it.availableSeatCount === 0 ? words.noSeats : words.seatsLeft(count(it.availableSeatCount), count(it.totalSeatCount));
  return h('li', { className: 'session' },
    h('div', { className: 'about' },
      h('h3', {}, h('time', { dateTime: it.concertAt }, dayTime(it.concertAt))),
      h('p', { className: it.cancelled || it.availableSeatCount === 0 ? 'bad' : 'soft' }, state),
      it.totalSeatCount > 0 && h('progress', { max: it.totalSeatCount, value: it.cancelled ? 0 : it.availableSeatCount, ariaLabel: state }),
      h('ul', { className: 'prices' }, gradesOf(it).map((grade, index) => h('li', { className: grade.free ? '' : 'gone' },
        chip(grade.sign, index), grade.name !== '' && grade.name !== grade.sign && h('span', {}, grade.name), h('span', {}, points(grade.price)), it.prices.length > 1 && h('small', {}, grade.free ? words.partFree(count(grade.free)) : words.noSeats))))),
    canChoose && h('a', { className: 'primary', id: `s${it.sessionId}`, href: `/c/${id}/s/${it.sessionId}`, ariaLabel: words.chooseSeatsOf(dayTime(it.concertAt)) }, words.chooseSeats));
}

/** What to do now: one thing. */
function action() {
  const sale = saleOf(concert);
  const mine = place();
  const wait = `/wait/${concert.queue}?c=${id}`;
  if (sale === 'CANCELLED') return note('warn', h('p', {}, words.cancelledText));
  if (sale === 'ENDED') return note('', h('p', {}, words.endedText));
  if (whoIsMissing()) return note('', h('p', {}, whoIsMissing()), signInLink());
  if (isMyTurn() && sale === 'OPEN') return note('good', h('p', {}, h('strong', {}, words.yourTurn)), h('p', { id: 'turn' }));
  const isWaiting = mine?.token && mine.status === 'WAITING';
  const way = h('a', { className: 'primary', id: 'way', href: wait }, isWaiting ? words.backToLine : words.joinLine);
  if (sale === 'SCHEDULED') {
    const canJoin = line === 'SCHEDULED' || isWaiting;
    return h('div', { className: 'card centre' },
      h('p', { className: 'soft' }, words.opensIn), h('p', { className: 'big', id: 'opens', role: 'timer' }), h('p', { className: 'soft' }, words.opensAt(longDayTime(concert.reservationOpensAt))),
      h('p', {}, canJoin ? words.earlyText : words.notYetText), canJoin && way);
  }
  if (sale === 'SOLD_OUT') return h('div', {}, note('warn', h('p', {}, words.soldOutText)), isWaiting && way);
  return h('div', { className: 'act' }, h('p', { className: 'soft' }, words.joinText), way);
}

let shownSale = '';
function render() {
  shownSale = saleOf(concert) + isMyTurn();
  fill(main,
    h('div', { className: 'hero' }, h('p', {}, badge(saleOf(concert))), h('h1', {}, concert.name), h('p', { className: 'soft' }, concert.venue)),
    unpaid(), action(),
    h('section', {}, h('h2', {}, words.sessions),
      concert.sessions.length === 0 ? h('p', { className: 'soft' }, words.noSessions) : h('ul', { className: 'sessions' }, concert.sessions.map(session)),
      concert.sessions.length > 0 && h('p', { className: 'small' }, words.updatedNow)));
  tick();
}

function tick() {
  // The sale began, or the turn ended, while this is looked at.
  if (saleOf(concert) + isMyTurn() !== shownSale) return render();
  const opens = document.getElementById('opens');
  if (opens) opens.textContent = clockOf(until(concert.reservationOpensAt));
  const turn = document.getElementById('turn');
  if (turn) turn.textContent = words.yourTurnText(clockOf(until(place()?.activeUntil ?? '')));
}

async function refresh() {
  if (document.hidden) return;
  const answer = await ask(`/concerts/${id}`);
  if (!answer.ok) return;
  const before = JSON.stringify(concert.sessions) + concert.state;
  concert = answer.body;
  // What is read or pointed at stays where it is, unless there is something new.
  if (JSON.stringify(concert.sessions) + concert.state !== before) render();
}

/** Whether the turn still stands: it may have been used in another tab or browser. */
async function checkTurn() {
  const mine = place();
  if (!mine?.token || mine.status !== 'ACTIVATED') return;
  const answer = await ask('/waiting-queues', { token: mine.token });
  if (!answer.ok || answer.body.status === mine.status) return;
  keepPlace({ ...mine, status: answer.body.status, reason: answer.body.reason });
  render();
}

async function start() {
  frame(words.concerts);
  fill(main, h('p', { className: 'loading' }, words.loading));
  const answer = await readConcert(id);
  if (!answer.ok) return apology(errorText(answer), '', link('primary', '/', words.allConcerts));
  concert = answer.body;
  document.title = `${concert.name} · ${organiser}`;
  if (saleOf(concert) === 'SCHEDULED') {
    const queue = await ask(`/waiting-queues/${concert.queue}`);
    line = queue.body.state ?? '';
  }
  render();
  everySecond(tick);
  await checkTurn();
  if (isMyTurn()) say(words.yourTurn);
  setInterval(refresh, REFRESH_MS);
  document.addEventListener('visibilitychange', refresh);
}
await start();
