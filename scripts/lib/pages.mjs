// A fan in a browser, on every page that the service has for fans; and an operator in the console (console.mjs).
//
// Usage: node pages.mjs BASE_URL OUT_DIR [PART-OF-A-NAME…]
//
// BASE_URL is a running service with the demo data, whose admin token is in BOXOFFICE_TEST_ADMIN_TOKEN. Screenshots of every
// screen go to OUT_DIR. BOXOFFICE_TEST_STOP and BOXOFFICE_TEST_START are shell commands that stop the service and start it
// again at the same address. BOXOFFICE_TEST_ORGANISED is another service, that of an organiser with a name.
// BOXOFFICE_TEST_KNOWN is a service at which people sign in, whose admin token is in BOXOFFICE_TEST_KNOWN_ADMIN_TOKEN, and
// BOXOFFICE_TEST_ISSUER where they do (scripts/lib/issuer.mjs). CHROMIUM is the browser, where it is not `chromium`. What is needed besides is in
// .tools/playwright (scripts/tools playwright).
//
// Every screen is held against WCAG 2.2 AA (axe), light and dark; is no wider than it should be; and has only targets that a
// finger can hit. An error in the console is a failure, unless the test has asked for it.
import assert from 'node:assert/strict';
import { execFileSync, execSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { en } from '../../crates/server/pages/i18n/en.js';
import { ko } from '../../crates/server/pages/i18n/ko.js';
import { consoleTests } from './console.mjs';

const [ours, out, ...only] = process.argv.slice(2);
/** The service that the test that runs is about, and its admin token. */
let [base, adminToken] = [ours, process.env.BOXOFFICE_TEST_ADMIN_TOKEN];
const tools = new URL('../../.tools/playwright/node_modules/', import.meta.url);
const { chromium } = await import(new URL('playwright-core/index.mjs', tools).href);
const axe = readFileSync(new URL('axe-core/axe.min.js', tools), 'utf8');
const jsqr = readFileSync(new URL('jsqr/dist/jsQR.js', tools), 'utf8');
const organised = process.env.BOXOFFICE_TEST_ORGANISED ?? '';
const executablePath = process.env.CHROMIUM ?? execFileSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim();
mkdirSync(out, { recursive: true });

const sleep = (ms) => new Promise((later) => setTimeout(later, ms));
const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 900 };
/** Bytes over the wire. */
const WAITING_PAGE_MAX = 14 * 1024;
const PAGE_MAX = 40 * 1024;
const REQUESTS_MAX = 6;
/** Of a hall with 50,000 places: code, plan and states; and milliseconds until there is something to choose, on a slow CPU. */
const HALL_MAX = 60 * 1024;
const HALL_MS_MAX = 1_000;
const SLOW_CPU = 4;

// ---- The service.

async function call(method, path, body, { token, admin = path.startsWith('/admin') } = {}) {
  const headers = { 'Content-Type': 'application/json' };
  if (token) headers['QUEUE-TOKEN'] = token;
  if (admin) headers.Authorization = `Bearer ${adminToken}`;
  const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

let sales = 0;
// The service may have seen this test before.
let members = Math.floor(Math.random() * 1_000);
/** Somebody whom no other test knows. */
function member() {
  members = (members % 1_000) + 1;
  return members;
}
const inSeconds = (seconds) => new Date(Date.now() + seconds * 1_000).toISOString();

/** A concert behind a line of its own. */
async function sale({ seats = 40, price = 1_000, more = [], opens = -60, closes = 86_400, queue = {}, session = 40 * 86_400, hall, named, venue = 'Riverside Hall' } = {}) {
  sales += 1;
  const name = `pages-${process.pid % 10_000}-${sales}`;
  await call('POST', '/admin/v1/queues', { queue: name, admitPerSecond: 50, ...queue });
  const concert = await call('POST', '/admin/v1/concerts', {
    name: named ?? `Evening ${sales}`, venue, queue: name, reservationOpensAt: inSeconds(opens), reservationClosesAt: inSeconds(closes),
  });
  const made = await call('POST', `/admin/v1/concerts/${concert.concertId}/sessions`, { concertAt: inSeconds(session), ...(hall ?? { seatCount: seats, price }) });
  for (const [seatCount, its] of more) await call('POST', `/admin/v1/concerts/${concert.concertId}/sessions/${made.sessionId}/seats`, { seatCount, price: its });
  return { queue: name, concert: concert.concertId, session: made.sessionId, seat: made.firstSeatId, wait: `/wait/${name}?c=${concert.concertId}` };
}
/**
 * A hall as the public editor of pretix writes it. A section: [name, rows, seats in a row, x, y, category of a row, more], an
 * area for standing: [text, x, y].
 */
function pretix(sections, areas = [], name = 'Riverside Hall') {
  const categories = new Set();
  const zones = sections.map(([zone, rows, seats, x, y, category, { rowName = (row) => String(row + 1), seatName = (seat) => String(seat + 1), bend = 0 } = {}]) => ({
    name: zone, position: { x, y }, uuid: `zone-${zone}`, zone_id: `zone-${zone}`,
    rows: Array.from({ length: rows }, (_, row) => {
      categories.add(category(row));
      return {
        position: { x: 0, y: row * 26 }, row_number: rowName(row), row_number_position: 'both', uuid: `row-${zone}-${row}`,
        seats: Array.from({ length: seats }, (_, seat) => ({
          seat_number: seatName(seat), seat_guid: `${zone}-${row + 1}-${seat + 1}`, uuid: `seat-${zone}-${row}-${seat}`, category: category(row),
          position: { x: seat * 24, y: bend * ((seat / seats) * 2 - 1) ** 2 },
        })),
      };
    }),
    areas: [],
  }));
  const standing = areas.map(([text, x, y]) => ({
    shape: 'rectangle', color: '#eeeeee', border_color: '#333333', rotation: 0, uuid: `area-${text}`, position: { x, y }, rectangle: { width: 260, height: 60 },
    text: { text, color: '#333333', position: { x: 130, y: 30 } },
  }));
  const right = Math.max(...sections.map(([, , seats, x]) => x + seats * 24));
  const bottom = Math.max(...sections.map(([, rows, , , y]) => y + rows * 26));
  return {
    name, size: { width: right + 60, height: bottom + 60 }, categories: [...categories].map((it) => ({ name: it, color: '#4b96ff' })),
    zones: [...zones, ...(standing.length > 0 ? [{ name: 'Areas', position: { x: 0, y: 0 }, uuid: 'areas', zone_id: 'areas', rows: [], areas: standing }] : [])],
  };
}
const PRICES = { VIP: 198_000, R: 154_000, S: 121_000, A: 88_000 };
/** 424 places: A (VIP and R), B and C (S), a balcony (A), and an area for standing (S) at the end. */
const theatre = () => ({
  plan: pretix([
    ['A', 8, 14, 250, 200, (row) => (row < 3 ? 'VIP' : 'R')], ['B', 6, 10, 620, 220, () => 'S', { bend: 30 }], ['C', 6, 10, 0, 220, () => 'S', { bend: 30 }],
    ['Balcony', 4, 28, 90, 480, () => 'A'],
  ], [['Floor', 290, 100]]),
  prices: PRICES, standing: [{ area: 'Floor', count: 80, category: 'S' }],
});
const pause = (it) => call('POST', `/admin/v1/queues/${it.queue}/pause`);
const resume = (it) => call('POST', `/admin/v1/queues/${it.queue}/resume`);
const joinLine = (it, userId) => call('POST', '/api/v1/waiting-queues', { userId, queue: it.queue });
async function admitted(it, userId) {
  const { token } = await joinLine(it, userId);
  for (;;) {
    if ((await call('GET', '/api/v1/waiting-queues', undefined, { token })).status === 'ACTIVATED') return token;
    await sleep(100);
  }
}
/** Calls a session off, and waits until everybody has that: the service and browsers keep the public document for a second. */
async function callOff(it) {
  await call('POST', `/admin/v1/concerts/${it.concert}/sessions/${it.session}/cancel`);
  await sleep(2_500);
  assert.ok((await call('GET', `/api/v1/concerts/${it.concert}`)).sessions[0].cancelled);
}
async function buy(it, userId, seatIds) {
  const token = await admitted(it, userId);
  const { reservationId } = await call('POST', `/api/v1/concerts/${it.concert}/sessions/${it.session}/reservations`, { userId, seatIds }, { token });
  return call('POST', '/api/v1/payments', { userId, reservationId }, { token });
}
const balanceOf = async (userId) => (await call('GET', `/api/v1/users/${userId}/points`)).totalAmount;

// ---- The browser.

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
/** What goes wrong in the test that runs. */
let problems = [];

/**
 * Somebody with a browser of their own. `allowed`: what the console may say, such as that a request was refused; `others`: an
 * origin that it may ask beside the service.
 */
async function visitor({ language = 'en', viewport = PHONE, allowed = /^$/, scheme = 'light', at = base, others = '', ...more } = {}) {
  const context = await browser.newContext({ viewport, locale: language === 'ko' ? 'ko-KR' : 'en-GB', timezoneId: 'Asia/Seoul', colorScheme: scheme, ...more });
  context.setDefaultTimeout(45_000);
  const watch = (page) => {
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type()) && !allowed.test(message.text())) problems.push(`console: ${message.text()} ${message.location().url}`);
    });
    page.on('pageerror', (error) => problems.push(`page: ${error.stack}`));
    page.on('dialog', (dialog) => { problems.push(`a dialog of the browser: ${dialog.message()}`); dialog.dismiss(); });
    page.on('request', (request) => {
      if (![at, organised, others].some((it) => it && new URL(request.url()).origin === new URL(it).origin)) problems.push(`another host: ${request.url()}`);
    });
  };
  context.on('page', watch);
  const page = await context.newPage();
  const open = (path, where = page) => where.goto(at + path);
  return { context, page, open, close: () => context.close() };
}

const text = (page, selector) => page.locator(selector).innerText();
const state = (page, wanted) => page.waitForFunction((it) => document.body.dataset.state === it, wanted);
const kept = (page, name) => page.evaluate((it) => JSON.parse(localStorage.getItem(it) ?? 'null'), `boxoffice.${name}`);

/** A screen: held against what all have to keep, light and dark, with a picture of both. */
async function screen(page, name) {
  await page.waitForLoadState('load');
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    const file = join(out, `${name}-${scheme}.png`);
    // What sticks to the window's edge would lie across the middle of a whole page.
    await page.screenshot({ path: file, fullPage: await page.locator('.dock:visible, dialog[open]').count() === 0, animations: 'disabled' });
    await page.evaluate(axe);
    const found = await page.evaluate(() => globalThis.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations'],
      // The rule for names that have what is to be seen in them compares whole words; in 12번 it does not find 12.
      rules: { 'target-size': { enabled: true }, 'label-content-name-mismatch': { enabled: document.documentElement.lang !== 'ko' } },
    }).then(({ violations }) => violations.map((it) => `${it.id}: ${it.nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join(' | ')}`)));
    for (const violation of found) problems.push(`${name}, ${scheme}: ${violation}`);
  }
  await page.emulateMedia({ colorScheme: null });
  const size = page.viewportSize();
  for (const width of [size.width, 320]) {
    await page.setViewportSize({ ...size, width });
    // What depends on the width is drawn anew.
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    const { scroll, small } = await page.evaluate(() => ({
      scroll: document.documentElement.scrollWidth - innerWidth,
      small: [...document.querySelectorAll('a, button, input:not([type=radio]), select')].filter((it) => it.checkVisibility({ visibilityProperty: true })).map((it) => ({ it, box: it.getBoundingClientRect() }))
        .filter(({ box }) => box.width > 1 && (box.width < 24 || box.height < 24)).map(({ it, box }) => `${it.id || it.textContent} ${box.width} × ${box.height}`),
    }));
    if (scroll > 0) problems.push(`${name}: ${scroll} px too wide at ${width} px`);
    if (small.length > 0) problems.push(`${name}: too small for a finger at ${width} px: ${small.slice(0, 5).join(', ')}`);
  }
  await page.setViewportSize(size);
}

