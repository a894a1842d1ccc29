// What is sold, held and free, and the money, by session and grade.
import { count, fill, h, main } from '/assets/lib/kit.js';
import { badge, clock, csvButton, day, errorText, go, heading, read, select, serviceNow, sheet, title, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').Sale} Sale */

/** Sessions that are read, at the most: more are for a spreadsheet. */
const SESSIONS_MAX = 1_000;
const PAGE = 200;

export async function show(/** @type {import('./types.js').View} */ view) {
  title(words.sales);
  const chosen = view.query.get('concert') ?? '';
  /** @type {Sale[]} */
  const rows = [];
  let after = '';
  for (let seen = 0; seen < SESSIONS_MAX; seen += PAGE) {
    const answer = await read(`/sales?limit=${PAGE}${after}${chosen ? `&concert=${encodeURIComponent(chosen)}` : ''}`);
    if (view.signal.aborted) return;
    if (!answer.ok) return fill(main, heading(words.sales), h('p', { className: 'wrong' }, errorText(answer)));
    rows.push(...answer.body.sales);
    if (answer.body.next === null) break;
    after = `&after=${answer.body.next}`;
  }
  const concerts = await read('/concerts?limit=1000');
  if (view.signal.aborted) return;
  const names = /** @type {[string, string][]} */ ((concerts.body.concerts ?? []).map((/** @type {import('./types.js').ListedConcert} */ it) => [String(it.concertId), it.name]));
  const choice = select('concert', [['', words.allOfThem], ...names], chosen);
  choice.addEventListener('change', () => go(`/ops/sales${choice.value && `?concert=${choice.value}`}`));

  const sum = (/** @type {Sale[]} */ of, /** @type {'total' | 'sold' | 'held' | 'free' | 'money'} */ what) => of.reduce((all, it) => all + it[what], 0);
  const byConcert = Map.groupBy(rows, (it) => it.concertId);
  const totals = rows.length > 0 && h('dl', { className: 'card facts sums' }, ...(/** @type {const} */ ([['sold', words.sold], ['held', words.held], ['free', words.free], ['money', words.taken]])).map(([what, name]) => h('div', {}, h('dt', {}, name), h('dd', {}, what === 'money' ? words.money(count(sum(rows, what))) : count(sum(rows, what))))));
  const number = (/** @type {'sold' | 'held' | 'free' | 'total'} */ what) => ({ name: what === 'total' ? words.seatsAll : words[what], isNumber: true, cell: (/** @type {Sale} */ it) => count(it[what]) });
  fill(main,
    heading(words.sales, h('div', { className: 'row' }, h('small', { className: 'tab' }, words.readAt(clock(serviceNow()))), h('button', { type: 'button', id: 'again', className: 'second', onclick: () => go(location.pathname + location.search, true) }, words.again), csvButton(`/admin/v1/sales?limit=1000${chosen ? `&concert=${encodeURIComponent(chosen)}` : ''}`, 'sales'))),
    h('div', { className: 'filters' }, h('div', { className: 'field' }, h('label', { htmlFor: 'concert' }, words.filterConcert), choice)),
    totals,
    rows.length === 0 && h('p', { className: 'card soft' }, words.nothingForSale),
    ...[...byConcert.values()].map((its) => h('div', { className: 'card' }, h('h2', {}, its[0]?.concert),
      sheet(words.byGrade(its[0]?.concert ?? ''), [
        { name: words.session, cell: (it) => [day(it.concertAt), it.cancelledAt && [' ', badge('CANCELLED')]].flat() },
        { name: words.grade, cell: (it) => it.grade ?? words.nothing },
        { name: words.price, isNumber: true, cell: (it) => words.money(count(it.price)) },
        number('total'), number('sold'), number('held'), number('free'),
        { name: words.taken, isNumber: true, cell: (it) => words.money(count(it.money)) },
      ], its, its.length > 1 ? [words.total, '', '', count(sum(its, 'total')), count(sum(its, 'sold')), count(sum(its, 'held')), count(sum(its, 'free')), words.money(count(sum(its, 'money')))] : undefined))));
}
