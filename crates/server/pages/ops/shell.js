// The frame of the console: who is signed in, where one is, what the service says each second, and what screens share.
//
// What does not belong here: anything that only one screen does.

import { ask, clockOf, count, download, fill, h, insist, keep, kept, language, main, ready, say, serverNow, switchLanguage } from '/assets/lib/kit.js';

/** @typedef {import('./types.js').Me} Me */
/** @typedef {import('./types.js').Role} Role */
/** @typedef {import('./types.js').Live} Live */
/** @typedef {import('./types.js').LiveQueue} LiveQueue */
/** @typedef {import('./types.js').History} History */
/** @typedef {import('./types.js').Curves} Curves */
/** @typedef {import('./types.js').Deed} Deed */
/** @typedef {import('./types.js').Queue} Queue */
/** @typedef {import('./types.js').Settings} Settings */
/** @typedef {import('./types.js').Preview} Preview */
/** @typedef {import('./types.js').Answer} Answer */
/** @typedef {import('./types.js').Child} Child */
/** @typedef {import('./types.js').Screen} Screen */

export const { words } = language === 'ko' ? await import('/assets/i18n/ops-ko.js') : await import('/assets/i18n/ops-en.js');

// ---- Figures and times, as operators read them.

const local = (/** @type {Intl.DateTimeFormatOptions} */ options) => new Intl.DateTimeFormat(language, { hourCycle: 'h23', ...options });
const SECONDS = local({ hour: '2-digit', minute: '2-digit', second: '2-digit' });
const MINUTES = local({ hour: '2-digit', minute: '2-digit' });
const DAY = local({ weekday: 'short', year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit' });
const DAY_SECONDS = local({ month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit' });
/** @typedef {string | number} Moment */
export const clock = (/** @type {Moment} */ at) => SECONDS.format(new Date(at));
export const hour = (/** @type {Moment} */ at) => MINUTES.format(new Date(at));
export const day = (/** @type {Moment} */ at) => DAY.format(new Date(at));
export const moment = (/** @type {Moment} */ at) => DAY_SECONDS.format(new Date(at));
/** A number a second: small ones with a decimal, so that nothing looks like standing still. */
export function rate(/** @type {number} */ n) {
  const decimals = n < 100 && n % 1 !== 0 ? 1 : 0;
  return n.toLocaleString(language, { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}
/** A figure that changes each second: the same number of decimals over its whole range, so that it does not jump. */
export const pace = (/** @type {number} */ n) => n.toLocaleString(language, n < 99.95 ? { minimumFractionDigits: 1, maximumFractionDigits: 1 } : { maximumFractionDigits: 0 });
/** How long, in the largest unit that says enough. */
export function span(/** @type {number | null} */ seconds) {
  if (seconds === null) return words.unknown;
  if (seconds < 60) return words.seconds(count(Math.ceil(seconds)));
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 90) return words.minutes(count(minutes));
  return words.hours(count(Math.floor(minutes / 60)), count(minutes % 60));
}
/** For an input of the kind `datetime-local`. */
export function forInput(/** @type {string | null} */ at) {
  if (!at) return '';
  const date = new Date(at);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, date.getSeconds() ? 19 : 16);
}
/** What such an input says; an empty text where it says nothing. */
export function fromInput(/** @type {string} */ text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? '' : date.toISOString();
}

// ---- The service.

const ADMIN = '/admin/v1';
const LOGIN = '/ops/login';
/** @type {Me} */
export let me = { name: '', role: 'viewer', until: null };
/** @type {Role[]} */
const ROLES = ['viewer', 'operator', 'admin'];
export const may = (/** @type {Role} */ role) => ROLES.indexOf(me.role) >= ROLES.indexOf(role);

let isLeaving = false;
/** Goes to the sign-in, and comes back afterwards. */
export function toLogin(isOver = true) {
  if (isLeaving) return;
  isLeaving = true;
  const query = new URLSearchParams({ return: location.pathname + location.search });
  if (isOver) query.set('over', '1');
  location.replace(`${LOGIN}?${query}`);
}

function looked(/** @type {Answer} */ answer) {
  if (answer.status === 401) toLogin();
  // The role may have changed: what is offered follows it.
  if (answer.code === 'ROLE_REQUIRED') learn();
  return answer;
}

/** Asks once. @param {string} path @param {Parameters<typeof ask>[1] & { reason?: string }} options */
export async function call(path, { reason, others = {}, ...options } = {}) {
  if (reason?.trim()) others['X-Reason'] = encodeURIComponent(reason.trim());
  return looked(await ask(path, { api: ADMIN, ...options, others }));
}
/** Reads, again until there is an answer. */
export const read = async (/** @type {string} */ path) => looked(await insist(path, { api: ADMIN }));

/** Pages of a list that are read at once, at the most. */
const PAGES_MAX = 1_000;
/** A button that saves a whole list as a table. */
export function csvButton(/** @type {string} */ path, /** @type {string} */ name) {
  const button = /** @type {HTMLButtonElement} */ (h('button', {
    type: 'button', className: 'second', id: 'csv',
    onclick: async () => {
      button.disabled = true;
      const parts = [];
      let next = path;
      for (let page = 0; next && page < PAGES_MAX; page += 1) {
        const response = await fetch(next, { headers: { Accept: 'text/csv' }, cache: 'no-store' }).catch(() => null);
        if (response?.status === 401) return toLogin();
        if (!response?.ok) {
          button.disabled = false;
          return tell(words.errors.UNREACHABLE, { kind: 'bad' });
        }
        const text = await response.text();
        // Each page has the names of the columns; once is enough.
        parts.push(parts.length === 0 ? `\ufeff${text}` : text.slice(text.indexOf('\n') + 1));
        next = /<([^>]+)>; rel="next"/.exec(response.headers.get('Link') ?? '')?.[1] ?? '';
      }
      download(`${name}.csv`, new Blob(parts, { type: 'text/csv' }));
      button.disabled = false;
      return undefined;
    },
  }, words.csv));
  return button;
}

/** What an error says to an operator. */
export function errorText(/** @type {Answer} */ answer) {
  const known = /** @type {Record<string, string>} */ (words.errors)[answer.code];
  const told = known ?? (answer.status === 0 ? words.errors.UNREACHABLE : answer.body.detail ? words.because(answer.body.detail) : words.unexpected);
  return answer.status >= 500 && answer.body.requestId ? `${told} (${answer.body.requestId})` : told;
}

async function learn() {
  const answer = await insist('/me', { api: ADMIN });
  if (answer.status === 401) return toLogin(kept('ops.in') === '1');
  if (!answer.ok) return;
  const had = me.role;
  me = answer.body;
  keep('ops.in', '1');
  if (had !== me.role) drawFrame();
}

async function signOut() {
  await ask('/ops/logout', { method: 'POST', api: '' });
  keep('ops.in', '');
  channel?.postMessage({ event: 'end', data: { reason: 'SIGNED_OUT' } });
  location.replace(LOGIN);
}

// ---- What the service says each second. One tab listens, and tells the others: a browser has few connections.

/** @type {Live | null} */
export let live = null;
/** @type {History | null} */
export let history = null;
/** Tells screens of news: `news` each second, `silence` when these stay out or come again, `changed` when a queue was changed here. */
export const feed = new EventTarget();
/** News stay out for so long before figures are shown as old. */
const SILENCE_MS = 5_000;
/** A connection that says nothing for so long is made anew. */
const DEAD_MS = 12_000;
let heard = -Infinity;
let began = performance.now();
export let isSilent = false;
const silentMs = () => performance.now() - Math.max(heard, began);

/** The time at the service: more exact than what its answers say in whole seconds. */
export const serviceNow = () => (live ? Date.parse(live.at) + performance.now() - heard : serverNow());
export const queueOf = (/** @type {string} */ name) => live?.queues.find((it) => it.queue === name);
export const curvesOf = (/** @type {string} */ name) => history?.queues.find((it) => it.queue === name);

/** The curves go no further back. */
const POINTS_MAX = 180;
const COLUMNS = /** @type {const} */ (['waiting', 'joinsPerSecond', 'admittedPerSecond', 'active', 'paymentsPerSecond']);
/** Goes on with the curves: they have a point for every few seconds. */
function extend(/** @type {Live} */ now) {
  if (!history || Date.parse(now.at) - Date.parse(history.until) < history.everySeconds * 1_000 - 250) return;
  history.until = now.at;
  for (const queue of now.queues) {
    let curves = curvesOf(queue.queue);
    if (!curves) {
      curves = { queue: queue.queue, waiting: [], joinsPerSecond: [], admittedPerSecond: [], active: [], paymentsPerSecond: [] };
      history.queues.push(curves);
    }
    for (const name of COLUMNS) {
      curves[name].push(queue[name]);
      if (curves[name].length > POINTS_MAX) curves[name].shift();
    }
  }
}

function heed(/** @type {string} */ event, /** @type {any} */ data) {
  if (event === 'end') {
    if (data.reason === 'SIGNED_OUT') toLogin();
    return;
  }
  if (event === 'history') history = data;
  if (event === 'live') {
    live = data;
    extend(data);
    heard = performance.now();
    tellOfSilence();
    drawAlarms();
    feed.dispatchEvent(new Event('news'));
  }
}

const channel = 'BroadcastChannel' in globalThis ? new BroadcastChannel('boxoffice.ops') : null;
/** @type {EventSource | null} */
let source = null;
let isFirst = false;

function listen() {
  source?.close();
  source = new EventSource(`${ADMIN}/live`);
  began = performance.now();
  for (const event of ['history', 'live', 'end']) {
    source.addEventListener(event, (message) => {
      const data = JSON.parse(message.data);
      channel?.postMessage({ event, data });
      heed(event, data);
    });
  }
  source.addEventListener('error', () => {
    // It tries again by itself, unless it was refused; then nobody is told why.
    if (source?.readyState === EventSource.CLOSED) setTimeout(again, 2_000 + Math.random() * 2_000);
  });
}
async function again() {
  if (!isFirst) return;
  await learn();
  if (isFirst && !isLeaving) listen();
}

function lead(isTaken = false) {
  const first = () => new Promise((/** @type {(value?: unknown) => void} */ _) => {
    isFirst = true;
    listen();
  });
  if (!navigator.locks) return first();
  navigator.locks.request('boxoffice.ops', isTaken ? { steal: true } : {}, first).catch(() => {
    // Another tab took over, because this one had fallen asleep.
    isFirst = false;
    source?.close();
    lead();
  });
}

channel?.addEventListener('message', ({ data: { event, data } }) => {
  if (event === 'hello' && isFirst && history) {
    channel.postMessage({ event: 'history', data: history });
    if (live) channel.postMessage({ event: 'live', data: live });
  } else if (!isFirst || event === 'end') {
    heed(event, data);
  }
});

let tookOver = 0;
function watch() {
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('[data-until]'))) {
    const left = Number(button.dataset.until) - serverNow();
    button.textContent = words.undoFor(clockOf(left));
    button.hidden = left <= 0;
    if (left <= 0 && strips.deed.contains(button)) strips.deed.hidden = true;
  }
  tellOfSilence();
  if (!isSilent) return;
  strips.silence.hidden = false;
  const seconds = Math.floor(silentMs() / 1_000);
  fill(strips.silence, h('p', {}, h('strong', { className: 'tab' }, live ? words.silent(count(seconds)) : words.silentFromStart), ' ', seconds > 30 ? words.silentLong : words.silentTrying));
  if (isFirst && source?.readyState === EventSource.OPEN && silentMs() > DEAD_MS) listen();
  if (!isFirst && !document.hidden && performance.now() - tookOver > DEAD_MS) {
    tookOver = performance.now();
    lead(true);
  }
}
function tellOfSilence() {
  const was = isSilent;
  isSilent = silentMs() > SILENCE_MS;
  if (was === isSilent) return;
  document.body.classList.toggle('stale', isSilent);
  strips.silence.hidden = !isSilent;
  say(isSilent ? words.silentSaid : words.silentOver, isSilent);
  feed.dispatchEvent(new Event('silence'));
}

// ---- The frame.

/** @type {[string, string, Role][]} */
const PLACES = [
  ['/ops', words.now, 'viewer'], ['/ops/queues', words.queues, 'viewer'], ['/ops/sales', words.sales, 'viewer'], ['/ops/concerts', words.concerts, 'viewer'],
  ['/ops/orders', words.orders, 'viewer'], ['/ops/tickets', words.tickets, 'viewer'], ['/ops/log', words.log, 'viewer'], ['/ops/operators', words.operators, 'viewer'], ['/ops/audit', words.audit, 'viewer'],
];
const strips = {
  alarms: h('div', { className: 'strips' }),
  silence: h('div', { className: 'note warn', hidden: true }),
  deed: h('div', { className: 'note good', hidden: true, id: 'deed' }),
};

function drawFrame() {
  const header = /** @type {HTMLElement} */ (document.querySelector('header'));
  const here = location.pathname;
  const isAt = (/** @type {string} */ href) => (href === '/ops' ? here === href : here === href || here.startsWith(`${href}/`));
  header.className = '';
  const menu = h('button', { type: 'button', id: 'menu', className: 'quiet', 'aria-expanded': 'false', 'aria-controls': 'places', onclick: () => menu.setAttribute('aria-expanded', String(header.classList.toggle('open'))) }, words.menu);
  header.replaceChildren(
    h('a', { className: 'skip', href: '#main' }, words.skip),
    h('a', { className: 'brand', href: '/ops' }, 'boxoffice ', h('span', {}, words.console)),
    h('nav', { id: 'places', ariaLabel: words.menu }, ...PLACES.map(([href, text]) => h('a', { href, 'aria-current': isAt(href) ? 'page' : null }, text))),
    h('div', { className: 'me' },
      h('p', { className: 'who' }, h('strong', {}, me.name), words.roles[me.role]),
      languageSwitch(),
      h('button', { type: 'button', className: 'quiet', id: 'sign-out', onclick: signOut }, words.signOut), menu),
  );
}
export const languageSwitch = () => h('button', { type: 'button', className: 'quiet', lang: language === 'ko' ? 'en' : 'ko', onclick: switchLanguage }, words.otherLanguage);

/** Names the page. */
export function title(/** @type {string} */ text) {
  pageTitle = text;
  drawTitle();
}
let pageTitle = '';
function drawTitle() {
  const alarms = live?.alarms.filter((it) => it.level === 'critical').length ?? 0;
  document.title = `${alarms > 0 ? '▲ ' : ''}${pageTitle} · boxoffice`;
}

let cried = '';
function drawAlarms() {
  const alarms = live?.alarms ?? [];
  const texts = alarms.map((it) => words.alarm(it.code, it.target));
  // Said once, and not each second; a change of the seconds since is none.
  const news = JSON.stringify(texts);
  drawTitle();
  if (news === cried) return;
  cried = news;
  fill(strips.alarms, alarms.map((it, at) => h('div', { className: `alarm ${it.level}` }, h('strong', {}, texts[at]?.[0]), h('span', {}, texts[at]?.[1], ' ', words.since(clock(it.since))))));
  if (alarms.length > 0) say(texts.map(([what, todo]) => `${what} ${todo}`).join(' '), alarms.some((it) => it.level === 'critical'));
  else if (document.body.dataset.alarms) say(words.alarmsOver);
  document.body.dataset.alarms = alarms.length > 0 ? String(alarms.length) : '';
}

// ---- Screens.

/** @type {AbortController | null} */
let shown = null;
/** The address of a screen stands in the document, because a screen imports this module. */
const screenAt = (/** @type {string} */ section) => /** @type {HTMLLinkElement | null} */ (document.getElementById(`screen-${section}`))?.href;

async function render(isFirstTime = false) {
  shown?.abort();
  // A way back stays as long as it is one.
  if (wasSeen && !strips.deed.querySelector('[data-undo]')) strips.deed.hidden = true;
  wasSeen = true;
  const mine = (shown = new AbortController());
  drawFrame();
  const [, , section = 'now', ...rest] = location.pathname.split('/');
  const { show } = /** @type {Screen} */ (await import(screenAt(section) ?? screenAt('now') ?? ''));
  if (mine.signal.aborted) return;
  fill(main, h('p', { className: 'loading' }, words.loading));
  scrollTo(0, 0);
  await show({ rest: decodeURIComponent(rest.join('/')), query: new URLSearchParams(location.search), signal: mine.signal });
  if (!isFirstTime && !mine.signal.aborted) document.querySelector('h1')?.focus();
}
/** Goes to another address of the console. */
export function go(/** @type {string} */ href, isInstead = false) {
  if (isInstead) globalThis.history.replaceState(null, '', href);
  else globalThis.history.pushState(null, '', href);
  return render();
}

export const heading = (/** @type {string} */ text, /** @type {Child[]} */ ...more) => h('div', { className: 'head' }, h('h1', { tabIndex: -1 }, text), ...more);

/** Where the console begins, in the documents that have screens. */
async function start() {
  ready();
  main.before(h('section', { className: 'strips', ariaLabel: words.news }, strips.alarms, strips.silence, strips.deed));
  await learn();
  if (isLeaving) return;
  addEventListener('click', (event) => {
    const target = event.target instanceof Element ? event.target.closest('a') : null;
    if (!target || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || target.download || target.target) return;
    const url = new URL(target.href);
    if (url.origin !== location.origin || !/^\/ops(\/|$)/.test(url.pathname) || url.pathname === LOGIN || url.hash) return;
    event.preventDefault();
    go(url.pathname + url.search);
  });
  addEventListener('popstate', () => render());
  addEventListener('pageshow', (event) => event.persisted && learn());
  addEventListener('keydown', (event) => {
    if (!event.altKey || event.code !== 'KeyP' || event.ctrlKey || event.metaKey) return;
    const button = document.querySelector('#pause');
    if (!(button instanceof HTMLElement)) return;
    event.preventDefault();
    button.click();
  });
  setInterval(watch, 500);
  channel?.postMessage({ event: 'hello' });
  lead();
  await render(true);
}

// ---- What screens share.

export const needs = (/** @type {Role} */ role) => h('p', { className: 'soft small' }, words.needs(words.roles[role]));
export const field = (/** @type {string} */ label, /** @type {HTMLElement} */ input, /** @type {Child} */ hint = null, /** @type {Child} */ unit = null) => {
  const hintId = hint ? `${input.id}-hint` : null;
  if (hintId) input.setAttribute('aria-describedby', hintId);
  return h('div', { className: `field${unit ? ' unit' : ''}` }, h('label', { htmlFor: input.id }, label), input, unit && h('span', {}, unit), hint && h('small', { id: hintId }, hint));
};
export const input = (/** @type {string} */ id, /** @type {Record<string, any>} */ properties = {}) => /** @type {HTMLInputElement} */ (h('input', { id, autocomplete: 'off', ...properties }));
export const select = (/** @type {string} */ id, /** @type {[string, string][]} */ options, value = '', /** @type {Record<string, any>} */ properties = {}) => /** @type {HTMLSelectElement} */ (h('select', { id, ...properties }, ...options.map(([key, text]) => h('option', { value: key, selected: key === value }, text))));

/**
 * A table, which is one of cards on a narrow window.
 * @template T
 * @param {string} caption
 * @param {import('./types.js').ColumnOf<T>[]} columns
 * @param {T[]} rows
 * @param {(Child | Child[])[]} [foot]
 */
export function sheet(caption, columns, rows, foot) {
  const names = columns.map((it) => it.name.charAt(0).toUpperCase() + it.name.slice(1));
  const cell = (/** @type {number} */ at, /** @type {Child | Child[]} */ inside) => {
    const column = columns[at];
    // Blocks are no table for who cannot see, unless they say that they are.
    return h(at === 0 ? 'th' : 'td', { role: at === 0 ? 'rowheader' : 'cell', scope: at === 0 ? 'row' : null, 'data-label': names[at], className: column?.isNumber ? 'num' : column?.isActs ? 'acts' : null }, h('span', {}, inside));
  };
  return h('table', { role: 'table', className: 'stack' },
    h('caption', { className: 'unseen' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...columns.map((it, at) => h('th', { role: 'columnheader', scope: 'col', className: it.isNumber ? 'num' : null }, names[at])))),
    h('tbody', { role: 'rowgroup' }, ...rows.map((row) => h('tr', { role: 'row' }, ...columns.map((it, at) => cell(at, it.cell(row)))))),
    foot && h('tfoot', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...foot.map((it, at) => cell(at, it)))));
}

/** The symbol for each state: nobody is to tell them by colour alone. */
const STATES = /** @type {Record<string, [string, string]>} */ ({
  OPEN: ['good', '●'], PAUSED: ['warn', '❚❚'], SCHEDULED: ['', '◷'], SOLD_OUT: ['', '✕'], ENDED: ['', '■'], CANCELLED: ['bad', '✕'],
  HELD: ['warn', '◷'], PAID: ['good', '✓'], GIVEN_BACK: ['', '↩'], EXPIRED: ['', '■'], REFUNDED: ['', '↩'], UP: ['good', '✓'], DEGRADED: ['warn', '▲'], DOWN: ['bad', '✕'], BROKEN: ['bad', '✕'], CLEAN: ['good', '✓'],
});
export function badge(/** @type {string} */ state, text = /** @type {Record<string, string>} */ (words.states)[state] ?? state) {
  const [kind, symbol] = STATES[state] ?? ['', '·'];
  return h('span', { className: `badge ${kind}` }, h('span', { 'aria-hidden': 'true' }, symbol), ' ', text);
}

/**
 * A form in a dialog. `submit` returns what is wrong, or nothing where it is done.
 * @param {{ title: string, body: (Child | Child[])[], verb: string, kind?: string, submit: () => Promise<string | void>, signal?: AbortSignal }} options
 */
export function openForm({ title: text, body, verb, kind = '', submit }) {
  const wrong = h('p', { className: 'wrong', role: 'alert', id: 'form-wrong' });
  const button = h('button', { className: `primary ${kind}`, id: 'form-do' }, verb);
  const dialog = /** @type {HTMLDialogElement} */ (h('dialog', { 'aria-labelledby': 'form-title' }, h('form', {
    noValidate: true,
    onsubmit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      if (button.ariaDisabled === 'true' || button.ariaBusy === 'true') return;
      button.ariaBusy = 'true';
      wrong.textContent = '';
      try {
        const told = await submit();
        if (told === undefined) dialog.close();
        else wrong.textContent = told;
      } finally {
        button.ariaBusy = null;
      }
    },
  }, h('h2', { id: 'form-title', tabIndex: -1 }, text), ...body.flat(), wrong, h('div', { className: 'verbs' }, h('button', { type: 'button', className: 'second', onclick: () => dialog.close() }, words.cancel), button))));
  document.body.append(dialog);
  dialog.addEventListener('close', () => dialog.remove());
  dialog.showModal();
  return { dialog, button, wrong };
}
export const reasonField = (id = 'reason') => {
  const reason = input(id, { maxLength: 200 });
  return { reason, row: field(words.reason, reason, words.reasonHint) };
};

