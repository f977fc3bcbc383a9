// SPDX-License-Identifier: Apache-2.0
/** The negative set: every case lands on its verdict with its codes, and nothing throws. */
import { webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { vectorCases } from '../../src/cli/vectors/cases.ts';
import { InputError } from '../../src/lib/errors.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import { VerifyCache, verifyEvidence, verifyEvidenceAsync, webVerifyCrypto } from '../../src/verify/index.ts';

const crypto = nodeVerifyCrypto();
const all = [...vectorCases(nodeCrypto({ deterministic: false }), seededRandom(1))];
const cache = new VerifyCache();

describe('the negative set', () => {
  it.each(all)('$name: $what', ({ evidence, options, expected }) => {
    const result = verifyEvidence(evidence, { ...options, crypto, cache });
    const errors = result.findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);
    expect(errors).toEqual(expected.length === 0 ? [] : expect.arrayContaining([...expected]));
    expect(result.ok).toBe(expected.length === 0);
  });

  it('has no verdict for a time or a root that is none: those are mistakes of the caller', () => {
    const { evidence, options } = all[0]!;
    for (const atMs of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => verifyEvidence(evidence, { ...options, atMs, crypto })).toThrow(InputError);
    }
    expect(() => verifyEvidence(evidence, { ...options, trust: [new Uint8Array(3)], crypto })).toThrow(
      /trust\[0\]/,
    );
  });

  it('knows the report of a twin signature (r, n - s) by the same identity', () => {
    for (const line of ['milan', 'genoa', 'turin']) {
      const [good, twin] = ['good-v3', 'good-negated-s'].map((title) => {
        const { evidence, options } = all.find(({ name }) => name === `${line}/${title}`)!;
        return { evidence, result: verifyEvidence(evidence, { ...options, crypto, cache }) };
      });
      expect(twin!.result.ok).toBe(true);
      expect(twin!.evidence.report).not.toEqual(good!.evidence.report);
      expect(twin!.result.identity).toBe(good!.result.identity);
    }
  });

  it('names no case twice', () => {
    const names = all.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  it('has the same findings with WebCrypto and without a cache', async () => {
    const web = webVerifyCrypto(webcrypto.subtle);
    for (const { name, evidence, options } of all) {
      const asynchronous = await verifyEvidenceAsync(evidence, { ...options, crypto: web });
      expect(asynchronous.steps, name).toEqual(verifyEvidence(evidence, { ...options, crypto, cache }).steps);
    }
  });
});