/** Opens the waiting page, and joins as somebody. */
async function enter(page, it, userId) {
  await page.goto(base + it.wait);
  if (await page.locator('#who').isVisible()) {
    await page.fill('#member', String(userId));
    await page.click('#join');
  }
}
async function toSeats(page, it, userId) {
  await enter(page, it, userId);
  await state(page, 'turn');
  await page.click('#enter');
  await page.click(`#s${it.session}`);
  await drawn(page);
}
const drawn = (page) => page.waitForSelector('.view > *');
/** A seat by its number. */
const seatOf = (page, number) => page.locator(`[data-n="${number}"]`);
const lookOf = (page, number) => seatOf(page, number).getAttribute('data-look');
const looks = (page, number, look) => page.waitForSelector(`[data-n="${number}"][data-look="${look}"]`);
const chips = (page) => page.locator('.chip').count();
async function choose(page, ...numbers) {
  for (const number of numbers) await seatOf(page, number).click();
}
async function toPayment(page, it, userId, numbers = [1, 2]) {
  await toSeats(page, it, userId);
  await choose(page, ...numbers);
  await page.click('#hold');
  await page.waitForURL('**/pay/*');
  await page.waitForSelector('#pay');
}
/** Somebody holds seats by their numbers, without a browser. */
async function holdSeats(it, userId, numbers) {
  const token = await admitted(it, userId);
  return call('POST', `/api/v1/concerts/${it.concert}/sessions/${it.session}/reservations`, { userId, seatIds: numbers.map((number) => it.seat + number - 1) }, { token });
}
/** What a scanner reads off a part of a page. */
async function scanned(page, selector) {
  const png = await page.locator(selector).screenshot({ animations: 'disabled' });
  const reader = await browser.newPage();
  await reader.evaluate(jsqr);
  const found = await reader.evaluate(async (bytes) => {
    const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
    const pen = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
    pen.drawImage(bitmap, 0, 0);
    const { data, width, height } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
    return globalThis.jsQR(data, width, height, { inversionAttempts: 'dontInvert' })?.data ?? null;
  }, [...png]);
  await reader.context().close();
  return found;
}
const verdict = (code) => call('POST', '/admin/v1/tickets/verify', { code });
/** A ticket as the service has signed it now, and not as it was kept. */
const freshTicket = (page) => page.waitForFunction(() => document.querySelector('#qr') && !document.querySelector('main .note'));
/** Buys two seats on the pages, up to the ticket. */
async function toTicket(page, it, userId) {
  await toPayment(page, it, userId);
  await page.click('#pay');
  await page.waitForURL('**/t/*');
  await page.waitForSelector('#qr');
  return Number(new URL(page.url()).pathname.split('/')[2]);
}
const polls = (page) => {
  let count = 0;
  page.on('request', (request) => { if (request.method() === 'GET' && new URL(request.url()).pathname === '/api/v1/waiting-queues') count += 1; });
  return () => count;
};

// ---- The tests.

const TESTS = {};

for (const language of ['ko', 'en']) {
  TESTS[`purchase ${language}`] = async () => {
    const fan = await visitor({ language });
    const { page } = fan;
    const id = member();
    await fan.open('/');
    await page.waitForSelector('.concert');
    assert.equal(await page.getAttribute('html', 'lang'), language);
    await screen(page, `${language}-1-concerts`);
    await page.click('.concert[href="/c/4"]');
    await page.waitForSelector('.session');
    await screen(page, `${language}-2-concert`);
    await page.click('.act .primary');
    await state(page, 'who');
    await page.fill('#member', '0');
    await page.click('#join');
    assert.ok(await text(page, '#member-wrong'));
    await screen(page, `${language}-3-member`);
    await page.fill('#member', String(id));
    await page.click('#join');
    await state(page, 'turn');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'enter');
    assert.match(await page.title(), /^★ .*\d:\d\d/);
    await screen(page, `${language}-4-turn`);
    await page.click('#enter');
    await page.waitForSelector('.session .primary');
    await screen(page, `${language}-5-concert-at-my-turn`);
    await page.click('.session .primary >> nth=0');
    await drawn(page);
    await screen(page, `${language}-6-seats`);
    const before = await balanceOf(id);
    await page.click('#best');
    await page.waitForSelector('#to-pay');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'to-pay');
    await screen(page, `${language}-7-seats-got`);
    await page.click('#to-pay');
    await page.waitForURL('**/pay/*');
    await page.waitForSelector('#pay');
    await screen(page, `${language}-8-pay`);
    await page.click('#pay');
    await page.waitForURL('**/t/*');
    await page.waitForSelector('#print');
    await screen(page, `${language}-9-ticket`);
    const { token } = await kept(page, `place.main.${id}`);
    const bought = await call('GET', `/api/v1/reservations/${new URL(page.url()).pathname.split('/')[2]}`, undefined, { token });
    assert.equal(bought.reservedSeats.length, 2);
    assert.equal(before - await balanceOf(id), bought.totalPrice);
    await page.pdf({ path: join(out, `${language}-9-ticket.pdf`), format: 'A5' });
    await fan.open('/me');
    await page.waitForSelector('.resume');
    assert.equal(await page.locator('a.resume').count(), 1, 'a ticket, and no turn that is spent');
    await screen(page, `${language}-10-my-tickets`);
    // Back never pays again.
    await fan.open('/wait/main?c=4');
    await state(page, 'paid');
    await screen(page, `${language}-11-waiting-paid`);
    await fan.close();
  };
}

TESTS['waiting: a place that stays'] = async () => {
  const it = await sale();
  await pause(it);
  for (let ahead = 0; ahead < 5; ahead += 1) await joinLine(it, member());
  const fan = await visitor();
  const { page } = fan;
  const id = member();
  const asked = [];
  page.on('request', (request) => { if (request.url().includes('/api/v1/waiting-queues')) asked.push(request.method()); });
  await enter(page, it, id);
  await state(page, 'paused');
  assert.equal(await text(page, '#number'), '5');
  await screen(page, 'waiting-paused');
  const token = (await kept(page, `place.${it.queue}.${id}`)).token;

  // A reload, and a second tab: the same place, and one that asks.
  await page.reload();
  await state(page, 'paused');
  assert.equal(await text(page, '#number'), '5');
  assert.equal(asked.filter((method) => method === 'POST').length, 1, 'joined once');
  assert.ok(!asked.includes('DELETE'), 'nothing is given up by leaving the page');
  const second = await fan.context.newPage();
  await fan.open(it.wait, second);
  await state(second, 'paused');
  assert.equal(await text(second, '#number'), '5');
  const [first, other] = [polls(page), polls(second)];
  await sleep(11_000);
  assert.ok(first() >= 1 && other() === 0, `one tab asks: ${first()} and ${other()}`);
  await page.close();
  const from = other();
  await second.waitForEvent('request', { predicate: (request) => request.url().endsWith('/api/v1/waiting-queues') });
  assert.equal(from, 0);
  assert.equal((await kept(second, `place.${it.queue}.${id}`)).token, token);

  // What is done in a tab that does not ask is done all the same.
  const third = await fan.context.newPage();
  await fan.open(it.wait, third);
  await state(third, 'paused');
  await third.click('#leave');
  await third.click('#go');
  await Promise.all([state(second, 'left'), state(third, 'left')]);
  await third.click('#rejoin');
  await Promise.all([state(second, 'paused'), state(third, 'paused')]);
  assert.notEqual((await kept(third, `place.${it.queue}.${id}`)).token, token);
  assert.equal((await call('GET', `/api/v1/waiting-queues/${it.queue}`)).waiting, 6, 'one place again');

  // It goes on by itself.
  await resume(it);
  await Promise.all([state(second, 'turn'), state(third, 'turn')]);
  await fan.close();
};

TESTS['waiting: in line, in both languages'] = async () => {
  const it = await sale({ seats: 3, queue: { admitPerSecond: 0.05 } });
  for (let ahead = 0; ahead < 12; ahead += 1) await joinLine(it, member());
  const fan = await visitor();
  const { page } = fan;
  await enter(page, it, member());
  await state(page, 'waiting');
  await joinLine(it, member());
  const before = Number(await text(page, '#number'));
  assert.ok(before > 3 && before <= 12, `${before}`);
  await page.waitForSelector('#fewer:not([hidden])');
  await screen(page, 'waiting-in-line-en');
  await page.click('#language');
  assert.equal(await page.getAttribute('html', 'lang'), 'ko');
  await page.reload();
  await state(page, 'waiting');
  assert.equal(await page.getAttribute('html', 'lang'), 'ko', 'the choice is kept');
  assert.ok(Number(await text(page, '#number')) <= before, 'a number never grows');
  await screen(page, 'waiting-in-line-ko');
  await page.setViewportSize(DESKTOP);
  await screen(page, 'waiting-in-line-wide');
  await page.setViewportSize(PHONE);
  await page.click('#sound');
  assert.equal(await page.getAttribute('#sound', 'aria-checked'), 'true');

  // Leaving is asked about, then it is done.
  await page.click('#leave');
  await screen(page, 'waiting-leave');
  await page.keyboard.press('Escape');
  await state(page, 'waiting');
  await page.click('#leave');
  await page.click('#go');
  await state(page, 'left');
  await screen(page, 'waiting-left');
  await page.click('#rejoin');
  await state(page, 'waiting');
  await fan.close();
};

TESTS['waiting: what is said of number and time'] = async () => {
  const it = await sale();
  const fan = await visitor();
  const { page } = fan;
  let [waitingNumber, etaSeconds] = [1_301, 601];
  const asked = [];
  let wanted = 0;
  let open = 0;
  await page.route('**/api/v1/waiting-queues', async (route) => {
    open += 1;
    asked.push({ early: wanted - Date.now(), open });
    const answer = { status: 'WAITING', queueState: 'OPEN', waitingNumber, etaSeconds, pollAfterMs: 700, activeUntil: null, reason: null };
    wanted = Date.now() + 700;
    await route.fulfill({ json: route.request().method() === 'POST' ? { ...answer, token: 'somebody' } : answer });
    open -= 1;
  });
  const says = async (number, eta, ahead, time) => {
    [waitingNumber, etaSeconds] = [number, eta];
    await page.waitForFunction((shown) => document.querySelector('#number').textContent === shown[0] && document.querySelector('#eta').textContent === shown[1], [ahead, time]);
  };
  await enter(page, it, member());
  await says(1_301, 601, '1,300', 'about 15 minutes');
  await says(1_201, 125, '1,200', 'about 3 minutes');
  // Another instance is behind for a moment: what was seen once is not taken back.
  await says(1_250, 61, '1,200', 'about 2 minutes');
  await says(1_101, 60, '1,100', 'about 1 minute');
  await says(1_001, 7_201, '1,000', 'about 2 h 5 min');
  await says(3, 15, '2', 'Almost your turn');
  await says(3, null, '2', 'We cannot tell now. Your place is kept.');
  assert.ok(Number(await page.evaluate(() => document.querySelector('#bar').value)) > 990);
  assert.ok(asked.length > 5 && asked.every(({ early }) => early <= 1), `never before it is wanted: ${JSON.stringify(asked)}`);
  assert.ok(asked.every((one) => one.open === 1), 'one request at a time');
  await fan.close();
};

TESTS['waiting: on in another browser'] = async () => {
  const it = await sale();
  await pause(it);
  await joinLine(it, member());
  const id = member();
  const [fan, other] = [await visitor({ permissions: ['clipboard-read', 'clipboard-write'] }), await visitor()];
  await enter(fan.page, it, id);
  await state(fan.page, 'paused');
  await fan.page.evaluate(() => { Object.defineProperty(navigator, 'share', { value: undefined }); });
  await fan.page.click('#move');
  await fan.page.waitForSelector('#copied:not([hidden])');
  await screen(fan.page, 'waiting-moved');
  const address = await fan.page.evaluate(() => navigator.clipboard.readText());
  await other.page.goto(address);
  await state(other.page, 'paused');
  assert.equal(await text(other.page, '#number'), '1', 'the same place');
  assert.equal(new URL(other.page.url()).hash, '', 'the token is not left in the address');
  assert.equal((await kept(other.page, `place.${it.queue}.${id}`)).token, (await kept(fan.page, `place.${it.queue}.${id}`)).token);
  // Nobody loses a place by a link.
  await other.page.goto('about:blank');
  await other.page.goto(address.replace(/#.*/, `#place=${id}.another-token`));
  await state(other.page, 'paused');
  assert.notEqual((await kept(other.page, `place.${it.queue}.${id}`)).token, 'another-token');
  await resume(it);
  await Promise.all([state(fan.page, 'turn'), state(other.page, 'turn')]);
  await Promise.all([fan.close(), other.close()]);
};

TESTS['waiting: before the opening'] = async () => {
  const drawn = await sale({ opens: 600, queue: { opening: 'draw', opensAt: inSeconds(600) } });
  const fan = await visitor();
  const { page } = fan;
  await fan.open(`/c/${drawn.concert}`);
  await page.waitForSelector('#opens');
  await screen(page, 'concert-before-the-opening');
  // Looked at before it opens, also on a slow machine.
  const it = await sale({ opens: 9 });
  await enter(page, it, member());
  await state(page, 'scheduled');
  await page.waitForSelector('#countdown:not([hidden])');
  await screen(page, 'waiting-scheduled');
  await state(page, 'turn');
  await enter(page, drawn, member());
  await state(page, 'draw');
  assert.ok(!await page.locator('#place').isVisible(), 'nobody has a place before the draw');
  await page.waitForSelector('#countdown:not([hidden])');
  await screen(page, 'waiting-draw');
  await fan.close();
};

TESTS['waiting: offline'] = async () => {
  const it = await sale();
  await pause(it);
  await joinLine(it, member());
  const fan = await visitor({ allowed: /ERR_INTERNET_DISCONNECTED/ });
  const { page } = fan;
  await enter(page, it, member());
  await state(page, 'paused');
  await fan.context.setOffline(true);
  await page.waitForSelector('#trouble:not([hidden])');
  assert.equal(await text(page, '#number'), '1', 'the place stays in sight');
  await sleep(6_000);
  await screen(page, 'waiting-offline');
  await fan.context.setOffline(false);
  await page.waitForSelector('#trouble', { state: 'hidden' });
  await resume(it);
  await state(page, 'turn');
  await fan.close();
};

TESTS['waiting: a join whose answer is lost'] = async () => {
  const it = await sale();
  await pause(it);
  const fan = await visitor({ allowed: /ERR_FAILED|ERR_CONNECTION/ });
  const { page } = fan;
  const keys = [];
  await page.route('**/api/v1/waiting-queues', async (route) => {
    if (route.request().method() !== 'POST') return route.continue();
    keys.push(route.request().headers()['idempotency-key']);
    if (keys.length > 1) return route.continue();
    await route.fetch();
    return route.abort('failed');
  });
  await enter(page, it, member());
  await page.waitForSelector('#trouble:not([hidden])');
  await screen(page, 'waiting-joining');
  await state(page, 'paused');
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1], 'the same key');
  assert.equal((await call('GET', `/api/v1/waiting-queues/${it.queue}`)).waiting, 1, 'one place');
  await fan.close();
};

