import { defineConfig } from 'vitest/config';

/** Everything, with as many rounds as it takes: .ci/run does that, folder by folder. */
const long = process.env['SOFTSNP_LONG'] === '1';

/** Whole processes by the dozen: left out of the two minutes that a change waits for. */
const SLOW = [
  'test/cpuid/**',
  'test/docs/locks.test.ts',
  'test/package/**',
  'test/service/exec.test.ts',
  'test/service/host-faults.test.ts',
  'test/service/up-faults.test.ts',
];

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    exclude: ['test/oracle/**', 'node_modules/**', 'dist/**', ...(long ? [] : SLOW)],
    globalSetup: ['test/fuse-access.ts'],
    // All of a small machine: left alone, Vitest keeps one core to itself.
    maxWorkers: '100%',
    // Some tests race real processes on a shared machine. CI gives each a second chance and prints which took it.
    retry: process.env['CI'] === 'true' ? 1 : 0,
    // What runs many rounds takes its time on a machine that others use.
    testTimeout: long ? 1_800_000 : 30_000,
  },
});
