// All concerts, by how their sale stands, and what this browser can go on with.
import { badge, count, dayTime, fill, frame, h, insist, main, saleOf, unfinished, until, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').ListedConcert} ListedConcert */

function card(/** @type {ListedConcert} */ concert) {
  const sale = saleOf(concert);
  const when = sale === 'SCHEDULED' ? words.saleFrom(dayTime(concert.reservationOpensAt))
    : sale === 'CANCELLED' ? '' : sale === 'OPEN' || sale === 'SOLD_OUT' ? words.saleUntil(dayTime(concert.reservationClosesAt)) : words.saleEnded(dayTime(concert.reservationClosesAt));
  return h('li', {}, h('a', { className: 'concert', id: `c${concert.concertId}`, href: `/c/${concert.concertId}` },
    h('span', { className: 'poster', ariaHidden: 'true' }, [...concert.name][0]),
    h('span', { className: 'about' }, h('strong', {}, concert.name), h('span', {}, concert.venue), h('small', {}, when)),
    badge(sale)));
}

const nearest = (/** @type {(concert: ListedConcert) => string} */ moment) => (/** @type {ListedConcert} */ a, /** @type {ListedConcert} */ b) => Date.parse(moment(a)) - Date.parse(moment(b));

/** @type {ListedConcert[]} */
let concerts = [];
function render() {
  const by = (/** @type {string} */ sale, /** @type {(concert: ListedConcert) => string} */ moment) => concerts.filter((it) => saleOf(it) === sale).sort(nearest(moment));
  const open = ['OPEN', 'SOLD_OUT'].flatMap((sale) => by(sale, (it) => it.reservationClosesAt));
  const soon = by('SCHEDULED', (it) => it.reservationOpensAt);
  const over = ['CANCELLED', 'ENDED'].flatMap((sale) => by(sale, (it) => it.reservationClosesAt).reverse());
  const section = (/** @type {string} */ title, /** @type {ListedConcert[]} */ list) => list.length > 0 && h('section', {}, h('h2', {}, title, ' ', h('span', { className: 'soft' }, count(list.length))), h('ul', { className: 'concerts' }, list.map(card)));
  const resume = unfinished();
  fill(main,
    h('div', { className: 'hero' }, h('h1', {}, words.headline), h('p', {}, words.tagline)),
    resume.length > 0 && h('section', { ariaLabel: words.goOn }, resume),
    section(words.onSale, open), section(words.upcoming, soon), section(words.over, over),
    concerts.length === 0 && h('p', { className: 'card centre' }, words.nothing));
  // A sale may begin or end while this is looked at.
  const next = concerts.flatMap((it) => [until(it.reservationOpensAt), until(it.reservationClosesAt)]).filter((it) => it > 0);
  if (next.length > 0) setTimeout(render, Math.min(Math.min(...next) + 500, 3_600_000));
}

frame(words.concerts);
fill(main, h('p', { className: 'loading' }, words.loading));
const answer = await insist('/concerts');
if (answer.ok) concerts = answer.body.concerts;
render();
addEventListener('pageshow', (event) => event.persisted && render());
