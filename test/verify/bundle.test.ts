// SPDX-License-Identifier: Apache-2.0
/** softsnp/verify as a browser gets it: one file, at most 60 kB minified and gzipped. */

import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';
import { expect, it } from 'vitest';

const LIMIT_BYTES = 60_000;

it('softsnp/verify fits into 60 kB minified and gzipped, without Node', async () => {
  const bundle = await rolldown({
    input: fileURLToPath(new URL('../../src/verify/index.ts', import.meta.url)),
    platform: 'browser',
  });
  const { output } = await bundle.generate({ format: 'es', minify: true });
  await bundle.close();
  expect(output).toHaveLength(1);
  const { code } = output[0];
  expect(code).not.toMatch(/from\s*["']node:/);
  expect(code).not.toContain('asn1js');
  const size = gzipSync(code).length;
  console.log(`softsnp/verify: ${code.length} bytes minified, ${size} gzipped`);
  expect(size).toBeLessThan(LIMIT_BYTES);
});
