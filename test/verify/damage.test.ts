// SPDX-License-Identifier: Apache-2.0
/** Damage of every bit and every length: none is accepted, none throws. SOFTSNP_LONG=1 leaves none out. */
import { describe, expect, it } from 'vitest';
import { REPORT_SIGNED_SIZE, REPORT_SIZE } from '../../src/abi/attestation-report.ts';
import { PRODUCT_LINES } from '../../src/abi/product.ts';
import { VerifyCache, verifyEvidence } from '../../src/verify/index.ts';
import { AT_MS, bitsOf, crypto, errorsOf, flipped, forge, judge, LONG } from './soft.ts';

describe('a report of which one bit is flipped', () => {
  const versions = LONG
    ? PRODUCT_LINES.flatMap((product) => ([2, 3, 4, 5] as const).map((version) => ({ product, version })))
    : [{ product: 'Turin', version: 5 } as const];

  it.each(versions)('is refused: version $version of $product', ({ product, version }) => {
    const soft = forge(product);
    const trust = [soft.authority.ark];
    const certificates = [soft.leaf(), ...soft.chain()];
    const report = soft.report({ version });
    expect(judge({ report, certificates }, { trust }).ok).toBe(true);
    for (const bit of bitsOf(REPORT_SIZE)) {
      const result = judge({ report: flipped(report, bit), certificates }, { trust });
      const errors = errorsOf(result);
      const at = bit >> 3;
      expect(result.ok, `bit ${bit}`).toBe(false);
      if (at < 4) {
        // The version: unknown, or known and another than the one that was signed.
        expect(
          errors.some((code) => code === 'REPORT_VERSION_UNSUPPORTED' || code === 'SIGNATURE_MISMATCH'),
        ).toBe(true);
      } else if (at < REPORT_SIGNED_SIZE) {
        expect(errors, `bit ${bit}`).toContain('SIGNATURE_MISMATCH');
      } else if (at >= 0x330) {
        expect(errors).toEqual(['REPORT_RESERVED_NOT_ZERO']);
      } else if ((at - REPORT_SIGNED_SIZE) % 72 >= 48) {
        expect(errors).toEqual(['SIGNATURE_PADDING_NOT_ZERO']);
      } else {
        expect(errors).toContain('SIGNATURE_MISMATCH');
      }
    }
  });
});

describe('a report of the wrong length', () => {
  it('is refused for its length alone, from no bytes to four pages more', () => {
    const soft = forge('Milan');
    const trust = [soft.authority.ark];
    const certificates = [soft.leaf(), ...soft.chain()];
    const report = soft.report();
    for (let length = 0; length < REPORT_SIZE; length++) {
      const result = judge({ report: report.subarray(0, length), certificates }, { trust });
      expect(errorsOf(result)).toEqual(['REPORT_LENGTH_MISMATCH']);
      expect(result.ok).toBe(false);
    }
  });
});

describe('a certificate of which one bit is flipped', () => {
  const soft = forge('Milan');
  const report = soft.report();
  const leaf = soft.leaf();
  const [ask, ark] = soft.chain() as [Uint8Array, Uint8Array];
  const trust = [ark];

  it.each([
    ['VCEK', 0],
    ['ASK', 1],
  ] as const)('is refused: %s', (_, index) => {
    const chain = [leaf, ask, ark];
    const damaged = chain[index]!;
    for (const bit of bitsOf(damaged.length).filter((_, i) => LONG || i % 3 === 0)) {
      const certificates = chain.map((der, i) => (i === index ? flipped(der, bit) : der));
      const result = judge({ report, certificates }, { trust });
      expect(result.ok, `bit ${bit}`).toBe(false);
    }
  });

  it('is refused at every length it is cut to', () => {
    const step = LONG ? 1 : 17;
    for (let length = 0; length < leaf.length; length += step) {
      const result = verifyEvidence(
        { report, certificates: [leaf.subarray(0, length), ask, ark] },
        { atMs: AT_MS, crl: 'skip', trust, crypto, cache: new VerifyCache(4) },
      );
      expect(errorsOf(result)).toEqual(expect.arrayContaining(['CERT_MALFORMED', 'LEAF_MISSING']));
    }
  });

  it('is refused when a bit of a revocation list is flipped', () => {
    const crl = soft.crl();
    const certificates = [leaf, ask, ark];
    expect(judge({ report, certificates, crls: [crl] }, { trust, crl: 'require' }).ok).toBe(true);
    for (const bit of bitsOf(crl.length)) {
      const result = judge({ report, certificates, crls: [flipped(crl, bit)] }, { trust, crl: 'require' });
      expect(result.ok, `bit ${bit}`).toBe(false);
    }
  });
});
