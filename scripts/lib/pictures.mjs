// Makes the pictures of docs/pictures: the way to two seats on a phone, in both languages, and the console.
//
// Usage: node pictures.mjs BASE_URL ADMIN_TOKEN_FILE OUT_DIR
//
// BASE_URL is a fresh service with the demo data. CHROMIUM is the browser, where it is not `chromium`. What is needed besides
// is in .tools/playwright (scripts/tools playwright).
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const [base, tokenFile, out] = process.argv.slice(2);
const admin = readFileSync(tokenFile, 'utf8').trim();
const tools = new URL('../../.tools/playwright/node_modules/', import.meta.url);
const { chromium } = await import(new URL('playwright-core/index.mjs', tools).href);
const executablePath = process.env.CHROMIUM ?? execFileSync('sh', ['-c', 'command -v chromium'], { encoding: 'utf8' }).trim();
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
mkdirSync(out, { recursive: true });

const sleep = (ms) => new Promise((later) => setTimeout(later, ms));
async function call(method, path, body, token) {
  const headers = { 'Content-Type': 'application/json', ...(path.startsWith('/admin') ? { Authorization: `Bearer ${admin}` } : {}), ...(token ? { 'QUEUE-TOKEN': token } : {}) };
  const answer = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

/** Pictures side by side, on one sheet. */
async function sheet(name, pictures) {
  const page = await (await browser.newContext({ viewport: { width: 1_240, height: 700 }, deviceScaleFactor: 1 })).newPage();
  await page.setContent(`<style>body{margin:0;padding:16px;display:inline-flex;gap:16px;background:#e9e9ee}img{width:290px;height:628px;object-fit:cover;object-position:top;border-radius:20px;border:1px solid #c9c9d2}</style>${
    pictures.map((png) => `<img src="data:image/png;base64,${png.toString('base64')}">`).join('')}`);
  await page.waitForFunction(() => [...document.images].every((it) => it.complete));
  await page.locator('body').screenshot({ path: join(out, `${name}.jpg`), type: 'jpeg', quality: 72 });
  await page.context().close();
}

// Others have come before, and go on buying.
/** What is on sale. */
const first = { concert: 1, session: (await call('GET', '/api/v1/concerts/1')).sessions[0].sessionId };
async function buys(user, token) {
  const best = user % 3 ? { count: 1 + (user % 4), grade: ['VIP', 'R', 'S'][user % 3] } : { count: 2, section: user % 2 ? 'B' : 'C' };
  const hold = await call('POST', `/api/v1/concerts/${first.concert}/sessions/${first.session}/reservations`, { userId: user, best }, token).catch(() => null);
  if (hold && user % 5) await call('POST', '/api/v1/payments', { userId: user, reservationId: hold.reservationId }, token).catch(() => {});
}
async function crowd(count, from) {
  for (let user = from; user < from + count; user += 1) {
    const { token } = await call('POST', '/api/v1/waiting-queues', { userId: user });
    for (;;) {
      if ((await call('GET', '/api/v1/waiting-queues', undefined, token)).status === 'ACTIVATED') break;
      await sleep(100);
    }
    await buys(user, token);
  }
}
await crowd(90, 100);

for (const [language, member] of [['ko', 7], ['en', 8]]) {
  await call('PATCH', '/admin/v1/queues/main', { admitPerSecond: 4 });
  const joined = [];
  for (let user = 300 + 100 * member; user < 340 + 100 * member; user += 1) joined.push((await call('POST', '/api/v1/waiting-queues', { userId: (user % 900) + 1 })).token);
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, locale: language === 'ko' ? 'ko-KR' : 'en-GB', timezoneId: 'Asia/Seoul', colorScheme: 'light' });
  const page = await context.newPage();
  const pictures = [];
  const picture = async () => pictures.push(await page.screenshot({ animations: 'disabled' }));
  await page.goto(`${base}/c/1?lang=${language}`);
  await page.waitForSelector('.session');
  await page.click('#way');
  await page.fill('#member', String(member));
  await page.click('#join');
  await page.waitForFunction(() => document.body.dataset.state === 'waiting');
  const others = setInterval(() => joined.forEach((token) => call('GET', '/api/v1/waiting-queues', undefined, token).catch(() => {})), 2_000);
  await sleep(6_000);
  await picture();
  await page.waitForFunction(() => document.body.dataset.state === 'turn', undefined, { timeout: 120_000 });
  clearInterval(others);
  await page.click('#enter');
  await page.click(`#s${first.session}`);
  await page.waitForSelector('#best:not([disabled])');
  await page.waitForSelector('.seats-map, .hall svg');
  await page.click('label:has(#grade0)');
  await picture();
  await page.click('#best');
  await page.waitForSelector('#to-pay');
  await sleep(500);
  await picture();
  await page.click('#to-pay');
  await page.waitForSelector('#pay');
  await page.click('#pay');
  await page.waitForSelector('#qr');
  await picture();
  await sheet(`fan-${language}`, pictures);
  await context.close();
}

// The night: a rush while somebody watches.
await call('PATCH', '/admin/v1/queues/main', { admitPerSecond: 12 });
const context = await browser.newContext({ viewport: { width: 1_280, height: 900 }, locale: 'en-GB', timezoneId: 'Asia/Seoul', colorScheme: 'light' });
const page = await context.newPage();
await page.goto(`${base}/ops/login`);
await page.fill('input[type="password"], #token', admin);
await page.keyboard.press('Enter');
await page.waitForURL('**/ops');
const fans = [];
for (let user = 1; user <= 900; user += 1) fans.push({ user, token: (await call('POST', '/api/v1/waiting-queues', { userId: user })).token, has: false });
const until = Date.now() + 40_000;
while (Date.now() < until) {
  await Promise.all(fans.map(async (fan) => {
    const { status } = await call('GET', '/api/v1/waiting-queues', undefined, fan.token).catch(() => ({}));
    if (status !== 'ACTIVATED' || fan.has) return;
    fan.has = true;
    await buys(fan.user, fan.token);
  }));
  await sleep(500);
}
await page.screenshot({ path: join(out, 'console.jpg'), type: 'jpeg', quality: 75, animations: 'disabled' });
await browser.close();