TESTS['waiting: told to wait'] = async () => {
  const it = await sale();
  await pause(it);
  const fan = await visitor({ allowed: /status of 503/ });
  const { page } = fan;
  await enter(page, it, member());
  await state(page, 'paused');
  const at = [];
  await page.route('**/api/v1/waiting-queues', (route) => {
    at.push(Date.now());
    return at.length > 1 ? route.continue() : route.fulfill({ status: 503, headers: { 'Retry-After': '4' }, contentType: 'application/problem+json', body: '{"code":"OVERLOADED"}' });
  });
  await page.waitForSelector('#trouble:not([hidden])');
  assert.ok(await page.locator('#retry').isDisabled(), 'not before the service wants it');
  await screen(page, 'waiting-busy');
  await page.waitForSelector('#trouble', { state: 'hidden' });
  assert.ok(at[1] - at[0] >= 4_000 && at[1] - at[0] < 7_500, `after ${at[1] - at[0]} ms`);
  await fan.close();
};

TESTS['waiting: a turn that ends'] = async () => {
  const it = await sale();
  const id = member();
  const { first: token } = await call('POST', '/admin/v1/tokens', { count: 1, format: 'short_{n}_{r}', activated: true, activeSeconds: 14, userId: id, queue: it.queue });
  const fan = await visitor({ allowed: /status of 403/ });
  const { page } = fan;
  await page.addInitScript(({ queue, user, place }) => {
    localStorage.setItem('boxoffice.user', user);
    if (!localStorage.getItem(`boxoffice.place.${queue}.${user}`)) localStorage.setItem(`boxoffice.place.${queue}.${user}`, JSON.stringify(place));
  }, { queue: it.queue, user: String(id), place: { queue: it.queue, user: String(id), key: 'short', token, concert: String(it.concert) } });
  await fan.open(it.wait);
  await state(page, 'turn');
  const second = await fan.context.newPage();
  await fan.open(`/c/${it.concert}/s/${it.session}`, second);
  await drawn(second);
  await state(page, 'timedOut');
  await screen(page, 'waiting-turn-over');
  await second.waitForSelector('.card.centre');
  await screen(second, 'seats-turn-over');
  await page.click('#rejoin');
  await state(page, 'turn');
  await fan.close();
};

TESTS['waiting: a place that is not known'] = async () => {
  const it = await sale();
  const fan = await visitor({ allowed: /status of 401/ });
  const { page } = fan;
  await page.addInitScript((queue) => {
    localStorage.setItem('boxoffice.user', '7');
    if (!localStorage.getItem(`boxoffice.place.${queue}.7`)) localStorage.setItem(`boxoffice.place.${queue}.7`, JSON.stringify({ queue, user: '7', key: 'k', token: 'nobody', status: 'WAITING', queueState: 'OPEN', number: 12, first: 20 }));
  }, it.queue);
  const count = polls(page);
  await fan.open(it.wait);
  await state(page, 'lost');
  assert.ok(count() >= 2, 'asked twice before it is said');
  assert.equal((await kept(page, `place.${it.queue}.7`)).token, 'nobody', 'the token is kept');
  await screen(page, 'waiting-lost');
  await page.click('#rejoin');
  await state(page, 'turn');
  await fan.close();
};

TESTS['waiting: a browser that stores nothing'] = async () => {
  const it = await sale();
  const fan = await visitor();
  const { page } = fan;
  await page.addInitScript(() => Object.defineProperty(globalThis, 'localStorage', { get() { throw new DOMException('', 'SecurityError'); } }));
  await enter(page, it, member());
  await state(page, 'turn');
  assert.ok(await page.locator('#blocked').isVisible());
  await screen(page, 'waiting-no-storage');
  await fan.open('/');
  await page.waitForSelector('.concert');
  assert.ok(await page.locator('.note.warn:not(.trouble)').isVisible());
  await fan.close();
};

TESTS['waiting: sold out, over, and no line'] = async () => {
  const it = await sale({ seats: 1 });
  const over = await sale({ closes: 6 });
  const fan = await visitor({ allowed: /status of (404|409)/ });
  const { page } = fan;
  await pause(over);
  await enter(page, over, member());
  await state(page, 'ended');
  await screen(page, 'waiting-ended');
  await fan.open(`/c/${over.concert}`);
  await page.waitForSelector('h1');
  await screen(page, 'concert-ended');
  await pause(it);
  await fan.open(it.wait);
  await state(page, 'paused');
  const { first: token } = await call('POST', '/admin/v1/tokens', { count: 1, format: 'last_{n}_{r}', activated: true, userId: 999, queue: it.queue });
  const { reservationId } = await call('POST', `/api/v1/concerts/${it.concert}/sessions/${it.session}/reservations`, { userId: 999, seatIds: [it.seat] }, { token });
  await call('POST', '/api/v1/payments', { userId: 999, reservationId }, { token });
  await state(page, 'soldOut');
  await screen(page, 'waiting-sold-out');
  await fan.open(`/c/${it.concert}`);
  await page.waitForSelector('h1');
  await screen(page, 'concert-sold-out');
  await fan.open('/wait/no-such-line');
  await state(page, 'none');
  await screen(page, 'waiting-no-line');
  await fan.open('/c/999999999');
  await page.waitForSelector('.card.centre');
  await screen(page, 'concert-not-found');
  await fan.close();
};

TESTS['seats: two browsers, one seat'] = async () => {
  const it = await sale({ seats: 30, more: [[30, 2_500]] });
  const [fast, slow] = [await visitor(), await visitor({ allowed: /status of 409|ERR_FAILED/ })];
  // What comes by the stream would come before the refusal.
  await slow.page.route('**/seats/stream', (route) => route.abort());
  await toSeats(fast.page, it, member());
  await toSeats(slow.page, it, member());
  await choose(fast.page, 6, 7);
  await choose(slow.page, 7, 8);
  await fast.page.click('#hold');
  await fast.page.waitForURL('**/pay/*');
  await slow.page.click('#hold');
  await slow.page.waitForSelector('#instead');
  assert.equal(await lookOf(slow.page, 7), 'lost');
  assert.equal(await lookOf(slow.page, 8), 'chosen', 'the rest is kept');
  await screen(slow.page, 'seats-just-taken');
  await slow.page.click('#instead');
  assert.equal(await chips(slow.page), 2);
  await slow.page.click('#hold');
  await slow.page.waitForURL('**/pay/*');
  await slow.page.waitForSelector('#pay');

  // Who holds already is led to what is held.
  await slow.open(`/c/${it.concert}/s/${it.session}`);
  await drawn(slow.page);
  await choose(slow.page, 20);
  await slow.page.click('#hold');
  await slow.page.waitForSelector('#message a');
  await screen(slow.page, 'seats-held-already');
  await slow.page.click('#message a');
  await slow.page.waitForSelector('#pay');
  await slow.page.click('#back');
  await screen(slow.page, 'pay-give-back');
  await slow.page.click('dialog [value="yes"]');
  await slow.page.waitForSelector('.card.centre');
  await screen(slow.page, 'pay-given-back');
  await Promise.all([fast.close(), slow.close()]);
};

TESTS['seats: by the keyboard'] = async () => {
  const it = await sale({ seats: 1_200 });
  const fan = await visitor({ viewport: DESKTOP });
  const { page } = fan;
  await toSeats(page, it, member());
  assert.equal(await page.locator('.part').count(), 3);
  await screen(page, 'seats-wide');
  assert.equal(await page.locator('.grid [tabindex="0"]').count(), 1, 'one tab stop');
  await page.locator('.grid [tabindex="0"]').focus();
  const here = () => page.evaluate(() => document.activeElement.querySelector('span')?.textContent);
  for (const [key, at] of [['ArrowRight', '2'], ['ArrowDown', '22'], ['End', '40'], ['Home', '21'], ['ArrowUp', '1'], ['PageDown', '101'], ['Control+End', '500'], ['Control+Home', '1'], ['ArrowLeft', '1']]) {
    await page.keyboard.press(key);
    assert.equal(await here(), at, key);
  }
  await page.keyboard.press('Space');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('Enter');
  assert.equal(await chips(page), 2);
  await page.reload();
  await page.waitForSelector('.chip');
  assert.equal(await chips(page), 2, 'a reload keeps the choice');
  await page.locator('#part2').press('Enter');
  await choose(page, 1_001, 1_002);
  await seatOf(page, 1_003).click();
  assert.equal(await chips(page), 4, 'four, and no more');
  await page.locator('#hold').press('Enter');
  await page.waitForURL('**/pay/*');
  await page.waitForSelector('#pay');
  await screen(page, 'pay-wide');
  await page.locator('#pay').press('Enter');
  await page.waitForSelector('#print');
  await screen(page, 'ticket-wide');
  await fan.close();
};

TESTS['seats: left before the answer'] = async () => {
  const it = await sale();
  const fan = await visitor({ allowed: /ERR_FAILED|ERR_ABORTED/ });
  const { page } = fan;
  await toSeats(page, it, member());
  await choose(page, 3);
  const keys = [];
  let isLost = true;
  await page.route('**/reservations', async (route) => {
    keys.push(route.request().headers()['idempotency-key']);
    if (!isLost) return route.continue();
    await route.fetch();
    return route.abort('failed');
  });
  await page.click('#hold');
  await page.waitForSelector('.trouble:not([hidden])');
  await screen(page, 'seats-answer-lost');
  isLost = false;
  await page.reload();
  await page.waitForURL('**/pay/*');
  assert.ok(keys.length >= 2 && new Set(keys).size === 1, 'the same key');
  await fan.close();
};

// ---- Halls.

/** The number of a seat in section A of the theatre. */
const placeA = (row, seat) => (row - 1) * 14 + seat;
/** Its sections, in their order. */
const [A, B, FLOOR] = ['#section0', '#section1', '#section4'];

/** Goes on by the tab key to something. */
async function tabTo(page, selector) {
  for (let tabs = 0; tabs < 60; tabs += 1) {
    if (await page.evaluate((it) => document.activeElement?.matches(it), selector)) return;
    await page.keyboard.press('Tab');
  }
  throw new Error(`no way by the keyboard to ${selector}`);
}
const labelHere = (page) => page.evaluate(() => document.activeElement.getAttribute('aria-label'));

