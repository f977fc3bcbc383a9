// SPDX-License-Identifier: Apache-2.0
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  // Relative, so that the folder can be put anywhere on any server.
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    // The page's policy allows no data: URLs and no fetch, which inlining and preloading would need.
    assetsInlineLimit: 0,
    modulePreload: false,
    target: 'es2022',
  },
});
