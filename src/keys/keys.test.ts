// SPDX-License-Identifier: Apache-2.0
import { p384 } from '@noble/curves/nist.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { type TcbParts, tcbAtMost, tcbComponents } from '../abi/tcb-version.ts';
import { isZero, toHex } from '../lib/bytes.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import {
  chipIdOf,
  chipWrappingKey,
  cspSecret,
  descend,
  endorsementKey,
  endorsementScalar,
  type Stick,
  topStick,
  unwrapHashstick,
  wrapHashstick,
  wrappedHashstickTcb,
} from './index.ts';

const crypto = nodeCrypto({ deterministic: true });
const secret = seededRandom(1).bytes(48);
const otherSecret = seededRandom(2).bytes(48);
const tops = new Map(PRODUCT_LINES.map((product) => [product, topStick(crypto, secret, product)]));
const top = (product: ProductLine): Stick => tops.get(product)!;

const P384_ORDER = p384.Point.Fn.ORDER;

const parts = (microcode: number, more: Partial<TcbParts> = {}): TcbParts => ({
  fmc: 0,
  boot_loader: 3,
  tee: 0,
  snp: 23,
  microcode,
  ...more,
});

/** Levels near the top, so that a walk is short; how far one walks does not change what holds. */
const tcbNearTop = (product: ProductLine): fc.Arbitrary<TcbParts> =>
  fc
    .array(fc.integer({ min: 250, max: 255 }), { minLength: 5, maxLength: 5 })
    .map(([fmc, boot_loader, tee, snp, microcode]) => ({
      fmc: product === 'Turin' ? fmc! : 0,
      boot_loader: boot_loader!,
      tee: tee!,
      snp: snp!,
      microcode: microcode!,
    }));

const hexOf = (stick: Stick | null): readonly string[] | null =>
  stick === null ? null : stick.values.map(toHex);

describe.each(PRODUCT_LINES)('a hash stick of %s', (product) => {
  it('reaches the same values in one walk or in two', () => {
    fc.assert(
      fc.property(tcbNearTop(product), tcbNearTop(product), (a, b) => {
        fc.pre(tcbAtMost(b, a, product));
        const there = descend(crypto, top(product), a);
        expect(there?.tcb).toEqual(a);
        expect(hexOf(descend(crypto, there!, b))).toEqual(hexOf(descend(crypto, top(product), b)));
      }),
      { numRuns: 60 },
    );
  });

  it('cannot be descended to a TCB_VERSION with any component above its own', () => {
    fc.assert(
      fc.property(tcbNearTop(product), tcbNearTop(product), (a, b) => {
        const there = descend(crypto, top(product), a)!;
        expect(descend(crypto, there, b) !== null).toBe(tcbAtMost(b, a, product));
      }),
      { numRuns: 60 },
    );
  });

  it('holds the values of its own TCB_VERSION and nothing else', () => {
    const stick = descend(crypto, top(product), parts(213))!;
    expect(Object.keys(stick).sort()).toEqual(['product', 'tcb', 'values']);
    expect(stick.values.map((value) => value.length)).toEqual(tcbComponents(product).map(() => 48));
    expect(descend(crypto, stick, stick.tcb)).toEqual(stick);
  });

  it('gives another VCEK for every component that differs', () => {
    const base = parts(213, { fmc: 1, tee: 2 });
    const keys = [
      base,
      ...tcbComponents(product).map((component) => ({ ...base, [component]: base[component] - 1 })),
    ].map((tcb) => toHex(endorsementScalar(crypto, descend(crypto, top(product), tcb)!, 'VCEK')));
    expect(new Set(keys).size).toBe(tcbComponents(product).length + 1);
  });

  it('gives a private key in [1, n-1] whose public point signs and verifies', () => {
    const stick = descend(crypto, top(product), parts(213))!;
    const scalar = BigInt(`0x${toHex(endorsementScalar(crypto, stick, 'VCEK'))}`);
    expect(scalar > 0n && scalar < P384_ORDER).toBe(true);
    const key = endorsementKey(crypto, stick, 'VCEK');
    expect(key.publicPoint[0]).toBe(4);
    const message = Uint8Array.of(1, 2, 3);
    expect(crypto.p384Verify(key.publicPoint, message, key.sign(message))).toBe(true);
  });

  it('comes back from a wrapped VLEK hashstick of 432 bytes with its TCB_VERSION', () => {
    const wrappingKey = chipWrappingKey(crypto, secret);
    const stick = descend(crypto, top(product), parts(213, { fmc: product === 'Turin' ? 7 : 0 }))!;
    const wrapped = wrapHashstick(crypto, seededRandom(3), wrappingKey, stick);
    expect(wrapped.length).toBe(432);
    expect(wrappedHashstickTcb(product, wrapped)).toEqual(stick.tcb);
    expect(unwrapHashstick(crypto, wrappingKey, product, wrapped)).toEqual(stick);
    expect(unwrapHashstick(crypto, chipWrappingKey(crypto, otherSecret), product, wrapped)).toBeNull();
  });
});

