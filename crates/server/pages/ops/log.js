// Who changed what.
import { count, fill, h, main } from '/assets/lib/kit.js';
import { csvButton, deedSheet, errorText, field, heading, input, read, title, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').LoggedDeed} LoggedDeed */

const PAGE = 200;

export async function show(/** @type {import('./types.js').View} */ { query, signal }) {
  title(words.log);
  /** @type {LoggedDeed[]} */
  const all = [];
  /** @type {number | null} */
  let next = null;
  const wanted = input('filter', { type: 'search', maxLength: 200, value: query.get('filter') ?? '' });
  const list = h('section', { className: 'card', ariaLabel: words.log });
  fill(main, heading(words.log, csvButton('/admin/v1/log?limit=1000', 'log')), h('div', { className: 'filters' }, field(words.filter, wanted, words.filterHint)), list);

  function draw() {
    const parts = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (/** @type {LoggedDeed} */ it) => `${it.who} ${it.role} ${it.origin} ${it.operation} ${/** @type {Record<string, string>} */ (words.operations)[it.operation] ?? ''} ${it.target} ${it.reason ?? ''}`.toLowerCase();
    const its = all.filter((it) => parts.every((part) => text(it).includes(part)));
    fill(list,
      all.length === 0 ? h('p', { className: 'soft' }, words.nothingLogged) : h('p', { className: 'soft tab', role: 'status' }, words.filteredOf(count(its.length), count(all.length))),
      its.length > 0 && deedSheet(its),
      next !== null && h('button', { type: 'button', id: 'more', className: 'second', onclick: more }, words.more));
  }
  async function more() {
    const answer = await read(`/log?limit=${PAGE}${next === null ? '' : `&after=${next}`}`);
    if (signal.aborted) return;
    if (!answer.ok) return fill(list, h('p', { className: 'wrong' }, errorText(answer)));
    all.push(...answer.body.changes);
    next = answer.body.next;
    draw();
  }
  wanted.addEventListener('input', draw);
  await more();
}