/** Whether what is said was there on the screen before. */
let wasSeen = false;
/** Says what is done, with a way back where there is one. */
export function tell(/** @type {string} */ text, /** @type {{ id?: number, kind?: 'good' | 'bad' }} */ { id, kind = 'good' } = {}) {
  strips.deed.className = `note ${kind}`;
  strips.deed.hidden = false;
  wasSeen = false;
  const hide = h('button', { type: 'button', className: 'quiet', onclick: () => { strips.deed.hidden = true; } }, words.dismiss);
  fill(strips.deed, h('p', {}, text), h('div', { className: 'row' }, id !== undefined && undoButton(id, serverNow() + UNDO_MS, text), hide));
  say(text, kind === 'bad');
}

// ---- Queues: what several screens change.

/** How long a change can be undone. */
const UNDO_MS = 10 * 60_000;
const UNDONE = ['change_queue', 'pause', 'resume', 'undo'];
/** What of a change a text says. */
export function changeText(/** @type {Partial<Settings>} */ before, /** @type {Partial<Settings>} */ after) {
  const parts = [];
  if (before.admitPerSecond !== after.admitPerSecond) parts.push(words.rateFromTo(rate(before.admitPerSecond ?? 0), rate(after.admitPerSecond ?? 0)));
  if (before.maxActive !== after.maxActive) parts.push(words.boundFromTo(boundText(before.maxActive), boundText(after.maxActive)));
  if (before.opensAt !== after.opensAt) parts.push(words.openingFromTo(openingText(before.opensAt), openingText(after.opensAt)));
  if (before.paused !== after.paused) parts.push(after.paused ? words.didPause : words.didResume);
  return parts.join(' · ');
}
export const boundText = (/** @type {number | null | undefined} */ bound) => (bound === null || bound === undefined ? words.noBound : count(bound));
export const openingText = (/** @type {string | null | undefined} */ at) => (at ? moment(at) : words.atOnce);

