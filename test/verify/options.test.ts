// SPDX-License-Identifier: Apache-2.0
/** Calls as programs without types make them: a mistake of the caller is an InputError that names it. */
import { webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/lib/errors.ts';
import {
  type Evidence,
  parsePolicy,
  type VerifyOptions,
  verifyCertificates,
  verifyCertificatesAsync,
  verifyEvidence,
  verifyEvidenceAsync,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { AT_MS, crypto, forge } from './soft.ts';

const milan = forge('Milan');
const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
const evidence = { report: milan.report(), certificates: [milan.leaf(), ask, ark], crls: [milan.crl()] };
const options = { atMs: AT_MS, trust: [ark], crypto };
const web = webVerifyCrypto(webcrypto.subtle);

/** What is thrown, at once or by the promise. */
async function mistake(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return null;
}

const WRONG_OPTIONS: readonly (readonly [name: string, options: object])[] = [
  ['atMs', { atMs: Number.NaN }],
  ['atMs', { atMs: 1.7e18 }],
  ['atMs', { atMs: -1e16 }],
  ['atMs', { atMs: '2026-01-01' }],
  ['atMs', { atMs: undefined }],
  ['trust', { trust: 'softsnp' }],
  ['trust', { trust: ark }],
  ['trust', { trust: ['ark.pem'] }],
  ['crl', { crl: 'skipp' }],
  ['crl', { crl: false }],
  ['crlMinimumNumber', { crlMinimumNumber: Number.NaN }],
  ['crlMinimumNumber', { crlMinimumNumber: 5 }],
  ['maxCertificates', { maxCertificates: 0 }],
  ['maxCertificates', { maxCertificates: Number.NaN }],
  ['crypto.sha256Hex', { crypto: undefined }],
  ['crypto.verifyEcdsaP384', { crypto: { ...crypto, verifyEcdsaP384: undefined } }],
];

const WRONG_ALONE: typeof WRONG_OPTIONS = [
  ['policy', { policy: { vmpl: 0 } }],
  ['policy', { policy: {} }],
  ['policy', { policy: null }],
  ['product', { product: 'milan' }],
  ['cache', { cache: new Map() }],
  ['polcy', { polcy: parsePolicy({ vmpl: 0 }) }],
];

const WRONG_EVIDENCE: readonly (readonly [name: string, evidence: object])[] = [
  ['evidence.certificates', { certificates: ark }],
  ['evidence.certificates', { certificates: ['ark.pem'] }],
  ['evidence.crls', { crls: milan.crl() }],
  ['evidence.table', { table: [] }],
];

const WRONG_REPORT: typeof WRONG_EVIDENCE = [
  ['evidence.report', { report: undefined }],
  ['evidence.report', { report: 'aa' }],
  ['evidence.report', { report: new DataView(new ArrayBuffer(1184)) }],
  ['evidence.report', { report: evidence.report.slice().buffer }],
];

const isAbout = (name: string) => ({ code: 'OPTION_INVALID', where: name });

describe('a call of the verifier', () => {
  it.each([...WRONG_OPTIONS, ...WRONG_ALONE])('names the option: %s in %j', async (name, wrong) => {
    const given = { ...options, ...wrong } as VerifyOptions & { crypto: typeof crypto };
    const isAlone = WRONG_ALONE.some(([, one]) => one === wrong);
    for (const call of [
      () => verifyEvidence(evidence, given),
      () => verifyEvidenceAsync(evidence, given as never),
      ...(isAlone
        ? []
        : [
            () => verifyCertificates(evidence, given),
            () => verifyCertificatesAsync(evidence, given as never),
          ]),
    ]) {
      const error = await mistake(call);
      expect(error).toBeInstanceOf(InputError);
      expect(error).toMatchObject(isAbout(name));
    }
  });

  it.each([...WRONG_EVIDENCE, ...WRONG_REPORT])('names the evidence: %s', async (name, wrong) => {
    const given = { ...evidence, ...wrong } as Evidence;
    expect(await mistake(() => verifyEvidence(given, options))).toMatchObject(isAbout(name));
    expect(await mistake(() => verifyEvidenceAsync(given, { ...options, crypto: web }))).toMatchObject(
      isAbout(name),
    );
  });

  it('refuses the promises of WebCrypto where an answer is wanted at once', async () => {
    const error = await mistake(() => verifyEvidence(evidence, { ...options, crypto: web as never }));
    expect(error).toMatchObject(isAbout('crypto'));
  });

  it('takes the cryptography of node:crypto where a promise would do', async () => {
    const result = await verifyEvidenceAsync(evidence, { ...options, crypto: crypto as never });
    expect(result.ok).toBe(true);
  });
});

describe('several certificates that may have signed', () => {
  const others = Array.from({ length: 8 }, (_, i) => forge('Milan', 100 + i));

  it('are all tried: a report does not say which VLEK signed it', () => {
    const [asvk] = milan.chain('VLEK') as [Uint8Array];
    const leaves = others.map((other, i) => other.leaf('VLEK', { csp: `CN=region-${i}.example` }));
    for (const [i, other] of others.entries()) {
      const given = {
        report: other.report({ kind: 'VLEK' }),
        certificates: [...leaves, asvk, ark],
        crls: evidence.crls,
      };
      const { ok, chain } = verifyEvidence(given, options);
      expect([ok, chain.leaf!.endorsement!.cspId]).toEqual([true, `CN=region-${i}.example`]);
    }
  });

  it('are all tried: a masked report does not say which chip signed it', () => {
    const leaves = others.map((other) => other.leaf());
    for (const other of others) {
      const report = other.report({ fields: { chip_id: new Uint8Array(64) } });
      const { ok } = verifyEvidence(
        { report, certificates: [...leaves, ask, ark], crls: evidence.crls },
        options,
      );
      expect(ok).toBe(true);
    }
  });
});

describe('certificates without a report', () => {
  it('are each judged or named: an intermediate that no leaf wants, a root of nobody here', () => {
    const genoa = forge('Genoa');
    const [foreign, foreignRoot] = genoa.chain() as [Uint8Array, Uint8Array];
    const [asvk] = milan.chain('VLEK') as [Uint8Array];
    const certificates = [milan.leaf(), ask, ark, asvk, foreign, foreignRoot];
    const { chains, ok } = verifyCertificates({ certificates, crls: evidence.crls }, options);
    expect(
      chains.map(({ leaf, intermediate, ok: isGood }) => [
        leaf?.role?.kind ?? null,
        intermediate?.role,
        isGood,
      ]),
    ).toEqual([
      ['VCEK', { kind: 'ASK', product: 'Milan' }, true],
      [null, { kind: 'ASVK', product: 'Milan' }, true],
      [null, { kind: 'ASK', product: 'Genoa' }, false],
    ]);
    expect(ok).toBe(false);
    const good = verifyCertificates(
      { certificates: [milan.leaf(), ask, ark, foreignRoot], crls: evidence.crls },
      options,
    );
    expect([
      good.ok,
      good.findings.filter(({ code }) => code === 'CERT_NOT_USED').map(({ actual }) => actual),
    ]).toEqual([true, [expect.stringContaining('ARK-Genoa')]]);
  });
});
