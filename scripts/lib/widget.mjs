// Lets the widget ALTCHA solve challenges of a service in a browser, as on a page where somebody joins. Nothing is installed
// for it.
//
// Usage: node widget.mjs DIRECTORY CHROMIUM
//
// DIRECTORY is where scripts/tools has put the widget. Writes the origin of its pages to standard output, which the service
// has to allow. Then, for each line with a version of the widget and the address of a service, opens a page that joins its
// queue, and writes a line with what came of it: the status and body of the join, and the solution.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const [directory, chromium] = process.argv.slice(2);
const DEADLINE_MS = 60_000;
const versions = {
  2: { file: 'altcha-2/dist/altcha.js', attribute: 'challengeurl' },
  3: { file: 'altcha-3/dist/main/altcha.js', attribute: 'challenge' },
};
const page = (version, service) => `<!doctype html><meta charset="utf-8"><title>Join</title>
<script type="module" src="/widget/${version}"></script>
<form><altcha-widget ${versions[version].attribute}="${service}/api/v1/waiting-queues/main/challenge" auto="onload"></altcha-widget></form>
<script>
  const widget = document.querySelector('altcha-widget');
  const done = (what) => fetch('/done', { method: 'POST', body: JSON.stringify(what) });
  addEventListener('error', (event) => done({ error: event.message }));
  widget.addEventListener('statechange', async ({ detail }) => {
    if (detail.state === 'error') return done({ error: 'the widget is in the state error' });
    if (detail.state !== 'verified') return;
    // What a form would send, once it is there.
    await new Promise((later) => setTimeout(later, 50));
    const altcha = new FormData(document.querySelector('form')).get('altcha');
    try {
      const joined = await fetch('${service}/api/v1/waiting-queues', {
        method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ userId: 17, altcha }),
      });
      done({ status: joined.status, body: await joined.json(), altcha });
    } catch (error) { done({ error: String(error), altcha }); }
  });
</script>`;

let current = { service: '', done() {} };
const server = createServer((request, response) => {
  const [, what, version] = new URL(request.url, 'http://page').pathname.split('/');
  const answer = (type, body) => response.writeHead(200, { 'Content-Type': type }).end(body);
  if (what === 'widget') return answer('text/javascript', readFileSync(join(directory, 'node_modules', versions[version].file)));
  if (what === 'page') return answer('text/html', page(version, current.service));
  if (what === 'done') {
    let text = '';
    request.on('data', (part) => { text += part; }).on('end', () => { answer('text/plain', ''); current.done(text); });
    return undefined;
  }
  return response.writeHead(404).end();
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const origin = `http://127.0.0.1:${server.address().port}`;
console.log(origin);

for await (const line of createInterface({ input: process.stdin })) {
  const [version, service] = line.split(' ');
  const profile = mkdtempSync(join(tmpdir(), 'widget-'));
  const result = new Promise((done) => { current = { service, done }; });
  const browser = spawn(chromium, ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-dev-shm-usage',
    '--disable-background-networking', `--user-data-dir=${profile}`, `${origin}/page/${version}`], { stdio: 'ignore' });
  const ended = new Promise((exit) => { browser.on('exit', exit).on('error', exit); });
  const late = new Promise((late) => { setTimeout(late, DEADLINE_MS, '{"error":"nothing came of it in time"}').unref(); });
  const gone = ended.then(() => '{"error":"the browser has ended"}');
  console.log(await Promise.race([result, late, gone]));
  browser.kill();
  await ended;
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(0);
