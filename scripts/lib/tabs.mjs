// Fans in tabs of a real browser, among the simulated ones of `lab sale`: they wait, take the best seats, pay, and have a
// ticket; or are told that all is sold.
//
// Usage: node tabs.mjs URL OUT QUEUE CONCERT SESSION FIRST_USER TABS WITHIN
//
// Each says in a line of JSON in OUT how it ended, as load/k6/browsers.js does, and what it was shown that contradicts what
// it was shown before. CHROMIUM is the browser. What is needed besides is in .tools/playwright.
import { appendFileSync, writeFileSync } from 'node:fs';

const [base, out, queue, ...numbers] = process.argv.slice(2);
const [concert, session, first, tabs, within] = numbers.map(Number);
const tools = new URL('../../.tools/playwright/node_modules/', import.meta.url);
const { chromium } = await import(new URL('playwright-core/index.mjs', tools).href);
const sleep = (ms) => new Promise((later) => setTimeout(later, ms));
const say = (what) => appendFileSync(out, `${JSON.stringify(what)}\n`);
/** An instance that was killed is noticed within seconds. */
const PATIENCE_MS = 60_000;
writeFileSync(out, '');

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });

/** Waits for one of some things that a page may show; reloads what was not served. */
async function sees(page, whatever) {
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const seen = await page.evaluate(whatever).catch(() => null);
    if (seen) return seen;
    if (Date.now() > until) throw new Error(`nothing to go on with at ${page.url()}: ${(await page.innerText('body')).slice(0, 300)}`);
    // A proxy's own answer has no script of ours.
    if (!(await page.evaluate(() => document.querySelector('meta[name="boxoffice-auth"]')).catch(() => true))) await page.reload().catch(() => {});
    await sleep(250);
  }
}

async function fan(user) {
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, locale: user % 2 ? 'ko-KR' : 'en-GB', timezoneId: 'Asia/Seoul' });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  try {
    await page.goto(`${base}/wait/${queue}?c=${concert}`);
    await page.fill('#member', String(user));
    await page.click('#join');
    let shown = Infinity;
    for (;;) {
      const { state, number } = await page.evaluate(() => ({ state: document.body.dataset.state, number: document.querySelector('#place')?.hidden ? null : Number(document.querySelector('#number').textContent.replace(/\D/g, '')) }));
      if (state === 'waiting' && number !== null) {
        if (number > shown) say({ user, wrong: `the page showed ${number} people ahead after ${shown}` });
        shown = Math.min(shown, number);
      }
      if (state === 'soldOut' || state === 'ended') return { end: 'sold-out' };
      if (state === 'turn') break;
      if (!['who', 'joining', 'waiting'].includes(state)) return { end: 'stuck', why: `the waiting page says ${state}` };
      await sleep(250);
    }
    await page.click('#enter');
    const until = Date.now() + 2 * PATIENCE_MS;
    // The page of a concert leads nowhere when the last seat goes between the turn and the way in.
    while (!await page.click(`#s${session}`, { timeout: 1_000 }).then(() => true, () => false)) {
      if (await soldOut()) return { end: 'sold-out' };
      if (Date.now() > until) return { end: 'stuck', why: `no way to the seats: ${(await page.innerText('main')).slice(0, 200)}` };
    }
    // The best there is, or fewer where there are not as many; what others hold they pay for, so it does not come back.
    for (;;) {
      const seen = await sees(page, () => (document.querySelector('#to-pay') ? 'got' : document.querySelector('#best:not([disabled])') ? 'best' : document.querySelector('#choose') || document.querySelector('#title') ? 'none' : null));
      if (seen === 'got') break;
      if (await soldOut()) return { end: 'sold-out' };
      if (Date.now() > until) return { end: 'stuck', why: `no seats: ${(await page.innerText('main')).slice(0, 200)}` };
      if (seen === 'best') {
        await page.click('#best').catch(() => {});
        await page.waitForSelector('#to-pay', { timeout: 5_000 }).catch(() => {});
      }
      await sleep(500);
    }
    await page.click('#to-pay');
    await page.waitForSelector('#pay');
    await page.click('#pay');
    await page.waitForURL('**/t/*');
    const reservation = Number(new URL(page.url()).pathname.split('/')[2]);
    const ticket = await sees(page, () => document.querySelector('.ticket')?.innerText);
    return { end: 'bought', reservation, seats: await seatsOf(page, reservation), ticket };
  } finally {
    await context.close();
  }
}

/** Whether everything is sold, by the service's own words: then no page finds a seat any more. */
async function soldOut() {
  const answer = await fetch(`${base}/api/v1/concerts/${concert}`).catch(() => null);
  return answer?.ok ? (await answer.json()).sessions.every((it) => it.availableSeatCount === 0) : false;
}

/** What the page has of a reservation, by the service's own words. */
const seatsOf = (page, reservation) => page.evaluate(async (id) => {
  const token = JSON.parse(localStorage.getItem(Object.keys(localStorage).find((it) => it.startsWith('boxoffice.place.')) ?? '') ?? '{}').token ?? '';
  const answer = await fetch(`/api/v1/reservations/${id}`, { headers: { 'QUEUE-TOKEN': token } });
  return (await answer.json()).reservedSeats.map((it) => it.seatId);
}, reservation);

await Promise.all(Array.from({ length: tabs }, async (_, index) => {
  const user = first + index;
  await sleep(Math.random() * within * 1_000);
  say({ user, ...await fan(user).catch((error) => ({ end: 'stuck', why: String(error).slice(0, 400) })) });
}));
await browser.close();
