// Reservations: to find one, and to see what became of it.
import { count, fill, h, link, main } from '/assets/lib/kit.js';
import { badge, call, csvButton, day, errorText, field, go, heading, input, read, select, sheet, title, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').Order} Order */

const PAGE = 100;
/** The API's word for a hold that was given back is the fan's for a session that was called off. */
const stateOf = (/** @type {string} */ status) => badge(status === 'CANCELLED' ? 'GIVEN_BACK' : status);

/** A page of the list: it may be empty though others follow, so more are asked for. */
async function pageOf(/** @type {string} */ query, /** @type {number | null} */ after, /** @type {AbortSignal} */ signal) {
  /** @type {Order[]} */
  const orders = [];
  let next = after;
  let answer;
  do {
    answer = await read(`/reservations?limit=${PAGE}${query && `&${query}`}${next === null ? '' : `&after=${next}`}`);
    if (!answer.ok || signal.aborted) break;
    orders.push(...answer.body.reservations);
    next = answer.body.next;
  } while (orders.length < PAGE / 2 && next !== null);
  return { answer, orders, next };
}

const FIELDS = /** @type {const} */ ([['reservation', words.orderNumber], ['user', words.member], ['payment', words.payment], ['concert', words.filterConcert], ['session', words.session]]);

async function showAll(/** @type {import('./types.js').View} */ { query, signal }) {
  title(words.orders);
  const numbers = FIELDS.map(([name, text]) => /** @type {const} */ ([name, input(name, { inputMode: 'numeric', maxLength: 19, value: query.get(name) ?? '' }), text]));
  const person = input('name', { maxLength: 200, value: query.get('name') ?? '' });
  const state = select('state', [['', words.anyState], ['HELD', words.states.HELD], ['PAID', words.states.PAID], ['CANCELLED', words.states.GIVEN_BACK], ['EXPIRED', words.states.EXPIRED], ['REFUNDED', words.states.REFUNDED]], query.get('state') ?? '');
  const wrong = h('p', { className: 'wrong', role: 'alert' });
  const form = h('form', {
    className: 'card form', role: 'search', noValidate: true,
    onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      const off = numbers.find(([, it]) => it.value.trim() && !/^\d{1,19}$/.test(it.value.trim()));
      for (const [, it] of numbers) it.setAttribute('aria-invalid', String(it === off?.[1]));
      wrong.textContent = off ? `${off[2]}: ${words.numberWanted}` : '';
      if (off) return off[1].focus();
      const wanted = [...numbers.map(([name, it]) => [name, it.value.trim()]), ['name', person.value.trim()], ['state', state.value]].filter(([, value]) => value);
      go(`/ops/orders${wanted.length > 0 ? `?${new URLSearchParams(/** @type {[string, string][]} */ (wanted))}` : ''}`);
    },
  }, h('div', { className: 'fields tight' }, ...numbers.map(([, it, text]) => field(text, it)), field(words.person, person), field(words.status, state)), wrong, h('div', { className: 'row' }, h('button', { className: 'primary', id: 'search' }, words.search)));
  const wanted = new URLSearchParams([...query].filter(([name]) => FIELDS.some(([it]) => it === name) || ['name', 'state'].includes(name))).toString();
  const found = h('section', { className: 'card', ariaLabel: words.orders }, h('p', { className: 'soft' }, words.loading));
  fill(main, heading(words.orders, csvButton(`/admin/v1/reservations?limit=1000${wanted && `&${wanted}`}`, 'reservations')), form, found);

  /** @type {Order[]} */
  const all = [];
  async function more(/** @type {number | null} */ after) {
    const { answer, orders, next } = await pageOf(wanted, after, signal);
    if (signal.aborted) return;
    if (!answer.ok) return fill(found, h('p', { className: 'wrong' }, errorText(answer)));
    all.push(...orders);
    fill(found,
      h('h2', { className: 'tab' }, all.length === 0 ? words.noneFound : words.found(count(all.length))),
      all.length > 0 && sheet(words.orders, [
        { name: words.orderNumber, cell: (it) => link('', `/ops/orders/${it.reservationId}`, String(it.reservationId)) },
        { name: words.status, cell: (it) => stateOf(it.status) },
        { name: words.member, cell: (it) => link('', `/ops/orders?user=${it.userId}`, String(it.userId)) },
        { name: words.madeAt, cell: (it) => day(it.createdAt) },
        { name: words.seatsOf, isNumber: true, cell: (it) => count(it.seatCount) },
        { name: words.amount, isNumber: true, cell: (it) => words.money(count(it.totalPrice)) },
        { name: words.payment, cell: (it) => it.paymentId ?? words.nothing },
      ], all),
      next !== null && h('button', { type: 'button', id: 'more', className: 'second', onclick: () => more(next) }, words.more));
  }
  await more(null);
}

async function showOne(/** @type {string} */ id, /** @type {AbortSignal} */ signal) {
  title(words.orderTitle(id));
  const answer = await call(`/reservations?reservation=${encodeURIComponent(id)}`);
  if (signal.aborted) return;
  const it = /** @type {Order | undefined} */ (answer.body.reservations?.[0]);
  const back = link('', '/ops/orders', words.orders);
  if (!it) return fill(main, heading(words.orderTitle(id)), h('p', { className: 'card soft' }, answer.ok ? words.noneFound : errorText(answer)), back);
  const row = (/** @type {string} */ name, /** @type {import('./types.js').Child} */ value) => h('div', {}, h('dt', {}, name), h('dd', {}, value));
  fill(main, heading(words.orderTitle(id), stateOf(it.status)), h('section', { className: 'card' }, h('dl', { className: 'facts' },
    row(words.member, link('', `/ops/orders?user=${it.userId}`, String(it.userId))), row(words.filterConcert, link('', `/ops/concerts/${it.concertId}`, String(it.concertId))), row(words.session, String(it.sessionId)),
    row(words.seatsOf, count(it.seatCount)), row(words.amount, words.money(count(it.totalPrice))), row(words.madeAt, day(it.createdAt)), row(words.until, day(it.expiresAt)), row(words.payment, it.paymentId ?? words.nothing))), back);
}

export const show = (/** @type {import('./types.js').View} */ view) => (view.rest ? showOne(view.rest, view.signal) : showAll(view));
