// An operator in a browser, on every screen of the console.
//
// pages.mjs runs these tests beside its own and gives what they share: the service, browsers, and what every screen is held to.
// Where BOXOFFICE_TEST_APART_URL, …_ADMIN_URL and …_TOKEN name a service with a listener of its own for operators, that is tried, too.
import assert from 'node:assert/strict';
import { execSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { words as en } from '../../crates/server/pages/i18n/ops-en.js';
import { words as ko } from '../../crates/server/pages/i18n/ops-ko.js';

/** Bytes over the wire for all that the console is made of, and requests of its first screen. */
const CONSOLE_MAX = 120 * 1024;
const REQUESTS_MAX = 8;
/** Figures are shown as old after five seconds, looked at twice a second. */
const SILENCE_MS = 6_500;
const HOSTILE = '<script>alert(1)</script><img src=x onerror=alert(2)> 🎸👩‍👩‍👧 ';

/** @returns {Record<string, () => Promise<string | void>>} */
export function consoleTests({ base, call, visitor, screen, text, state, sale, joinLine, admitted, member, enter, buy, sleep, problems, PHONE, DESKTOP }) {
  const admin = process.env.BOXOFFICE_TEST_ADMIN_TOKEN;
  const SIGNED_OUT = /status of 401/;
  let operators = 0;

  /** A token of somebody new with that role. */
  async function operator(role) {
    operators += 1;
    const name = `pages-${process.pid % 100_000}-${operators}`;
    const { token } = await call('POST', '/admin/v1/operators', { name, role });
    return { name, token };
  }
  /** Somebody who is signed in, at an address of the console. */
  async function signedIn(path, { token = admin, at = base, ...options } = {}) {
    const one = await visitor({ viewport: DESKTOP, ...options, allowed: new RegExp(`${SIGNED_OUT.source}|${options.allowed?.source ?? '^$'}`), at });
    await one.page.goto(`${at}${path}`);
    await one.page.waitForURL('**/ops/login?*');
    await one.page.fill('#token', token);
    await one.page.click('#sign-in');
    await one.page.waitForURL(at + path);
    return one;
  }
  const live = async (page) => {
    await page.waitForSelector('#screen:not([hidden])');
    await page.waitForFunction(() => document.querySelector('.figure .value')?.textContent !== '–');
  };
  /** What a figure says, by its place on the screen. */
  const figure = (page, at) => page.locator('.figure .value').nth(at).innerText().then((it) => Number(it.replace(/[^\d.]/g, '')));
  const comesTo = (page, at, least) => page.waitForFunction(([place, wanted]) => Number(document.querySelectorAll('.figure .value')[place]?.textContent?.replace(/[^\d.]/g, '')) >= wanted, [at, least]);
  const settings = (it) => call('GET', `/admin/v1/queues/${it.queue}`);
  /** The log's entries about a queue, the latest first. */
  const logOf = async (it) => (await call('GET', '/admin/v1/log?limit=50')).changes.filter((one) => one.target === `queue ${it.queue}`);
  const previewed = (page) => page.waitForSelector('#form-do[aria-disabled="false"]');

  const tests = {};

  for (const language of ['ko', 'en']) {
    tests[`console: signing in ${language}`] = async () => {
      const one = await visitor({ language, allowed: /status of (401|403)/ });
      const { page } = one;
      await one.open('/ops/orders?user=17');
      await page.waitForURL('**/ops/login?return=*');
      assert.equal(await page.getAttribute('html', 'lang'), language);
      await screen(page, `console-${language}-login`);
      await page.click('#sign-in');
      assert.ok(await text(page, '#wrong'));
      await page.fill('#token', 'bxo_0000');
      await page.click('#sign-in');
      await page.waitForFunction((it) => document.querySelector('#wrong').textContent === it, (language === 'ko' ? ko : en).tokenWrong);
      await screen(page, `console-${language}-login-wrong`);
      const { token: cashier } = await operator('cashier');
      await page.fill('#token', cashier);
      await page.click('#sign-in');
      await page.waitForFunction((it) => document.querySelector('#wrong').textContent === it, (language === 'ko' ? ko : en).tokenCashier);
      await page.fill('#token', admin);
      await page.keyboard.press('Enter');
      // Back to where one was.
      await page.waitForURL(`${base}/ops/orders?user=17`);
      await page.waitForSelector('#search');
      assert.deepEqual(await page.evaluate(() => Object.values({ ...localStorage, ...sessionStorage }).filter((it) => String(it).includes('bxo_'))), [], 'no token in the browser');
      await page.click('#menu');
      await screen(page, `console-${language}-menu`);
      await page.click('#sign-out');
      await page.waitForURL('**/ops/login');
      await one.open('/ops/log');
      await page.waitForURL('**/ops/login?return=*');
      await one.close();
    };
  }

  tests['console: an address elsewhere'] = async () => {
    for (const [back, expected] of [['https://example.org/ops', '/ops'], ['//example.org/ops/log', '/ops'], ['/ops/../../me', '/ops'], ['javascript:alert(1)', '/ops'], ['/ops/log', '/ops/log']]) {
      const one = await visitor({ allowed: SIGNED_OUT });
      await one.open(`/ops/login?return=${encodeURIComponent(back)}`);
      await one.page.fill('#token', admin);
      await one.page.click('#sign-in');
      await one.page.waitForURL(base + expected);
      await one.close();
    }
  };

  tests['console: a crowd'] = async () => {
    const it = await sale({ seats: 60, more: [[20, 5_000]] });
    await call('POST', `/admin/v1/queues/${it.queue}/pause`);
    const one = await signedIn(`/ops?q=${it.queue}`);
    const { page } = one;
    await live(page);
    assert.equal(await page.locator('.hero').getAttribute('data-state'), 'PAUSED');
    assert.equal(await figure(page, 0), 0);
    const crowd = [];
    for (let n = 0; n < 12; n += 1) crowd.push((await joinLine(it, member())).token);
    await comesTo(page, 0, 12);
    assert.equal(await figure(page, 4), 80, 'seats left');
    await screen(page, 'console-now-paused');
    await call('POST', `/admin/v1/queues/${it.queue}/resume`);
    await page.waitForSelector('.hero[data-state="OPEN"]');
    // Somebody who asks is there, and is let in.
    for (let n = 0; n < 10; n += 1) {
      await Promise.all(crowd.map((token) => call('GET', '/api/v1/waiting-queues', undefined, { token })));
      await sleep(100);
    }
    await comesTo(page, 1, 12);
    const user = member();
    const own = await admitted(it, user);
    const held = await call('POST', `/api/v1/concerts/${it.concert}/sessions/${it.session}/reservations`, { userId: user, seatIds: [it.seat, it.seat + 1] }, { token: own });
    await page.waitForFunction(() => document.querySelector('.bars')?.textContent?.includes('58'));
    await call('POST', '/api/v1/payments', { userId: user, reservationId: held.reservationId }, { token: own });
    await page.waitForFunction(() => Number(document.querySelectorAll('.figure .value')[3]?.textContent?.replace(/[^\d.]/g, '')) > 0);
    await page.waitForFunction(() => [...document.querySelectorAll('.plot path')].some((path) => path.getAttribute('d')));
    await screen(page, 'console-now');
    await page.setViewportSize(PHONE);
    await screen(page, 'console-now-phone');
    await one.close();
    const korean = await signedIn(`/ops?q=${it.queue}`, { language: 'ko' });
    await live(korean.page);
    await screen(korean.page, 'console-ko-now');
    await korean.page.setViewportSize(PHONE);
    await screen(korean.page, 'console-ko-now-phone');
    await korean.close();
  };

  tests['console: before the opening'] = async () => {
    const it = await sale({ opens: 3_000 });
    const one = await signedIn(`/ops?q=${it.queue}`);
    const { page } = one;
    await live(page);
    await page.waitForSelector('.hero[data-state="SCHEDULED"]');
    assert.match(await text(page, '.state strong'), /\d+:\d\d/);
    await screen(page, 'console-now-scheduled');
    await one.close();
  };

  tests['console: pause and resume'] = async () => {
    const it = await sale();
    const fan = await visitor();
    const one = await signedIn(`/ops?q=${it.queue}`);
    const { page } = one;
    await live(page);
    // By the keyboard, from anywhere on the screen.
    await page.keyboard.press('Alt+KeyP');
    await page.waitForSelector('#resume:not([hidden])');
    assert.equal((await settings(it)).paused, true);
    await page.waitForSelector('#deed [data-undo]');
    await enter(fan.page, it, member());
    await state(fan.page, 'paused');
    await screen(page, 'console-now-paused-deed');
    await page.click('#resume');
    await previewed(page);
    await screen(page, 'console-resume');
    await page.click('#form-do');
    await state(fan.page, 'turn');
    await page.waitForSelector('#pause:not([hidden])');
    // One click, and a way back.
    await page.click('#pause');
    await page.waitForSelector('#resume:not([hidden])');
    await page.click('#deed [data-undo]');
    await page.waitForSelector('#pause:not([hidden])');
    assert.equal((await settings(it)).paused, false);
    await fan.close();
    await one.close();
  };

  tests['console: preview, apply, undo'] = async () => {
    const it = await sale();
    const one = await signedIn(`/ops?q=${it.queue}`, { allowed: /status of 422/ });
    const { page } = one;
    await live(page);
    await page.click('#set-rate');
    await previewed(page);
    await page.fill('#value', '-1');
    await page.waitForFunction(() => document.querySelector('#form-wrong').textContent);
    assert.equal(await page.getAttribute('#value', 'aria-invalid'), 'true');
    await page.fill('#value', '80');
    await page.fill('#reason', 'the shop is calm – 괜찮아요');
    await previewed(page);
    assert.equal(await text(page, '#form-do'), en.verbs.rate('80'));
    await screen(page, 'console-rate');
    assert.equal((await settings(it)).admitPerSecond, 50, 'a look changes nothing');
    await page.click('#form-do');
    await page.waitForSelector('dialog', { state: 'detached' });
    assert.equal((await settings(it)).admitPerSecond, 80);
    const [deed] = await logOf(it);
    assert.equal(deed.reason, 'the shop is calm – 괜찮아요');
    await page.waitForFunction(() => document.querySelector('.deeds')?.textContent?.includes('50 → 80'));
    await page.waitForSelector('.mark');
    assert.match(await text(page, '#deed [data-undo]'), /\d+:\d\d/);
    await screen(page, 'console-rate-done');
    await page.click('#deed [data-undo]');
    await page.waitForFunction(() => document.querySelector('.deeds')?.textContent?.includes('80 → 50'));
    assert.equal((await settings(it)).admitPerSecond, 50);

    await page.click('#set-bound');
    await previewed(page);
    await page.uncheck('#none');
    await page.fill('#value', '5');
    await previewed(page);
    assert.equal(await text(page, '#form-do'), en.verbs.bound('5'));
    await screen(page, 'console-bound');
    await page.click('#form-do');
    await page.waitForSelector('meter:not([hidden])');
    assert.equal((await settings(it)).maxActive, 5);

    await page.click('#set-opening');
    await previewed(page);
    await page.uncheck('#none');
    await page.fill('#value', '2027-05-01T20:00:00');
    await previewed(page);
    await page.waitForSelector('#remarks .note');
    await screen(page, 'console-opening');
    await page.click('#form-do');
    await page.waitForSelector('.hero[data-state="SCHEDULED"]');
    assert.equal(new Date((await settings(it)).opensAt).toISOString(), '2027-05-01T11:00:00.000Z', 'in the time zone of the browser');
    await page.click('.deeds li:has-text("2027") [data-undo], .deeds li:has-text("May 1") [data-undo]');
    await page.waitForSelector('.hero[data-state="OPEN"]');

    // In Korean, on a phone.
    const korean = await signedIn(`/ops/queues/${it.queue}`, { language: 'ko', viewport: PHONE });
    await korean.page.waitForSelector('#set-rate');
    await screen(korean.page, 'console-ko-queue');
    await korean.page.click('#set-rate');
    await korean.page.fill('#value', '500');
    await previewed(korean.page);
    assert.equal(await text(korean.page, '#form-do'), ko.verbs.rate('500'));
    await screen(korean.page, 'console-ko-rate');
    await korean.page.keyboard.press('Escape');
    await korean.page.waitForSelector('dialog', { state: 'detached' });
    await korean.close();
    await one.close();
  };

  tests['console: two operators'] = async () => {
    const it = await sale();
    const other = await operator('operator');
    const change = (admitPerSecond) => fetch(`${base}/admin/v1/queues/${it.queue}`, { method: 'PATCH', headers: { Authorization: `Bearer ${other.token}`, 'Content-Type': 'application/json' }, body: JSON.stringify({ admitPerSecond }) });
    // One who is told each second sees it at once.
    const one = await signedIn(`/ops?q=${it.queue}`);
    await live(one.page);
    await one.page.click('#set-rate');
    await one.page.fill('#value', '70');
    await previewed(one.page);
    await change(60);
    await one.page.waitForSelector('#meanwhile:not([hidden])');
    assert.match(await text(one.page, '#meanwhile'), new RegExp(`${other.name}.*50 → 60`));
    await screen(one.page, 'console-meanwhile');
    await one.page.click('#form-do');
    await one.page.waitForSelector('dialog', { state: 'detached' });
    assert.equal((await settings(it)).admitPerSecond, 70);
    await one.close();

    // One who is not told is refused, sees what changed, and decides anew.
    const deaf = await signedIn(`/ops/queues/${it.queue}`, { allowed: /status of 412|ERR_FAILED/ });
    await deaf.page.route('**/admin/v1/live', (route) => route.abort());
    await deaf.page.reload();
    await deaf.page.click('#set-rate');
    await deaf.page.fill('#value', '90');
    await previewed(deaf.page);
    await change(65);
    await deaf.page.click('#form-do');
    await deaf.page.waitForSelector('#meanwhile:not([hidden])');
    assert.equal(await text(deaf.page, '#form-wrong'), en.lookAgain);
    assert.equal((await settings(it)).admitPerSecond, 65, 'nothing is overwritten blindly');
    await deaf.page.click('#form-do');
    await deaf.page.waitForSelector('dialog', { state: 'detached' });
    assert.equal((await settings(it)).admitPerSecond, 90);
    await deaf.close();

    // What was changed again cannot be undone.
    const third = await signedIn(`/ops?q=${it.queue}`, { allowed: /status of 409/ });
    await live(third.page);
    await third.page.click('#pause');
    await third.page.waitForSelector('#deed [data-undo]');
    await change(55);
    await third.page.click('#deed [data-undo]');
    await third.page.waitForSelector('#deed.bad');
    assert.match(await text(third.page, '#deed'), new RegExp(en.errors.CHANGED_SINCE.slice(0, 30)));
    assert.equal((await settings(it)).paused, true);
    await third.close();
  };

  tests['console: what a role may'] = async () => {
    const it = await sale();
    const { token } = await operator('viewer');
    const one = await signedIn(`/ops?q=${it.queue}`, { token, allowed: /status of 403/ });
    const { page } = one;
    await live(page);
    assert.equal(await page.locator('#pause, #resume, #set-rate, #set-bound, #set-opening, [data-undo]').count(), 0);
    assert.equal(await text(page, '#may-look'), en.cannotPause);
    await screen(page, 'console-now-viewer');
    for (const [path, offered] of [[`/ops/queues/${it.queue}`, '#pause, #set-rate'], ['/ops/queues', '#new'], ['/ops/concerts', '#new'], [`/ops/concerts/${it.concert}`, '#make-session'], ['/ops/operators', '#add']]) {
      await one.open(path);
      await page.waitForSelector('.head');
      await page.waitForSelector('main .small');
      assert.equal(await page.locator(offered).count(), 0, path);
      assert.match(await text(page, 'main'), /you need the role/, path);
    }
    // The service does not rely on what is offered.
    const status = await page.evaluate((queue) => fetch(`/admin/v1/queues/${queue}/pause`, { method: 'POST' }).then((answer) => answer.status), it.queue);
    assert.equal(status, 403);
    await one.close();
  };

  tests['console: a right that is taken away'] = async () => {
    const { name, token } = await operator('operator');
    const it = await sale();
    const one = await signedIn(`/ops?q=${it.queue}`, { token });
    const { page } = one;
    await live(page);
    const second = await one.context.newPage();
    await second.goto(`${base}/ops/log`);
    await second.waitForSelector('table');
    await call('DELETE', `/admin/v1/operators/${name}`);
    await page.waitForURL('**/ops/login?*over=1');
    await page.waitForSelector('#over');
    await screen(page, 'console-login-over');
    // The other tab as well, and what one was looking at is remembered.
    await second.waitForURL('**/ops/login?*');
    assert.match(second.url(), /return=%2Fops%2Flog/);
    await one.close();
  };

  tests['console: one tab listens'] = async () => {
    const it = await sale();
    const one = await signedIn(`/ops?q=${it.queue}`);
    await live(one.page);
    let streams = 0;
    const pages = [];
    for (let n = 0; n < 7; n += 1) {
      const page = await one.context.newPage();
      page.on('request', (request) => { if (request.url().endsWith('/admin/v1/live')) streams += 1; });
      await page.goto(`${base}/ops?q=${it.queue}`);
      pages.push(page);
    }
    for (const page of pages) await live(page);
    assert.equal(streams, 0, 'a browser has six connections for all tabs');
    // Another one goes on when it is closed.
    await one.page.close();
    await joinLine(it, member());
    const last = pages.at(-1);
    await call('POST', `/admin/v1/queues/${it.queue}/pause`);
    await last.waitForSelector('.hero[data-state="PAUSED"]');
    assert.equal(streams, 1);
    await one.close();
  };

  tests['console: the service is away for a while'] = async () => {
    const { BOXOFFICE_TEST_STOP: stop, BOXOFFICE_TEST_START: start } = process.env;
    if (!stop || !start) return 'left out: BOXOFFICE_TEST_STOP and BOXOFFICE_TEST_START say how to stop it';
    const it = await sale();
    const one = await signedIn(`/ops?q=${it.queue}`, { allowed: /ERR_CONNECTION|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE|status of 50\d/ });
    const { page } = one;
    await live(page);
    execSync(stop, { stdio: 'inherit' });
    const began = Date.now();
    await page.waitForSelector('body.stale', { timeout: SILENCE_MS });
    const took = Date.now() - began;
    await page.waitForFunction(() => /\d+ s/.test(document.querySelector('.strips .note.warn')?.textContent ?? ''));
    await screen(page, 'console-now-stale');
    execSync(start, { stdio: 'inherit' });
    await page.waitForSelector('body:not(.stale)');
    await joinLine(it, member());
    await call('POST', `/admin/v1/queues/${it.queue}/pause`);
    await page.waitForSelector('.hero[data-state="PAUSED"]');
    await one.close();
    return `grey after ${took} ms`;
  };

  tests['console: concerts'] = async () => {
    const name = `${HOSTILE}${'긴 이름 '.repeat(60)}`.slice(0, 195).trim();
    const { queue } = await sale();
    const one = await signedIn('/ops/concerts', { allowed: /status of (404|409|422)/ });
    const { page } = one;
    await page.click('#new');
    await screen(page, 'console-concert-new');
    await page.click('#form-do');
    await page.waitForFunction(() => document.querySelector('#form-wrong').textContent);
    await page.fill('#name', name);
    await page.fill('#venue', 'Riverside <b>Hall</b>');
    await page.fill('#opens', '2026-01-01T20:00:00');
    await page.fill('#closes', '2099-01-01T20:00:00');
    await page.selectOption('#queue', queue);
    await page.dblclick('#form-do');
    await page.waitForURL(/\/ops\/concerts\/\d+$/);
    const id = Number(page.url().split('/').at(-1));
    assert.equal((await call('GET', '/admin/v1/concerts?limit=1000')).concerts.filter((it) => it.name === name).length, 1, 'pressed twice, made once');
    await page.waitForSelector('#make-session');
    assert.equal(await text(page, 'h1'), name);
    await page.fill('#new-at', '2098-01-01T19:00:00');
    await page.fill('#new-seats', '30');
    await page.fill('#new-price', '1500');
    await page.click('#make-session');
    await page.waitForFunction(() => document.querySelector('table')?.textContent?.includes('30'));
    await screen(page, 'console-concert');
    await page.setViewportSize(PHONE);
    await screen(page, 'console-concert-phone');
    await page.setViewportSize(DESKTOP);
    await page.click('td.acts >> text=Add seats');
    await page.fill('#seats', '5');
    await page.fill('#price', '9000');
    await page.click('#form-do');
    await page.waitForFunction(() => document.querySelector('table')?.textContent?.includes('9,000'));
    // Corrected.
    await page.click('main .card >> nth=0 >> text=Correct');
    await page.fill('#venue', 'Small Hall');
    await screen(page, 'console-concert-correct');
    await page.click('#form-do');
    await page.waitForFunction(() => document.querySelector('.facts')?.textContent?.includes('Small Hall'));
    // Everywhere else where it is named.
    for (const path of ['/ops/concerts', '/ops/sales', '/ops/log', `/ops?q=${queue}`]) {
      await one.open(path);
      await page.waitForSelector('.head, #screen:not([hidden])');
      await page.waitForFunction(() => !document.querySelector('main .loading:not([hidden])'));
      await screen(page, `console-hostile${path.replace(/\W+/g, '-').slice(0, 14)}`);
      await page.setViewportSize(PHONE);
      await screen(page, `console-hostile${path.replace(/\W+/g, '-').slice(0, 14)}-phone`);
      await page.setViewportSize(DESKTOP);
    }
    // Called off, which needs the name.
    const session = (await call('GET', `/admin/v1/concerts/${id}/sessions`)).sessions[0];
    const seats = await call('GET', `/api/v1/concerts/${id}`);
    assert.equal(seats.sessions[0].totalSeatCount, 35);
    const user = member();
    const token = await admitted({ queue }, user);
    const list = await call('GET', `/api/v1/concerts/${id}/sessions/${session.sessionId}/seats`, undefined, { token });
    const held = await call('POST', `/api/v1/concerts/${id}/sessions/${session.sessionId}/reservations`, { userId: user, seatIds: [list.availableSeats[0].seatId] }, { token });
    await call('POST', '/api/v1/payments', { userId: user, reservationId: held.reservationId }, { token });
    await one.open(`/ops/concerts/${id}`);
    await page.waitForSelector('#make-session');
    assert.equal(await page.locator('td.acts >> text=Remove').count(), 0, 'what has sold is not removed');
    await page.click('main .card >> nth=0 >> text=Call off');
    await page.fill('#typed', 'something else');
    await page.click('#form-do');
    assert.equal(await text(page, '#form-wrong'), en.callOffWrong);
    await screen(page, 'console-call-off');
    await page.fill('#typed', name);
    await page.click('#form-do');
    await page.waitForFunction(() => document.querySelector('table')?.textContent?.includes('1 refunded, 0 to go'));
    await screen(page, 'console-called-off');
    await one.close();
  };

  tests['console: a plan of a hall'] = async () => {
    const seats = (row, category) => Array.from({ length: 10 }, (_, n) => ({ seat_guid: `${row}-${n + 1}`, seat_number: String(n + 1), position: { x: n * 20, y: 0 }, category }));
    const plan = {
      name: `Hall ${HOSTILE}`, size: { width: 600, height: 400 }, categories: [{ name: 'R', color: '#aa0000' }, { name: HOSTILE.trim(), color: '#00aa00' }],
      zones: [{
        name: `A ${HOSTILE}`, position: { x: 0, y: 100 },
        rows: [{ row_number: '1', position: { x: 0, y: 0 }, seats: seats('1', 'R') }, { row_number: '2', position: { x: 0, y: 30 }, seats: seats('2', HOSTILE.trim()) }],
        areas: [{ uuid: 'floor', shape: 'rectangle', position: { x: 0, y: 200 }, rectangle: { width: 200, height: 100 }, text: { text: 'Floor', position: { x: 10, y: 10 } } }],
      }],
    };
    const broken = structuredClone(plan);
    broken.zones[0].rows[1].seats[3] = { ...broken.zones[0].rows[1].seats[2], seat_guid: 'other' };
    broken.zones[0].rows[1].seats[4].category = 'X';
    const file = (text) => ({ name: 'plan.json', mimeType: 'application/json', buffer: Buffer.from(text) });
    const it = await sale();
    const one = await signedIn(`/ops/concerts/${it.concert}`, { allowed: /status of 4(13|22)/ });
    const { page } = one;
    await page.waitForSelector('#make-session');
    await page.check('#kind-plan');
    assert.ok(await page.locator('#make-session').isHidden(), 'nothing is made unseen');
    await page.fill('#new-at', '2027-05-01T19:00');
    await page.setInputFiles('#plan', file('{"zones": ['));
    await page.waitForFunction((wrong) => document.querySelector('form .wrong').textContent === wrong, en.planWrong);
    await page.setInputFiles('#plan', file(JSON.stringify(broken)));
    await page.waitForSelector('#price-0');
    await page.fill('#price-0', '154000');
    await page.fill('#price-1', '99000');
    await page.click('#check-plan');
    await page.waitForSelector('#report .note.warn');
    assert.match(await text(page, '#report'), new RegExp(en.problems.MISSING_CATEGORY.slice(0, 20)));
    assert.ok(await page.locator('#make-session').isHidden());
    await screen(page, 'console-plan-problems');
    await page.setInputFiles('#plan', file(JSON.stringify(plan)));
    await page.waitForFunction(() => document.querySelectorAll('[data-price]').length === 2);
    assert.equal(await page.inputValue('#price-0'), '154000', 'a corrected plan keeps the prices');
    await page.click('#add-area');
    await page.fill('#people-1', '300');
    await page.selectOption('#grade-1', 'R');
    await page.click('#check-plan');
    await page.waitForSelector('#report .note.good');
    assert.match(await text(page, '#report'), /320/);
    await screen(page, 'console-plan');
    await page.setViewportSize(PHONE);
    await screen(page, 'console-plan-phone');
    await page.setViewportSize(DESKTOP);
    // What is changed is to be looked through again.
    await page.fill('#people-1', '200');
    assert.ok(await page.locator('#make-session').isHidden());
    await page.click('#check-plan');
    await page.waitForSelector('#report .note.good');
    await page.click('#make-session');
    await page.waitForFunction(() => [...document.querySelectorAll('table tr')].some((row) => row.textContent.includes('220')));
    await screen(page, 'console-concert-with-plan');
    await one.open(`/ops/sales?concert=${it.concert}`);
    await page.waitForSelector('.sums');
    assert.match(await text(page, 'table'), /154,000/);
    await screen(page, 'console-sales-grades');
    await one.open(`/ops?q=${it.queue}`);
    await live(page);
    await page.waitForFunction(() => document.querySelector('.bars')?.textContent?.includes('210'));
    await one.close();
  };

  tests['console: tickets'] = async () => {
    const it = await sale();
    const user = member();
    const token = await admitted(it, user);
    const held = await call('POST', `/api/v1/concerts/${it.concert}/sessions/${it.session}/reservations`, { userId: user, seatIds: [it.seat, it.seat + 1] }, { token });
    await call('POST', '/api/v1/payments', { userId: user, reservationId: held.reservationId }, { token });
    const { code } = await call('GET', `/api/v1/reservations/${held.reservationId}/ticket`, undefined, { token });
    const one = await signedIn('/ops/tickets', { viewport: PHONE });
    const { page } = one;
    await page.fill('#code', 'hello');
    await page.click('#check');
    await page.waitForSelector('#verdict.bad');
    assert.match(await text(page, '#verdict'), new RegExp(en.reasons.NOT_A_TICKET));
    await screen(page, 'console-ticket-bad');
    await page.fill('#code', code);
    await page.click('#check');
    await page.waitForSelector('#verdict.good');
    assert.match(await text(page, '#verdict'), new RegExp(String(held.reservationId)));
    await screen(page, 'console-ticket-good');
    // What was said of it does not stand over the next one while that is looked at.
    let look = () => {};
    await page.route('**/tickets/verify', async (route) => {
      await new Promise((later) => { look = later; });
      await route.continue();
    });
    await page.fill('#code', `${code}x`);
    await page.click('#check');
    await page.waitForSelector('#verdict', { state: 'detached' });
    look();
    await page.waitForSelector('#verdict.bad');
    await page.unroute('**/tickets/verify');
    // With a camera, where the browser reads codes.
    await page.addInitScript((told) => {
      globalThis.BarcodeDetector = class { detect() { return Promise.resolve([{ rawValue: told }]); } };
      navigator.mediaDevices.getUserMedia = () => {
        const canvas = Object.assign(document.createElement('canvas'), { width: 64, height: 64 });
        setInterval(() => canvas.getContext('2d').fillRect(0, 0, Math.random() * 64, 64), 50);
        return Promise.resolve(canvas.captureStream(10));
      };
    }, code);
    await page.reload();
    await page.click('#scan');
    await page.waitForSelector('#verdict.good');
    await page.click('#scan');
    await page.waitForSelector('video', { state: 'hidden' });
    await one.close();
    // It says how it is now, and not how it was.
    await call('POST', `/admin/v1/concerts/${it.concert}/sessions/${it.session}/cancel`);
    const korean = await signedIn('/ops/tickets', { language: 'ko', viewport: PHONE });
    await korean.page.fill('#code', code);
    await korean.page.click('#check');
    await korean.page.waitForSelector('#verdict.bad');
    await screen(korean.page, 'console-ko-ticket-bad');
    await korean.close();
  };

  tests['console: queues'] = async () => {
    const name = `pages-${process.pid % 100_000}-new`;
    const one = await signedIn('/ops/queues', { allowed: /status of (409|422)/ });
    const { page } = one;
    await page.click('#new');
    await page.fill('#queue', 'Not A Name');
    await page.click('#form-do');
    await page.waitForFunction(() => document.querySelector('#form-wrong').textContent);
    await page.fill('#queue', name);
    await page.fill('#queue-rate', '12');
    await screen(page, 'console-queue-new');
    await page.click('#form-do');
    await page.waitForURL(`**/ops/queues/${name}`);
    await page.waitForFunction(() => document.querySelector('table')?.textContent?.includes('Queue made'));
    assert.equal((await call('GET', `/admin/v1/queues/${name}`)).admitPerSecond, 12);
    await page.keyboard.press('Alt+KeyP');
    await page.waitForSelector('#resume');
    await screen(page, 'console-queue');
    await page.goBack();
    await page.waitForSelector(`a[href="/ops/queues/${name}"]`);
    await screen(page, 'console-queues');
    await page.setViewportSize(PHONE);
    await screen(page, 'console-queues-phone');
    await one.close();
  };

  tests['console: orders, sales'] = async () => {
    const it = await sale({ price: 1_500 });
    const user = member();
    const paid = await buy(it, user, [it.seat, it.seat + 1]);
    const one = await signedIn('/ops/orders', { allowed: /status of 4/ });
    const { page } = one;
    await page.fill('#user', 'x');
    await page.click('#search');
    assert.equal(await page.getAttribute('#user', 'aria-invalid'), 'true');
    await page.fill('#user', String(user));
    await page.selectOption('#state', 'PAID');
    await page.click('#search');
    await page.waitForURL(`**/ops/orders?user=${user}&state=PAID`);
    await page.waitForSelector(`a[href="/ops/orders/${paid.reservationId}"]`);
    await screen(page, 'console-orders');
    await page.setViewportSize(PHONE);
    await screen(page, 'console-orders-phone');
    const [file] = await Promise.all([page.waitForEvent('download'), page.click('#csv')]);
    const csv = readFileSync(await file.path(), 'utf8');
    assert.match(csv, /^\ufeffreservationId,/);
    assert.ok(csv.split('\r\n').some((line) => line.startsWith(`${paid.reservationId},${user},`)), csv);
    await page.click(`a[href="/ops/orders/${paid.reservationId}"]`);
    await page.waitForSelector('.facts');
    assert.match(await text(page, '.facts'), /3,000/);
    await screen(page, 'console-order');
    await page.setViewportSize(DESKTOP);
    await one.open(`/ops/sales?concert=${it.concert}`);
    await page.waitForSelector('.sums');
    assert.match(await text(page, '.sums'), /2[\s\S]*0[\s\S]*38[\s\S]*3,000/);
    await screen(page, 'console-sales');
    await page.setViewportSize(PHONE);
    await screen(page, 'console-sales-phone');
    await one.open('/ops/orders/999999999');
    await page.waitForSelector('.card.soft');
    await one.close();
  };

  tests['console: operators, log, audit'] = async () => {
    const name = `pages-${process.pid % 100_000}-desk`;
    const one = await signedIn('/ops/operators', { allowed: /status of (409|422)/ });
    const { page } = one;
    await page.click('#add');
    await page.fill('#operator', name);
    await page.selectOption('#role', 'operator');
    await page.fill('#reason', 'helps tonight');
    await screen(page, 'console-operator-add');
    await page.click('#form-do');
    await page.waitForSelector('#new-token .token');
    const token = await text(page, '#new-token .token');
    await screen(page, 'console-operators');
    const theirs = await signedIn('/ops/log', { token, language: 'ko', viewport: PHONE });
    await theirs.page.fill('#filter', name);
    await theirs.page.waitForFunction((it) => document.querySelector('table')?.textContent?.includes(it), 'helps tonight');
    assert.ok(!(await text(theirs.page, 'main')).includes(token), 'no token in the log');
    await screen(theirs.page, 'console-ko-log');
    await theirs.open('/ops/operators');
    await theirs.page.waitForSelector('table');
    assert.equal(await theirs.page.locator('#add, .danger').count(), 0);
    await screen(theirs.page, 'console-ko-operators');
    await page.click(`tr:has-text("${name}") .danger`);
    await screen(page, 'console-operator-remove');
    await page.click('#form-do');
    await page.waitForSelector(`tr:has-text("${name}")`, { state: 'detached' });
    await theirs.page.waitForURL('**/ops/login?*');
    await theirs.close();
    await one.open('/ops/log');
    await page.waitForSelector('table');
    await screen(page, 'console-log');
    await one.open('/ops/audit');
    await page.click('#run');
    await page.waitForSelector('#verdict.good');
    await screen(page, 'console-audit');
    await page.setViewportSize(PHONE);
    await screen(page, 'console-audit-phone');
    await one.close();
  };

  tests['console: a listener of its own'] = async () => {
    const { BOXOFFICE_TEST_APART_URL: at, BOXOFFICE_TEST_APART_ADMIN_URL: apart, BOXOFFICE_TEST_APART_TOKEN: token } = process.env;
    if (!at) return 'left out: BOXOFFICE_TEST_APART_URL names no such service';
    for (const path of ['/ops', '/ops/login', '/ops/log', '/admin/v1/me', '/admin/v1/live']) assert.equal((await fetch(at + path)).status, 404, path);
    const one = await signedIn('/ops', { at: apart, token });
    await live(one.page);
    await one.page.click('#pause');
    await one.page.waitForSelector('#resume:not([hidden])');
    assert.equal((await (await fetch(`${at}/api/v1/waiting-queues/main`)).json()).state, 'PAUSED');
    await one.close();
    return '';
  };

  tests['console: budgets'] = async () => {
    const it = await sale();
    const one = await signedIn(`/ops?q=${it.queue}`);
    const { page } = one;
    await live(page);
    const cdp = await one.context.newCDPSession(page);
    await cdp.send('Network.enable');
    await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
    const loaded = new Map();
    const files = new Map();
    cdp.on('Network.responseReceived', ({ requestId, response }) => loaded.set(requestId, { path: new URL(response.url).pathname, bytes: 0 }));
    cdp.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => { if (loaded.has(requestId)) loaded.get(requestId).bytes = encodedDataLength; });
    const most = [];
    for (const path of ['/ops/login', `/ops?q=${it.queue}`, '/ops/queues', '/ops/sales', '/ops/concerts', '/ops/orders', '/ops/tickets', '/ops/log', '/ops/operators', '/ops/audit']) {
      loaded.clear();
      await page.goto(base + path);
      await page.waitForSelector('h1');
      await page.waitForFunction(() => !document.querySelector('main > .loading:not([hidden])'));
      const own = [...loaded.values()].filter((file) => !file.path.startsWith('/admin/') && !file.path.startsWith('/assets/icon'));
      for (const file of own) files.set(file.path.startsWith('/ops/') && file.path !== '/ops/login' ? '/ops' : file.path, file.bytes);
      most.push(own.length);
      if (own.length > REQUESTS_MAX) problems().push(`${path}: ${own.length} requests: ${own.map((file) => file.path).join(', ')}`);
    }
    const bytes = [...files.values()].reduce((sum, its) => sum + its, 0);
    if (bytes > CONSOLE_MAX) problems().push(`the console has ${bytes} bytes`);
    await one.close();
    return `${bytes} of ${CONSOLE_MAX} bytes in ${files.size} files, at most ${Math.max(...most)} requests a screen`;
  };

  tests['console: a text for every error'] = async () => {
    const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
    const codes = [...page.matchAll(/^\| \d{3} \| \[([A-Z_]+)\]/gm)].map(([, code]) => code);
    assert.deepEqual(Object.keys(en.errors).filter((code) => !codes.includes(code) && !['OFFLINE', 'UNREACHABLE'].includes(code)), [], 'no such code');
    assert.deepEqual(Object.keys(ko.errors), Object.keys(en.errors));
  };

  return tests;
}
