// SPDX-License-Identifier: Apache-2.0
/** Every genuine report there is, offline, under AMD's pins, with the verdict its index gives. */
import { describe, expect, it } from 'vitest';
import { PRODUCT_LINES } from '../../src/abi/product.ts';
import { bigOf, littleOf, N } from '../../src/cli/vectors/case.ts';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import { parsePolicy, VerifyCache, type VerifyResult, verifyEvidence } from '../../src/verify/index.ts';
import { authorities, HAVE_VECTORS, INDEX, vector, whenValidMs } from './vectors.ts';

const crypto = nodeVerifyCrypto();
// Four genuine reports are of debug guests.
const policy = parsePolicy({ guest_policy: { debug: 'any' } });
const cas = authorities();
const reports = INDEX.filter(({ file }) => /\/report-/.test(file));

const errorsOf = (result: VerifyResult): string[] =>
  result.findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);

describe.skipIf(!HAVE_VECTORS)('genuine AMD evidence', () => {
  const pairs = reports.flatMap(({ file, leaf = [] }) => leaf.map((cert) => ({ file, cert })));

  it.each(pairs)('$file is accepted with $cert', ({ file, cert }) => {
    const result = verifyEvidence(
      { report: vector(file), certificates: [vector(cert), ...cas] },
      { atMs: whenValidMs(cert), crl: 'skip', policy, crypto },
    );
    expect(errorsOf(result)).toEqual([]);
    expect(result.ok).toBe(true);
    expect(result.chain.isAmd).toBe(true);
  });

  it('every report of the index is covered', () => {
    expect(reports.length).toBeGreaterThan(40);
    expect(reports.every(({ verdict, leaf }) => verdict === 'genuine' && leaf!.length > 0)).toBe(true);
  });

  it('reports are accepted with exactly the leaves the index lists, over the whole matrix', () => {
    const cache = new VerifyCache();
    const leaves = INDEX.filter(({ file }) => /\/(BAD-)?v[cl]ek-/.test(file)).map(({ file }) => file);
    for (const { file, leaf } of reports) {
      const report = vector(file);
      for (const cert of leaves) {
        const result = verifyEvidence(
          { report, certificates: [vector(cert), ...cas] },
          { atMs: whenValidMs(cert), crl: 'skip', policy, crypto, cache },
        );
        expect(result.ok, `${file} with ${cert}`).toBe(leaf!.includes(cert));
      }
    }
  });

  it('half of it has a high s, and the twin with n - s is the same report', () => {
    const cache = new VerifyCache();
    let high = 0;
    for (const { file, leaf } of reports) {
      const report = vector(file);
      const s = bigOf(report.subarray(0x2e8, 0x318));
      high += s > N / 2n ? 1 : 0;
      const twin = report.slice();
      twin.set(littleOf(N - s), 0x2e8);
      const certificates = [vector(leaf![0]!), ...cas];
      const options = { atMs: whenValidMs(leaf![0]!), crl: 'skip', policy, crypto, cache } as const;
      const [own, other] = [report, twin].map((bytes) =>
        verifyEvidence({ report: bytes, certificates }, options),
      );
      expect([own!.ok, other!.ok], file).toEqual([true, true]);
      expect(other!.identity).toBe(own!.identity);
    }
    expect(high).toBe(23);
  });

  it('is refused where the caller says that it is of another product line', () => {
    const cache = new VerifyCache();
    let asked = 0;
    for (const { file, leaf } of reports) {
      const certificates = [vector(leaf![0]!), ...cas];
      const own = /-(milan|genoa|turin)-/.exec(file)![1];
      for (const product of PRODUCT_LINES.filter((line) => line.toLowerCase() !== own)) {
        const result = verifyEvidence(
          { report: vector(file), certificates },
          { atMs: whenValidMs(leaf![0]!), crl: 'skip', policy, crypto, cache, product },
        );
        expect(errorsOf(result), `${file} as ${product}`).toContain('PRODUCT_MISMATCH');
        asked += 1;
      }
    }
    expect(asked).toBe(96);
  });
});
