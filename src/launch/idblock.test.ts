// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { IdAuth, IdBlock } from '../abi/id-block.ts';
import { SevRet } from '../abi/sev-status.ts';
import { isZero, toHex, writeU32 } from '../lib/bytes.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import {
  checkIdBlock,
  createIdBlock,
  decodePublicKey,
  encodePublicKey,
  type IdBlockExpectation,
  readIdBlock,
} from './idblock.ts';

const crypto = nodeCrypto({ deterministic: true });
const scalar = (value: number): Uint8Array => {
  const bytes = new Uint8Array(48);
  bytes[47] = value;
  return bytes;
};
const ID_KEY = crypto.p384Key(scalar(1));
const AUTHOR_KEY = crypto.p384Key(scalar(2));
const LD = new Uint8Array(48).fill(0xd1);
const both = createIdBlock(crypto.sha384, { launchDigest: LD, idKey: ID_KEY, authorKey: AUTHOR_KEY });
const alone = createIdBlock(crypto.sha384, { launchDigest: LD, idKey: ID_KEY });
const KEY_DIGEST_OF_G =
  '01ce77b697886b46c6e363a9d02bbee2506e4b21ca4b3085f35f20e4cf66ac780e01e38aad53f973cbcea56e59a7b382';

describe('an ID block', () => {
  it('is accepted as the firmware accepts it, with and without an author key', () => {
    const expected: IdBlockExpectation = { launchDigest: LD, policy: 0x30000n };
    expect(checkIdBlock(crypto, both.idBlock, both.idAuth, expected)).toEqual([]);
    expect(checkIdBlock(crypto, alone.idBlock, alone.idAuth, expected)).toEqual([]);
  });

  it('has version 1, zero ids, SVN 0 and policy 0x30000 unless told otherwise', () => {
    expect(readIdBlock(crypto.sha384, both.idBlock, both.idAuth)).toMatchObject({
      launchDigest: LD,
      familyId: new Uint8Array(16),
      imageId: new Uint8Array(16),
      version: 1,
      guestSvn: 0,
      policy: 0x30000n,
      idKeyAlgo: 1,
      authorKeyAlgo: 1,
    });
  });

  it('carries what it is told', () => {
    const made = createIdBlock(crypto.sha384, {
      launchDigest: LD,
      familyId: new Uint8Array(16).fill(1),
      imageId: new Uint8Array(16).fill(2),
      guestSvn: 0xffff_ffff,
      policy: 0xb0000n,
      idKey: ID_KEY,
    });
    expect(IdBlock.decode(made.idBlock)).toEqual({
      ld: LD,
      family_id: new Uint8Array(16).fill(1),
      image_id: new Uint8Array(16).fill(2),
      version: 1,
      guest_svn: 0xffff_ffff,
      policy: 0xb0000n,
    });
  });

  it('names its keys by SHA-384 over the 1028 bytes of the public key', () => {
    expect(toHex(both.idKeyDigest)).toBe(KEY_DIGEST_OF_G);
    const read = readIdBlock(crypto.sha384, both.idBlock, both.idAuth);
    expect(read.idKeyDigest).toEqual(both.idKeyDigest);
    expect(read.authorKeyDigest).toEqual(both.authorKeyDigest);
  });

  it('without an author key leaves every author field zero', () => {
    expect(alone.authorKeyDigest).toBeNull();
    expect(readIdBlock(crypto.sha384, alone.idBlock, alone.idAuth)).toMatchObject({
      authorKeyAlgo: 0,
      authorKeyDigest: null,
    });
    expect(isZero(alone.idAuth.subarray(0x644))).toBe(true);
  });

  it.each<[string, Partial<Parameters<typeof createIdBlock>[1]>, string]>([
    ['a digest of 32 bytes', { launchDigest: new Uint8Array(32) }, 'OPTION_INVALID'],
    ['a policy without bit 17', { policy: 0x10000n }, 'OPTION_INVALID'],
    ['a policy with bit 26', { policy: 0x403_0000n }, 'OPTION_INVALID'],
    ['a family id of 15 bytes', { familyId: new Uint8Array(15) }, 'LAYOUT_VALUE_OUT_OF_RANGE'],
    ['an SVN of 33 bits', { guestSvn: 2 ** 32 }, 'LAYOUT_VALUE_OUT_OF_RANGE'],
  ])('is not made with %s', (_, options, code) => {
    expect(() => createIdBlock(crypto.sha384, { launchDigest: LD, idKey: ID_KEY, ...options })).toThrow(
      expect.objectContaining({ code }),
    );
  });
});

