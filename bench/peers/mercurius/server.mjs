// What a Node team would write by hand: Fastify, Mercurius with its JIT, a pool of connections, the token flow.
import Fastify from 'fastify';
import mercurius from 'mercurius';
import mercuriusCache from 'mercurius-cache';
import { Pool } from 'undici';

const { UPSTREAM, PORT, CACHED } = process.env;
const pool = new Pool(UPSTREAM, { connections: 64, keepAliveTimeout: 60_000, headersTimeout: 5_000, bodyTimeout: 5_000 });

let token;
let until = 0;
let fetching;

async function fetchToken() {
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    client_id: 'bench',
    client_secret: 'not-a-secret',
    scope: 'tenant=acme sessioncontext.context_manage',
  }).toString();
  const headers = { 'content-type': 'application/x-www-form-urlencoded' };
  const answer = await pool.request({ path: '/oauth/token', method: 'POST', headers, body });
  const { access_token, expires_in } = await answer.body.json();
  token = `Bearer ${access_token}`;
  until = Date.now() + (expires_in - 60) * 1000;
  return token;
}

const bearer = () =>
  Date.now() < until ? token : (fetching ??= fetchToken().finally(() => { fetching = undefined; }));

const CODES = { 401: 'UNAUTHENTICATED', 403: 'FORBIDDEN', 404: 'NOT_FOUND', 409: 'CONFLICT' };

async function call(method, tenant, sessionId, body) {
  const path = `/session-context/${encodeURIComponent(tenant)}/context/${encodeURIComponent(sessionId)}`;
  for (let attempt = 0; ; attempt++) {
    const headers = { authorization: await bearer() };
    if (body) headers['content-type'] = 'application/json';
    const answer = await pool.request({ path, method, headers, body });
    if (answer.statusCode === 401 && attempt === 0) { // revoked: one fresh token
      await answer.body.dump();
      until = 0;
      continue;
    }
    if (answer.statusCode === 204) {
      await answer.body.dump();
      return null;
    }
    const document = await answer.body.json();
    if (answer.statusCode === 200) return document;
    throw new mercurius.ErrorWithProps(document.message ?? 'upstream error', { code: CODES[answer.statusCode] ?? 'UPSTREAM' });
  }
}

const schema = `
  scalar JSON
  type Metadata { version: Int createdAt: String modifiedAt: String }
  type SessionContext {
    sessionId: String customerId: String siteCode: String currency: String cartId: String
    targetLocation: String language: String context: JSON metadata: Metadata
  }
  input MetadataInput { version: Int! }
  input SessionContextInput {
    customerId: String siteCode: String currency: String cartId: String
    targetLocation: String language: String context: JSON metadata: MetadataInput
  }
  type Query { sessionContext(tenant: String!, sessionId: String!): SessionContext }
  type Mutation {
    putSessionContext(tenant: String!, sessionId: String!, sessionContext: SessionContextInput!): Boolean
  }`;

const resolvers = {
  Query: { sessionContext: (_, { tenant, sessionId }) => call('GET', tenant, sessionId) },
  Mutation: {
    putSessionContext: async (_, { tenant, sessionId, sessionContext }) => {
      await call('PUT', tenant, sessionId, JSON.stringify(sessionContext));
      return true;
    },
  },
};

const app = Fastify({ logger: false });
app.register(mercurius, { schema, resolvers, jit: 1, graphiql: false });
if (CACHED) app.register(mercuriusCache, { ttl: 600, policy: { Query: { sessionContext: true } } });
await app.listen({ host: '127.0.0.1', port: Number(PORT) });
