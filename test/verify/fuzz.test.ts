// SPDX-License-Identifier: Apache-2.0
/**
 * Whatever bytes come: a verdict in its full form, never an acceptance that was not earned, never an exception but
 * InputError. FC_NUM_RUNS sets how many; parsers.test.ts tries each parser alone, a million times in long runs.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ARK_GUID, ASK_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import { toPem } from '../../src/certs/pem.ts';
import { decodeCertificateTable, encodeCertificateTable } from '../../src/certs/table.ts';
import { concat } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';
import {
  type Evidence,
  explain,
  FINDINGS,
  parsePolicy,
  readCertificateInput,
  readReportInput,
  VERIFY_STEPS,
  type VerifyResult,
} from '../../src/verify/index.ts';
import { crypto, forge, judge, NUM_RUNS } from './soft.ts';

const milan = forge('Milan');
const report = milan.report({ version: 5 });
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
const leaf = milan.leaf();
const trust = [ark];
const table = encodeCertificateTable([
  { guid: VCEK_GUID, data: leaf },
  { guid: ASK_GUID, data: ask },
  { guid: ARK_GUID, data: ark },
]);

/** The bytes with a few changed, and perhaps cut or followed by more. */
const mutated = (base: Uint8Array): fc.Arbitrary<Uint8Array> =>
  fc
    .record({
      changes: fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 6 }),
      cut: fc.option(fc.nat(base.length), { nil: undefined, freq: 5 }),
      tail: fc.uint8Array({ maxLength: 8 }),
    })
    .map(({ changes, cut, tail }) => {
      const out = base.slice();
      for (const [at, value] of changes) {
        out[at] = value;
      }
      return Uint8Array.from([...out.subarray(0, cut), ...tail]);
    });

const hostile = (base: Uint8Array): fc.Arbitrary<Uint8Array> =>
  fc.oneof(mutated(base), fc.uint8Array({ maxLength: 2000 }));

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.from(a).equals(b);

function expectWellFormed(result: VerifyResult): void {
  expect(result.steps.map(({ name }) => name)).toEqual([...VERIFY_STEPS]);
  expect(result.ok).toBe(result.steps.every(({ ok }) => ok));
  expect(result.ok).toBe(
    result.steps.every(({ notRun }) => notRun === null) &&
      !result.findings.some(({ severity }) => severity === 'error'),
  );
  for (const { code, step, where, message, action, source } of result.findings) {
    expect(FINDINGS[code].step).toBe(step);
    expect([where, message, action, source].every((text) => text.length > 0)).toBe(true);
  }
  expect(() => JSON.stringify(result.findings)).not.toThrow();
}

describe('hostile bytes', () => {
  it('as a report are refused unless they are the report', () => {
    fc.assert(
      fc.property(hostile(report), (bytes) => {
        const evidence = { report: bytes, table };
        const result = judge(evidence, { trust });
        expectWellFormed(result);
        // The signature binds all signed bytes; the others have one valid form, but for the twin of s.
        expect(result.ok).toBe(same(bytes, report));
        if (!result.ok) {
          explain(evidence, result, crypto);
        }
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it('as a table are refused unless the certificates in it are whole', () => {
    fc.assert(
      fc.property(hostile(table), (bytes) => {
        const result = judge({ report, table: bytes }, { trust });
        expectWellFormed(result);
        if (result.ok) {
          const found = decodeCertificateTable(bytes).map(({ data }) => data);
          expect(found.some((data) => same(data, leaf))).toBe(true);
          expect(found.some((data) => same(data, ask))).toBe(true);
        }
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it('as certificates and revocation lists are refused unless they are whole', () => {
    const crl = milan.crl();
    fc.assert(
      fc.property(hostile(leaf), hostile(ask), hostile(crl), fc.nat(7), (badLeaf, badAsk, badCrl, which) => {
        const certificates = [which & 1 ? badLeaf : leaf, which & 2 ? badAsk : ask, ark];
        const crls = [which & 4 ? badCrl : crl];
        const evidence = { report, certificates, crls };
        const result = judge(evidence, { trust, crl: 'require' });
        expectWellFormed(result);
        const isWhole = same(certificates[0]!, leaf) && same(certificates[1]!, ask) && same(crls[0]!, crl);
        expect(result.ok).toBe(isWhole);
        if (!result.ok) {
          explain(evidence, result, crypto);
        }
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it('as input of any form give bytes or an InputError', () => {
    const text = new TextEncoder().encode(Buffer.from(report).toString('base64'));
    fc.assert(
      fc.property(fc.oneof(hostile(report), hostile(text), hostile(table), fc.uint8Array()), (bytes) => {
        readCertificateInput(bytes);
        try {
          readReportInput(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it('as a policy are a policy or an InputError', () => {
    const name = fc.constantFrom(
      'measurement',
      'vmpl',
      'guest_policy',
      'minimum_tcb',
      'Milan',
      'reported',
      'snp',
      'debug',
      'distrust',
      'chips',
      '__proto__',
      'constructor',
      'x',
    );
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof({ maxDepth: 5 }, tie('leaf'), tie('object'), fc.array(tie('tree'), { maxLength: 3 })),
      object: fc.dictionary(name, tie('tree'), { maxKeys: 4 }),
      leaf: fc.constantFrom(null, 0, -1, 300, 0.5, '', 'any', 'required', 'ab', '0x10', '1.55', true),
    }));
    fc.assert(
      fc.property(tree, (document) => {
        try {
          const policy = parsePolicy(document);
          expectWellFormed(judge({ report, table }, { trust, policy }));
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: NUM_RUNS },
    );
  });

  it('in large amounts take time in proportion to their number', () => {
    const pem = (size: number): Uint8Array =>
      new TextEncoder().encode(`-----BEGIN CERTIFICATE-----${'A'.repeat(size)}-----END CERTIFICATE-----`);
    const inTable = (data: Uint8Array): Uint8Array => encodeCertificateTable([{ guid: VCEK_GUID, data }]);
    const block = new TextEncoder().encode(toPem(leaf));
    const floods: readonly Evidence[] = [
      { report: new Uint8Array(16 << 20) },
      { report, table: new Uint8Array(16 << 20).fill(0xff) },
      { report, table: new Uint8Array(16 << 20).fill(0x2d) },
      ...[1, 4, 16].map((mib) => ({ report, table: inTable(pem(mib << 20)) })),
      { report, table: inTable(concat(...Array.from({ length: 5000 }, () => block))) },
      { report, certificates: Array.from({ length: 10_000 }, (_, i) => Uint8Array.of(i & 0xff, i >> 8)) },
      { report, certificates: [new Uint8Array(16 << 20).fill(0x30), ask] },
      { report, certificates: [leaf, ask], crls: [new Uint8Array(16 << 20).fill(0x30)] },
    ];
    for (const evidence of floods) {
      const before = performance.now();
      expect(judge(evidence, { trust, crl: 'require' }).ok).toBe(false);
      expect(performance.now() - before).toBeLessThan(1000);
    }
  });
});
