import { defineConfig } from "vite";

export default defineConfig({
  base: "/graphql/", // what is in assets/ is served under /graphql/assets/
  build: {
    outDir: "../gateway/graphql/static/playground",
    emptyOutDir: true,
    assetsInlineLimit: 0, // files, so that the Content-Security-Policy need not allow data: for fonts
    modulePreload: { polyfill: false },
    rolldownOptions: { checks: { moduleLevelDirective: false } }, // "use client" means nothing here
    chunkSizeWarningLimit: 4000, // Monaco is what it is
    license: { fileName: "LICENSES.md" }, // theirs, which must come with the code
  },
});