describe('the check of an ID block', () => {
  const { SEV_RET_INVALID_PARAM, SEV_RET_BAD_MEASUREMENT, SEV_RET_POLICY_FAILURE, SEV_RET_BAD_SIGNATURE } =
    SevRet;

  it.each<[string, number, (block: Uint8Array, auth: Uint8Array) => void, IdBlockExpectation?]>([
    ['ID_BLOCK_VERSION_UNSUPPORTED', SEV_RET_INVALID_PARAM, (b) => writeU32(b, 0x50, 2)],
    ['ID_AUTH_RESERVED_NOT_ZERO', SEV_RET_INVALID_PARAM, (_, a) => a.fill(1, 0x3f, 0x40)],
    ['ID_KEY_ALGO_UNSUPPORTED', SEV_RET_INVALID_PARAM, (_, a) => writeU32(a, 0, 2)],
    ['ID_KEY_INVALID', SEV_RET_INVALID_PARAM, (_, a) => writeU32(a, 0x240, 1)],
    ['ID_KEY_INVALID', SEV_RET_INVALID_PARAM, (_, a) => a.fill(1, 0x244 + 48, 0x244 + 49)],
    ['AUTHOR_KEY_ALGO_UNSUPPORTED', SEV_RET_INVALID_PARAM, (_, a) => writeU32(a, 4, 0)],
    ['AUTHOR_KEY_INVALID', SEV_RET_INVALID_PARAM, (_, a) => writeU32(a, 0x880, 3)],
    [
      'ID_BLOCK_DIGEST_MISMATCH',
      SEV_RET_BAD_MEASUREMENT,
      () => undefined,
      { launchDigest: new Uint8Array(48) },
    ],
    ['ID_BLOCK_POLICY_INVALID', SEV_RET_POLICY_FAILURE, (b) => writeU32(b, 0x58, 0x1_0000)],
    ['ID_BLOCK_POLICY_INVALID', SEV_RET_POLICY_FAILURE, (b) => writeU32(b, 0x58, 0x403_0000)],
    ['ID_BLOCK_POLICY_INVALID', SEV_RET_POLICY_FAILURE, (b) => writeU32(b, 0x5c, 1)],
    ['ID_BLOCK_POLICY_MISMATCH', SEV_RET_POLICY_FAILURE, () => undefined, { policy: 0xb0000n }],
    ['ID_BLOCK_SIGNATURE_INVALID', SEV_RET_BAD_SIGNATURE, (b) => writeU32(b, 0x54, 1)],
    ['ID_BLOCK_SIGNATURE_INVALID', SEV_RET_BAD_SIGNATURE, (_, a) => a.fill(0, 0x40, 0x40 + 48)],
    ['ID_KEY_SIGNATURE_INVALID', SEV_RET_BAD_SIGNATURE, (_, a) => a.fill(7, 0x680, 0x680 + 8)],
  ])('finds %s first, for which the firmware returns status %i', (code, status, change, expected) => {
    const block = both.idBlock.slice();
    const auth = both.idAuth.slice();
    change(block, auth);
    expect(checkIdBlock(crypto, block, auth, expected)[0]).toMatchObject({ code, status });
  });

  it('finds the missing author key when AUTH_KEY_EN is set', () => {
    const found = checkIdBlock(crypto, alone.idBlock, alone.idAuth, { authorKeyEnabled: true });
    expect(found.map(({ code }) => code)).toEqual(['AUTHOR_KEY_ALGO_UNSUPPORTED', 'AUTHOR_KEY_INVALID']);
  });

  it('does not look at the author key when AUTH_KEY_EN is clear', () => {
    const auth = both.idAuth.slice();
    auth.fill(7, IdAuth.offsetOf('id_key_sig'), IdAuth.offsetOf('id_key_sig') + 8);
    expect(checkIdBlock(crypto, both.idBlock, auth, { authorKeyEnabled: false })).toEqual([]);
  });

  it('refuses files of another length', () => {
    const wrong = expect.objectContaining({ code: 'LAYOUT_LENGTH_MISMATCH' });
    expect(() => checkIdBlock(crypto, both.idBlock.subarray(1), both.idAuth)).toThrow(wrong);
    expect(() => checkIdBlock(crypto, both.idBlock, both.idAuth.subarray(1))).toThrow(wrong);
  });
});

describe('a public key in the firmware form', () => {
  it('gives back the point it was made from', () => {
    expect(decodePublicKey(encodePublicKey(AUTHOR_KEY.publicPoint))).toEqual(AUTHOR_KEY.publicPoint);
  });

  it('with bytes behind the coordinates is none', () => {
    const key = encodePublicKey(ID_KEY.publicPoint);
    key[0x94] = 1;
    expect(decodePublicKey(key)).toBeNull();
  });
});
