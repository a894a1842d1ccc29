// A fan who comes to a site behind a gate, and a site that checks passes by itself, for scripts/lib/gate.py. What is needed
// is in .tools/playwright (scripts/tools playwright).
//
// Usage: node gate.mjs fan SITE BOXOFFICE | node gate.mjs verifier BOXOFFICE
//
// SITE is the address of the proxy, BOXOFFICE that of the service, whose admin token is in BOXOFFICE_TEST_ADMIN_TOKEN. CHROMIUM
// is the browser.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { Agent, request } from 'node:http';
import { gate, passesOf, verifier } from '../../deploy/gate/verify.mjs';

const [mode, ...addresses] = process.argv.slice(2);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const SECRET = 'Only those who have waited in line';
let service;

async function call(method, path, { body, token, expect = 200, admin = false } = {}) {
  const headers = { 'Content-Type': 'application/json' };
  if (token) headers['QUEUE-TOKEN'] = token;
  if (admin) headers.Authorization = `Bearer ${process.env.BOXOFFICE_TEST_ADMIN_TOKEN}`;
  const answer = await fetch(service + path, { method, headers, body: body && JSON.stringify(body) });
  assert.equal(answer.status, expect, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.status === 204 ? null : answer.json();
}

async function passOf(queue, userId) {
  const { token } = await call('POST', '/api/v1/waiting-queues', { body: { userId, queue }, expect: 201 });
  for (;;) {
    const { status, pass } = await call('GET', '/api/v1/waiting-queues', { token });
    if (status === 'ACTIVATED') return { token, pass };
    await sleep(100);
  }
}

/** A request as it is written, whatever a browser would make of its path. */
function raw(site, path, headers = {}, agent = false) {
  const { hostname, port } = new URL(site);
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path, headers, agent }, (answer) => {
      let body = '';
      answer.on('data', (chunk) => { body += chunk; });
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, body }));
    });
    asked.on('error', reject);
    asked.setTimeout(10_000, () => asked.destroy(new Error(`${path}: no answer`)));
    asked.end();
  });
}

/** Until when a pass is good, in seconds since 1970. */
const endOf = (pass) => JSON.parse(Buffer.from(pass.split('.')[1], 'base64url')).exp;

async function fan(site) {
  const admin = (path) => call('POST', `/admin/v1/queues/main/${path}`, { admin: true });
  await call('POST', '/admin/v1/queues', { admin: true, expect: 201, body: { queue: 'vip' } });
  await admin('pause');
  const { chromium } = await import(new URL('../../.tools/playwright/node_modules/playwright-core/index.mjs', import.meta.url).href);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
  try {
    await walk(site, admin, await browser.newContext({ locale: 'en-GB' }));
  } finally {
    await browser.close();
  }
}

