// SPDX-License-Identifier: Apache-2.0
/** What a verification with a cache still pays for, counted in calls of the provider, and that it never changes a verdict. */
import { generateKeyPairSync, webcrypto } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  VerifyCache,
  type VerifyCrypto,
  verifyEvidence,
  verifyEvidenceAsync,
  webVerifyCrypto,
} from '../../src/verify/index.ts';
import { AT_MS, crypto, errorsOf, forge } from './soft.ts';

interface Calls {
  sha256Hex: number;
  verifyRsaPss: number;
  verifyEcdsaP384: number;
}

function counted(): { readonly crypto: VerifyCrypto; readonly calls: Calls } {
  const calls: Calls = { sha256Hex: 0, verifyRsaPss: 0, verifyEcdsaP384: 0 };
  return {
    calls,
    crypto: {
      sha256Hex(data) {
        calls.sha256Hex++;
        return crypto.sha256Hex(data);
      },
      verifyRsaPss(spki, message, signature) {
        calls.verifyRsaPss++;
        return crypto.verifyRsaPss(spki, message, signature);
      },
      verifyEcdsaP384(point, message, r, s) {
        calls.verifyEcdsaP384++;
        return crypto.verifyEcdsaP384(point, message, r, s);
      },
    },
  };
}

describe('a shared cache', () => {
  const milan = forge('Milan');
  const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
  const certificates = [milan.leaf(), ask, ark];
  const crls = [milan.crl()];

  it('leaves one hash for each document and one signature, that of the report', () => {
    const cache = new VerifyCache();
    const verify = (vmpl: number) => {
      const { crypto: counting, calls } = counted();
      const report = milan.report({ fields: { vmpl } });
      const options = { atMs: AT_MS, trust: [ark], cache, crypto: counting };
      const result = verifyEvidence({ report, certificates, crls }, options);
      expect(errorsOf(result)).toEqual([]);
      return calls;
    };
    // The leaf and the intermediate by their issuers, the list by the root; the root's own signature adds nothing.
    expect(verify(0)).toMatchObject({ verifyRsaPss: 3, verifyEcdsaP384: 1 });
    // The root that is trusted, three certificates, one list, the report.
    expect(verify(1)).toEqual({ verifyRsaPss: 0, verifyEcdsaP384: 1, sha256Hex: 6 });
  });

  it('has nothing to say about copies of its documents that differ', () => {
    const cache = new VerifyCache();
    const options = { atMs: AT_MS, trust: [ark], cache, crypto };
    const evidence = { report: milan.report(), certificates, crls };
    expect(verifyEvidence(evidence, options).ok).toBe(true);
    const bent = crls.map((der) => der.map((byte, i) => (i === der.length - 1 ? byte ^ 1 : byte)));
    expect(errorsOf(verifyEvidence({ ...evidence, crls: bent }, options))).toEqual([
      'CRL_SIGNATURE_MISMATCH',
    ]);
  });
});

describe('roots of one name', () => {
  const milan = forge('Milan');
  const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 4096 });
  const spki = new Uint8Array(publicKey.export({ format: 'der', type: 'spki' }));
  const impostor = (): Uint8Array => milan.ca('ARK', { spki, signer: privateKey });
  const crls = [milan.crl()];
  const report = milan.report();

  it('do not take the place of one that is trusted, however many they are', () => {
    const certificates = [impostor(), impostor(), impostor(), impostor(), impostor(), milan.leaf(), ask];
    const options = { atMs: AT_MS, trust: [ark], crypto };
    for (const given of [certificates, [...certificates, ark]]) {
      expect(errorsOf(verifyEvidence({ report, certificates: given, crls }, options))).toEqual([]);
    }
  });

  it('get the same verdict with every cache, alone and beside others', async () => {
    const other = impostor();
    const certificates = [milan.leaf(), ask, milan.ca('ARK'), milan.ca('ARK'), other];
    const options = { atMs: AT_MS, trust: [other, ark] };
    const evidence = { report, certificates, crls };
    const plain = verifyEvidence(evidence, { ...options, crypto });
    for (const capacity of [0, 1, 2, 3, 1024]) {
      const cache = new VerifyCache(capacity);
      expect(verifyEvidence(evidence, { ...options, crypto, cache }).findings).toEqual(plain.findings);
      const many = Array.from({ length: 6 }, () =>
        verifyEvidenceAsync(evidence, { ...options, crypto: webVerifyCrypto(webcrypto.subtle), cache }),
      );
      for (const { findings } of await Promise.all(many)) {
        expect(findings).toEqual(plain.findings);
      }
    }
  });
});

// ES2024, which TypeScript is not told of: the oldest Node there is support for has them, browsers have not.
type Resizable = ArrayBuffer & { resize(size: number): void };
type Growable = SharedArrayBuffer & { grow(size: number): void };
const resizable = (size: number, maxByteLength: number): Resizable =>
  Reflect.construct(ArrayBuffer, [size, { maxByteLength }]) as Resizable;
const growable = (size: number, maxByteLength: number): Growable =>
  Reflect.construct(SharedArrayBuffer, [size, { maxByteLength }]) as Growable;

describe('a report in shared memory', () => {
  it('is judged by one copy of it', () => {
    const milan = forge('Milan');
    const report = milan.report();
    const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
    const memory = new Uint8Array(new SharedArrayBuffer(report.length));
    memory.set(report);
    // A hash is the first thing asked for: whoever shares the memory writes then.
    const hasty: VerifyCrypto = {
      ...crypto,
      sha256Hex(data) {
        memory[0x30] = 3;
        return crypto.sha256Hex(data);
      },
    };
    const options = { atMs: AT_MS, trust: [ark], crl: 'skip', crypto: hasty } as const;
    const result = verifyEvidence({ report: memory, certificates: [milan.leaf(), ask, ark] }, options);
    expect(memory[0x30]).toBe(3);
    expect([result.ok, result.report!.vmpl]).toEqual([true, 0]);
  });
  it('keeps the length it had at first, whatever becomes of its memory', async () => {
    const milan = forge('Milan');
    const [ask, ark] = milan.chain() as [Uint8Array, Uint8Array];
    const certificates = [milan.leaf(), ask, ark];
    const report = milan.report();
    const options = { atMs: AT_MS, trust: [ark], crl: 'skip' } as const;
    const buffer = resizable(1200, 1200);
    // Another measurement is decoded than the one that is signed, if what is read last is not what was read first.
    const memory = new Uint8Array(buffer);
    memory.set(report);
    memory[0x90] = 0xee;
    const web = webVerifyCrypto(webcrypto.subtle);
    let hashes = 0;
    const slow = {
      ...web,
      sha256Hex(data: Uint8Array) {
        memory[0x90] = hashes++ < 2 ? 0xee : report[0x90]!;
        return web.sha256Hex(data);
      },
    };
    const verdict = verifyEvidenceAsync({ report: memory, certificates }, { ...options, crypto: slow });
    buffer.resize(1184);
    expect(errorsOf(await verdict)).toContain('REPORT_LENGTH_MISMATCH');

    const shared = growable(1183, 1184);
    const growing = new Uint8Array(shared);
    growing.set(report.subarray(0, 1183));
    const hasty: VerifyCrypto = {
      ...crypto,
      sha256Hex(data) {
        shared.grow(1184);
        growing[1183] = report[1183]!;
        return crypto.sha256Hex(data);
      },
    };
    const result = verifyEvidence({ report: growing, certificates }, { ...options, crypto: hasty });
    expect(growing.length).toBe(1184);
    expect(errorsOf(result)).toContain('REPORT_LENGTH_MISMATCH');
  });
});