for (const [language, seat] of [['ko', /^A구역 1열 \d+번, VIP석$/], ['en', /^Section A, row 1, seat \d+, grade VIP$/]]) {
  TESTS[`hall: two seats in a few taps, ${language}`] = async () => {
    const it = await sale({ hall: theatre() });
    const fan = await visitor({ language });
    const { page } = fan;
    await fan.open(`/c/${it.concert}`);
    await page.waitForSelector('.session');
    const left = await page.locator('.prices li').allInnerTexts();
    assert.equal(left.length, 4, 'each grade, before anybody queues');
    assert.match(left[0], /VIP\s+198,000.*\s+42/);
    await screen(page, `hall-${language}-1-concert`);
    const began = Date.now();
    let taps = 0;
    const tap = async (selector) => {
      taps += 1;
      await page.click(selector);
    };
    await tap('#way');
    await state(page, 'who');
    await page.fill('#member', String(member()));
    await tap('#join');
    await state(page, 'turn');
    await tap('#enter');
    await tap(`#s${it.session}`);
    await drawn(page);
    await screen(page, `hall-${language}-2-seats`);
    // The grade that a fan would like; without that the best of all.
    await tap('label:has(#grade0)');
    await tap('#best');
    await page.waitForSelector('#to-pay');
    const names = await page.locator('.have tbody th').allInnerTexts();
    assert.ok(names.length === 2 && names.every((name) => seat.test(name)), names.join());
    assert.equal(await page.locator('.seats-map [data-look="chosen"]').count(), 2, 'and where they are');
    await screen(page, `hall-${language}-3-got`);
    await tap('#to-pay');
    await page.waitForSelector('#pay');
    assert.deepEqual(await page.locator('tbody th').allInnerTexts(), names, 'the same words to pay');
    await screen(page, `hall-${language}-4-pay`);
    await tap('#pay');
    await page.waitForSelector('#print');
    assert.deepEqual(await page.locator('.seats b').allInnerTexts(), names, 'and on the ticket');
    await screen(page, `hall-${language}-5-ticket`);
    await fan.open('/me');
    await page.waitForSelector('.resume');
    assert.match(await text(page, '.resume small'), language === 'ko' ? /A구역 1열/ : /Section A, row 1/);
    await screen(page, `hall-${language}-6-my-tickets`);
    assert.ok(taps <= 8);
    await fan.close();
    return `${taps} taps in ${((Date.now() - began) / 1_000).toFixed(0)} s, pictures and checks included`;
  };
}

TESTS['hall: by the keyboard'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ viewport: DESKTOP, language: 'ko' });
  const { page } = fan;
  await toSeats(page, it, member());
  await screen(page, 'hall-wide');
  assert.equal(await page.locator('.view [tabindex="0"]').count(), 1, 'one tab stop');
  await tabTo(page, '[data-section]');
  assert.equal(await labelHere(page), 'A구역, VIP석 198,000포인트, R석 154,000포인트, 112석 가능');
  await page.keyboard.press('ArrowUp');
  assert.equal(await labelHere(page), 'Floor, 스탠딩, S석 121,000포인트, 80석 가능');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('ArrowRight');
  assert.match(await labelHere(page), /^B구역/);
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('Space');
  await page.waitForSelector('.seats-map');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'section-name', 'where one is');
  assert.equal(await page.locator('.view [tabindex="0"]').count(), 1, 'one tab stop');
  await screen(page, 'hall-section-wide');
  await tabTo(page, '[data-n]');
  assert.equal(await labelHere(page), 'A구역 1열 1번, VIP석 198,000포인트, 선택 가능');
  for (const [key, at] of [['ArrowRight', '1열 2번'], ['ArrowDown', '2열 2번'], ['End', '2열 14번'], ['Home', '2열 1번'], ['ArrowUp', '1열 1번'], ['PageDown', '6열 1번'], ['Control+End', '8열 14번'], ['Control+Home', '1열 1번'], ['ArrowLeft', '1열 1번']]) {
    await page.keyboard.press(key);
    assert.match(await labelHere(page), new RegExp(`^A구역 ${at},`), key);
  }
  await page.keyboard.press('Space');
  assert.match(await labelHere(page), /선택함$/);
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('Enter');
  assert.equal(await chips(page), 2);
  await screen(page, 'hall-chosen-wide');
  // The table has the same, and the same keys.
  await tabTo(page, '.chip');
  await page.locator('#as-table').press('Enter');
  await page.waitForSelector('.table-row');
  assert.equal(await page.locator('.view [tabindex="0"]').count(), 1, 'one tab stop');
  await screen(page, 'hall-table-wide');
  await tabTo(page, '[data-n]');
  assert.match(await labelHere(page), /^A구역 1열 1번, .*선택함$/);
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Space');
  assert.equal(await chips(page), 3);
  await page.keyboard.press('Space');
  await page.locator('#whole').press('Enter');
  await page.waitForSelector('.sections');
  await screen(page, 'hall-sections-wide');
  await tabTo(page, '#hold');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/pay/*');
  await page.waitForSelector('#pay');
  await tabTo(page, '#pay');
  await page.keyboard.press('Enter');
  await page.waitForSelector('#print');
  assert.deepEqual(await page.locator('.seats b').allInnerTexts(), ['A구역 1열 1번, VIP석', 'A구역 1열 2번, VIP석']);
  await fan.close();
};

TESTS['hall: on a phone'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ hasTouch: true });
  const { page } = fan;
  await toSeats(page, it, member());
  await page.locator(A).click();
  await page.waitForSelector('.seats-map');
  const width = () => page.locator('.seats-map').evaluate((map) => map.getBoundingClientRect().width);
  const seat = await seatOf(page, placeA(1, 1)).locator('rect').boundingBox();
  assert.ok(seat.width >= 24 && seat.height >= 24, `${seat.width} × ${seat.height}`);
  const before = await width();
  await page.click('#zoom-in');
  assert.ok(await width() > before);
  const at = () => page.locator('.view').evaluate((view) => view.scrollLeft);
  const from = await at();
  await page.click('#pan-right');
  await page.waitForFunction((it) => document.querySelector('.view').scrollLeft > it, from);
  // Two fingers, and then one tap.
  const cdp = await fan.context.newCDPSession(page);
  const box = await page.locator('.view').boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + Math.min(box.height, 300) / 2];
  const two = (far) => [{ x: x - far, y, id: 1 }, { x: x + far, y, id: 2 }];
  const wide = await width();
  await cdp.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: two(100) });
  for (const far of [80, 60, 40]) await cdp.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: two(far) });
  await cdp.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] });
  assert.ok(await width() < wide, 'a pinch makes it smaller');
  assert.equal(await chips(page), 0);
  await seatOf(page, placeA(2, 3)).tap();
  await seatOf(page, placeA(2, 4)).tap();
  assert.equal(await chips(page), 2);
  await screen(page, 'hall-chosen');
  await page.click('#as-table');
  await screen(page, 'hall-table');
  await page.click('#whole');
  await screen(page, 'hall-sections');
  await fan.close();
};

TESTS['hall: others instead'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor();
  const { page } = fan;
  await toSeats(page, it, member());
  await page.click('#best');
  await page.waitForSelector('#others');
  await page.click('#others');
  await screen(page, 'hall-others-asked');
  await page.click('dialog [value="yes"]');
  await page.waitForSelector('#best');
  assert.equal(await chips(page), 0);
  const sections = await call('GET', `/api/v1/concerts/${it.concert}`);
  assert.equal(sections.sessions[0].availableSeatCount, 424, 'they were given back');
  await screen(page, 'hall-others');
  // The best of a section.
  if (await page.locator('#whole').count() > 0) await page.click('#whole');
  await page.locator(B).click();
  await page.click('#best-here');
  await page.waitForSelector('#to-pay');
  assert.match(await text(page, '.have tbody th >> nth=0'), /^Section B, row \d+/);
  await fan.close();
};

TESTS['seats: told to wait'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ allowed: /status of 503/ });
  const { page } = fan;
  await toSeats(page, it, member());
  // Several things are asked at once, and each as seldom as it is told.
  let asked = 0;
  const busy = (route) => {
    asked += 1;
    return route.fulfill({ status: 503, headers: { 'Retry-After': '5' }, contentType: 'application/problem+json', body: '{"code":"OVERLOADED","status":503}' });
  };
  for (const path of ['**/api/v1/waiting-queues', '**/seats?since=*', '**/seats/stream']) await page.route(path, busy);
  await page.reload();
  await page.waitForSelector('.trouble:not([hidden])');
  await sleep(3_000);
  assert.ok(asked <= 4, `${asked} requests in 3 s`);
  await page.unrouteAll({ behavior: 'ignoreErrors' });
  await page.click('#try-now');
  await page.waitForSelector('#best');
  await page.waitForSelector('.trouble', { state: 'hidden' });
  await fan.close();
};

TESTS['seats: pressed while others hold'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor();
  const { page } = fan;
  await toSeats(page, it, member());
  await page.locator(A).click();
  await choose(page, placeA(2, 3));
  for (const [button, others] of [['#best-here', [1, 2]], ['#hold', [3, 4]]]) {
    await page.locator(button).scrollIntoViewIfNeeded();
    const box = await page.locator(button).boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    await holdSeats(it, member(), others);
    await looks(page, others[0], 'held');
    const isHeld = page.waitForResponse((answer) => answer.url().endsWith('/reservations') && answer.request().method() === 'POST');
    await page.mouse.up();
    assert.equal((await isHeld).status(), 201, button);
    if (button === '#hold') break;
    await page.waitForSelector('#to-pay');
    await page.click('#others');
    await page.click('dialog [value="yes"]');
    await page.waitForSelector('#best');
    if (await page.locator('#whole').count() === 0) await page.locator(A).click();
    await choose(page, placeA(2, 3));
  }
  await fan.close();
};

TESTS['seats: of another turn, and of another member'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ allowed: /status of 403/ });
  const { page } = fan;
  const [first, second] = [member(), member()];
  await toSeats(page, it, first);
  await page.locator(A).click();
  await choose(page, placeA(2, 3));
  // A hold whose answer was lost in a turn before: nobody wants it now.
  await page.evaluate(([session, user]) => localStorage.setItem(`boxoffice.intent.${session}.${user}`, JSON.stringify({ key: 'of-another-turn', token: 'another', seats: [], best: { count: 2 } })), [it.session, first]);
  await page.reload();
  await page.waitForSelector('#best');
  assert.equal(await chips(page), 1, 'what was chosen in this turn stays');
  await page.waitForFunction(([session, user]) => localStorage.getItem(`boxoffice.intent.${session}.${user}`) === 'null', [it.session, first]);
  assert.equal(await page.locator('#to-pay').count(), 0);
  // Another member in the same tab sees nothing of it.
  await page.evaluate(() => localStorage.setItem('boxoffice.user', ''));
  await toSeats(page, it, second);
  assert.equal(await chips(page), 0);
  await page.click('#best');
  await page.click('#to-pay');
  await page.waitForSelector('#pay');
  await page.click('#pay');
  await page.waitForURL('**/t/*');
  await page.waitForSelector('#qr');
  const ticket = new URL(page.url()).pathname;
  await page.evaluate((user) => localStorage.setItem('boxoffice.user', String(user)), first);
  await page.goto(base + ticket);
  await page.waitForSelector('#title');
  assert.equal(await page.locator('#qr').count(), 0, 'a ticket is not shown to another member');
  assert.equal((await kept(page, `hold.${ticket.split('/')[2]}`)).user, String(second), 'and does not become theirs');
  await fan.close();
};

TESTS['concerts: sold out and called off'] = async () => {
  const [sold, off] = [await sale({ seats: 2 }), await sale()];
  await buy(sold, member(), [sold.seat, sold.seat + 1]);
  await call('POST', `/admin/v1/concerts/${off.concert}/cancel`);
  const fan = await visitor();
  const { page } = fan;
  let states;
  for (let tries = 0; tries < 50 && states !== 'SOLD_OUT CANCELLED'; tries += 1) {
    await sleep(200);
    const { concerts } = await call('GET', '/api/v1/concerts');
    states = [sold, off].map((it) => concerts.find(({ concertId }) => concertId === it.concert).state).join(' ');
  }
  assert.equal(states, 'SOLD_OUT CANCELLED');
  await fan.open('/');
  await page.waitForSelector('.concert');
  assert.match(await text(page, `#c${sold.concert} .badge`), /Sold out/);
  assert.match(await text(page, `#c${off.concert} .badge`), /Called off/);
  await fan.close();
};

