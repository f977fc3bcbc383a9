// SPDX-License-Identifier: Apache-2.0
import { beforeAll, describe, expect, it } from 'vitest';
import { crypto, type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { AttestationReportV3 } from '../abi/attestation-report.ts';
import { IdAuth, IdBlock, SevPublicKey, SevSignature } from '../abi/id-block.ts';
import { PageType } from '../abi/page-info.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import { asid, spaOf } from '../lib/addresses.ts';
import { reversed, toHex } from '../lib/bytes.ts';
import type { SigningKey } from '../lib/crypto.ts';

const POLICY = 0x30000n;
const FLAGS = { id_block_en: 1, auth_key_en: 0, vcek_dis: 0 };

const wide = (bigEndian: Uint8Array): Uint8Array => {
  const out = new Uint8Array(72);
  out.set(reversed(bigEndian));
  return out;
};

function publicKey(key: SigningKey): Uint8Array {
  return SevPublicKey.encode({
    curve: 2,
    qx: wide(key.publicPoint.subarray(1, 49)),
    qy: wide(key.publicPoint.subarray(49)),
  });
}

function signature(key: SigningKey, message: Uint8Array): SevSignature {
  const { r, s } = key.sign(message);
  return { r: wide(r), s: wide(s) };
}

describe('SNP_LAUNCH_FINISH', () => {
  const idKey = crypto.p384Key(new Uint8Array(48).fill(0x11));
  const authorKey = crypto.p384Key(new Uint8Array(48).fill(0x22));
  const other = crypto.p384Key(new Uint8Array(48).fill(0x33));
  let digest: Uint8Array;

  /** A guest about to finish; the same pages every time, so the same digest. */
  function ready(): { host: TestHost; guest: TestGuest } {
    const host = TestHost.up();
    const guest = host.launching(POLICY);
    host.takeVmpcks(guest);
    host.launchUpdate(guest, host.preGuest(guest, 0n), PageType.ZERO);
    return { host, guest };
  }

  beforeAll(() => {
    const { host, guest } = ready();
    host.launchFinish(guest);
    digest = AttestationReportV3.decode(host.report(guest).payload!.slice(0x20)).measurement;
  });

  const block = (more: Partial<IdBlock> = {}): Uint8Array =>
    IdBlock.encode({
      ld: digest,
      family_id: new Uint8Array(16).fill(0xfa),
      image_id: new Uint8Array(16).fill(0x1a),
      version: 1,
      guest_svn: 7,
      policy: POLICY,
      ...more,
    });

  const auth = (blockBytes: Uint8Array, more: Partial<IdAuth> = {}): Uint8Array =>
    IdAuth.encode({
      id_key_algo: 1,
      auth_key_algo: 1,
      id_block_sig: signature(idKey, blockBytes),
      id_key: SevPublicKey.decode(publicKey(idKey)),
      id_key_sig: signature(authorKey, publicKey(idKey)),
      author_key: SevPublicKey.decode(publicKey(authorKey)),
      ...more,
    });

  function finish(
    { host, guest }: { host: TestHost; guest: TestGuest },
    blockBytes: Uint8Array,
    authBytes: Uint8Array,
    flags = FLAGS,
  ): string {
    const blockPage = host.alloc();
    const authPage = host.alloc();
    host.hw.memory.write(spaOf(blockPage), blockBytes, asid(0));
    host.hw.memory.write(spaOf(authPage), authBytes, asid(0));
    return sevRetName(
      host.launchFinish(guest, {
        id_block_paddr: spaOf(blockPage),
        id_auth_paddr: spaOf(authPage),
        flags,
        host_data: new Uint8Array(32).fill(0x4d),
      }),
    );
  }

  it('puts the identity of an ID block with an author key into reports', () => {
    const world = ready();
    const bytes = block();
    expect(finish(world, bytes, auth(bytes), { ...FLAGS, auth_key_en: 1 })).toBe('SEV_RET_SUCCESS');
    const report = AttestationReportV3.decode(world.host.report(world.guest).payload!.slice(0x20));
    expect(report).toMatchObject({ guest_svn: 7, key_info: { author_key_en: 1 } });
    expect(toHex(report.family_id)).toBe('fa'.repeat(16));
    expect(toHex(report.image_id)).toBe('1a'.repeat(16));
    expect(toHex(report.host_data)).toBe('4d'.repeat(32));
    expect(toHex(report.id_key_digest)).toBe(toHex(crypto.sha384(publicKey(idKey))));
    expect(toHex(report.author_key_digest)).toBe(toHex(crypto.sha384(publicKey(authorKey))));
  });

  it('leaves the author fields zero without AUTH_KEY_EN, whatever the author key is', () => {
    const world = ready();
    const bytes = block();
    const noAuthor = auth(bytes, {
      auth_key_algo: 0,
      author_key: SevPublicKey.decode(new Uint8Array(1028)),
      id_key_sig: SevSignature.decode(new Uint8Array(512)),
    });
    expect(finish(world, bytes, noAuthor)).toBe('SEV_RET_SUCCESS');
    const report = AttestationReportV3.decode(world.host.report(world.guest).payload!.slice(0x20));
    expect(report.key_info.author_key_en).toBe(0);
    expect(toHex(report.author_key_digest)).toBe('00'.repeat(48));
    expect(toHex(report.id_key_digest)).toBe(toHex(crypto.sha384(publicKey(idKey))));
  });

  it('leaves every ID field zero without ID_BLOCK_EN', () => {
    const { host, guest } = ready();
    expect(host.launchFinish(guest)).toBe(SevRet.SEV_RET_SUCCESS);
    const report = AttestationReportV3.decode(host.report(guest).payload!.slice(0x20));
    expect(report.guest_svn).toBe(0);
    for (const field of [report.family_id, report.image_id, report.id_key_digest, report.author_key_digest]) {
      expect(field.every((byte) => byte === 0)).toBe(true);
    }
  });

  const signed = (bytes: Uint8Array, more: Partial<IdAuth> = {}) => [bytes, auth(bytes, more)] as const;
  const patched = (from: readonly [Uint8Array, Uint8Array], at: number) => {
    const changed = from[1].slice();
    changed[at]! ^= 1;
    return [from[0], changed] as const;
  };
  const withAuthor = { ...FLAGS, auth_key_en: 1 };

  it.each<[string, string, () => readonly [Uint8Array, Uint8Array], typeof FLAGS?]>([
    ['a wrong digest', 'SEV_RET_BAD_MEASUREMENT', () => signed(block({ ld: new Uint8Array(48).fill(1) }))],
    ['a wrong policy', 'SEV_RET_POLICY_FAILURE', () => signed(block({ policy: 0xb0000n }))],
    [
      'a wrong digest and a wrong policy: the digest is checked first',
      'SEV_RET_BAD_MEASUREMENT',
      () => signed(block({ ld: new Uint8Array(48), policy: 0n })),
    ],
    [
      'a wrong policy and a wrong signature: the policy is checked first',
      'SEV_RET_POLICY_FAILURE',
      () => [block({ policy: 0xb0000n }), auth(block())],
    ],
    ['a signature over other bytes', 'SEV_RET_BAD_SIGNATURE', () => [block({ guest_svn: 8 }), auth(block())]],
    [
      'a signature by another key',
      'SEV_RET_BAD_SIGNATURE',
      () => signed(block(), { id_block_sig: signature(other, block()) }),
    ],
    [
      'an ID key whose point is not on the curve',
      'SEV_RET_BAD_SIGNATURE',
      () => patched(signed(block()), IdAuth.offsetOf('id_key') + 4),
    ],
    [
      'an ID key coordinate above P-384',
      'SEV_RET_BAD_SIGNATURE',
      () => patched(signed(block()), IdAuth.offsetOf('id_key') + 4 + 60),
    ],
    [
      'a signature component above P-384',
      'SEV_RET_BAD_SIGNATURE',
      () => patched(signed(block()), IdAuth.offsetOf('id_block_sig') + 50),
    ],
    [
      'an ID key signed by another author',
      'SEV_RET_BAD_SIGNATURE',
      () => signed(block(), { id_key_sig: signature(other, publicKey(idKey)) }),
      withAuthor,
    ],
    ['an ID block version 2', 'SEV_RET_INVALID_PARAM', () => signed(block({ version: 2 }))],
    ['an unknown ID key algorithm', 'SEV_RET_INVALID_PARAM', () => signed(block(), { id_key_algo: 2 })],
    [
      'an unknown author key algorithm',
      'SEV_RET_INVALID_PARAM',
      () => signed(block(), { auth_key_algo: 2 }),
      withAuthor,
    ],
    [
      'an ID key on P-256',
      'SEV_RET_INVALID_PARAM',
      () => signed(block(), { id_key: { ...SevPublicKey.decode(publicKey(idKey)), curve: 1 } }),
    ],
    [
      'reserved bytes of the ID authentication set',
      'SEV_RET_INVALID_PARAM',
      () => patched(signed(block()), 0x20),
    ],
    [
      'an author key without an ID block',
      'SEV_RET_INVALID_PARAM',
      () => signed(block()),
      { id_block_en: 0, auth_key_en: 1, vcek_dis: 0 },
    ],
  ])(
    'refuses %s with %s, stores nothing, and lets the launch be finished after it',
    (_, status, make, flags) => {
      const world = ready();
      const [blockBytes, authBytes] = make();
      expect(finish(world, blockBytes, authBytes, flags ?? FLAGS)).toBe(status);
      expect(world.host.launchFinish(world.guest)).toBe(SevRet.SEV_RET_SUCCESS);
      const report = AttestationReportV3.decode(world.host.report(world.guest).payload!.slice(0x20));
      expect(toHex(report.id_key_digest)).toBe('00'.repeat(48));
      expect(toHex(report.host_data)).toBe('00'.repeat(32));
      expect(report.guest_svn).toBe(0);
    },
  );

  it('refuses addresses outside memory', () => {
    const { host, guest } = ready();
    expect(host.launchFinish(guest, { flags: FLAGS, id_block_paddr: 0xffff_ffff_ffff_fff0n })).toBe(
      SevRet.SEV_RET_INVALID_ADDRESS,
    );
    expect(host.launchFinish(guest, { flags: FLAGS, id_auth_paddr: 0xffff_ffff_ffff_fff0n })).toBe(
      SevRet.SEV_RET_INVALID_ADDRESS,
    );
  });

  it('refuses a second SNP_LAUNCH_FINISH and a later SNP_LAUNCH_UPDATE', () => {
    const { host, guest } = ready();
    const page = host.preGuest(guest, 0x9000n);
    expect(host.launchFinish(guest)).toBe(SevRet.SEV_RET_SUCCESS);
    expect(host.launchFinish(guest)).toBe(SevRet.SEV_RET_INVALID_GUEST_STATE);
    expect(host.launchUpdate(guest, page, PageType.ZERO)).toBe(SevRet.SEV_RET_INVALID_GUEST_STATE);
  });
});
