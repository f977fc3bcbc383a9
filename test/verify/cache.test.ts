// SPDX-License-Identifier: Apache-2.0
/** What a verification with a cache still pays for, counted in calls of the provider. */
import { describe, expect, it } from 'vitest';
import { VerifyCache, type VerifyCrypto, verifyEvidence } from '../../src/verify/index.ts';
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
});
