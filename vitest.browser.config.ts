// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from 'vitest/config';

// The verifier and the console in a real Chromium; npm test runs without one.
export default defineConfig({
  test: {
    include: ['test/browser/**/*.browser.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    fileParallelism: false,
    // A browser on a shared machine now and then misses a key or a deadline; a broken page fails three times.
    retry: 2,
  },
});