export function parsed(/** @type {string | null} */ json) {
  try {
    return JSON.parse(json ?? 'null') ?? {};
  } catch {
    return {};
  }
}
/** What was changed, as the log calls it, in the page's language. */
function targetText(/** @type {string} */ target) {
  const kind = Object.keys(words.targets).find((it) => target.startsWith(`${it} `)) ?? '';
  return kind ? /** @type {Record<string, (name: string) => string>} */ (words.targets)[kind]?.(target.slice(kind.length + 1)) : target;
}
/** What somebody did, in words. */
export function deedText(/** @type {Deed} */ deed) {
  const told = UNDONE.includes(deed.operation) || deed.undoes !== null ? changeText(parsed(deed.before), parsed(deed.after)) : '';
  const operation = /** @type {Record<string, string>} */ (words.operations)[deed.operation] ?? deed.operation;
  return `${deed.undoes === null ? '' : `${words.undid}: `}${told || `${operation}: ${targetText(deed.target)}`}`;
}
/** What of something changed, by the names that the API has for it. */
export function diff(/** @type {Deed} */ deed) {
  const [before, after] = [parsed(deed.before), parsed(deed.after)];
  const text = (/** @type {unknown} */ value) => {
    if (value === undefined || value === null) return words.nothing;
    if (typeof value !== 'string') return JSON.stringify(value);
    return /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value) ? day(value) : value;
  };
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((it) => JSON.stringify(before[it]) !== JSON.stringify(after[it]));
  return h('span', { className: 'diff' }, ...names.map((it) => h('span', {}, h('code', {}, it), ' ', before[it] !== undefined && h('del', {}, text(before[it])), ' → ', h('ins', {}, text(after[it])))));
}
export const deedSheet = (/** @type {import('./types.js').LoggedDeed[]} */ deeds) => sheet(words.log, /** @type {import('./types.js').ColumnOf<import('./types.js').LoggedDeed>[]} */ ([
  { name: words.when, cell: (it) => moment(it.at) },
  { name: words.who, cell: (it) => [h('strong', {}, it.who), h('br'), h('small', {}, `${words.roles[it.role] ?? it.role} · ${it.origin}`)] },
  { name: words.what, cell: (it) => [`${it.undoes === null ? '' : `${words.undid}: `}${/** @type {Record<string, string>} */ (words.operations)[it.operation] ?? it.operation}`, h('br'), h('small', {}, targetText(it.target))] },
  { name: words.changed, cell: diff },
  { name: words.why, cell: (it) => it.reason ?? words.nothing },
]), deeds);