TESTS['hall: what others do is seen within a second'] = async () => {
  const it = await sale({ hall: theatre() });
  const [fan, hidden] = [await visitor(), await visitor({ allowed: /ERR_ABORTED/ })];
  for (const { page } of [fan, hidden]) {
    await toSeats(page, it, member());
    await page.locator(A).click();
    await page.waitForSelector('.seats-map');
  }
  await choose(fan.page, placeA(1, 3), placeA(1, 4));
  const asked = [];
  hidden.page.on('request', (request) => { if (request.url().includes('/seats')) asked.push(new URL(request.url()).search || 'stream'); });
  const hide = (is) => hidden.page.evaluate((it) => {
    Object.defineProperty(document, 'hidden', { value: it, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, is);
  await hide(true);
  const { reservationId } = await holdSeats(it, member(), [placeA(1, 1), placeA(1, 2), placeA(1, 3)]);
  const held = Date.now();
  await Promise.all([looks(fan.page, placeA(1, 1), 'held'), looks(fan.page, placeA(1, 3), 'lost')]);
  const took = Date.now() - held;
  assert.ok(took < 1_000, `${took} ms`);
  // What was chosen and is gone: the rest is kept, and others are offered.
  assert.equal(await lookOf(fan.page, placeA(1, 4)), 'chosen');
  await fan.page.waitForSelector('#instead');
  const { y, height } = await fan.page.locator('#instead').boundingBox();
  assert.ok(y >= 0 && y + height <= PHONE.height, 'what is offered is in sight');
  await screen(fan.page, 'hall-just-taken');
  await fan.page.click('#instead');
  assert.equal(await chips(fan.page), 2);
  // Nobody looks: nothing is asked, and it is caught up with.
  assert.deepEqual(asked, []);
  assert.equal(await lookOf(hidden.page, placeA(1, 2)), 'free');
  await hide(false);
  await looks(hidden.page, placeA(1, 2), 'held');
  assert.match(asked[0], /^\?since=.+/);
  assert.ok(reservationId > 0);
  await Promise.all([fan.close(), hidden.close()]);
  return `after ${took} ms`;
};

TESTS['hall: a stream that does not come through'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ allowed: /ERR_/ });
  const { page } = fan;
  // As by a proxy that keeps an answer until it is whole.
  await page.route('**/seats/stream', () => {});
  const asked = [];
  page.on('request', (request) => { if (request.url().includes('/seats?since=')) asked.push(Date.now()); });
  await toSeats(page, it, member());
  await page.locator(A).click();
  await page.waitForSelector('.seats-map');
  await page.waitForFunction(() => performance.now() > 6_000);
  await holdSeats(it, member(), [placeA(1, 1), placeA(1, 2), placeA(1, 3)]);
  await looks(page, placeA(1, 3), 'held');
  await sleep(11_000);
  const gaps = asked.slice(2).map((at, index) => at - asked[index + 1]);
  assert.ok(gaps.length >= 2 && gaps.every((gap) => gap >= 2_900 && gap < 6_500), `every few seconds: ${gaps.join()}`);
  await fan.close();
};

TESTS['hall: standing'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ language: 'ko' });
  const { page } = fan;
  await toSeats(page, it, member());
  await page.locator(FLOOR).click();
  await page.click('label:has(#wanted3)');
  await screen(page, 'hall-standing');
  await page.click('#best-here');
  await page.waitForSelector('#to-pay');
  assert.equal(await page.locator('.have tbody tr').count(), 3);
  assert.match(await text(page, '.have tbody th >> nth=0'), /^Floor .*S석$/);
  await screen(page, 'hall-standing-got');
  await page.click('#to-pay');
  await page.waitForSelector('#pay');
  await page.click('#pay');
  await page.waitForSelector('#print');
  await screen(page, 'hall-standing-ticket');
  await fan.close();
};

TESTS['hall: a single seat'] = async () => {
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ allowed: /status of 422/ });
  const { page } = fan;
  await toSeats(page, it, member());
  await page.locator(A).click();
  await choose(page, placeA(5, 2), placeA(5, 3));
  await page.click('#hold');
  await page.waitForSelector('#instead');
  assert.match(await text(page, '#message'), /single seat/);
  assert.equal(await chips(page), 2, 'the choice is kept');
  await screen(page, 'hall-single-seat');
  await page.click('#instead');
  await page.click('#hold');
  await page.waitForURL('**/pay/*');
  await page.waitForSelector('#pay');
  assert.match(await text(page, 'tbody'), /row 5/, 'near what was wanted');
  await fan.close();
};

TESTS['hall: not together, and not enough'] = async () => {
  const it = await sale({ hall: { plan: pretix([['A', 2, 6, 0, 100, (row) => (row === 0 ? 'R' : 'S')]]), prices: { R: 20_000, S: 10_000 } } });
  await holdSeats(it, member(), [1, 2]);
  await holdSeats(it, member(), [5, 6]);
  const fan = await visitor({ allowed: /status of 409/ });
  const { page } = fan;
  await toSeats(page, it, member());
  await page.click('label:has(#wanted3)');
  await page.click('label:has(#grade0)');
  await page.click('#best');
  await page.waitForSelector('#instead');
  assert.match(await text(page, '#message'), /Fewer than 3 are left here: 2/);
  await screen(page, 'hall-not-enough');
  await holdSeats(it, member(), [3, 4]);
  await holdSeats(it, member(), [9, 10]);
  await page.click('#instead');
  await page.waitForSelector('#message:has-text("next to each other")');
  await screen(page, 'hall-not-together');
  await page.click('#instead');
  await page.waitForSelector('#to-pay');
  assert.equal(await page.locator('.have tbody tr').count(), 3);
  await fan.close();
};

TESTS['hall: names that are hostile'] = async () => {
  const script = '<script>alert(1)</script>';
  const names = { rowName: (row) => `<img src=x onerror=alert(${row})>`, seatName: (seat) => `🪑${seat}` };
  const it = await sale({
    hall: {
      plan: pretix([[script, 3, 8, 0, 100, () => '<b>VIP</b>', names], ['🎤'.repeat(40), 3, 8, 300, 100, () => 'R'.repeat(80)], ['가'.repeat(200), 3, 8, 600, 100, () => '"\'>&amp;']], [], script),
      prices: { '<b>VIP</b>': 10, ['R'.repeat(80)]: 20, '"\'>&amp;': 30 },
    },
  });
  const fan = await visitor();
  const { page } = fan;
  await toSeats(page, it, member());
  await screen(page, 'hall-hostile');
  await page.locator('#section0').click();
  assert.equal(await text(page, '#section-name'), script);
  await screen(page, 'hall-hostile-section');
  await page.click('#as-table');
  await screen(page, 'hall-hostile-table');
  await page.click('#whole');
  await screen(page, 'hall-hostile-sections');
  await page.click('#best');
  await page.waitForSelector('#to-pay');
  await screen(page, 'hall-hostile-got');
  await page.click('#to-pay');
  await page.waitForSelector('#pay');
  await screen(page, 'hall-hostile-pay');
  await page.click('#pay');
  await page.waitForSelector('#print');
  await screen(page, 'hall-hostile-ticket');
  await fan.open(`/c/${it.concert}`);
  await page.waitForSelector('.session');
  await screen(page, 'hall-hostile-concert');
  assert.equal(await page.evaluate(() => document.querySelectorAll('img, script:not([type])').length), 0);
  await fan.close();
};

TESTS['hall: called off while somebody pays'] = async () => {
  const it = await sale({ hall: theatre() });
  const [fan, other] = [await visitor({ allowed: /status of 4\d\d/ }), await visitor({ allowed: /status of 4\d\d/ })];
  await toSeats(other.page, it, member());
  const { page } = fan;
  await toSeats(page, it, member());
  await page.click('#best');
  await page.click('#to-pay');
  await page.waitForSelector('#pay');
  await callOff(it);
  await page.click('#pay');
  await page.waitForSelector('#pay', { state: 'detached' });
  await screen(page, 'hall-called-off-pay');
  assert.match(await text(page, 'main'), /called off/);
  // And whoever still chooses is told, too.
  await other.page.click('#best');
  await other.page.waitForSelector('.card.centre');
  assert.match(await text(other.page, 'main'), /called off/);
  await screen(other.page, 'hall-called-off-seats');
  await Promise.all([fan.close(), other.close()]);
};

TESTS['hall: a token of another line'] = async () => {
  const [it, other] = [await sale({ hall: theatre() }), await sale()];
  const id = member();
  const token = await admitted(other, id);
  const fan = await visitor({ allowed: /status of 403/ });
  const { page } = fan;
  await page.addInitScript(({ queue, user, place }) => {
    localStorage.setItem('boxoffice.user', user);
    localStorage.setItem(`boxoffice.place.${queue}.${user}`, JSON.stringify(place));
  }, { queue: it.queue, user: String(id), place: { queue: it.queue, user: String(id), key: 'k', token, status: 'ACTIVATED', activeUntil: inSeconds(300) } });
  await fan.open(`/c/${it.concert}/s/${it.session}`);
  await page.waitForSelector('.card.centre');
  assert.match(await text(page, 'main'), /another line/);
  await screen(page, 'hall-token-of-another-line');
  await fan.close();
};

TESTS['hall: the service starts anew while somebody chooses'] = async () => {
  const { BOXOFFICE_TEST_STOP: stop, BOXOFFICE_TEST_START: start } = process.env;
  if (!stop || !start) return 'left out: BOXOFFICE_TEST_STOP and BOXOFFICE_TEST_START say how to stop it';
  const it = await sale({ hall: theatre() });
  const fan = await visitor({ allowed: /ERR_|status of 50\d/ });
  const { page } = fan;
  await toSeats(page, it, member());
  await page.locator(A).click();
  await choose(page, placeA(2, 5));
  execSync(stop, { stdio: 'inherit' });
  await sleep(2_000);
  assert.equal(await chips(page), 1, 'the choice stays in sight');
  execSync(start, { stdio: 'inherit' });
  await holdSeats(it, member(), [placeA(2, 8), placeA(2, 9)]);
  await looks(page, placeA(2, 8), 'held');
  assert.equal(await lookOf(page, placeA(2, 5)), 'chosen');
  await page.click('#hold');
  await page.waitForURL('**/pay/*');
  await fan.close();
  return '';
};

TESTS['hall: signs of forced colours'] = async () => {
  const it = await sale({ hall: theatre() });
  await buy(it, member(), [it.seat + placeA(1, 1) - 1, it.seat + placeA(1, 2) - 1]);
  await holdSeats(it, member(), [placeA(1, 3), placeA(1, 4)]);
  const fan = await visitor({ forcedColors: 'active', reducedMotion: 'reduce' });
  const { page } = fan;
  await toSeats(page, it, member());
  await page.screenshot({ path: join(out, 'hall-forced-colours.png'), fullPage: true });
  await page.locator(A).click();
  await choose(page, placeA(1, 5));
  await page.screenshot({ path: join(out, 'hall-section-forced-colours.png'), fullPage: true });
  const shown = await page.evaluate((numbers) => numbers.map((it) => {
    const seat = document.querySelector(`[data-n="${it}"]`);
    return `${seat.querySelector('text').textContent}${seat.querySelector('.hatch') ? '/' : ''}`;
  }), [placeA(1, 1), placeA(1, 3), placeA(1, 5), placeA(1, 6)]);
  assert.deepEqual(shown, ['✕', '/', '✓', '6'], 'told apart without any colour');
  await fan.close();
};

TESTS['hall: 50,000 places'] = async () => {
  const rows = (count) => ({ seatName: (seat) => String(seat + 1), rowName: (row) => String(row + 1), bend: count });
  // Four rings of blocks around three sides of the stage.
  const sections = Array.from({ length: 100 }, (_, index) => [`${index + 101}`, 20, 25, (index % 10) * 700, 200 + Math.floor(index / 10) * 640, () => ['VIP', 'R', 'S', 'A'][Math.floor(index / 25)], rows(20)]);
  const it = await sale({ hall: { plan: pretix(sections), prices: PRICES } });
  const fan = await visitor();
  const { page } = fan;
  await toSeats(page, it, member());
  const seats = page.url();
  const cdp = await fan.context.newCDPSession(page);
  await cdp.send('Network.enable');
  await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
  await cdp.send('Emulation.setCPUThrottlingRate', { rate: SLOW_CPU });
  const loaded = new Map();
  cdp.on('Network.responseReceived', ({ requestId, response }) => loaded.set(requestId, { path: new URL(response.url).pathname, bytes: 0 }));
  cdp.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => { if (loaded.has(requestId)) loaded.get(requestId).bytes = encodedDataLength; });
  await page.addInitScript(() => {
    const watch = new MutationObserver(() => {
      if (!document.querySelector('[data-section]')) return;
      watch.disconnect();
      requestAnimationFrame(() => { globalThis.drawnAt = performance.now(); });
    });
    watch.observe(document, { childList: true, subtree: true });
  });
  const times = [];
  for (let turn = 0; turn < 5; turn += 1) {
    loaded.clear();
    await page.goto(seats, { waitUntil: 'load' });
    await page.waitForFunction(() => globalThis.drawnAt > 0);
    times.push(await page.evaluate(() => globalThis.drawnAt));
  }
  await sleep(500);
  const bytes = [...loaded.values()].filter(({ path }) => !path.endsWith('/stream') && !path.startsWith('/assets/icon')).reduce((sum, one) => sum + one.bytes, 0);
  assert.ok(await page.locator('.view *').count() < 600, 'not every seat at once');
  const opened = await page.evaluate(async () => {
    const from = performance.now();
    document.querySelector('#section40').dispatchEvent(new MouseEvent('click', { bubbles: true }));
    await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
    return performance.now() - from;
  });
  assert.equal(await page.locator('[data-n]').count(), 500);
  const best = Math.min(...times);
  await cdp.send('Emulation.setCPUThrottlingRate', { rate: 1 });
  await screen(page, 'hall-50000-section');
  await page.click('#whole');
  await screen(page, 'hall-50000');
  await page.setViewportSize(DESKTOP);
  await page.reload();
  await drawn(page);
  await screen(page, 'hall-50000-wide');
  if (best > HALL_MS_MAX) problems.push(`the hall after ${best.toFixed(0)} ms`);
  if (opened > HALL_MS_MAX) problems.push(`a section after ${opened.toFixed(0)} ms`);
  if (bytes > HALL_MAX) problems.push(`${bytes} bytes`);
  await fan.close();
  return `${bytes} bytes; on a CPU ${SLOW_CPU} times slower the hall after ${times.map((it) => it.toFixed(0)).join(', ')} ms, a section in ${opened.toFixed(0)} ms`;
};

