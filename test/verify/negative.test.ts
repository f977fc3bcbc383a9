// SPDX-License-Identifier: Apache-2.0
/** The negative set: every case lands on its verdict with exactly its findings, and nothing throws. */
import { describe, expect, it } from 'vitest';
import { vectorCases } from '../../src/cli/vectors/cases.ts';
import { InputError } from '../../src/lib/errors.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import {
  FINDINGS,
  type FindingCode,
  type Severity,
  type VerifyResult,
  verifyEvidence,
} from '../../src/verify/index.ts';
import { crypto, judge } from './soft.ts';

const all = [...vectorCases(nodeCrypto({ deterministic: false }), seededRandom(1))].map((vector) => ({
  ...vector,
  result: judge(vector.evidence, vector.options),
}));

const codesOf = ({ findings }: VerifyResult, wanted: Severity): ReadonlySet<FindingCode> =>
  new Set(findings.filter(({ severity }) => severity === wanted).map(({ code }) => code));

describe('the negative set', () => {
  it.each(all)('$name: $what', ({ result, expected, warnings }) => {
    // All there is to find and no more: a case that is refused for something else as well proves nothing.
    expect(codesOf(result, 'error')).toEqual(new Set(expected));
    expect(codesOf(result, 'warning')).toEqual(new Set(warnings));
    expect(result.ok).toBe(expected.length === 0);
  });

  it('names no case twice, and no code in what a case expects', () => {
    const names = all.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
    const repeated = all.filter(({ expected, warnings }) =>
      [expected, warnings].some((codes) => new Set(codes).size < codes.length),
    );
    expect(repeated.map(({ name }) => name)).toEqual([]);
  });

  it('makes every finding there is about a report but those about what a policy wants', () => {
    const found = new Set(all.flatMap(({ result }) => result.findings.map(({ code }) => code)));
    const rest = Object.keys(FINDINGS).filter((code) => !found.has(code as FindingCode));
    // What comes beside a report has no place in the set: runtime-data.test.ts. Nor have certificates without one.
    const other = rest.filter((code) => !code.startsWith('POLICY_') && !code.startsWith('RUNTIME_DATA_'));
    expect(other).toEqual(['CERT_NOT_USED']);
  });

  it('says of every root it accepts here that it proves nothing', () => {
    for (const { name, result } of all.filter(({ expected }) => expected.length === 0)) {
      expect(result.chain.isAmd, name).toBe(false);
      expect(codesOf(result, 'info'), name).toContain('ROOT_IS_TEST');
    }
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
      const [good, twin] = ['good-v3', 'good-negated-s'].map(
        (title) => all.find(({ name }) => name === `${line}/${title}`)!,
      );
      expect(twin!.result.ok).toBe(true);
      expect(twin!.evidence.report).not.toEqual(good!.evidence.report);
      expect(twin!.result.identity).toBe(good!.result.identity);
    }
  });
});
