// What the fan's pages share: languages, elements, what this browser keeps, the service and its clock, and the frame
// around each page. One module, because each file more is a round trip more on a slow line.
//
// What does not belong here: anything that only one page does.

// ---- What this browser keeps.

/** @typedef {import('../types.js').Place} Place */
/** @typedef {import('../types.js').Grade} Grade */
/** @typedef {import('../types.js').Hold} Hold */
/** @typedef {import('../types.js').Intent} Intent */
/** @typedef {import('../types.js').Answer} Answer */
/** @typedef {import('../types.js').Concert} Concert */
/** @typedef {import('../types.js').Reservation} Reservation */

const PREFIX = 'boxoffice.';
/** @type {Map<string, string>} */
const inMemory = new Map();
let isBlocked = false;
try {
  localStorage.setItem('boxoffice.probe', '1');
  localStorage.removeItem('boxoffice.probe');
} catch {
  isBlocked = true;
}

/** @returns {string | null} */
export const kept = (/** @type {string} */ name) => (isBlocked ? inMemory.get(name) ?? null : localStorage.getItem(PREFIX + name));

export function keep(/** @type {string} */ name, /** @type {string} */ value) {
  inMemory.set(name, value);
  if (isBlocked) return;
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch {
    isBlocked = true;
  }
}

/** What is kept as JSON under a name; null where there is nothing, or nothing that can be read. */
function keptJson(/** @type {string} */ name) {
  try {
    return JSON.parse(kept(name) ?? 'null');
  } catch {
    return null;
  }
}

function namesOf(/** @type {string} */ kind) {
  const names = isBlocked ? [...inMemory.keys()] : Object.keys(localStorage).filter((it) => it.startsWith(PREFIX)).map((it) => it.slice(PREFIX.length));
  return names.filter((it) => it.startsWith(kind));
}

/** How people are known: `none` where they are believed, `jwt`, or `sign-in` where they sign in on these pages. */
const auth = document.querySelector('meta[name="boxoffice-auth"]')?.getAttribute('content');
/** Whether people are known: then nobody chooses a number, or makes points. */
export const isKnown = auth === 'jwt' || auth === 'sign-in';
/** Whether they sign in on these pages. */
export const signsIn = auth === 'sign-in';
/** Who is signed in. @type {{ name: string, userId: string | number } | null} */
let me = null;
export const user = () => (signsIn ? String(me?.userId ?? '') : kept('user') ?? '');
/** The place of this user in a queue. @returns {Place | null} */
export const placeIn = (/** @type {string} */ queue) => (user() ? keptJson(`place.${queue}.${user()}`) : null);
export const keepPlace = (/** @type {Place} */ place) => keep(`place.${place.queue}.${place.user}`, JSON.stringify(place));
/** All places of this browser. @returns {Place[]} */
export const places = () => namesOf('place.').map(keptJson).filter(Boolean);
/** A reservation of this browser. @returns {Hold | null} */
export const holdOf = (/** @type {string} */ rid) => keptJson(`hold.${rid}`);
export const keepHold = (/** @type {Hold} */ hold) => keep(`hold.${hold.rid}`, JSON.stringify(hold));
/** A ticket as it was shown last, for where there is no network. @returns {import('../types.js').Shown | null} */
export const ticketOf = (/** @type {string} */ rid) => keptJson(`ticket.${rid}`);
export const keepTicket = (/** @type {string} */ rid, /** @type {import('../types.js').Shown | null} */ shown) => keep(`ticket.${rid}`, JSON.stringify(shown));
/** All reservations of this browser, the newest first. @returns {Hold[]} */
export const holds = () => namesOf('hold.').map(keptJson).filter(Boolean).sort((a, b) => b.rid - a.rid);
/** The hold whose outcome is not known yet. @returns {Intent | null} */
export const intentOf = (/** @type {string} */ session) => keptJson(`intent.${session}.${user()}`);
export const keepIntent = (/** @type {string} */ session, /** @type {Intent | null} */ intent) => keep(`intent.${session}.${user()}`, JSON.stringify(intent));

/** Forgets all that these pages keep in this browser, but for the language. */
export function forgetAll() {
  for (const name of namesOf('')) {
    if (name === 'lang') continue;
    inMemory.delete(name);
    if (!isBlocked) localStorage.removeItem(PREFIX + name);
  }
  try {
    sessionStorage.clear();
  } catch {
    // It is blocked, too.
  }
}

