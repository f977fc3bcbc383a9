// SPDX-License-Identifier: Apache-2.0
/** Damage of every bit and every length: none is accepted, none throws. SOFTSNP_LONG=1 leaves none out. */
import { describe, expect, it } from 'vitest';
import { REPORT_SIGNED_SIZE, REPORT_SIZE } from '../../src/abi/attestation-report.ts';
import { PRODUCT_LINES } from '../../src/abi/product.ts';
import { concat } from '../../src/lib/bytes.ts';
import {
  type Evidence,
  parsePolicy,
  VerifyCache,
  type VerifyOptions,
  verifyEvidence,
} from '../../src/verify/index.ts';
import { AT_MS, bitsOf, crypto, errorsOf, flipped, forge, judge, LONG } from './soft.ts';
import { authorities, HAVE_VECTORS, INDEX, vector, whenValidMs } from './vectors.ts';

const VERSIONS = [2, 3, 4, 5] as const;

/** Flips bits of an accepted report and counts what each is refused for. */
function flipAll(evidence: Evidence, options: Partial<VerifyOptions>): Record<string, number> {
  const { report } = evidence;
  expect(judge(evidence, options).ok).toBe(true);
  const counts = { signed: 0, signature: 0, padding: 0, tail: 0 };
  for (const bit of bitsOf(REPORT_SIZE)) {
    const result = judge({ ...evidence, report: flipped(report, bit) }, options);
    const errors = errorsOf(result);
    const at = bit >> 3;
    expect(result.ok, `bit ${bit}`).toBe(false);
    if (at < 4) {
      // The version: unknown, or known and another than the one that was signed.
      expect(
        errors.some((code) => code === 'REPORT_VERSION_UNSUPPORTED' || code === 'SIGNATURE_MISMATCH'),
      ).toBe(true);
      counts.signed += 1;
    } else if (at < REPORT_SIGNED_SIZE) {
      expect(errors, `bit ${bit}`).toContain('SIGNATURE_MISMATCH');
      counts.signed += 1;
    } else if (at >= 0x330) {
      expect(errors).toEqual(['REPORT_RESERVED_NOT_ZERO']);
      counts.tail += 1;
    } else if ((at - REPORT_SIGNED_SIZE) % 72 >= 48) {
      expect(errors).toEqual(['SIGNATURE_PADDING_NOT_ZERO']);
      counts.padding += 1;
    } else {
      expect(errors.filter((code) => code !== 'SIGNATURE_OUT_OF_RANGE')).toEqual(['SIGNATURE_MISMATCH']);
      counts.signature += 1;
    }
  }
  return counts;
}

const scale = LONG ? 1 : 8;
const ALL_BITS = { signed: 5376 / scale, signature: 768 / scale, padding: 384 / scale, tail: 2944 / scale };

describe('a report of which one bit is flipped', () => {
  const versions = LONG
    ? PRODUCT_LINES.flatMap((product) => VERSIONS.map((version) => ({ product, version })))
    : [{ product: 'Turin', version: 5 } as const];

  it.each(versions)('is refused: version $version of $product', ({ product, version }) => {
    const soft = forge(product);
    const certificates = [soft.leaf(), ...soft.chain()];
    const counts = flipAll(
      { report: soft.report({ version }), certificates },
      { trust: [soft.authority.ark] },
    );
    expect(counts).toEqual(ALL_BITS);
  });

  // One for each version and line that AMD's firmware has signed.
  const genuine = new Map(
    INDEX.flatMap((entry) => {
      const kind = /\/report-(v\d-[a-z]+-v[cl]ek)/.exec(entry.file)?.[1];
      return kind === undefined ? [] : [[kind, entry] as const];
    }).slice(0, LONG ? undefined : 0),
  );

  it.skipIf(!HAVE_VECTORS).each([...genuine])('is refused under AMD’s pins: %s', (_, { file, leaf }) => {
    const certificates = [vector(leaf![0]!), ...authorities()];
    const policy = parsePolicy({ guest_policy: { debug: 'any' } });
    const counts = flipAll(
      { report: vector(file), certificates },
      { trust: 'amd', atMs: whenValidMs(leaf![0]!), policy },
    );
    expect(counts).toEqual(ALL_BITS);
  });

  it.skipIf(!HAVE_VECTORS || !LONG)('is one of each version and line there is', () => {
    expect(genuine.size).toBeGreaterThanOrEqual(9);
  });
});