TESTS['pay: pressed twice'] = async () => {
  const it = await sale();
  const id = member();
  const fan = await visitor();
  const { page } = fan;
  await toPayment(page, it, id);
  const before = await balanceOf(id);
  let payments = 0;
  page.on('request', (request) => { if (request.url().endsWith('/payments')) payments += 1; });
  await page.dblclick('#pay');
  await page.waitForURL('**/t/*');
  await page.waitForSelector('#print');
  assert.equal(payments, 1);
  assert.equal(before - await balanceOf(id), 2_000);
  // Back is behind the payment, and the payment's address leads to the ticket.
  const ticket = page.url();
  await page.goto(ticket.replace('/t/', '/pay/'));
  await page.waitForURL('**/t/*');
  assert.equal(payments, 1);

  // Given back.
  await page.waitForSelector('#refund');
  await page.click('#refund');
  await page.click('dialog [value="yes"]');
  await page.waitForSelector('.ticket.void');
  await screen(page, 'ticket-refunded');
  assert.equal(await balanceOf(id), before);
  await fan.close();
};

TESTS['pay: held no more'] = async () => {
  for (const isOff of [false, true]) {
    const it = await sale();
    const id = member();
    const fan = await visitor({ allowed: /status of 409/ });
    const { page } = fan;
    await toPayment(page, it, id);
    const path = `/api/v1/reservations/${new URL(page.url()).pathname.split('/')[2]}`;
    const { token } = await kept(page, `place.${it.queue}.${id}`);
    await (isOff ? callOff(it) : call('DELETE', path, undefined, { token }));
    assert.equal((await call('GET', path, undefined, { token })).status, 'CANCELLED', 'the service has ended the hold');
    await page.click('#pay');
    await page.waitForSelector('.card.centre');
    assert.match(await text(page, 'main'), isOff ? /called off/ : /not held any more/);
    await screen(page, isOff ? 'pay-called-off' : 'pay-not-held');
    await fan.close();
  }
};

TESTS['pay: the answer is lost'] = async () => {
  const it = await sale();
  const id = member();
  const fan = await visitor({ allowed: /ERR_FAILED/ });
  const { page } = fan;
  await toPayment(page, it, id);
  const before = await balanceOf(id);
  const keys = [];
  let looked;
  const whenLooked = new Promise((resolve) => { looked = resolve; });
  await page.route('**/api/v1/payments', async (route) => {
    keys.push(route.request().headers()['idempotency-key']);
    if (keys.length > 1) {
      await whenLooked;
      return route.continue();
    }
    await route.fetch();
    return route.abort('failed');
  });
  await page.click('#pay');
  await page.waitForSelector('.trouble:not([hidden])');
  await screen(page, 'pay-answer-lost');
  looked();
  await page.waitForURL('**/t/*');
  assert.equal(new Set(keys).size, 1, 'the same key');
  assert.equal(before - await balanceOf(id), 2_000, 'paid once');
  await fan.close();
};

TESTS['pay: too few points'] = async () => {
  const it = await sale({ price: 700_000 });
  const id = member();
  const fan = await visitor({ language: 'ko' });
  const { page } = fan;
  await toPayment(page, it, id);
  assert.ok(await page.locator('#pay').isDisabled());
  await screen(page, 'pay-too-few-points');
  await page.dblclick('#charge');
  await page.waitForSelector('.note.good');
  assert.equal(await balanceOf(id), 1_400_000, 'charged once');
  await screen(page, 'pay-charged');
  await page.click('#pay');
  await page.waitForURL('**/t/*');
  await fan.close();
};

TESTS['ticket: shown, printed, and kept'] = async () => {
  const it = await sale();
  const fan = await visitor({ allowed: /ERR_INTERNET_DISCONNECTED/ });
  const { page } = fan;
  const rid = await toTicket(page, it, member());
  await screen(page, 'ticket-to-show');
  const read = async () => {
    const code = await scanned(page, '#qr');
    assert.ok(code, 'a scanner reads nothing');
    return { code, ...await verdict(code) };
  };
  for (const [language, colorScheme, forcedColors] of [['en', 'light', 'none'], ['en', 'dark', 'none'], ['ko', 'dark', 'active']]) {
    await page.emulateMedia({ colorScheme, forcedColors });
    await page.goto(`${base}/t/${rid}?lang=${language}`);
    await freshTicket(page);
    const { valid, reservationId, seats } = await read();
    assert.deepEqual([valid, reservationId, seats], [true, rid, ['1', '2']], `${language} ${colorScheme} ${forcedColors}`);
  }
  await page.emulateMedia({ colorScheme: null, forcedColors: null });
  assert.match(await page.getAttribute('#qr', 'aria-label'), /QR/);
  assert.ok((await page.locator('#qr').boundingBox()).width >= 280, 'big enough on a phone');

  // On paper: one page, with the code.
  for (const format of ['A4', 'A5', 'Letter']) {
    const pdf = await page.pdf({ path: join(out, `ticket-${format}.pdf`), format });
    assert.equal(pdf.toString('latin1').match(/\/Type\s*\/Page\b/g).length, 1, `pages on ${format}`);
  }
  await page.emulateMedia({ media: 'print', colorScheme: 'dark' });
  await page.screenshot({ path: join(out, 'ticket-on-paper.png'), fullPage: true });
  const printed = await read();
  assert.ok(printed.valid);
  await page.emulateMedia({ media: null, colorScheme: null });

  // Keys change, and one is stolen: what is on paper counts no more, and the page signs it anew.
  await call('POST', '/admin/v1/keys/rotate', { inSeconds: 0 });
  assert.ok((await verdict(printed.code)).valid, 'by a key that signs no more');
  await call('POST', '/admin/v1/keys/rotate', { withdraw: true });
  assert.equal((await verdict(printed.code)).reason, 'KEY_WITHDRAWN');
  await page.reload();
  await freshTicket(page);
  const again = await read();
  assert.ok(again.valid && again.code !== printed.code);

  // Without a network it is there, opened anew, and says as of when.
  const kept = await fan.context.newPage();
  await kept.goto(`${base}/t/${rid}`);
  await freshTicket(kept);
  await kept.waitForFunction(async () => await caches.match('/t/') && navigator.serviceWorker.controller);
  const entries = await kept.evaluate(async () => (await (await caches.open('boxoffice')).keys()).map(({ url }) => new URL(url).pathname));
  assert.deepEqual(['/t/', '/fan/ticket-', '/lib/kit-', '/i18n/ko-', '/i18n/en-', '/fan/fan-'].filter((part) => !entries.some((it) => it.includes(part))), [], `${entries}`);
  await fan.context.setOffline(true);
  await kept.goto(`${base}/t/${rid}`);
  await kept.waitForSelector('#qr');
  assert.ok((await verdict(await scanned(kept, '#qr'))).valid);
  assert.match(await text(kept, 'main .note'), /기준입니다/);
  await kept.waitForSelector('.trouble:not([hidden])');
  await screen(kept, 'ticket-offline');
  await fan.context.setOffline(false);
  await kept.click('#try-now').catch(() => {});
  await freshTicket(kept);

  // Given back, there is nothing to show, with a network or without.
  await kept.click('#refund');
  await kept.click('dialog [value="yes"]');
  await kept.waitForSelector('.ticket.void');
  assert.equal(await kept.locator('#qr').count(), 0);
  assert.equal((await verdict(again.code)).reason, 'REFUNDED');
  assert.equal(await kept.evaluate((id) => localStorage.getItem(`boxoffice.ticket.${id}`), rid), 'null');
  await fan.close();
};

TESTS['ticket: hostile names, and a calendar'] = async () => {
  const named = `<script>alert(1)</script>\u{1F3B5}; \\ "quoted", ${'공연'.repeat(30)}${'x'.repeat(200)}`.slice(0, 200);
  const it = await sale({ named, venue: `<img src=x onerror=alert(1)> ${'W'.repeat(150)}` });
  const fan = await visitor({ language: 'ko' });
  const { page } = fan;
  const rid = await toTicket(page, it, member());
  assert.equal(await text(page, '.ticket h2'), named);
  assert.equal(await page.locator('main script, main img').count(), 0);
  await screen(page, 'ticket-hostile-names');
  assert.equal((await page.pdf({ path: join(out, 'ticket-hostile-names.pdf'), format: 'A4' })).toString('latin1').match(/\/Type\s*\/Page\b/g).length, 1);
  assert.ok((await verdict(await scanned(page, '#qr'))).valid);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#calendar')]);
  assert.equal(download.suggestedFilename(), `${rid}.ics`);
  const file = readFileSync(await download.path(), 'utf8');
  const lines = file.split('\r\n');
  assert.ok(lines.every((line) => Buffer.byteLength(line) <= 75 && !/[\r\n]/.test(line)), file);
  assert.deepEqual([lines[0], lines.at(-2), lines.at(-1)], ['BEGIN:VCALENDAR', 'END:VCALENDAR', '']);
  const whole = file.replaceAll('\r\n ', '').split('\r\n');
  assert.ok(whole.includes(`SUMMARY:${named.replace(/[\\;,]/g, '\\$&')}`), whole.join('\n'));
  assert.equal(whole.length, 14, 'no name makes another line');
  assert.match(file, /^DTSTART:\d{8}T\d{6}Z$/m);
  await fan.close();
};

TESTS['waiting: the way back with a pass'] = async () => {
  if (!organised) return 'left out: BOXOFFICE_TEST_ORGANISED is a service that names sites';
  const fan = await visitor();
  const { page, context } = fan;
  const wait = async (back) => {
    // The page before would give itself its cookie again.
    await page.goto('about:blank');
    await context.clearCookies();
    await page.goto(`${organised}/wait/main?return=${encodeURIComponent(back)}`);
    await state(page, 'turn');
    const [cookie, ...more] = await context.cookies();
    assert.equal(more.length, 0);
    return { href: await page.locator('#enter').evaluate((it) => it.href), cookie };
  };
  // Somebody whom nobody knows: nobody is asked who they are.
  await wait('/shop');
  const user = await kept(page, 'user');
  assert.ok(Number.isSafeInteger(user) && user > 1_000, `${user}`);
  assert.ok(!await page.locator('#demo').isVisible());
  await screen(page, 'waiting-way-back');
  const { pass } = await kept(page, `place.main.${user}`);
  for (const [back, href] of [
    ['/', '/'], ['/shop?seat=1&row=B#x', '/shop?seat=1&row=B#x'], ['/a/../b//c', '/b//c'], ['/.//evil.example', '//evil.example'],
    ['/%2e%2e//evil.example', '//evil.example'], [`/${'x'.repeat(2_000)}`, `/${'x'.repeat(2_000)}`],
  ]) {
    const { href: its, cookie } = await wait(back);
    assert.equal(its, organised + href, back);
    assert.deepEqual([cookie.name, cookie.value, cookie.domain, cookie.path, cookie.sameSite, cookie.secure], ['boxoffice-pass', pass, '127.0.0.1', '/', 'Lax', false]);
  }
  // Another host cannot be given a cookie. Only what no server is sent says it, and only to sites that are named.
  for (const [back, href] of [
    ['https://shop.example/', 'https://shop.example/'], ['https://shop.example/a?b=1#c', 'https://shop.example/a?b=1'], ['http://[::1]:9999/x', 'http://[::1]:9999/x'],
  ]) {
    const { href: its, cookie } = await wait(back);
    assert.deepEqual([its, cookie], [`${href}#boxoffice-pass=${pass}`, undefined], back);
  }
  for (const hostile of [
    '', 'shop', 'javascript:alert(1)', 'JavaScript:alert(1)//', 'data:text/html,<script>alert(1)</script>', '//evil.example', '///evil.example',
    '\\\\evil.example', '/\\evil.example', '\\/evil.example', '/\t/evil.example', '\t//evil.example', ' //evil.example', '/\n/evil.example', 'https://evil.example/', 'HTTPS://shop.example/',
    'https:shop.example/', 'https:/shop.example/', 'https://shop.example', 'https://shop.example.evil.example/', 'https://shop.example@evil.example/', 'https://shop.example:443/',
    'https://shop.example\\@evil.example/', 'https://shop.example%2f@evil.example/', 'https://shop.example//evil.example', 'https://u:p@shop.example/', 'https://ѕhop.example/', 'https://shop。example/', 'http://shop.example/',
    'https://shop.example/\u{1F3B5}', '/\u{F6}', '/a b', `/${'x'.repeat(2_050)}`, `https://shop.example/${'x'.repeat(100_000)}`.slice(0, 8_000), base.replace('127.0.0.1', 'localhost'), 'blob:https://shop.example/1', 'ftp://shop.example/', '%2F%2Fevil.example',
  ]) {
    const { href, cookie } = await wait(hostile);
    assert.deepEqual([href, cookie], [`${organised}/`, undefined], hostile);
  }
  // Twice, the first counts; and the way there is gone by a tap alone.
  await page.goto(`${organised}/wait/main?return=/me&return=//evil.example`);
  await state(page, 'turn');
  await page.click('#enter');
  await page.waitForURL(`${organised}/me`);
  await fan.close();
  return '';
};

