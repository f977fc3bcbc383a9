// SPDX-License-Identifier: Apache-2.0
/** softsnp/verify as a browser gets it: one file of a bounded size, without Node. */

import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { rolldown } from 'rolldown';
import { expect, it } from 'vitest';

async function bundled(file: string): Promise<string> {
  const bundle = await rolldown({
    input: fileURLToPath(new URL(`../../src/verify/${file}`, import.meta.url)),
    platform: 'browser',
  });
  const { output } = await bundle.generate({ format: 'es', minify: true });
  await bundle.close();
  expect(output).toHaveLength(1);
  return output[0].code;
}

it.each([
  ['softsnp/verify', 'index.ts', 60_000],
  // For those who need it, beside the other.
  ['softsnp/verify/js', 'js.ts', 25_000],
])('%s fits into its size minified and gzipped, without Node', async (name, file, limit) => {
  const code = await bundled(file);
  expect(code).not.toMatch(/from\s*["']node:/);
  expect(code).not.toContain('asn1js');
  const size = gzipSync(code).length;
  console.log(`${name}: ${code.length} bytes minified, ${size} gzipped`);
  expect(size).toBeLessThan(limit);
});
