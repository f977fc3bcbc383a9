import { defineConfig } from 'vitest/config';

// Comparisons with programs that nobody here wrote; .ci/run installs them first.
export default defineConfig({
  test: {
    include: ['test/oracle/**/*.test.ts'],
    testTimeout: 600_000,
    hookTimeout: 600_000,
    fileParallelism: false,
  },
});