TESTS['an organiser with a name'] = async () => {
  if (!organised) return 'left out: BOXOFFICE_TEST_ORGANISED is the service of one';
  const name = '<script>alert(1)</script>\u{1F3B5} & "Söhne" 공연';
  const fan = await visitor();
  const { page } = fan;
  const own = [];
  page.on('request', (request) => { if (!new URL(request.url()).pathname.startsWith('/api/')) own.push(new URL(request.url()).pathname.replace(/-[0-9a-f]{16}/, '')); });
  for (const [language, says] of [['en', '<img src=x onerror=alert(1)> Doors'], ['ko', '입장은 여섯 시에']]) {
    own.length = 0;
    await page.goto(`${organised}/wait/main?c=4&lang=${language}`);
    await state(page, 'who');
    await page.waitForSelector('#notice:not([hidden])');
    assert.ok((await text(page, '#notice')).startsWith(says));
    assert.equal(await page.getAttribute('.brand img', 'alt'), name);
    assert.ok(await page.locator('.brand img').evaluate((it) => it.complete && it.naturalWidth > 0), 'the logo is there');
    await screen(page, `organiser-waiting-${language}`);
    if (language === 'en') assert.deepEqual(own.filter((it) => !it.includes('icon')).sort(), ['/assets/notice.json', '/assets/organiser.svg', '/wait/main']);
  }
  await page.goto(`${organised}/wait/nothing`);
  assert.match(await page.title(), new RegExp(`· ${name.replace(/[()]/g, '\\$&')}$`));
  await page.goto(`${organised}/?lang=en`);
  await page.waitForSelector('.concert');
  assert.match(await page.title(), new RegExp(`· ${name.replace(/[()]/g, '\\$&')}$`));
  assert.equal(await page.getAttribute('.brand img', 'alt'), name);
  await screen(page, 'organiser-concerts');
  await page.goto(`${organised}/c/4`);
  await page.waitForSelector('#way');
  // Yellow is dark enough on white, and itself on black.
  const ground = () => page.locator('#way').evaluate((it) => getComputedStyle(it).backgroundColor);
  await page.emulateMedia({ colorScheme: 'dark' });
  assert.equal(await ground(), 'rgb(255, 212, 0)');
  await page.emulateMedia({ colorScheme: 'light' });
  assert.notEqual(await ground(), 'rgb(255, 212, 0)');
  await screen(page, 'organiser-concert');
  // Its picture by itself runs nothing.
  const logo = await page.getAttribute('.brand img', 'src');
  const answer = await fetch(organised + logo);
  assert.match(answer.headers.get('Content-Security-Policy'), /default-src 'none'.*sandbox/);
  await fan.close();
  return '';
};

TESTS['people who sign in elsewhere'] = async () => {
  const it = await sale();
  const fan = await visitor({ language: 'ko' });
  const { page } = fan;
  await page.route((url) => !url.pathname.startsWith('/api/') && !url.pathname.startsWith('/assets/'), async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: (await answer.text()).replace('content="none"', 'content="jwt"') });
  });
  await fan.open(it.wait);
  await state(page, 'signIn');
  await screen(page, 'waiting-sign-in');
  await fan.open(`/c/${it.concert}`);
  await page.waitForSelector('.session');
  assert.equal(await page.locator('main a.primary').count(), 0, 'no way that leads nowhere');
  await screen(page, 'concert-sign-in');
  assert.equal((await call('GET', `/api/v1/waiting-queues/${it.queue}`)).waiting, 0, 'nobody has joined');
  await fan.close();
};

/** Runs a test at the service at which people sign in. */
const amongPeople = (test) => async () => {
  const { BOXOFFICE_TEST_KNOWN: known, BOXOFFICE_TEST_KNOWN_ADMIN_TOKEN: token } = process.env;
  if (!known) return 'left out: BOXOFFICE_TEST_KNOWN says where people sign in';
  [base, adminToken] = [known, token];
  try {
    return await test();
  } finally {
    [base, adminToken] = [ours, process.env.BOXOFFICE_TEST_ADMIN_TOKEN];
  }
};
/** Somebody of whom the console says that nobody is signed in, at first. */
const person = (more) => visitor({ allowed: /status of 401/, others: process.env.BOXOFFICE_TEST_ISSUER, ...more });
/** Says who it is, at the issuer. */
async function signIn(page, name) {
  await page.waitForSelector('[name="name"]');
  await page.fill('[name="name"]', name);
  await page.click('#in');
}
const session = async (fan) => (await fan.context.cookies(base)).find((it) => it.name === '__Host-boxoffice');

TESTS['people who sign in: a purchase'] = amongPeople(async () => {
  const it = await sale();
  const fan = await person({ language: 'ko' });
  const { page } = fan;
  await fan.open(`/c/${it.concert}`);
  await page.waitForSelector('#sign-in');
  await screen(page, 'people-concert');
  await page.click('#sign-in');
  await signIn(page, 'buyer');
  await page.waitForURL(`${base}/c/${it.concert}`);
  await page.waitForSelector('.act .primary');
  assert.match(await text(page, '#account'), /Buyer/);
  const { httpOnly, secure, sameSite } = await session(fan);
  assert.deepEqual([httpOnly, secure, sameSite], [true, true, 'Lax']);
  await screen(page, 'people-signed-in');
  const { userId } = await page.evaluate(() => fetch('/auth/me').then((answer) => answer.json()));
  await call('PATCH', `/api/v1/users/${userId}/points/charge`, { amount: 5_000 }, { admin: true });
  await page.click('.act .primary');
  await state(page, 'turn');
  await page.click('#enter');
  await page.click(`#s${it.session}`);
  await page.waitForSelector('.grid .seat');
  await choose(page, 1, 2);
  await page.click('#hold');
  await page.waitForURL('**/pay/*');
  await page.waitForSelector('#pay');
  await screen(page, 'people-pay');
  await page.click('#pay');
  await page.waitForURL('**/t/*');
  await page.waitForSelector('#print');
  const ticket = new URL(page.url()).pathname;
  await fan.open('/me');
  await page.waitForSelector('a.resume');
  await screen(page, 'people-my-tickets');

  // Signed out, in all tabs.
  const second = await fan.context.newPage();
  await fan.open(it.wait, second);
  await state(second, 'paid');
  await page.click('#sign-out');
  await page.waitForURL(`${base}/`);
  await page.waitForSelector('#account a');
  assert.equal(await session(fan), undefined);
  await state(second, 'signIn');
  await fan.open(ticket);
  await page.waitForSelector('#sign-in');
  await screen(page, 'people-ticket-signed-out');

  // In another browser, the same person has the same tickets.
  const other = await person();
  await other.open('/me');
  await other.page.click('#sign-in');
  await signIn(other.page, 'buyer');
  await other.page.waitForURL(`${base}/me`);
  await other.page.click(`a.resume[href="${ticket}"]`);
  await other.page.waitForSelector('#print');
  await other.close();
  await fan.close();
});

TESTS['people who sign in: from the line'] = amongPeople(async () => {
  const it = await sale();
  await pause(it);
  const fan = await person();
  const { page } = fan;
  await fan.open(`${it.wait}&lang=en`);
  await state(page, 'signIn');
  await screen(page, 'people-waiting');
  await page.click('#pay');
  await signIn(page, 'waiting');
  await page.waitForURL(`${base}${it.wait}&lang=en`);
  await state(page, 'paused');
  const { token } = await kept(page, `place.${it.queue}.${await page.evaluate(() => localStorage.getItem('boxoffice.user'))}`);

  // The sign-in ends. Who waits goes on waiting; who comes back is asked to sign in, and has the same place.
  await fan.context.clearCookies({ name: '__Host-boxoffice' });
  await page.waitForEvent('request', { predicate: (request) => request.url().endsWith('/api/v1/waiting-queues') });
  await state(page, 'paused');
  await page.reload();
  await state(page, 'signIn');
  await page.click('#pay');
  // The issuer still knows who it is.
  await page.waitForURL(`${base}${it.wait}&lang=en`);
  await state(page, 'paused');
  const user = await page.evaluate(() => localStorage.getItem('boxoffice.user'));
  assert.equal((await kept(page, `place.${it.queue}.${user}`)).token, token, 'the same place');
  assert.equal((await call('GET', `/api/v1/waiting-queues/${it.queue}`)).waiting, 1);

  // It ends before the join: the place is asked for with the same key after that.
  const next = await sale();
  await page.route('**/api/v1/waiting-queues', async (route) => {
    await fan.context.clearCookies({ name: '__Host-boxoffice' });
    await route.continue();
  }, { times: 1 });
  const joins = [];
  page.on('request', (request) => { if (request.method() === 'POST' && request.url().endsWith('/waiting-queues')) joins.push(request.headers()['idempotency-key']); });
  await fan.open(next.wait);
  await state(page, 'signIn');
  await page.click('#pay');
  await state(page, 'turn');
  assert.ok(joins.length === 2 && joins[0] === joins[1], `${joins}`);
  await fan.close();
});

TESTS['people who sign in: two in one browser'] = amongPeople(async () => {
  const it = await sale();
  await pause(it);
  const fan = await person();
  const { page } = fan;
  const signOut = async () => {
    await fan.open('/');
    await page.click('#sign-out');
    await page.waitForSelector('#account a');
  };
  await fan.open(it.wait);
  await page.click('#pay');
  await signIn(page, 'first');
  await state(page, 'paused');
  assert.equal((await call('GET', `/api/v1/waiting-queues/${it.queue}`)).waiting, 1);
  await signOut();
  // The issuer asks who it is, though it knows the one before.
  await page.click('#account a');
  await signIn(page, 'second');
  await page.waitForSelector('#sign-out');
  assert.match(await text(page, '#account'), /Second/);
  assert.equal(await page.locator('.resume').count(), 0, "nothing of another's to go on with");
  await fan.open(it.wait);
  await state(page, 'paused');
  assert.equal(await text(page, '#number'), '1');
  assert.equal((await call('GET', `/api/v1/waiting-queues/${it.queue}`)).waiting, 2, 'a place of their own');
  await signOut();
  await fan.open('/me');
  await page.click('#sign-in');
  await signIn(page, 'first');
  await page.waitForSelector('.resume');
  await page.click('.resume');
  await state(page, 'paused');
  assert.equal((await call('GET', `/api/v1/waiting-queues/${it.queue}`)).waiting, 2, 'the place from before');
  await fan.close();
});