describe('a report of the wrong length', () => {
  it('is refused for its length alone, from no bytes to four pages more', () => {
    const soft = forge('Milan');
    const trust = [soft.authority.ark];
    const certificates = [soft.leaf(), ...soft.chain()];
    const long = concat(soft.report(), new Uint8Array(4 * 4096));
    const tried = Array.from({ length: long.length + 1 }, (_, length) => length).filter(
      (length) =>
        length < REPORT_SIZE || LONG || [1, 2, 16, 24, 48, 1184, 4096, 16384].includes(length - REPORT_SIZE),
    );
    for (const length of tried.filter((length) => length !== REPORT_SIZE)) {
      const result = judge({ report: long.subarray(0, length), certificates }, { trust });
      expect(errorsOf(result), `${length} bytes`).toEqual(['REPORT_LENGTH_MISMATCH']);
      expect(result.ok).toBe(false);
    }
  });
});

describe('a signed report with a reserved byte set', () => {
  const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);
  const reservedOf = (version: number): readonly number[] => [
    ...range(0x4c, 0x50),
    ...range(version === 2 ? 0x188 : 0x18b, 0x1a0),
    0x1eb,
    0x1ef,
    ...range(version === 5 ? 0x208 : 0x1f8, REPORT_SIGNED_SIZE),
  ];

  it.each(PRODUCT_LINES)('is refused for that alone, whichever byte and version: %s', (product) => {
    const soft = forge(product);
    const trust = [soft.authority.ark];
    const certificates = [soft.leaf(), ...soft.chain()];
    for (const version of VERSIONS) {
      for (const offset of reservedOf(version).filter((_, i) => LONG || i % 11 === version)) {
        const before = (bytes: Uint8Array): void => {
          bytes[offset] = 0x80;
        };
        const result = judge({ report: soft.report({ version, before }), certificates }, { trust, product });
        expect(errorsOf(result), `version ${version}, byte ${offset}`).toEqual(['REPORT_RESERVED_NOT_ZERO']);
      }
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
      expect(errorsOf(result)).toEqual(['CERT_MALFORMED', 'LEAF_MISSING']);
    }
  });
});

describe('a revocation list', () => {
  const soft = forge('Milan');
  const crl = soft.crl();
  const evidence = { report: soft.report(), certificates: [soft.leaf(), ...soft.chain()] };
  const options = { trust: [soft.authority.ark], crl: 'require' } as const;

  it('is refused when a bit of it is flipped', () => {
    expect(judge({ ...evidence, crls: [crl] }, options).ok).toBe(true);
    for (const bit of bitsOf(crl.length).filter((_, i) => LONG || i % 3 === 0)) {
      const result = judge({ ...evidence, crls: [flipped(crl, bit)] }, options);
      expect(result.ok, `bit ${bit}`).toBe(false);
    }
  });

  it('is refused at every length it is cut to', () => {
    for (let length = 0; length < crl.length; length += LONG ? 1 : 7) {
      const result = judge({ ...evidence, crls: [crl.subarray(0, length)] }, options);
      expect(errorsOf(result), `${length} bytes`).toEqual(['CRL_MALFORMED']);
    }
  });

  it.each([
    ['a million entries', 1_000_000],
    ['ten megabytes of entries', 420_000],
  ])('of %s is refused unread, though the root has signed it', (_, entries) => {
    const large = soft.crl({ entries });
    const heap = process.memoryUsage().heapUsed;
    const before = performance.now();
    const result = judge({ ...evidence, crls: [large] }, { ...options, cache: new VerifyCache() });
    expect(errorsOf(result)).toEqual(['CRL_MALFORMED']);
    expect(performance.now() - before).toBeLessThan(1000);
    expect(process.memoryUsage().heapUsed - heap).toBeLessThan(16 << 20);
  });
});
