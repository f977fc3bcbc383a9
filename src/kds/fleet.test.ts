// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import {
  chipIdOf,
  chipWrappingKey,
  descend,
  endorsementKey,
  topStick,
  unwrapHashstick,
} from '../keys/index.ts';
import { toHex, utf8 } from '../lib/bytes.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import { Fleet, parseFleet } from './fleet.ts';
import { hwidOfChipId } from './url.ts';

const crypto = nodeCrypto({ deterministic: false });
const secret = seededRandom(1).bytes(48);
const other = seededRandom(2).bytes(48);
const cspSecret = seededRandom(3).bytes(48);
const CSP = 'CN=cloud.example';
const tcb = { fmc: 0, boot_loader: 3, tee: 0, snp: 23, microcode: 213 };

const document = (more: object = {}) => ({
  softsnp_fleet: 1,
  chips: [
    { product: 'Milan', chip_secret: toHex(secret), csp: CSP },
    { product: 'Turin', chip_secret: toHex(other), chip_id: '1E550A8EE5CF9F4D', highest_tcb: '1,2,0,3,50' },
    { product: 'Genoa', chip_secret: toHex(secret), chip_id: 'ab'.repeat(64) },
  ],
  providers: [{ csp: CSP, csp_secret: toHex(cspSecret) }],
  ...more,
});
const parse = (value: unknown): Fleet =>
  parseFleet(crypto, utf8(typeof value === 'string' ? value : JSON.stringify(value)), 'fleet.json');

describe('a fleet file', () => {
  it('names chips by product and id, given or following from the secret', () => {
    const fleet = parse(document());
    const derived = hwidOfChipId('Milan', chipIdOf(crypto, secret, 'Milan'))!;
    expect(fleet.chip('Milan', derived)).toMatchObject({ csp: CSP, highestTcb: null });
    expect(fleet.chip('Genoa', derived)).toBeNull();
    expect(fleet.chip('Turin', '1e550a8ee5cf9f4d')?.highestTcb).toEqual({
      fmc: 1,
      boot_loader: 2,
      tee: 0,
      snp: 3,
      microcode: 50,
    });
    expect(fleet.chip('Genoa', 'ab'.repeat(64))?.csp).toBeNull();
    expect(fleet.provider(CSP)).not.toBeNull();
    expect(fleet.provider('CN=other.example')).toBeNull();
    expect(fleet.revocations).toMatchObject([{ product: 'Genoa', serial: 0x020001 }]);
  });

  it('says which intermediates are revoked, or that none is', () => {
    const revoked = [{ product: 'Milan', serial: 0x010001, date: '2026-01-02T03:04:05Z' }];
    expect(parse(document({ revoked })).revocations).toEqual([
      { product: 'Milan', serial: 0x010001, revokedMs: Date.UTC(2026, 0, 2, 3, 4, 5) },
    ]);
    expect(parse(document({ revoked: [] })).revocations).toEqual([]);
  });

  const [milan, turin] = document().chips as [object, object];
  it.each([
    ['no JSON', '{', 'not a JSON document'],
    ['another version', { ...document(), softsnp_fleet: 2 }, 'softsnp_fleet'],
    ['no version', { chips: [] }, 'softsnp_fleet: is missing'],
    ['no chips', { softsnp_fleet: 1 }, 'chips: is missing'],
    ['chips that are none', { softsnp_fleet: 1, chips: [7] }, 'chips.0: not an object'],
    ['an unknown field', document({ chip: [] }), 'chip: no such field'],
    ['no secret', document({ chips: [{ product: 'Milan' }] }), 'chips.0.chip_secret: is missing'],
    ['an unknown product', document({ chips: [{ ...milan, product: 'Milan-B0' }] }), 'chips.0.product'],
    ['a short secret', document({ chips: [{ ...milan, chip_secret: 'ab' }] }), 'chips.0.chip_secret: not 96'],
    [
      'a secret that is no hex',
      document({ chips: [{ ...milan, chip_secret: 'x'.repeat(96) }] }),
      'not hexadecimal',
    ],
    ['an id of 9 bytes', document({ chips: [{ ...turin, chip_id: '00'.repeat(9) }] }), 'chips.0.chip_id'],
    [
      'a long id on Turin',
      document({ chips: [{ ...turin, chip_id: 'ab'.repeat(64) }] }),
      'chips[0] has no id',
    ],
    ['a zero id', document({ chips: [{ ...milan, chip_id: '00'.repeat(64) }] }), 'chips[0] has no id'],
    ['one chip twice', document({ chips: [milan, milan] }), 'chips[1] has the id of an earlier one'],
    ['a provider that is not there', document({ providers: [] }), 'chips.0.csp: not among the providers'],
    [
      'a provider twice',
      document({ providers: [...document().providers, ...document().providers] }),
      'providers[1]',
    ],
    [
      'a provider without CN=',
      document({ providers: [{ csp: 'cloud', csp_secret: toHex(secret) }] }),
      'providers.0.csp',
    ],
    [
      'a TCB of four on Turin',
      document({ chips: [{ ...turin, highest_tcb: '1,2,3,4' }] }),
      'chips.0.highest_tcb',
    ],
    [
      'a date that is none',
      document({ revoked: [{ product: 'Milan', serial: 1, date: 'today' }] }),
      'revoked.0.date',
    ],
  ])('with %s is refused, naming the field and no secret', (_what, value, message) => {
    expect(() => parse(value)).toThrow(message);
    try {
      parse(value);
    } catch (error) {
      expect(error).toMatchObject({ code: 'FLEET_INVALID', where: 'fleet.json' });
      expect((error as Error).message).not.toContain(toHex(secret).slice(0, 16));
    }
  });
});

