// The waiting page: joins the line, asks as often as it is told to, and goes back with the pass in a cookie.
//
// It is at the site that it guards, or at another path of the same host, because the cookie is that host's, and goes
// back to no other. With `auth.mode = "jwt"` the site sets `window.boxofficePerson`, a function that returns a promise
// of the person's token, before this script.

const LINE = '/api/v1/waiting-queues';

/** The address to come back to, if it is of this site; else the site's first page. */
export function safeBack(back, origin) {
  try {
    const url = new URL(back ?? '/', origin);
    if (url.origin === origin) return url.href;
  } catch {
    // It is no address.
  }
  return `${origin}/`;
}

/** Until when a pass is good, in seconds since 1970. */
export function endOf(pass) {
  const text = atob(pass.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
  return JSON.parse(text).exp;
}

/** The text for a place in the line. */
export function text({ waitingNumber, etaSeconds }) {
  // Before an opening draw nobody has a place.
  if (waitingNumber === null) return 'You take part in the draw. Everybody who waits here when the line opens gets a place by lot.';
  if (etaSeconds === null) return `There are ${waitingNumber - 1} people before you.`;
  const minutes = Math.ceil(etaSeconds / 60);
  const time = etaSeconds < 60 ? 'less than a minute' : minutes === 1 ? 'about a minute' : `about ${minutes} minutes`;
  return `There are ${waitingNumber - 1} people before you. It takes ${time}.`;
}

/**
 * Waits. `page` is what this needs of a browser: `location`, `storage` (of this browser, for the ticket), `fetch`, and
 * the functions `show(text)`, `setCookie(text)`, `go(address)`, `sleep(ms)`, and `person()`, if people are known.
 */
export async function wait(page) {
  const { location, storage } = page;
  const query = new URLSearchParams(location.search);
  const queue = query.get('queue') || 'main';
  const back = safeBack(query.get('back'), location.origin);
  const kept = `boxoffice-ticket-${queue}`;
  for (;;) {
    const ticket = storage.getItem(kept);
    let answer;
    let body;
    try {
      answer = await (ticket ? page.fetch(LINE, { headers: { 'QUEUE-TOKEN': ticket } }) : join(page, queue));
      body = await answer.json();
    } catch {
      page.show('The line does not answer. Trying again.');
      await page.sleep(2_000 + Math.random() * 3_000);
      continue;
    }
    if (answer.ok && body.token) storage.setItem(kept, body.token);
    if (answer.ok && body.status === 'ACTIVATED') {
      if (goBack(page, body.pass, answer, back)) return;
      await page.sleep(body.pollAfterMs);
    } else if (answer.ok && body.status === 'WAITING') {
      page.show(text(body));
      await page.sleep(body.pollAfterMs);
    } else if (ticket && (answer.ok || answer.status === 401)) {
      // The ticket is over, or it is none. A new one is got at once, but not again and again.
      storage.removeItem(kept);
      await page.sleep(1_000);
    } else if (answer.status === 429 || answer.status >= 500) {
      page.show('Many people come at once. Trying again.');
      const seconds = Number(answer.headers.get('Retry-After')) || 5;
      await page.sleep(seconds * 1_000 * (1 + Math.random() / 2));
    } else {
      // No such queue, sold out, over: there is nothing to wait for.
      page.show(body.detail ?? 'There is no line here.');
      return;
    }
  }
}

async function join(page, queue) {
  const headers = { 'Content-Type': 'application/json' };
  const token = await page.person?.();
  if (token) {
    headers.Authorization = `Bearer ${token}`;
    return page.fetch(LINE, { method: 'POST', headers, body: JSON.stringify({ queue }) });
  }
  // Where nobody is known, a user is a number that nobody else has.
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  const userId = (high % 2 ** 20) * 2 ** 32 + low + 1;
  return page.fetch(LINE, { method: 'POST', headers, body: JSON.stringify({ userId, queue }) });
}

/** Sets the cookie and goes back. Returns false where that has just been done, and the site did not open. */
function goBack(page, pass, answer, back) {
  if (page.storage.getItem('boxoffice-shown') === pass && Date.now() - page.storage.getItem('boxoffice-shown-at') < 5_000) {
    page.show('It is your turn, but the site does not open. Does your browser keep cookies?');
    return false;
  }
  page.storage.setItem('boxoffice-shown', pass);
  page.storage.setItem('boxoffice-shown-at', Date.now());
  // By the server's clock: this one may be wrong.
  const now = Date.parse(answer.headers.get('Date')) || Date.now();
  const seconds = Math.max(0, endOf(pass) - Math.floor(now / 1_000));
  const secure = page.location.protocol === 'https:' ? '; Secure' : '';
  page.setCookie(`boxoffice-pass=${pass}; Path=/; Max-Age=${seconds}; SameSite=Lax${secure}`);
  page.show('It is your turn.');
  page.go(back);
  return true;
}

if (globalThis.document) {
  wait({
    location: globalThis.location,
    storage: globalThis.localStorage,
    fetch: (address, options) => fetch(address, { cache: 'no-store', ...options }),
    show: (line) => {
      document.getElementById('text').textContent = line;
    },
    setCookie: (cookie) => {
      document.cookie = cookie;
    },
    go: (address) => globalThis.location.replace(address),
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    person: globalThis.boxofficePerson,
  });
}
