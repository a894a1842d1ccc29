// Checks passes of boxoffice where visitors arrive: in edge workers, and in Node.js 20 or newer. Web Crypto, nothing to
// be installed. The keys are fetched once, then now and then; no visitor costs a request. docs/gate.md says more.
//
//   import { gate } from './verify.mjs';
//   const check = gate({
//     keys: 'https://tickets.example/.well-known/jwks.json', issuer: 'boxoffice', queue: 'main', waiting: '/wait/{queue}',
//   });
//   export default { fetch: async (request) => (await check(request)) ?? fetch(request) };

const PASS_LENGTH_MAX = 1_024;
const TRIED_MAX = 8;
const PASS_COOKIE = 'boxoffice-pass';
/** For an unknown key the keys are fetched at the most this often, in milliseconds, */
const AGAIN_MS = 60_000;
/** or this often as long as there are none. */
const RETRY_MS = 5_000;
/** They are fetched again after this time in any case, so that a key that was withdrawn ends. */
const AGE_MAX_MS = 600_000;
const FETCH_TIMEOUT_MS = 5_000;

/** Bytes of a text in Base64 for addresses, in the one form that it has; null where it is none. */
function bytes(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) return null;
  const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'));
  const again = btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
  return again === text ? Uint8Array.from(binary, (char) => char.charCodeAt(0)) : null;
}

function json(text) {
  const decoded = bytes(text);
  if (!decoded) return null;
  try {
    const value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(decoded));
    return value && typeof value === 'object' && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/**
 * Returns a function that returns a promise of what a pass says, or of null where it is not good.
 *
 * - `keys`: the address of the key set.
 * - `issuer`: the setting `pass.issuer` of boxoffice.
 * - `queue`: the queue that the passes are for.
 * - `leewaySeconds`: how far this clock may be ahead of that of boxoffice.
 * - `fetch`, `now` (milliseconds): for tests.
 */
export function verifier({ keys: address, issuer, queue, leewaySeconds = 0, fetch = globalThis.fetch, now = Date.now }) {
  for (const [name, value] of Object.entries({ keys: address, issuer, queue })) {
    if (!value) throw new Error(`verifier: ${name} is needed`);
  }
  let keys = new Map();
  let readAt = -Infinity;
  let askedAt = -Infinity;
  let reading = null;

  async function read() {
    const answer = await fetch(address, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS) });
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    const found = new Map();
    for (const key of (await answer.json()).keys) {
      if (key.kty !== 'OKP' || key.crv !== 'Ed25519' || typeof key.kid !== 'string') continue;
      const jwk = { kty: 'OKP', crv: 'Ed25519', x: key.x };
      found.set(key.kid, await crypto.subtle.importKey('jwk', jwk, { name: 'Ed25519' }, false, ['verify']));
    }
    if (found.size > 0) {
      keys = found;
      readAt = now();
    }
  }

  /** Fetches the keys unless that was tried a moment ago. While they cannot be had, those that are known go on. */
  function readAgain() {
    if (!reading && now() - askedAt >= (keys.size > 0 ? AGAIN_MS : RETRY_MS)) {
      askedAt = now();
      reading = read().catch(() => {}).finally(() => {
        reading = null;
      });
    }
    return reading;
  }

  async function keyOf(kid) {
    // One of the visitors waits for it only where there is no key yet.
    if (now() - readAt >= AGE_MAX_MS) {
      const again = readAgain();
      if (!keys.has(kid)) await again;
    }
    if (!keys.has(kid)) await readAgain();
    return keys.get(kid);
  }

  return async function verify(pass) {
    if (typeof pass !== 'string' || pass.length > PASS_LENGTH_MAX) return null;
    const parts = pass.split('.');
    if (parts.length !== 3) return null;
    const [header, claims, signature] = [json(parts[0]), json(parts[1]), bytes(parts[2])];
    if (!header || !claims || signature?.length !== 64) return null;
    // Never what the pass says of itself: not `none`, and not a MAC for which a public key would be the secret.
    if (header.alg !== 'EdDSA' || typeof header.kid !== 'string' || 'crit' in header) return null;
    const isForUs = claims.iss === issuer && claims.aud === queue && typeof claims.sub === 'string';
    const isGood = Number.isSafeInteger(claims.exp) && now() / 1_000 < claims.exp + leewaySeconds;
    if (!isForUs || !isGood) return null;
    const key = await keyOf(header.kid);
    if (!key) return null;
    const signed = new TextEncoder().encode(`${parts[0]}.${parts[1]}`);
    return (await crypto.subtle.verify({ name: 'Ed25519' }, key, signature, signed)) ? claims : null;
  };
}

/** What may be passes of a request (of the Fetch API): the cookies of that name, then a bearer token. */
export function passesOf(request) {
  const cookies = (request.headers.get('Cookie') ?? '').split(';').map((pair) => pair.trim());
  const name = `${PASS_COOKIE}=`;
  const passes = cookies.filter((pair) => pair.startsWith(name)).map((pair) => pair.slice(name.length));
  const bearer = /^bearer +(\S+)$/i.exec(request.headers.get('Authorization') ?? '');
  return (bearer ? [...passes, bearer[1]] : passes).slice(0, TRIED_MAX);
}

/**
 * Returns a function that returns a promise of null where a request (of the Fetch API) has a good pass, and of the
 * answer that sends the visitor to the waiting page where it has none. `waiting` is the path or address of that page, as
 * in the setting `gate.waiting_url`: that of boxoffice with `{queue}` in it, or one of your own without. The rest is as
 * for `verifier`.
 */
export function gate({ waiting, ...options }) {
  const verify = verifier(options);
  return async function check(request) {
    for (const pass of passesOf(request)) {
      if (await verify(pass)) return null;
    }
    const { pathname, search } = new URL(request.url);
    // `//host` would be another site.
    const back = encodeURIComponent(pathname.startsWith('//') ? '/' : pathname + search);
    const queue = encodeURIComponent(options.queue);
    const told = waiting.includes('{queue}') ? `return=${back}` : `queue=${queue}&back=${back}`;
    const address = `${waiting.replace('{queue}', queue)}${waiting.includes('?') ? '&' : '?'}${told}`;
    return new Response(null, { status: 302, headers: { Location: address, 'Cache-Control': 'no-store' } });
  };
}