describe('a fleet', () => {
  const host = {
    product: 'Milan',
    chipSecret: secret,
    chipId: chipIdOf(crypto, secret, 'Milan'),
    csp: CSP,
    cspSecret,
  } as const;
  const fleet = Fleet.ofHost(crypto, host);
  const [chip] = fleet.chips as [(typeof fleet.chips)[number]];

  it('has the keys of the host whose secrets it knows', () => {
    const stick = (from: Uint8Array) => descend(crypto, topStick(crypto, from, 'Milan'), tcb)!;
    for (let again = 0; again < 2; again++) {
      expect(fleet.vcekPoint(chip, tcb)).toEqual(endorsementKey(crypto, stick(secret), 'VCEK').publicPoint);
      const provider = fleet.provider(CSP)!;
      expect(fleet.vlekPoint(provider, 'Milan', tcb)).toEqual(
        endorsementKey(crypto, stick(cspSecret), 'VLEK').publicPoint,
      );
    }
    const wrapped = fleet.wrappedHashstick(fleet.provider(CSP)!, chip, tcb, seededRandom(9))!;
    expect(unwrapHashstick(crypto, chipWrappingKey(crypto, secret), 'Milan', wrapped)).toEqual(
      stick(cspSecret),
    );
  });

  it('gives no hash stick to a chip of another provider', () => {
    const stranger = { csp: 'CN=other.example', secret: other };
    expect(fleet.wrappedHashstick(stranger, chip, tcb, seededRandom(9))).toBeNull();
  });

  it('stays the same size however many keys are asked for', () => {
    const fast = {
      ...crypto,
      p384Key: () => ({ publicPoint: new Uint8Array(97), sign: () => ({ r: secret, s: secret }) }),
    };
    const small = Fleet.ofHost(fast, host);
    const first = small.vcekPoint(chip, tcb);
    for (let i = 0; i < 1025; i++) {
      const digit = (place: number): number => 255 - (Math.floor(i / 6 ** place) % 6);
      small.vcekPoint(chip, {
        fmc: 0,
        boot_loader: digit(0),
        tee: digit(1),
        snp: digit(2),
        microcode: digit(3),
      });
    }
    expect(small.vcekPoint(chip, tcb)).not.toBe(first);
  });
});
