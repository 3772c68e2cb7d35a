import { defineConfig } from '@graphql-hive/gateway';

const { UPSTREAM, PORT, CACHED } = process.env;

// Hive has no client credentials of its own: kept until a minute before they expire, one fetch at a time.
let token;
let until = 0;
let fetching;

async function fetchToken() {
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: 'bench',
    client_secret: 'not-a-secret',
    scope: 'tenant=acme sessioncontext.context_manage',
  });
  const answer = await fetch(`${UPSTREAM}/oauth/token`, { method: 'POST', body });
  const { access_token, expires_in } = await answer.json();
  token = `Bearer ${access_token}`;
  until = Date.now() + (expires_in - 60) * 1000;
  return token;
}

const bearer = () =>
  Date.now() < until ? token : (fetching ??= fetchToken().finally(() => { fetching = undefined; }));

export const gatewayConfig = defineConfig({
  supergraph: './supergraph.graphql',
  pollingInterval: 0,
  host: '127.0.0.1',
  port: Number(PORT),
  fork: 1,
  jit: true,
  logging: 'error',
  graphiql: false,
  landingPage: false,
  ...(CACHED ? { responseCaching: { session: () => null, ttl: 600_000 } } : {}),
  plugins: () => [
    { async onContextBuilding({ extendContext }) { extendContext({ upstreamAuthorization: await bearer() }); } },
  ],
});