describe('derived keys', () => {
  it('ignore FMC on Milan and Genoa, which have none', () => {
    for (const product of ['Milan', 'Genoa'] as const) {
      const a = descend(crypto, top(product), parts(213))!;
      expect(descend(crypto, top(product), parts(213, { fmc: 9 }))).toEqual(a);
    }
  });

  it('differ between chips, products, VCEK and VLEK, and cloud providers', () => {
    const tcb = parts(213);
    const key = (from: Uint8Array, product: ProductLine, kind: 'VCEK' | 'VLEK'): string =>
      toHex(endorsementScalar(crypto, descend(crypto, topStick(crypto, from, product), tcb)!, kind));
    const keys = [
      key(secret, 'Milan', 'VCEK'),
      key(otherSecret, 'Milan', 'VCEK'),
      key(secret, 'Genoa', 'VCEK'),
      key(secret, 'Milan', 'VLEK'),
      key(cspSecret(crypto, secret, 'CN=one.example'), 'Milan', 'VLEK'),
      key(cspSecret(crypto, secret, 'CN=two.example'), 'Milan', 'VLEK'),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    expect(key(secret, 'Milan', 'VCEK')).toBe(keys[0]);
  });

  it('stay as they were, because state folders and handed-out certificates depend on them', () => {
    const fixed = Uint8Array.from({ length: 48 }, (_, i) => i);
    const tcb = parts(213, { fmc: 1 });
    const scalars = PRODUCT_LINES.map((product) =>
      toHex(endorsementScalar(crypto, descend(crypto, topStick(crypto, fixed, product), tcb)!, 'VCEK')),
    );
    expect(scalars).toEqual([
      '0d5d0c0e1a7cbd0da8bea3d9ceea1cd354706d9d58f14a82bc35cd498047abb463f275e9132436dfa4e3aa53a963a5b9',
      '1868e1a8c16374aa8e915d18ad62254d4315b29cffd02b91663c4732fcb6bebb6ccfbe505a567a7f0c56b6782eb5a615',
      '60b54543531a14cf010353a36f9967e3cd655aba676ea07289c5619d1b67168e527c533779c52df624959917c20a1e70',
    ]);
    expect(toHex(chipIdOf(crypto, fixed, 'Turin').subarray(0, 8))).toBe('0d97bdca5b918621');
  });

  it('refuse a secret too short to be one', () => {
    expect(() => topStick(crypto, new Uint8Array(31), 'Milan')).toThrow('too short');
  });
});

describe('a chip identifier', () => {
  it('fills 64 bytes on Milan and Genoa, and 8 on Turin with zeros after them', () => {
    for (const product of PRODUCT_LINES) {
      const id = chipIdOf(crypto, secret, product);
      expect(id.length).toBe(64);
      expect(isZero(id.subarray(0, 8))).toBe(false);
      expect(isZero(id.subarray(8))).toBe(product === 'Turin');
    }
  });
});

describe('a wrapped VLEK hashstick', () => {
  const wrappingKey = chipWrappingKey(crypto, secret);
  const stick = descend(crypto, top('Milan'), parts(213))!;
  const wrapped = wrapHashstick(crypto, seededRandom(3), wrappingKey, stick);

  it('is refused after any single bit of it has changed, the reserved bytes included', () => {
    for (let bit = 0; bit < 8 * wrapped.length; bit++) {
      const changed = wrapped.slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      if (unwrapHashstick(crypto, wrappingKey, 'Milan', changed) !== null) {
        throw new Error(`bit ${bit} may change`);
      }
    }
  });

  it('is refused at any other length', () => {
    for (const size of [0, 1, 431, 433, 4096]) {
      const bytes = new Uint8Array(size);
      bytes.set(wrapped.subarray(0, size));
      expect(unwrapHashstick(crypto, wrappingKey, 'Milan', bytes)).toBeNull();
      expect(wrappedHashstickTcb('Milan', bytes)).toBeNull();
    }
  });

  it('never throws for random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 500 }), (bytes) => {
        expect(unwrapHashstick(crypto, wrappingKey, 'Turin', bytes)).toBeNull();
      }),
    );
  });
});
