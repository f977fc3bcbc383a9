// SPDX-License-Identifier: Apache-2.0
/** ID block and ID authentication: what the guest's owner signs about a launch. [SNP-ABI] "ID Block". */
import { bytes, type DecodedOf, layout, u32le, u64le } from '../lib/struct.ts';

/** ECDSA on P-384 with SHA-384, for ID_KEY_ALGO and AUTH_KEY_ALGO. */
export const ID_AUTH_ALGO_ECDSA_P384_SHA384 = 1;

/** Values of CURVE. */
export const SevCurve = Object.freeze({ P256: 1, P384: 2 } as const);

/** A public key; its digest is SHA-384 over all 1028 bytes. */
export const SevPublicKey = layout(
  'SevPublicKey',
  0x404,
  { spec: 'SNP-ABI', at: 'Public Key Format' },
  {
    curve: [0x000, u32le, '1 P-256, 2 P-384'],
    qx: [0x004, bytes(72), 'little-endian, zero-extended'],
    qy: [0x04c, bytes(72), 'little-endian, zero-extended'],
  },
);
export type SevPublicKey = DecodedOf<typeof SevPublicKey>;

/** A signature. */
export const SevSignature = layout(
  'SevSignature',
  512,
  { spec: 'SNP-ABI', at: 'Signature Format' },
  {
    r: [0x00, bytes(72), 'little-endian, zero-extended'],
    s: [0x48, bytes(72), 'little-endian, zero-extended'],
  },
);
export type SevSignature = DecodedOf<typeof SevSignature>;

/** ID block: the ID key signs these 96 bytes. */
export const IdBlock = layout(
  'IdBlock',
  96,
  { spec: 'SNP-ABI', at: 'ID Block' },
  {
    ld: [0x00, bytes(48), 'expected launch digest'],
    family_id: [0x30, bytes(16)],
    image_id: [0x40, bytes(16)],
    version: [0x50, u32le, '1'],
    guest_svn: [0x54, u32le],
    policy: [0x58, u64le, 'GuestPolicy, equal to that of the launch'],
  },
);
export type IdBlock = DecodedOf<typeof IdBlock>;

export const ID_BLOCK_VERSION = 1;

/** ID authentication: the keys and signatures over an ID block. */
export const IdAuth = layout(
  'IdAuth',
  4096,
  { spec: 'SNP-ABI', at: 'ID Authentication Information' },
  {
    id_key_algo: [0x000, u32le, '1: ECDSA P-384 with SHA-384'],
    auth_key_algo: [0x004, u32le, '1: ECDSA P-384 with SHA-384'],
    id_block_sig: [0x040, SevSignature.codec, 'by the ID key over the ID block'],
    id_key: [0x240, SevPublicKey.codec],
    id_key_sig: [0x680, SevSignature.codec, 'by the author key over the 1028 bytes of id_key'],
    author_key: [0x880, SevPublicKey.codec],
  },
);
export type IdAuth = DecodedOf<typeof IdAuth>;
