// Stands between tickets and the network (a service worker, for `/t/` alone): where there is no network, or none that
// answers, a ticket's page comes from what the page has put aside. What is asked of the API it does not see.

/** The tickets' page is the same for all. */
const PAGE = '/t/';
/** At the entrance nobody waits longer. */
const PATIENCE_MS = 3_000;

/** A service worker has no types of its own here. @type {any} */
const worker = self;

/** @param {Request} request */
async function answer(request) {
  const isPage = request.mode === 'navigate';
  const kept = await caches.match(isPage ? PAGE : request, { ignoreVary: true });
  // What has a hash in its address never changes.
  if (!kept || !isPage) return kept ?? fetch(request);
  const fresh = fetch(request).then((it) => (it.ok || it.type === 'opaqueredirect' ? it : kept)).catch(() => kept);
  return Promise.race([fresh, new Promise((later) => setTimeout(() => later(kept), PATIENCE_MS))]);
}

worker.addEventListener('install', () => worker.skipWaiting());
worker.addEventListener('activate', (/** @type {any} */ event) => event.waitUntil(worker.clients.claim()));
worker.addEventListener('fetch', (/** @type {any} */ event) => {
  const { pathname, origin } = new URL(event.request.url);
  const isOurs = origin === location.origin && event.request.method === 'GET';
  if (isOurs && (event.request.mode === 'navigate' || pathname.startsWith('/assets'))) event.respondWith(answer(event.request));
});
