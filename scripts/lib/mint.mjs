// Mints tokens of people, as an OpenID Connect issuer would, for tests and measurements. Nothing is installed for it.
//
// Usage: node mint.mjs DIRECTORY COUNT [RS256|ES256]
//
// Writes keys.json, a JSON Web Key Set for `auth.jwks_file`, and people.txt with a token in a line: that of the
// person 1, 2 and so on. Each counts for a day.
import { generateKeyPairSync, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [directory, count, algorithm = 'RS256'] = process.argv.slice(2);
const pair = algorithm === 'ES256'
  ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
  : generateKeyPairSync('rsa', { modulusLength: 2048 });
const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const head = base64({ alg: algorithm, typ: 'at+jwt', kid: 'minted' });
const now = Math.floor(Date.now() / 1000);
const tokens = [];
for (let person = 1; person <= Number(count); person += 1) {
  const claims = base64({
    iss: 'https://issuer.test', aud: 'boxoffice', sub: person, iat: now, nbf: now, exp: now + 86_400, jti: `t${person}`,
  });
  const key = { key: pair.privateKey, dsaEncoding: 'ieee-p1363' };
  tokens.push(`${head}.${claims}.${sign('sha256', Buffer.from(`${head}.${claims}`), key).toString('base64url')}\n`);
}
const jwk = { ...pair.publicKey.export({ format: 'jwk' }), kid: 'minted', alg: algorithm, use: 'sig' };
writeFileSync(join(directory, 'keys.json'), JSON.stringify({ keys: [jwk] }));
writeFileSync(join(directory, 'people.txt'), tokens.join(''));