async function walk(site, admin, context) {
  context.setDefaultTimeout(45_000);
  const page = await context.newPage();
  const wrong = [];
  page.on('pageerror', (error) => wrong.push(error.stack));
  page.on('console', (message) => {
    const { url } = message.location();
    // The site has none.
    if (message.type() === 'error' && !url.endsWith('/favicon.ico')) wrong.push(`${message.text()} ${url}`);
  });
  const state = (wanted) => page.waitForFunction((it) => document.body.dataset.state === it, wanted);
  const token = () => page.evaluate(() => JSON.parse(Object.entries(localStorage).find(([name]) => name.startsWith('boxoffice.place.main.'))[1]).token);

  // Comes without a pass, and is sent to wait.
  const asked = '/index.html?row=B&seat=7';
  const sent = await raw(site, asked);
  assert.equal(sent.status, 302, `sent to wait: ${sent.status} ${sent.body}`);
  const waiting = '/wait/main?return=/index.html%3Frow%3DB%26seat%3D7';
  assert.equal(sent.headers.location, waiting);
  assert.match(sent.headers['cache-control'] ?? '', /no-store/, 'the way to the line is not for a cache');

  // Waits.
  await page.goto(site + asked);
  assert.equal(page.url(), site + waiting);
  await state('paused');
  const ticket = await token();
  assert.equal((await raw(site, asked)).status, 302, 'who waits does not pass');
  assert.deepEqual(await context.cookies(), []);

  // Is let in, with the ticket that they have.
  const opened = Date.now();
  await admin('resume');
  await state('turn');
  assert.equal(await token(), ticket);
  assert.equal(await page.locator('#enter').evaluate((it) => it.href), site + asked);
  const [{ name, value: pass, expires, ...attributes }, ...more] = await context.cookies();
  assert.deepEqual([name, more.length, attributes.path, attributes.sameSite, attributes.domain], ['boxoffice-pass', 0, '/', 'Lax', '127.0.0.1']);
  assert.ok(Math.abs(expires - endOf(pass)) <= 2, 'the browser keeps it until it ends');
  await page.click('#enter');
  await page.waitForURL(site + asked);
  assert.match(await page.innerText('body'), new RegExp(SECRET));

  // Returns, and waits no more.
  for (const path of ['/', '/index.html', asked]) {
    await page.goto(site + path);
    assert.equal(page.url(), site + path);
    assert.match(await page.innerText('body'), new RegExp(SECRET), 'returns');
  }
  assert.deepEqual(wrong, []);
  const bearer = await raw(site, '/', { Authorization: `Bearer ${pass}` });
  assert.equal(bearer.status, 200, 'a pass as a bearer token');

  // With a cookie that was copied from another queue nobody passes, nor with one that was changed.
  const { pass: other } = await passOf('vip', 2);
  const [head, claims, signature] = pass.split('.');
  const changed = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(claims, 'base64url')), exp: 9_999_999_999 }));
  for (const wrong of [other, `${head}.${changed.toString('base64url')}.${signature}`, `${head}.${claims}.`, 'x', '']) {
    const refused = await raw(site, '/', { Cookie: `boxoffice-pass=${wrong}` });
    assert.equal(refused.status, 302, `a wrong cookie: ${refused.status}`);
  }
  const both = await raw(site, '/', { Cookie: `boxoffice-pass=${other}; boxoffice-pass=${pass}` });
  assert.equal(both.status, 200, 'a good one beside it');

  // Over one connection, as of a proxy further out, each request is one for itself.
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  for (const [headers, status] of [[{ Cookie: `boxoffice-pass=${pass}` }, 200], [{}, 302], [{ Authorization: `Bearer ${pass}` }, 200], [{}, 302]]) {
    assert.equal((await raw(site, '/', headers, agent)).status, status, 'on one connection');
  }
  agent.destroy();

  await sneak(site);

  // Is out after the end, and begins anew.
  const ends = endOf(pass);
  while (Date.now() / 1_000 < ends) await sleep(50);
  const over = await raw(site, asked, { Cookie: `boxoffice-pass=${pass}` });
  assert.equal(over.status, 302, 'after the end');
  assert.ok(Date.now() - opened < 60_000, 'this took too long to mean anything');
  await admin('pause');
  // Not what the browser has kept of the site.
  await page.goto(`${site}/index.html?late`);
  assert.equal(page.url(), `${site}/wait/main?return=/index.html%3Flate`, 'the browser has dropped the cookie');
  await state('timedOut');
  await page.click('#rejoin');
  await state('paused');
  assert.notEqual(await token(), ticket, 'a new ticket');
}

