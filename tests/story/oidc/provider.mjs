// A real OpenID Provider for the story tests: provider.mjs FOLDER, where `make oidc-provider` has installed it.
//
// The first line of stdin is JSON: {cert, key, client, secret, scopes}. It answers on stdout, a line each: the issuer,
// then for every `rotate` (a new key signs, the old one is still published), `forget` (it no longer is) and `lifetime N`
// (of the tokens from now on, in seconds) the keys' names. When stdin ends, so does it.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const installed = createRequire(join(resolve(process.argv[2]), 'package.json')).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(installed));

const newKey = () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'ES256' };
};

const configurationOf = (settings, keys, lifetime) => ({
  jwks: { keys },
  clients: [{
    client_id: settings.client,
    client_secret: settings.secret,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  }],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (context, resource) => ({
        audience: resource,
        scope: settings.scopes,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  ttl: { ClientCredentials: lifetime },
});

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const settings = JSON.parse((await lines.next()).value);
const server = createServer({ cert: readFileSync(settings.cert), key: readFileSync(settings.key) });
server.listen(0, '127.0.0.1', async () => {
  const issuer = `https://localhost:${server.address().port}`;
  let keys = [newKey()];
  let lifetime = 300;
  let answer;
  const use = () => { answer = new Provider(issuer, configurationOf(settings, keys, lifetime)).callback(); };
  use();
  server.on('request', (request, response) => answer(request, response));
  console.log(`serving ${issuer}`);
  for await (const line of lines) {
    if (line === 'rotate') keys = [newKey(), ...keys];
    if (line === 'forget') keys = keys.slice(0, 1);
    if (line.startsWith('lifetime ')) lifetime = Number(line.split(' ')[1]);
    use();
    console.log(`keys ${keys.map((key) => key.kid).join(' ')}`);
  }
  server.closeAllConnections();
  server.close();
});
