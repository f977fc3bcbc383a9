import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    exclude: ['test/oracle/**', 'node_modules/**', 'dist/**'],
    globalSetup: ['test/fuse-access.ts'],
    // Some tests race real processes on a shared machine. CI gives each a second chance and prints which took it.
    retry: process.env['CI'] === 'true' ? 1 : 0,
    // What runs many rounds takes its time on a machine that others use.
    testTimeout: process.env['SOFTSNP_LONG'] === '1' ? 300_000 : 30_000,
  },
});