/** Whoever has no pass sees nothing of the site, however they spell it, and is sent nowhere else. */
async function sneak(site) {
  for (const path of [
    '/wait/../index.html', '/wait/%2e%2e/index.html', '/wait/..%2findex.html', '/wait/..%5cindex.html',
    '/wait/./../index.html', '//index.html', '/./index.html', '/%2e/index.html', '/wait/x/../../index.html',
    '/wait\\..\\index.html', '/wait/..;/index.html', '/wait//../index.html', '/wait/%2e%2e%2findex.html', '/assets/../index.html',
    '/assets/icon-0123456789abcdef.svg/../../index.html', '/assets/x/..%2f..%2findex.html', '/api/v1/waiting-queues-x/../../../index.html',
    '/api/v1/waiting-queues/../../../index.html', '/api/v1/waiting-queues/%2e%2e/%2e%2e/%2e%2e/index.html',
    '/WAIT/../index.html', '/index.html?/wait/', '/index.html#/wait/', '/index.html;/wait/', 'http://x/index.html',
  ]) {
    const { status, body } = await raw(site, path);
    assert.ok(!body.includes(SECRET), `${path} shows what is behind the gate: ${status}`);
  }
  for (const path of [
    '/admin/v1/queues', '/metrics', '/api/v1/concerts', '/gate', '/gate/main', '/wait/../admin/v1/queues', '/wait/%2e%2e/metrics',
    '/wait/..%2fmetrics', '/api/v1/waiting-queues/../concerts', '/api/v1/waiting-queues/..%2f..%2f..%2fmetrics',
  ]) {
    const token = process.env.BOXOFFICE_TEST_ADMIN_TOKEN;
    const { status, body } = await raw(site, path, { Authorization: `Bearer ${token}` });
    assert.ok(status === 302 || status === 404 || status === 400, `${path} is reached: ${status} ${body}`);
  }
  for (const headers of [
    { 'X-Forwarded-Uri': '//evil.example' }, { 'X-Original-URI': '//evil.example/' },
    { 'X-Forwarded-Uri': '/else', 'X-Forwarded-Host': 'evil.example', 'X-Forwarded-Proto': 'https' },
    { 'X-Original-URI': '/else', 'X-Original-URL': 'https://evil.example' },
  ]) {
    const { status, headers: told } = await raw(site, '/index.html', headers);
    assert.deepEqual([status, told.location], [302, '/wait/main?return=/index.html'], JSON.stringify(headers));
  }
  for (const path of ['/%0d%0aSet-Cookie:%20a=1', '/%0aLocation:%20//evil.example', '//evil.example/', '/\\evil.example']) {
    const { status, headers } = await raw(site, path);
    assert.equal(headers['set-cookie'], undefined, path);
    if (status === 302) {
      const address = new URL(headers.location, site);
      assert.deepEqual([address.origin, address.pathname], [site, '/wait/main'], path);
      assert.match(address.searchParams.get('return'), /^\/(?!\/)[^\\\s]*$/, path);
    } else {
      assert.ok(status >= 400, `${path}: ${status} ${headers.location}`);
    }
  }
}

