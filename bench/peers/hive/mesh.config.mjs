import { defineConfig } from '@graphql-mesh/compose-cli';
import { loadOpenAPISubgraph } from '@omnigraph/openapi';

export const composeConfig = defineConfig({
  subgraphs: [
    {
      sourceHandler: loadOpenAPISubgraph('SessionContext', {
        source: './openapi.yaml',
        endpoint: process.env.UPSTREAM,
        operationHeaders: { authorization: '{context.upstreamAuthorization}' },
      }),
    },
  ],
});
