// A certified OpenID Connect provider (npm oidc-provider) on a free port of loopback, for tests.
//
// Usage: node issuer.mjs DIRECTORY [REDIRECT_URI], where npm has installed it (scripts/tools oidc-provider).
//
// Prints its URL. Each line on standard input changes it and is answered with a line: `rotate NAME` signs
// with a new key of that name from then on, and lists the one before beside it; `forget` lists the newest only.
// People are clients: `client_credentials` with a client's name as its secret gives a token whose `sub` it is.
// The `resource` that is asked for is the audience; `https://short.example` gives tokens for one second.
// With an address to send them back to, people sign in: the client is `pages`, with the secret `pages`, and whoever
// types a name is that person. It is at `localhost` then, which is another site to browsers than `127.0.0.1`.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const installed = createRequire(`${process.argv[2]}/`).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(installed).href);

const redirect = process.argv[3];
const people = ['kim', 'lee', 'park'];

function key(name, algorithm) {
  const pair = algorithm === 'ES256'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...pair.privateKey.export({ format: 'jwk' }), kid: name, alg: algorithm, use: 'sig' };
}

function provider(url, keys) {
  return new Provider(url, {
    clients: [
      ...people.map((name) => ({
        client_id: name,
        client_secret: name,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      })),
      ...(redirect ? [{ client_id: 'pages', client_secret: 'pages', redirect_uris: [redirect] }] : []),
    ],
    claims: { openid: ['sub'], profile: ['name'] },
    conformIdTokenClaims: false,
    findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id, name: `${id[0].toUpperCase()}${id.slice(1)}` }) }),
    interactions: { url: (context, { uid }) => `/interaction/${uid}` },
    // Who signs in has agreed to it.
    async loadExistingGrant({ oidc }) {
      const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
      grant.addOIDCScope('openid profile');
      await grant.save();
      return grant;
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (context, resource) => ({
          scope: 'tickets',
          audience: resource,
          accessTokenFormat: 'jwt',
          accessTokenTTL: resource === 'https://short.example' ? 1 : 600,
          jwt: { sign: { alg: keys[0].alg, kid: keys[0].kid } },
        }),
      },
    },
    jwks: { keys },
    ttl: { ClientCredentials: (context, token) => token.resourceServer?.accessTokenTTL ?? 600 },
    cookies: { keys: ['of no use here'] },
  });
}

/** Where somebody says who they are, or that they would rather not. */
async function interact(provider, request, response) {
  if (request.method === 'GET') {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    return response.end(`<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><title>Sign in</title>
      <main><h1>The issuer</h1><form method="post"><label>Name <input name="name" autofocus></label>
      <button id="in">Sign in</button> <button id="no" name="no" value="1">Cancel</button></form></main>`);
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const form = new URLSearchParams(body);
  const result = form.has('no') ? { error: 'access_denied' } : { login: { accountId: form.get('name') } };
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

let keys = [key('first', 'RS256')];
let answer;
const server = createServer((request, response) => answer(request, response));
server.listen(0, '127.0.0.1', () => {
  const url = `http://${redirect ? 'localhost' : '127.0.0.1'}:${server.address().port}`;
  const serve = () => {
    const served = provider(url, keys);
    const callback = served.callback();
    answer = (request, response) => (request.url.startsWith('/interaction/') ? interact(served, request, response) : callback(request, response));
  };
  serve();
  console.log(url);
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      const [word, name] = line.split(' ');
      keys = word === 'rotate' ? [key(name, 'ES256'), keys[0]] : [keys[0]];
      serve();
      console.log('done');
    })
    // Whoever started it is gone.
    .on('close', () => process.exit(0));
});