async function verify() {
  const { pass } = await passOf('main', 17);
  const address = `${service}/.well-known/jwks.json`;
  let ahead = 0;
  let fetched = 0;
  let away = false;
  const options = {
    keys: address,
    issuer: 'boxoffice',
    queue: 'main',
    now: () => Date.now() + ahead,
    fetch: (...asked) => {
      fetched += 1;
      return away ? Promise.reject(new Error('away')) : fetch(...asked);
    },
  };
  const good = verifier(options);
  // A thousand visitors, of whom a hundred come at once and first: one fetch.
  await Promise.all(Array.from({ length: 100 }, () => good(pass)));
  for (let n = 0; n < 900; n += 1) assert.equal((await good(pass)).sub, '17');
  assert.equal(fetched, 1, 'one fetch of the keys, and none for each visitor');

  // Bad passes of every kind.
  const [head, claims, signature] = pass.split('.');
  const code = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
  const said = JSON.parse(Buffer.from(claims, 'base64url'));
  const header = JSON.parse(Buffer.from(head, 'base64url'));
  const { keys: [jwk] } = await (await fetch(address)).json();
  const hmac = (alg) => {
    const signed = `${code({ ...header, alg })}.${claims}`;
    return `${signed}.${createHmac('sha256', Buffer.from(jwk.x, 'base64url')).update(signed).digest('base64url')}`;
  };
  const another = await crypto.subtle.generateKey({ name: 'Ed25519' }, true, ['sign', 'verify']);
  const forged = async (asHead) => {
    const signed = `${code(asHead)}.${claims}`;
    const made = await crypto.subtle.sign({ name: 'Ed25519' }, another.privateKey, Buffer.from(signed));
    return `${signed}.${Buffer.from(made).toString('base64url')}`;
  };
  const { x } = await crypto.subtle.exportKey('jwk', another.publicKey);
  // Whoever has the key of the set can still say only what a pass says.
  const set = { keys: [{ kty: 'RSA', kid: 'rsa' }, { kty: 'OKP', crv: 'Ed25519', x, kid: header.kid }] };
  const own = verifier({ ...options, fetch: async () => new Response(JSON.stringify(set)) });
  const sign = async (asHead, asClaims) => {
    const signed = `${code(asHead)}.${code(asClaims)}`;
    const made = await crypto.subtle.sign({ name: 'Ed25519' }, another.privateKey, Buffer.from(signed));
    return `${signed}.${Buffer.from(made).toString('base64url')}`;
  };
  for (const [is, asHead, asClaims] of [
    [true, header, said], [true, { alg: 'EdDSA', kid: header.kid }, { ...said, more: 1 }],
    [false, { ...header, alg: 'HS256' }, said], [false, { ...header, alg: 'none' }, said], [false, { ...header, alg: 'eddsa' }, said],
    [false, { ...header, crit: ['exp'] }, said], [false, { ...header, kid: [header.kid] }, said], [false, [header], said],
    [false, header, { ...said, aud: ['main'] }], [false, header, { ...said, iss: undefined }],
    [false, header, { ...said, sub: 17 }], [false, header, { ...said, exp: String(said.exp) }],
    [false, header, { ...said, exp: undefined }], [false, header, { ...said, exp: 1e308 }],
  ]) {
    const verdict = await own(await sign(asHead, asClaims));
    assert.equal(verdict !== null, is, JSON.stringify([asHead, asClaims]));
  }
  const last = signature.at(-1);
  const bad = {
    'of another queue': (await passOf('vip', 18)).pass,
    'alg none': `${code({ ...header, alg: 'none' })}.${claims}.`,
    'alg none, with the signature': `${code({ ...header, alg: 'none' })}.${claims}.${signature}`,
    HS256: hmac('HS256'),
    'HS256 that says EdDSA': hmac('EdDSA'),
    'under another key, by the name of a good one': await forged(header),
    'under an unknown key': await forged({ ...header, kid: 'unknown' }),
    'under a key that it brings along': await forged({ ...header, kid: 'own', jwk: { kty: 'OKP', crv: 'Ed25519', x } }),
    'without kid': `${code({ alg: 'EdDSA', typ: 'JWT' })}.${claims}.${signature}`,
    'kid no text': `${code({ ...header, kid: 1 })}.${claims}.${signature}`,
    crit: await forged({ ...header, crit: ['b64'], b64: false }),
    'another end': `${head}.${code({ ...said, exp: said.exp + 1 })}.${signature}`,
    'another user': `${head}.${code({ ...said, sub: '1' })}.${signature}`,
    'no claims': `${head}.${code({})}.${signature}`,
    'no object': `${head}.${code('[]')}.${signature}`,
    'no JSON': `${head}.${code('{')}.${signature}`,
    'no signature': `${head}.${claims}.`,
    'half a signature': `${head}.${claims}.${signature.slice(0, 43)}`,
    'another signature': `${head}.${claims}.${signature.replace(/./, (char) => (char === 'A' ? 'B' : 'A'))}`,
    'another last character': `${head}.${claims}.${signature.slice(0, -1)}${String.fromCharCode(last.charCodeAt(0) + 1)}`,
    padded: `${pass}=`,
    spaced: ` ${pass}`,
    'two parts': `${head}.${claims}`,
    'four parts': `${pass}.${signature}`,
    empty: '',
    dots: '..',
    long: `${head}.${'A'.repeat(100_000)}.${signature}`,
    'not ASCII': `${head}.${claims}.${'ü'.repeat(86)}`,
    nothing: undefined,
    'a ticket': (await passOf('main', 19)).token,
  };
  for (const [what, wrong] of Object.entries(bad)) assert.equal(await good(wrong), null, what);
  assert.equal(fetched, 1, 'unknown keys within a minute');
  assert.equal(await verifier({ ...options, issuer: 'another' })(pass), null, 'another issuer');
  assert.equal(await verifier({ ...options, queue: 'mai' })(pass), null, 'another queue');
  assert.throws(() => verifier({ ...options, queue: '' }), /queue is needed/);

  // To the second, with the leeway that is given.
  const ends = said.exp * 1_000;
  const lenient = verifier({ ...options, leewaySeconds: 5 });
  for (const [at, verify, is] of [
    [ends - 1, good, true], [ends, good, false], [ends + 4_999, lenient, true], [ends + 5_000, lenient, false],
  ]) {
    ahead = at - Date.now();
    const frozen = verifier({ ...options, now: () => at, leewaySeconds: verify === lenient ? 5 : 0 });
    assert.equal((await frozen(pass)) !== null, is, `at ${at - ends}`);
  }
  ahead = 0;

  // Keys change. The new one is unknown, which is looked into once a minute.
  fetched = 0;
  const rotated = await call('POST', '/admin/v1/keys/rotate', { admin: true, expect: 201, body: { inSeconds: 0 } });
  await sleep(1_100);
  const { pass: newer, token } = await passOf('main', 20);
  assert.equal(JSON.parse(Buffer.from(newer.split('.')[0], 'base64url')).kid, rotated.kid);
  assert.equal(await good(newer), null, 'within the minute');
  ahead = 61_000;
  await Promise.all(Array.from({ length: 50 }, async () => assert.ok(await good(newer))));
  for (let n = 0; n < 50; n += 1) await good(await forged({ ...header, kid: `k${n}` }));
  assert.equal(fetched, 1, 'one fetch for all who have the new key, and none for those that nobody has');
  assert.ok(await good(pass), 'the old key is there still');
  // While the keys cannot be had, those that are known go on; who has just started has none, and tries again.
  away = true;
  ahead = 400_000;
  const until = JSON.parse(Buffer.from(newer.split('.')[1], 'base64url')).exp * 1_000 - Date.now();
  assert.ok(until > 400_000, 'the passes of this test are long');
  assert.ok(await good(newer));
  const started = verifier(options);
  assert.equal(await started(newer), null);
  away = false;
  assert.equal(await started(newer), null, 'not at once');
  ahead = 406_000;
  assert.ok(await started(newer), 'five seconds later');
  // A key that was withdrawn ends with the next fetch, ten minutes later at the latest.
  await call('POST', '/admin/v1/keys/rotate', { admin: true, expect: 201, body: { withdraw: true } });
  assert.ok(await good(newer), 'nobody has told it yet');
  ahead = 61_000 + 601_000;
  await good(newer);
  await sleep(300);
  assert.equal(await good(newer), null, 'withdrawn');
  const { pass: fresh } = await call('GET', '/api/v1/waiting-queues', { token });
  assert.ok(await good(fresh));

  // As a gate of an edge worker.
  const check = gate({ ...options, waiting: '/wait/{queue}' });
  const visit = (path, headers) => check(new Request(`http://shop${path}`, { headers }));
  assert.equal(await visit('/', { Cookie: `a=1; boxoffice-pass=${fresh}; b` }), null);
  assert.equal(await visit('/', { Authorization: `Bearer ${fresh}` }), null);
  assert.equal(await visit('/', { Authorization: 'Bearer own', Cookie: `boxoffice-pass=x; boxoffice-pass=${fresh}` }), null);
  for (const [path, back] of [['/a?b=1', '%2Fa%3Fb%3D1'], ['//evil.example', '%2F']]) {
    const sent = await visit(path, { Cookie: 'boxoffice-pass=x' });
    assert.deepEqual([sent.status, sent.headers.get('Location')], [302, `/wait/main?return=${back}`]);
    const own = await gate({ ...options, waiting: 'https://wait.example/?a' })(new Request(`http://shop${path}`));
    assert.equal(own.headers.get('Location'), `https://wait.example/?a&queue=main&back=${back}`);
  }
  const many = Array.from({ length: 100 }, (_, n) => `boxoffice-pass=${n}`).join(';');
  assert.equal(passesOf(new Request('http://shop/', { headers: { Cookie: many } })).length, 8);
}

service = addresses.at(-1);
if (mode === 'fan') await fan(addresses[0]);
else await verify();