export const queueOfDeed = (/** @type {Deed} */ deed) => (deed.target.startsWith('queue ') ? deed.target.slice(6) : '');
/** Until when a change can be undone: only the last one of a queue, and not for long. */
export function undoableUntil(/** @type {Deed} */ deed) {
  const queue = queueOfDeed(deed);
  if (!queue || !may('operator') || !(UNDONE.includes(deed.operation) || deed.undoes !== null)) return 0;
  const last = live?.actions.find((it) => queueOfDeed(it) === queue);
  // A later one may not be in the list yet.
  const isAsLeft = changeText(parsed(deed.after), queueOf(queue) ?? {}) === '';
  const until = Date.parse(deed.at) + UNDO_MS;
  return last?.id === deed.id && isAsLeft && until > serverNow() ? until : 0;
}
export function undoButton(/** @type {number} */ id, /** @type {number} */ until, /** @type {string} */ what) {
  return h('button', {
    type: 'button', className: 'second small', 'data-until': until, 'data-undo': id, title: words.undoUntil(clock(until)), ariaLabel: words.undoOf(what),
    onclick: async (/** @type {Event} */ event) => {
      const button = /** @type {HTMLButtonElement} */ (event.currentTarget);
      button.disabled = true;
      const answer = await call(`/log/${id}/undo`, { method: 'POST' });
      button.disabled = false;
      if (answer.ok) {
        applied(answer.body);
        tell(words.undone(what), { id: answer.body.logId });
      } else tell(errorText(answer), { kind: 'bad' });
    },
  }, words.undoFor(clockOf(until - serverNow())));
}

