import { defineConfig } from 'vitest/config';

// Comparisons with programs that nobody here wrote; .ci/run installs them first.
export default defineConfig({
  test: {
    include: ['test/oracle/**/*.test.ts'],
    globalSetup: ['test/fuse-access.ts'],
    // Some tests race real processes on a shared machine. CI gives each a second chance and prints which took it.
    retry: process.env['CI'] === 'true' ? 1 : 0,
    testTimeout: 600_000,
    hookTimeout: 600_000,
    fileParallelism: false,
  },
});