TESTS['people who sign in: and it goes wrong'] = amongPeople(async () => {
  const it = await sale();
  const fan = await person();
  const { page } = fan;
  // They would rather not.
  await fan.open(`/c/${it.concert}?lang=en`);
  await page.click('#sign-in');
  await page.click('#no');
  await page.waitForURL(`${base}/c/${it.concert}?lang=en`);
  assert.match(await text(page, '#notice'), new RegExp(en.signInFailures.denied));
  await screen(page, 'people-denied');
  // The browser forgets what it was sent with.
  await page.click('#sign-in-again');
  await page.waitForSelector('#in');
  await fan.context.clearCookies({ name: '__Host-boxoffice-login' });
  await signIn(page, 'late');
  await page.waitForURL(`${base}/`);
  assert.match(await text(page, '#notice'), new RegExp(en.signInFailures.late));
  for (const word of ['away', 'failed', 'nonsense']) {
    await fan.open(`/c/${it.concert}?signin=${word}`);
    assert.match(await text(page, '#notice'), new RegExp(en.signInFailures[word] ?? en.signInFailures.failed));
    assert.equal(new URL(page.url()).search, '', 'a reload does not say it again');
  }
  await screen(page, 'people-failed');
  await fan.open(`${it.wait}&signin=away`);
  await state(page, 'signIn');
  await screen(page, 'people-waiting-failed');

  // The sign-in ends while seats are chosen: what is chosen is still chosen after signing in again.
  // The issuer knows who it is by now.
  await page.click('#pay');
  await state(page, 'turn');
  await page.click('#enter');
  await page.click(`#s${it.session}`);
  await page.waitForSelector('.grid .seat');
  await choose(page, 7, 8);
  await fan.context.clearCookies({ name: '__Host-boxoffice' });
  await page.click('#hold');
  await page.waitForSelector('#sign-in-again');
  await screen(page, 'people-signed-out');
  await page.click('#sign-in-again');
  await page.waitForURL(`**/c/${it.concert}/s/${it.session}`);
  await page.waitForSelector('.chip');
  assert.equal(await page.locator('.chip').count(), 2);
  await page.click('#hold');
  await page.waitForURL('**/pay/*');
  await page.waitForSelector('#pay');

  // And while they pay: it is paid once, after signing in again.
  const user = await page.evaluate(() => localStorage.getItem('boxoffice.user'));
  await call('PATCH', `/api/v1/users/${user}/points/charge`, { amount: 5_000 }, { admin: true });
  await page.reload();
  await page.waitForSelector('#pay:enabled');
  await fan.context.clearCookies({ name: '__Host-boxoffice' });
  await page.click('#pay');
  await page.waitForSelector('#sign-in-again');
  await screen(page, 'people-pay-signed-out');
  await page.click('#sign-in-again');
  await page.waitForSelector('#pay:enabled');
  await page.click('#pay');
  await page.waitForURL('**/t/*');
  await page.waitForSelector('#print');
  assert.equal((await page.evaluate((id) => fetch(`/api/v1/users/${id}/points`).then((answer) => answer.json()), user)).totalAmount, 3_000);

  // On a device of many people everything goes, the sign-in too.
  await fan.open('/me');
  await page.click('#forget');
  await page.click('dialog [value="yes"]');
  await page.waitForURL(`${base}/`);
  assert.equal(await session(fan), undefined);
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage).filter((it) => it.includes('place.') || it.includes('hold.'))), []);
  await fan.close();
});

TESTS['waiting: a tab that sleeps'] = async () => {
  const it = await sale();
  await pause(it);
  const fan = await visitor();
  const { page } = fan;
  await enter(page, it, member());
  await state(page, 'paused');
  const second = await fan.context.newPage();
  await fan.open(it.wait, second);
  await state(second, 'paused');
  const cdp = await fan.context.newCDPSession(page);
  // Its timers stand still, as on a phone.
  await cdp.send('Emulation.setVirtualTimePolicy', { policy: 'pause' });
  await second.bringToFront();
  // The one that is looked at takes over.
  await second.waitForEvent('request', { predicate: (request) => request.url().endsWith('/api/v1/waiting-queues'), timeout: 60_000 });
  await resume(it);
  await state(second, 'turn');
  await cdp.send('Emulation.setVirtualTimePolicy', { policy: 'advance' });
  await state(page, 'turn');
  await fan.close();
};

TESTS['waiting: a slow line'] = async () => {
  const it = await sale();
  await pause(it);
  const fan = await visitor();
  const { page } = fan;
  await enter(page, it, member());
  await state(page, 'paused');
  const cdp = await fan.context.newCDPSession(page);
  await cdp.send('Network.enable');
  await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
  await cdp.send('Network.emulateNetworkConditions', { offline: false, latency: 2_000, downloadThroughput: 50_000, uploadThroughput: 50_000 });
  const began = Date.now();
  await page.reload({ waitUntil: 'commit' });
  await page.waitForSelector('#place:not([hidden])');
  const took = Date.now() - began;
  assert.ok(took < 6_000, `the place after ${took} ms`);
  await page.waitForFunction(() => document.querySelector('#updated').textContent !== '');
  await fan.close();
  return `the place after ${took} ms`;
};

TESTS['pay: not mine, not here'] = async () => {
  const fan = await visitor({ allowed: /status of (403|404)/ });
  const { page } = fan;
  for (const path of ['/pay/1', '/t/1']) {
    await fan.open(path);
    await page.waitForSelector('.card.centre');
  }
  await screen(page, 'ticket-not-here');
  await fan.open('/me');
  await page.waitForSelector('#forget');
  await screen(page, 'my-tickets-none');
  await page.fill('#member', '33');
  await page.click('.form button');
  await page.waitForFunction(() => localStorage.getItem('boxoffice.user') === '33');
  await page.waitForSelector('#forget');
  await page.click('#forget');
  await screen(page, 'my-tickets-forget');
  await page.click('dialog [value="yes"]');
  await page.waitForSelector('.note.good');
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage).filter((it) => it !== 'boxoffice.lang')), []);
  await fan.close();
};

TESTS['wide: concerts'] = async () => {
  const fan = await visitor({ viewport: DESKTOP, language: 'ko' });
  const { page } = fan;
  await fan.open('/?lang=en');
  await page.waitForSelector('.concert');
  assert.equal(await page.getAttribute('html', 'lang'), 'en', 'the address goes before the browser');
  await screen(page, 'concerts-wide');
  await fan.open('/c/1');
  await page.waitForSelector('.session');
  assert.equal(await page.getAttribute('html', 'lang'), 'en', 'and is kept');
  await screen(page, 'concert-wide');
  await fan.close();
};

TESTS['signs of forced colours'] = async () => {
  const it = await sale();
  await buy(it, member(), [it.seat, it.seat + 1]);
  const fan = await visitor({ forcedColors: 'active', reducedMotion: 'reduce' });
  const { page } = fan;
  await toSeats(page, it, member());
  await choose(page, 5);
  await page.screenshot({ path: join(out, 'seats-forced-colours.png') });
  const shown = await page.evaluate(() => ['free', 'chosen', 'sold'].map((look) => document.querySelector(`.grid [data-look="${look}"]`)?.innerText.trim()));
  assert.deepEqual(shown, ['3', '5\n✓', '✕'], 'told apart without any colour');
  await fan.close();
};

TESTS['the service is away for a while'] = async () => {
  const { BOXOFFICE_TEST_STOP: stop, BOXOFFICE_TEST_START: start } = process.env;
  if (!stop || !start) return 'left out: BOXOFFICE_TEST_STOP and BOXOFFICE_TEST_START say how to stop it';
  const it = await sale();
  await pause(it);
  await joinLine(it, member());
  const fan = await visitor({ allowed: /ERR_CONNECTION|ERR_EMPTY_RESPONSE|status of 50\d/ });
  const { page } = fan;
  await enter(page, it, member());
  await state(page, 'paused');
  execSync(stop, { stdio: 'inherit' });
  await page.waitForSelector('#trouble:not([hidden])');
  assert.equal(await text(page, '#number'), '1');
  await screen(page, 'waiting-service-away');
  execSync(start, { stdio: 'inherit' });
  await page.waitForSelector('#trouble', { state: 'hidden', timeout: 45_000 });
  assert.equal(await text(page, '#number'), '1', 'the same place');
  await resume(it);
  await state(page, 'turn');
  await fan.close();
  return '';
};

TESTS.budgets = async () => {
  const it = await sale({ seats: 2_000 });
  const fan = await visitor();
  const { page } = fan;
  await toPayment(page, it, member());
  const pay = new URL(page.url()).pathname;
  const cdp = await fan.context.newCDPSession(page);
  await cdp.send('Network.enable');
  await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
  const loaded = new Map();
  cdp.on('Network.responseReceived', ({ requestId, response }) => loaded.set(requestId, { path: new URL(response.url).pathname, bytes: 0 }));
  cdp.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => { if (loaded.has(requestId)) loaded.get(requestId).bytes = encodedDataLength; });
  const lines = [];
  for (const [path, most, requests] of [
    [it.wait, WAITING_PAGE_MAX, 1], ['/', PAGE_MAX, REQUESTS_MAX], [`/c/${it.concert}`, PAGE_MAX, REQUESTS_MAX],
    [`/c/${it.concert}/s/${it.session}`, PAGE_MAX, REQUESTS_MAX], [pay, PAGE_MAX, REQUESTS_MAX], ['/me', PAGE_MAX, REQUESTS_MAX],
  ]) {
    loaded.clear();
    await page.goto(base + path, { waitUntil: 'load' });
    // What is told all the time never ends.
    await page.waitForFunction(() => !document.querySelector('.loading'));
    await sleep(1_000);
    // The head of each answer is not part of the budget, nor is the icon, which nothing waits for.
    const own = [...loaded.values()].filter((one) => !one.path.startsWith('/api/') && !one.path.startsWith('/assets/icon'));
    const bytes = own.reduce((sum, one) => sum + one.bytes, 0);
    lines.push(`${path.replace(/\d+/g, 'N')}: ${bytes} bytes in ${own.length}`);
    if (bytes > most + own.length * 1_024) problems.push(`${path}: ${bytes} bytes`);
    if (own.length > requests) problems.push(`${path}: ${own.length} requests`);
  }
  const document = await fetch(base + it.wait, { headers: { 'Accept-Encoding': 'gzip' } });
  const length = Number(document.headers.get('Content-Length'));
  if (length > WAITING_PAGE_MAX) problems.push(`the waiting page has ${length} bytes`);
  lines.push(`the waiting page: ${length} of ${WAITING_PAGE_MAX} bytes`);
  await fan.close();
  return lines.join('; ');
};

TESTS['a text for every error'] = async () => {
  // What only operators, proxies and programs get.
  const others = /^(ADMIN_|OPERATOR_|ROLE_|PASS_|INVALID_SETTING|ALREADY_EXISTS|SOLD_OR_HELD|QUEUE_DRAWN|PLAN_INVALID|SESSION_HAS_PLAN|LOG_ENTRY_|CHANGED_|UNDO_|NOT_UNDOABLE)/;
  const page = readFileSync(fileURLToPath(new URL('../../docs/errors.md', import.meta.url)), 'utf8');
  const codes = [...page.matchAll(/^\| \d{3} \| \[([A-Z_]+)\]/gm)].map(([, code]) => code).filter((code) => !others.test(code));
  assert.ok(codes.length > 50);
  for (const [language, { errors }] of Object.entries({ en, ko })) {
    assert.deepEqual(codes.filter((code) => !errors[code]), [], `no text in ${language}`);
    assert.deepEqual(Object.keys(errors).filter((code) => !codes.includes(code) && !['OFFLINE', 'UNREACHABLE', 'NOT_HERE'].includes(code)), [], `no such code in ${language}`);
  }
};

Object.assign(TESTS, consoleTests({ base, call, visitor, screen, text, state, sale, joinLine, admitted, member, enter, buy, sleep, problems: () => problems, PHONE, DESKTOP }));

// ---- Running them.

/** What is measured in them, others on the same machine would disturb. */
const TIMED = ['hall: 50,000 places', 'waiting: a slow line', 'hall: what others do is seen within a second'];
// BOXOFFICE_TEST_LANE: `0/4` is every fourth but those, `timed` is those.
const [lane, lanes] = (process.env.BOXOFFICE_TEST_LANE ?? '').split('/');
const isOfLane = (name, index) => !lane || (lane === 'timed' ? TIMED.includes(name) : !TIMED.includes(name) && index % Number(lanes) === Number(lane));
assert.deepEqual(TIMED.filter((name) => !TESTS[name]), [], 'there is no such test');

let failed = 0;
for (const [index, [name, run]] of Object.entries(TESTS).entries()) {
  if (!isOfLane(name, index) || (only.length > 0 && !only.some((part) => name.includes(part)))) continue;
  problems = [];
  const began = Date.now();
  let told = '';
  try {
    told = await run() ?? '';
  } catch (error) {
    problems.unshift(error.stack);
    for (const context of browser.contexts()) {
      for (const page of context.pages()) await page.screenshot({ path: join(out, `FAILED-${name.replace(/\W+/g, '-')}.png`) }).catch(() => {});
    }
  }
  for (const context of browser.contexts()) await context.close().catch(() => {});
  console.log(`${problems.length > 0 ? 'FAILED' : 'ok    '} ${name} (${((Date.now() - began) / 1_000).toFixed(1)} s)${told && `: ${told}`}`);
  for (const problem of problems) console.log(`       ${problem}`);
  if (problems.length > 0) failed += 1;
}
await browser.close();
process.exit(failed > 0 ? 1 : 0);