/** What a change has made of a queue shows at once, and not only with the next news. */
function applied(/** @type {Queue} */ queue) {
  const { paused, state, admitPerSecond, maxActive, opensAt, etag } = queue;
  const known = queueOf(queue.queue);
  if (known) Object.assign(known, { paused, state, admitPerSecond, maxActive, opensAt, etag });
  feed.dispatchEvent(new CustomEvent('changed', { detail: queue }));
  feed.dispatchEvent(new Event('news'));
}

/** Stops admission at once: nothing is asked, because it can be undone. */
export async function pause(/** @type {string} */ queue) {
  const answer = await call(`/queues/${queue}/pause`, { method: 'POST' });
  if (answer.ok) {
    applied(answer.body);
    tell(words.paused(queue), { id: answer.body.logId });
  } else tell(errorText(answer), { kind: 'bad' });
}

/** What of a queue is changed, one at a time. @typedef {'rate' | 'bound' | 'opening' | 'resume'} What */

/** A form for a change: what it would do, then a button that says it. */
export function change(/** @type {string} */ queue, /** @type {What} */ what) {
  const now = queueOf(queue);
  const { reason, row: reasonRow } = reasonField();
  const value = input('value', what === 'opening'
    ? { type: 'datetime-local', value: forInput(now?.opensAt ?? null) }
    : { inputMode: what === 'rate' ? 'decimal' : 'numeric', value: what === 'rate' ? now?.admitPerSecond ?? '' : now?.maxActive ?? '', maxLength: 12 });
  value.setAttribute('aria-describedby', 'value-hint form-wrong');
  const none = input('none', { type: 'checkbox', checked: what === 'bound' ? now?.maxActive === null : !now?.opensAt });
  none.addEventListener('change', () => {
    value.disabled = none.checked;
    ponder();
  });
  value.disabled = what !== 'rate' && none.checked;
  const would = h('dl', { className: 'would', 'aria-busy': 'true' });
  const remarks = h('div', { className: 'strips', id: 'remarks' });
  const meanwhile = h('div', { className: 'note warn', hidden: true, role: 'alert', id: 'meanwhile' });
  /** @type {Preview | null} */
  let preview = null;
  let asked = 0;

  /** What is wanted; nothing where it says nothing that can be asked. @returns {Partial<Settings> | null} */
  const wanted = () => {
    if (what === 'resume') return { paused: false };
    if (what === 'opening') {
      const at = none.checked ? null : fromInput(value.value);
      return at === '' ? null : { opensAt: at };
    }
    if (what === 'bound' && none.checked) return { maxActive: null };
    const number = Number(value.value.replaceAll(/[\s,]/g, ''));
    if (!value.value.trim() || !Number.isFinite(number)) return null;
    return what === 'rate' ? { admitPerSecond: number } : { maxActive: number };
  };
  const verb = () => {
    const it = wanted();
    if (what === 'resume') return words.verbs.resume;
    if (!it) return words.verbs[what]('…');
    if (what === 'rate') return words.verbs.rate(rate(it.admitPerSecond ?? 0));
    if (what === 'bound') return it.maxActive === null ? words.verbs.noBound : words.verbs.bound(count(it.maxActive ?? 0));
    return it.opensAt ? words.verbs.opening(moment(it.opensAt)) : words.verbs.openNow;
  };

  const { dialog, button, wrong } = openForm({
    title: words.changeOf[what](queue),
    body: [
      meanwhile,
      what === 'rate' && field(words.rate, value, words.rateHint, words.perSecond),
      what === 'bound' && field(words.bound, value, words.boundHint, words.people),
      what === 'opening' && field(words.opening, value, words.openingHint(Intl.DateTimeFormat().resolvedOptions().timeZone)),
      (what === 'bound' || what === 'opening') && h('label', { className: 'check' }, none, what === 'bound' ? words.withoutBound : words.openAtOnce),
      h('section', { className: 'form', 'aria-labelledby': 'would' }, h('h3', { id: 'would' }, words.wouldDo), would, remarks),
      reasonRow,
    ],
    verb: verb(),
    submit: async () => {
      const it = wanted();
      if (!it || !preview) return words.notYet;
      const had = preview.now;
      const others = { 'If-Match': preview.etag };
      const answer = what === 'resume'
        ? await call(`/queues/${queue}/resume`, { method: 'POST', others, reason: reason.value })
        : await call(`/queues/${queue}`, { method: 'PATCH', body: it, others, reason: reason.value });
      if (answer.ok) {
        applied(answer.body);
        tell(words.done(queue, changeText(had, answer.body)), { id: answer.body.logId });
        return undefined;
      }
      if (answer.status === 412) {
        await showOther();
        return words.lookAgain;
      }
      return errorText(answer);
    },
  });
  if (what !== 'rate' && what !== 'bound') button.focus();
  else value.select();

  /** Somebody else was faster: what they did, and what it would be now. */
  async function showOther() {
    const had = preview?.now;
    const [log] = await Promise.all([call('/log?limit=20'), reckon()]);
    const theirs = log.ok ? /** @type {Deed[]} */ (log.body.changes).find((it) => queueOfDeed(it) === queue) : undefined;
    const changed = had && preview ? changeText(had, preview.now) : '';
    if (!changed) return;
    meanwhile.hidden = false;
    fill(meanwhile, h('p', {}, words.meanwhile(theirs?.who ?? words.somebody, theirs ? clock(theirs.at) : '', changed)));
  }

  async function reckon() {
    const it = wanted();
    const mine = (asked += 1);
    button.textContent = verb();
    if (!it) {
      button.ariaDisabled = 'true';
      would.setAttribute('aria-busy', 'true');
      return;
    }
    const answer = await call(`/queues/${queue}/preview`, { method: 'POST', body: it });
    if (mine !== asked || !dialog.isConnected) return;
    would.setAttribute('aria-busy', String(!answer.ok));
    button.ariaDisabled = String(!answer.ok);
    value.setAttribute('aria-invalid', String(answer.status === 422 || answer.status === 400));
    wrong.textContent = answer.ok ? '' : errorText(answer);
    if (!answer.ok) return;
    preview = answer.body;
    draw(answer.body);
  }
  function draw(/** @type {Preview} */ { now: was, then, waiting, inside, seatsLeft, buyersServed, warnings }) {
    const row = (/** @type {string} */ name, /** @type {string} */ from, /** @type {string} */ to = from) => h('div', {}, h('dt', {}, name), h('dd', {}, from === to ? to : [h('s', {}, from), ' → ', to]));
    const emptyAt = (/** @type {import('./types.js').Outlook} */ it) => (waiting === 0 ? words.nobodyWaits : it.lineEmptyAt ? hour(it.lineEmptyAt) : words.unknown);
    fill(would,
      row(words.lastWait, span(was.lastWaitSeconds), span(then.lastWaitSeconds)),
      row(words.emptyAt, emptyAt(was), emptyAt(then)),
      row(words.insideAtMost, was.insideAtMost === null ? words.unknown : count(was.insideAtMost), then.insideAtMost === null ? words.unknown : count(then.insideAtMost)),
      row(words.waitingNow, count(waiting)), row(words.insideNow, count(inside)),
      seatsLeft !== null && row(words.seatsLeft, count(seatsLeft)),
      buyersServed !== null && row(words.buyersServed, count(buyersServed)));
    fill(remarks, warnings.map((it) => h('div', { className: 'note warn' }, h('p', {}, /** @type {Record<string, (limit: string) => string>} */ (words.warnings)[it.code]?.(rate(it.limit ?? 0)) ?? it.detail))));
  }
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let later;
  function ponder() {
    clearTimeout(later);
    asked += 1;
    button.ariaDisabled = 'true';
    button.textContent = verb();
    later = setTimeout(reckon, 250);
  }
  value.addEventListener('input', ponder);
  reckon();
  // What others change meanwhile shows at once, and not only when it is refused.
  const follow = () => {
    const etag = queueOf(queue)?.etag;
    const isNewer = preview && Date.parse(live?.at ?? '') > Date.parse(preview.at);
    if (isNewer && etag && etag !== preview?.etag && button.ariaBusy !== 'true') showOther();
  };
  feed.addEventListener('news', follow);
  dialog.addEventListener('close', () => feed.removeEventListener('news', follow));
}

if (screenAt('now')) start();