export const newKey = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint32Array(4))].join('-');

/** Tokens of this user that may show reservations, the likeliest first: a place in line shows none yet. */
export function tokens(/** @type {string} */ rid = '') {
  const hold = holdOf(rid);
  const mine = [hold?.user === user() && hold.token, ...places().filter((it) => it.user === user() && it.status !== 'WAITING').map((it) => it.token), ...holds().filter((it) => it.user === user()).map((it) => it.token)];
  return [...new Set(mine)].filter(Boolean).map(String).slice(0, 4);
}

// ---- Languages.

const query = new URLSearchParams(location.search);
/** As it was found before this was there; see language.js. */
export const { lang: language } = document.documentElement;
if (query.has('lang')) keep('lang', language);
export const words = language === 'ko' ? (await import('/assets/i18n/ko.js')).ko : (await import('/assets/i18n/en.js')).en;

export const count = (/** @type {number} */ n) => n.toLocaleString(language);
export const points = (/** @type {number} */ n) => words.points(count(n));
export const dayTime = (/** @type {string} */ at) => new Date(at).toLocaleString(language, { weekday: 'short', month: 'long', day: 'numeric', hour: 'numeric', minute: '2-digit' });
export const longDayTime = (/** @type {string} */ at) => new Date(at).toLocaleString(language, { weekday: 'long', year: 'numeric', month: 'long', day: 'numeric', hour: 'numeric', minute: '2-digit' });
export const timeOf = (/** @type {string} */ at) => new Date(at).toLocaleTimeString(language, { hour: 'numeric', minute: '2-digit' });
export function clockOf(/** @type {number} */ ms) {
  const s = Math.max(0, Math.ceil(ms / 1_000));
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const [d, h, m] = [Math.floor(s / 86_400), Math.floor(s / 3_600) % 24, Math.floor(s / 60) % 60];
  const time = d || h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
  return d ? words.days(d, time) : time;
}
/** "A and B" in the page's language. */
export const listOf = (/** @type {string[]} */ items) => new Intl.ListFormat(language).format(items);

// ---- Elements.

/** @typedef {import('../types.js').Child} Child */

/**
 * Makes an element. Properties are set as such where the element has them; others, and `aria-` and `data-`, as attributes.
 * @param {string} tag
 * @param {Record<string, any>} properties
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name in element) /** @type {any} */ (element)[name] = value;
    else element.setAttribute(name, String(value));
  }
  element.append(...withoutGaps(children));
  return element;
}
const withoutGaps = (/** @type {(Child | Child[])[]} */ children) => children.flat().filter((it) => it !== null && it !== undefined && it !== false).map((it) => (it instanceof Node ? it : String(it)));

/** Replaces what is in an element; what had the focus keeps it, by its id. */
export function fill(/** @type {HTMLElement} */ element, /** @type {(Child | Child[])[]} */ ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement?.id : '';
  element.replaceChildren(...withoutGaps(children));
  if (focused) document.getElementById(focused)?.focus();
}

