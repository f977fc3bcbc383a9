// SPDX-License-Identifier: Apache-2.0
/** Every genuine report there is, offline, under AMD's pins, with the verdict its index gives. */
import { webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import {
  parsePolicy,
  VerifyCache,
  type VerifyResult,
  verifyEvidence,
  verifyEvidenceAsync,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { LONG } from './soft.ts';
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
    for (const [i, { file, leaf }] of reports.entries()) {
      const report = vector(file);
      // In short runs each report meets its own leaves and a fifth of the others.
      for (const cert of leaves.filter((name, k) => LONG || leaf!.includes(name) || (i + k) % 5 === 0)) {
        const result = verifyEvidence(
          { report, certificates: [vector(cert), ...cas] },
          { atMs: whenValidMs(cert), crl: 'skip', policy, crypto, cache },
        );
        expect(result.ok, `${file} with ${cert}`).toBe(leaf!.includes(cert));
      }
    }
  });

  it('WebCrypto and node:crypto give the same findings', async () => {
    const web = webVerifyCrypto(webcrypto.subtle);
    const cache = new VerifyCache();
    for (const { file, leaf } of reports) {
      for (const cert of [leaf![0]!, 'google-go-sev-guest/vcek-milan-0d057f9b6e29.der']) {
        const evidence = { report: vector(file), certificates: [vector(cert), ...cas] };
        const options = { atMs: whenValidMs(cert), crl: 'skip', policy } as const;
        const asynchronous = await verifyEvidenceAsync(evidence, { ...options, crypto: web, cache });
        const synchronous = verifyEvidence(evidence, { ...options, crypto });
        expect(asynchronous.steps).toEqual(synchronous.steps);
        expect(asynchronous.ok).toBe(synchronous.ok);
      }
    }
  });
});
