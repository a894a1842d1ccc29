// The queues: all of them, or one with its settings and what was changed.
import { count, fill, h, link, main, newKey } from '/assets/lib/kit.js';
import { badge, boundText, call, change, deedSheet, errorText, feed, field, fromInput, go, heading, input, may, needs, openForm, openingText, pause, queueOf, queueOfDeed, rate, read, reasonField, select, sheet, tell, title, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').Queue} Queue */
/** @typedef {import('./types.js').LoggedDeed} LoggedDeed */

/** Changes that are looked through for those of a queue. */
const LOG_MAX = 500;

function make() {
  const key = newKey();
  const name = input('queue', { maxLength: 40, spellcheck: false, autocapitalize: 'none' });
  const speed = input('queue-rate', { inputMode: 'decimal', maxLength: 12 });
  const bound = input('queue-bound', { inputMode: 'numeric', maxLength: 12 });
  const opens = input('queue-opens', { type: 'datetime-local' });
  const order = select('queue-order', [['fifo', words.orders_.fifo], ['draw', words.orders_.draw]]);
  const { reason, row } = reasonField();
  openForm({
    title: words.newQueue,
    body: [field(words.queueName, name, words.queueNameHint), h('div', { className: 'fields' }, field(words.rate, speed, words.rateHint), field(words.bound, bound, words.withoutBound)), field(words.queueOpening, opens), field(words.order, order, words.drawHint), row],
    verb: words.makeQueue,
    submit: async () => {
      const body = {
        queue: name.value.trim(), opening: order.value,
        ...(speed.value.trim() && { admitPerSecond: Number(speed.value) }), ...(bound.value.trim() && { maxActive: Number(bound.value) }), ...(opens.value && { opensAt: fromInput(opens.value) }),
      };
      const answer = await call('/queues', { method: 'POST', key, body, reason: reason.value });
      if (!answer.ok) return errorText(answer);
      tell(words.queueMade(body.queue));
      go(`/ops/queues/${body.queue}`);
      return undefined;
    },
  });
}

async function showAll(/** @type {AbortSignal} */ signal) {
  title(words.queues);
  const draw = async () => {
    const answer = await read('/queues');
    if (signal.aborted) return;
    const head = heading(words.queues, may('admin') ? h('button', { type: 'button', id: 'new', className: 'primary', onclick: make }, words.newQueue) : needs('admin'));
    if (!answer.ok) return fill(main, head, h('p', { className: 'wrong' }, errorText(answer)));
    const queues = /** @type {Queue[]} */ (answer.body.queues);
    fill(main, head, h('section', { className: 'card' }, queues.length === 0 ? h('p', { className: 'soft' }, words.noQueues) : sheet(words.queues, [
      { name: words.queue, cell: (it) => link('', `/ops/queues/${it.queue}`, it.queue) },
      { name: words.state, cell: (it) => badge(it.state) },
      { name: words.waiting, isNumber: true, cell: (it) => count(it.waiting) },
      { name: words.inside, isNumber: true, cell: (it) => count(it.active) },
      { name: words.rate, isNumber: true, cell: (it) => `${rate(it.admitPerSecond)}${words.perSecondShort}` },
      { name: words.bound, isNumber: true, cell: (it) => boundText(it.maxActive) },
      { name: words.opening, cell: (it) => openingText(it.opensAt) },
    ], queues)));
  };
  await draw();
}

async function showOne(/** @type {string} */ name, /** @type {AbortSignal} */ signal) {
  title(words.line(name));
  const figures = h('dl', { className: 'would' });
  const settings = h('dl', { className: 'would' });
  const buttons = h('div', { className: 'row' });
  const log = h('section', { className: 'card', ariaLabel: words.changesOf }, h('h2', {}, words.changesOf), h('p', { className: 'soft' }, words.loading));
  const state = h('span', {});
  /** @type {Queue | null} */
  let queue = null;
  let etag = '';

  const row = (/** @type {string} */ text, /** @type {string} */ value, /** @type {HTMLElement | false} */ button = false) => h('div', {}, h('dt', {}, text), h('dd', { className: 'row' }, value, button));
  const set = (/** @type {'rate' | 'bound' | 'opening'} */ what, /** @type {string} */ text) => may('operator') && h('button', { type: 'button', id: `set-${what}`, className: 'quiet', onclick: () => change(name, what) }, text);
  function draw() {
    if (!queue) return;
    fill(state, badge(queue.state));
    fill(figures, row(words.waiting, count(queue.waiting)), row(words.inside, count(queue.active)), row(words.served, count(queue.serving)), row(words.joinedInAll, count(queue.next)));
    fill(settings,
      row(words.rate, `${rate(queue.admitPerSecond)}${words.perSecondShort}`, set('rate', words.setRate)), row(words.bound, boundText(queue.maxActive), set('bound', words.setBound)),
      row(words.opening, openingText(queue.opensAt), set('opening', words.setOpening)), row(words.order, words.orders_[queue.opening]));
    fill(buttons, !may('operator') ? needs('operator') : queue.paused
      ? h('button', { type: 'button', id: 'resume', className: 'stop on', onclick: () => change(name, 'resume') }, h('span', { 'aria-hidden': 'true' }, '▶'), words.resume)
      : h('button', { type: 'button', id: 'pause', className: 'stop', 'aria-keyshortcuts': 'Alt+P', onclick: () => pause(name) }, h('span', { 'aria-hidden': 'true' }, '❚❚'), words.pause, h('kbd', { 'aria-hidden': 'true' }, 'Alt P')));
  }
  async function readLog() {
    const answer = await call(`/log?limit=${LOG_MAX}`);
    if (signal.aborted) return;
    const its = answer.ok ? /** @type {LoggedDeed[]} */ (answer.body.changes).filter((it) => queueOfDeed(it) === name) : [];
    fill(log, h('h2', {}, words.changesOf), !answer.ok ? h('p', { className: 'wrong' }, errorText(answer)) : its.length === 0 ? h('p', { className: 'soft' }, words.nothingLogged) : deedSheet(its));
  }
  async function readQueue() {
    const answer = await read(`/queues/${name}`);
    if (signal.aborted) return;
    if (!answer.ok) return fill(main, heading(words.line(name)), h('p', { className: 'wrong' }, errorText(answer)), link('', '/ops/queues', words.queues));
    queue = answer.body;
    etag = answer.body.etag;
    draw();
    await readLog();
  }
  fill(main, heading(words.line(name), h('div', { className: 'row' }, state, link('button second', `/ops?q=${name}`, words.showLive))),
    h('div', { className: 'split' }, h('section', { className: 'card', ariaLabel: words.settings }, h('h2', {}, words.settings), settings, buttons), h('section', { className: 'card', ariaLabel: words.now }, h('h2', {}, words.now), figures)), log);
  await readQueue();
  feed.addEventListener('changed', (event) => {
    const now = /** @type {CustomEvent<Queue>} */ (event).detail;
    if (now.queue !== name) return;
    etag = now.etag;
    readQueue();
  }, { signal });
  feed.addEventListener('news', () => {
    const now = queueOf(name);
    if (!now || !queue) return;
    // What somebody changed is read with all that belongs to it; the rest goes on by itself.
    if (now.etag !== etag) {
      etag = now.etag;
      readQueue();
    }
    if (queue.waiting === now.waiting && queue.active === now.active && queue.state === now.state) return;
    Object.assign(queue, { waiting: now.waiting, active: now.active, state: now.state });
    draw();
  }, { signal });
}

export const show = (/** @type {import('./types.js').View} */ { rest, signal }) => (rest ? showOne(rest, signal) : showAll(signal));