/** An element of a picture. */
export function svg(/** @type {string} */ tag, /** @type {Record<string, string | number>} */ attributes = {}, /** @type {(Node | string)[]} */ ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Has the browser keep a file that was made here. */
export function download(/** @type {string} */ name, /** @type {Blob} */ blob) {
  const href = URL.createObjectURL(blob);
  /** @type {HTMLAnchorElement} */ (h('a', { href, download: name })).click();
  // Some browsers read it after the click.
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** Makes what is in an element into what is wanted, and keeps its parts: what is being pressed is not to vanish under the finger. */
export function renew(/** @type {HTMLElement} */ element, /** @type {(Child | Child[])[]} */ ...children) {
  const wanted = document.createElement('div');
  wanted.append(...withoutGaps(children));
  match(element, wanted);
}
function match(/** @type {Element} */ old, /** @type {Element} */ wanted) {
  const [now, then] = [[...old.childNodes], [...wanted.childNodes]];
  if (now.length !== then.length || now.some((it, index) => it.nodeName !== then[index]?.nodeName)) return old.replaceChildren(...then);
  for (const [index, it] of now.entries()) {
    const to = then[index];
    if (it instanceof HTMLElement && to instanceof HTMLElement) {
      for (const { name } of [...it.attributes]) if (!to.hasAttribute(name)) it.removeAttribute(name);
      for (const { name, value } of to.attributes) if (it.getAttribute(name) !== value) it.setAttribute(name, value);
      it.onclick = to.onclick;
      match(it, to);
    } else if (to && it.textContent !== to.textContent) it.textContent = to.textContent;
  }
}

export const main = /** @type {HTMLElement} */ (document.querySelector('main'));
const said = h('p', { className: 'unseen', role: 'status' });
const cried = h('p', { className: 'unseen', role: 'alert' });
/** Tells readers of screens. */
export function say(/** @type {string} */ what, isUrgent = false) {
  (isUrgent ? cried : said).textContent = what;
}

/** Asks before what cannot be undone. @returns {Promise<boolean>} */
export function confirm(/** @type {string} */ question, /** @type {string} */ yes, /** @type {string} */ no) {
  const dialog = /** @type {HTMLDialogElement} */ (h('dialog', { 'aria-labelledby': 'question' },
    h('p', { id: 'question' }, question),
    h('form', { method: 'dialog' }, h('button', { className: 'primary', value: 'no' }, no), h('button', { className: 'second', value: 'yes' }, yes))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
  });
}

/** Calls it now and every second. */
export function everySecond(/** @type {() => void} */ what) {
  what();
  return setInterval(what, 1_000);
}

export const note = (/** @type {'warn' | 'good' | ''} */ kind, /** @type {Child[]} */ ...children) => h('div', { className: `note ${kind}` }, ...children);
export const link = (/** @type {string} */ className, /** @type {string} */ href, /** @type {Child[]} */ ...children) => h('a', { className, href }, ...children);

// ---- The service, and its clock: between what its answers allow, as far as whole seconds tell.

let earliest = -Infinity;
let latest = Infinity;
function setClock(/** @type {Response} */ response, /** @type {number} */ sent) {
  const date = Date.parse(response.headers.get('Date') ?? '');
  if (!date || response.headers.has('Age')) return;
  const [from, to] = [date - Date.now(), date + 1_000 - sent];
  earliest = Math.max(earliest, from);
  latest = Math.min(latest, to);
  // The clock here was set: only what came after that counts.
  if (earliest > latest) [earliest, latest] = [from, to];
}
export const serverNow = () => Date.now() + (earliest === -Infinity ? 0 : (earliest + latest) / 2);
/** Milliseconds from now, by the service's clock. */
export const until = (/** @type {string} */ at) => Date.parse(at) - serverNow();

const TIMEOUT_MS = 10_000;
export const API = '/api/v1';

/**
 * Asks the service once.
 * @param {string} path
 * @param {{ method?: string, token?: string, key?: string, body?: object, etag?: string, others?: Record<string, string>, api?: string, timeoutMs?: number, cache?: RequestCache }} options
 * @returns {Promise<Answer>} With the status 0 where there was no answer.
 */
export async function ask(path, { method = 'GET', token, key, body, etag, others = {}, api = API, timeoutMs = TIMEOUT_MS, cache = 'no-store' } = {}) {
  const sent = Date.now();
  const abort = new AbortController();
  const late = setTimeout(() => abort.abort(), timeoutMs);
  /** @type {Record<string, string>} */
  const headers = { ...others };
  if (token) headers['QUEUE-TOKEN'] = token;
  if (key) headers['Idempotency-Key'] = key;
  if (body) headers['Content-Type'] = 'application/json';
  if (etag) headers['If-None-Match'] = etag;
  try {
    const response = await fetch(api + path, { method, headers, body: body && JSON.stringify(body), cache, signal: abort.signal });
    setClock(response, sent);
    const hasBody = response.status !== 204 && response.status !== 304;
    const answer = hasBody ? await response.json() : {};
    if (response.status === 401 && isSignedOut(answer.code) && me) tellSignedOut();
    return {
      status: response.status, ok: response.ok, body: answer, code: response.ok ? '' : answer.code ?? '',
      retryAfter: Number(response.headers.get('Retry-After')) || 0, etag: response.headers.get('ETag') ?? '',
    };
  } catch {
    return { status: 0, ok: false, body: {}, code: navigator.onLine ? 'UNREACHABLE' : 'OFFLINE', retryAfter: 0, etag: '' };
  } finally {
    clearTimeout(late);
  }
}

/** Whether the same may be asked again with another outcome, and nobody knows whether it was done. */
export const isPassing = (/** @type {Answer} */ answer) => answer.status === 0 || answer.status === 408 || answer.status === 429 || answer.status >= 500 || answer.code === 'IDEMPOTENCY_IN_FLIGHT';

/** How long to wait after a failure: as told and up to half more, or else a random time that grows. */
function pauseMs(/** @type {Answer} */ answer, /** @type {number} */ failures) {
  if (answer.retryAfter) return answer.retryAfter * 1_000 * (1 + Math.random() / 2);
  return Math.max(1_000, Math.random() * Math.min(30_000, 1_000 * 2 ** failures));
}

/**
 * Asks until there is an answer that stays, with the same idempotency key each time.
 * @param {string} path
 * @param {Parameters<typeof ask>[1]} options
 * @param {number} attempts After so many the last answer is returned, whatever it is.
 * @returns {Promise<Answer>}
 */
export async function insist(path, options = {}, attempts = Infinity) {
  for (let failures = 1; ; failures += 1) {
    const answer = await ask(path, options);
    if (!isPassing(answer) || failures >= attempts) {
      if (waits.size === 0) trouble.hidden = true;
      return answer;
    }
    await showTrouble(answer, pauseMs(answer, failures));
  }
}

const trouble = h('div', { className: 'note warn trouble', hidden: true, role: 'status' });
/** What ends each wait that is on: several things may be asked again at a time, each when it was told to. @type {Set<() => void>} */
const waits = new Set();
const stopWaiting = () => [...waits].forEach((stop) => stop());
/** Says what is wrong and waits for so long, or until somebody wants it now or the network is back. @returns {Promise<void>} */
function showTrouble(/** @type {Answer} */ answer, /** @type {number} */ ms) {
  trouble.hidden = false;
  const isOffline = answer.code === 'OFFLINE';
  fill(trouble, h('p', {}, errorText(answer), ' ', isOffline ? words.goesOn : words.triesAgain(Math.ceil(ms / 1_000))),
    h('button', { id: 'try-now', className: 'quiet', type: 'button', onclick: stopWaiting }, words.tryNow));
  return new Promise((resolve) => {
    // Not all at once: a whole building may be back at the same time.
    const back = () => setTimeout(stop, Math.random() * 1_000);
    const stop = () => {
      clearTimeout(timer);
      removeEventListener('online', back);
      waits.delete(stop);
      resolve();
    };
    const timer = setTimeout(stop, ms);
    addEventListener('online', back, { once: true });
    waits.add(stop);
  });
}

addEventListener('offline', () => {
  if (trouble.hidden) fill(trouble, h('p', {}, words.errors.OFFLINE, ' ', words.goesOn));
  trouble.hidden = false;
});
addEventListener('online', () => {
  // What is asked again at the moment says itself when it is done.
  if (!trouble.querySelector('button')) trouble.hidden = true;
});

/** What an error says to a fan. */
export function errorText(/** @type {Answer} */ answer) {
  const texts = /** @type {Record<string, string>} */ (words.errors);
  const known = texts[answer.code] ?? (answer.status >= 500 ? texts.INTERNAL : answer.body.message) ?? words.unexpected;
  return answer.status >= 500 && answer.body.requestId ? `${known} (${answer.body.requestId})` : known;
}

// ---- Seats and what they cost.

/** What a seat is called: where it is in its hall, or its number. */
export const seatName = (/** @type {import('../types.js').ReservedSeat} */ { number, place }) => (place ? words.place(place.section, place.row ?? '', [place.number]) : words.seat(String(number)));
/** And of which grade it is, where there are such. */
export const gradedName = (/** @type {import('../types.js').ReservedSeat} */ seat) => [seatName(seat), seat.place && words.grade(seat.place.grade)].filter(Boolean).join(', ');

/** The grades of a session, or its prices, from the dearest on, each with a short sign where there are several. @returns {Grade[]} */
export function gradesOf(/** @type {import('../types.js').Session} */ { prices }) {
  const isShort = prices.every(({ grade }) => grade && [...grade].length <= 3);
  const letter = (/** @type {number} */ index) => (prices.length > 1 ? String.fromCharCode(65 + Math.min(25, index)) : '');
  return prices.map(({ grade, price, availableSeatCount }, index) => ({ name: grade ?? '', sign: (isShort && grade) || letter(index), price, free: availableSeatCount }));
}
/** The sign of a grade; its colour only repeats what it says. */
export const chip = (/** @type {string} */ sign, /** @type {number} */ index) => sign !== '' && h('b', { className: `grade g${index % 4}` }, sign);

/** A concert, for whoever asks. */
export const readConcert = (/** @type {string | number} */ id) => insist(`/concerts/${id}`);

const isSignedOut = (/** @type {string | undefined} */ code) => signsIn && code?.startsWith('PERSON_TOKEN') === true;

/** A reservation, for whoever is signed in, or with the first token that may show it. @returns {Promise<{ answer: Answer, token: string }>} */
export async function readReservation(/** @type {string} */ rid) {
  /** @type {Answer} */
  let answer = { status: 401, ok: false, body: {}, code: 'NOT_HERE', retryAfter: 0, etag: '' };
  if (signsIn) return { answer: await insist(`/reservations/${rid}`), token: tokens(rid)[0] ?? '' };
  for (const token of tokens(rid)) {
    answer = await insist(`/reservations/${rid}`, { token });
    if (answer.ok) return { answer, token };
  }
  return { answer, token: '' };
}

// ---- Who is signed in.

/** The way to sign in, and back to this page. Who has signed out is asked who they are. */
const toSignIn = () => `/auth/login?return=${encodeURIComponent(location.pathname + location.search)}${kept('out') ? '&prompt=login' : ''}`;

/** Why nobody can buy here yet; empty where somebody can. */
export const whoIsMissing = () => (signsIn ? (me ? '' : words.signInFirst) : isKnown ? words.signIn : '');
/** The way to sign in, where there is one. */
export const signInLink = (id = 'sign-in') => signsIn && h('a', { className: 'primary', id, href: toSignIn() }, words.toSignIn);

const account = h('p', { className: 'demo', id: 'account' });
const notice = h('div', { id: 'notice', className: 'note warn trouble', role: 'alert', hidden: true });
function showNotice(/** @type {Child[]} */ ...children) {
  fill(notice, ...children);
  notice.hidden = false;
}

/** The sign-in is over; what is on the page stays, and what is kept waits for the same person. */
function tellSignedOut() {
  if (!notice.hidden) return;
  showNotice(h('p', {}, words.signedOut), signInLink('sign-in-again'));
}

function drawAccount() {
  if (!signsIn) return fill(account, isKnown ? words.signIn : user() ? words.demo(user()) : words.demoNobody);
  if (!me) return fill(account, h('a', { className: 'quiet', href: toSignIn() }, words.toSignIn));
  fill(account, words.signedInAs(me.name || words.memberOf(user())), ' ', h('button', { type: 'button', id: 'sign-out', className: 'quiet', onclick: signOut }, words.signOut));
}

/** Signs out in this browser. The next person is to be asked who they are. */
export async function signOut() {
  const answer = await insist('/auth/logout', { api: '', method: 'POST' }, 3);
  if (!answer.ok) return showNotice(h('p', {}, errorText(answer)));
  keep('out', '1');
  // It tells the other tabs.
  keep('user', '');
  location.assign('/');
}

/** Asks who is signed in. Without an answer it is who it was. */
async function readMe() {
  // At an entrance nobody waits for long.
  const answer = await ask('/auth/me', { api: '', timeoutMs: 3_000 });
  const before = kept('user');
  if (answer.ok) {
    me = answer.body;
    keep('user', user());
    keep('out', '');
  } else if (answer.status !== 401 && before) {
    me = { name: '', userId: before };
  }
}

// ---- The frame around each page.

/** Whose pages these are. */
export const organiser = document.title;
const brand = /** @type {HTMLElement} */ (document.querySelector('.brand'));

/** The symbol and the word for each state: nobody is to tell them by colour alone. */
const BADGES = /** @type {Record<string, [string, string]>} */ ({
  OPEN: ['good', '●'], SCHEDULED: ['', '◷'], SOLD_OUT: ['bad', '✕'], ENDED: ['', '■'], CANCELLED: ['bad', '✕'],
  HELD: ['warn', '◷'], PAID: ['good', '✓'], EXPIRED: ['', '■'], REFUNDED: ['', '↩'], WAITING: ['', '…'], ACTIVATED: ['good', '★'],
});
export function badge(/** @type {string} */ state) {
  const [kind, symbol] = BADGES[state] ?? ['', '·'];
  return h('span', { className: `badge ${kind}` }, h('span', { 'aria-hidden': 'true' }, symbol), ' ', /** @type {Record<string, string>} */ (words.states)[state] ?? state);
}

/** How the sale of a concert stands, by the service's clock. */
export function saleOf(/** @type {{ reservationOpensAt: string, reservationClosesAt: string, state?: string }} */ concert) {
  if (concert.state === 'CANCELLED' || concert.state === 'SOLD_OUT') return concert.state;
  if (until(concert.reservationOpensAt) > 0) return 'SCHEDULED';
  return until(concert.reservationClosesAt) > 0 ? 'OPEN' : 'ENDED';
}

/** The ways to seats that this browser holds and has not paid. */
export function unpaid() {
  const held = holds().filter((it) => it.user === user() && it.status === 'HELD' && until(it.expiresAt) > 0);
  return held.map((it) => link('resume', `/pay/${it.rid}`, h('span', {}, h('strong', {}, words.payOn), h('small', {}, it.name ?? '')), badge('HELD')));
}

/** What this browser can go on with: places in lines and seats to be paid. */
export const unfinished = () => [...unpaid(), ...inLine()];

/** The lines that this person is in, and the turns that they have. */
export function inLine() {
  const lines = places().filter((it) => it.user === user() && it.token && (it.status === 'WAITING' || (it.status === 'ACTIVATED' && until(it.activeUntil ?? '') > 0)));
  return lines.map((it) => link('resume', it.status === 'ACTIVATED' && it.concert ? `/c/${it.concert}` : `/wait/${it.queue}`,
      h('span', {}, h('strong', {}, it.status === 'ACTIVATED' ? words.turnOn : words.lineOn), h('small', {}, it.status === 'ACTIVATED' ? words.turnUntil(timeOf(it.activeUntil ?? '')) : it.number ? words.ahead(count(it.number - 1)) : '')), badge(it.status ?? '')));
}

/** Takes a word out of the address. */
function leaveOut(/** @type {string} */ name) {
  query.delete(name);
  history.replaceState(null, '', String(query) ? `?${query}` : location.pathname);
}

/** Goes on in the other language. */
export function switchLanguage() {
  keep('lang', language === 'ko' ? 'en' : 'ko');
  leaveOut('lang');
  location.reload();
}

/** Makes the frame, and names the page. */
export function frame(/** @type {string} */ title) {
  document.title = `${title} · ${organiser}`;
  const here = location.pathname;
  const item = (/** @type {string} */ href, /** @type {string} */ text) => h('a', { href, 'aria-current': here === href ? 'page' : null }, text);
  document.querySelector('header')?.replaceChildren(...withoutGaps([
    h('a', { className: 'skip', href: '#main' }, words.skip),
    account,
    brand,
    h('nav', { ariaLabel: words.menu }, item('/', words.concerts), item('/me', words.mine),
      h('button', { type: 'button', className: 'quiet', lang: language === 'ko' ? 'en' : 'ko', onclick: switchLanguage }, language === 'ko' ? 'English' : '한국어')),
    isBlocked && note('warn', h('p', {}, words.blocked)),
  ]));
  const failure = query.get('signin');
  if (failure) {
    leaveOut('signin');
    showNotice(h('p', {}, words.signInFailures[failure] ?? words.signInFailures.failed), signInLink('sign-in-again'));
  }
  drawAccount();
  ready();
}

/** Gives the main part its name, and the places before it where news is told. */
export function ready() {
  main.id = 'main';
  main.before(said, cried, trouble, notice);
}

/** A page that has nothing to show but why. */
export function apology(/** @type {string} */ title, /** @type {string} */ text, /** @type {Child[]} */ ...children) {
  document.title = `${title} · ${organiser}`;
  fill(main, h('section', { className: 'card centre' }, h('h1', { id: 'title', tabIndex: -1 }, title), h('p', {}, text), ...children));
}

/** Says why a reservation cannot be shown. */
export function notShown(/** @type {Answer} */ answer) {
  if (isSignedOut(answer.code)) return apology(words.toSignIn, words.signInFirst, signInLink());
  return apology(words.notHere, answer.code === 'NOT_HERE' ? words.notHereText : errorText(answer), link('primary', '/me', words.mine));
}

// Before any page asks whose place it shows.
if (signsIn) await readMe();
