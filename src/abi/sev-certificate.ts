// SPDX-License-Identifier: Apache-2.0
/**
 * Certificates of legacy SEV: those of a platform (PDH, PEK, OCA, CEK) and those of AMD above them (ASK, ARK).
 * [VIRTEE-SEV] src/certs/sev; [SEV-TOOL] src/sevapi.h. The certificates of a real platform in
 * [VIRTEE-SEV] tests/rome show which signature stands where.
 */
import { bytes, type DecodedOf, layout, u8, u32le } from '../lib/struct.ts';

/** VERSION of every certificate. */
export const SEV_CERT_VERSION = 1;

/** What the key of a certificate, or the key that signed one, is for. */
export const SevCertUsage = Object.freeze({
  ARK: 0x0000,
  ASK: 0x0013,
  /** There is no signature. */
  INVALID: 0x1000,
  OCA: 0x1001,
  PEK: 0x1002,
  PDH: 0x1003,
  CEK: 0x1004,
} as const);

/** Algorithms of keys and signatures. */
export const SevCertAlgo = Object.freeze({
  INVALID: 0x000,
  RSA_SHA256: 0x001,
  ECDSA_SHA256: 0x002,
  ECDH_SHA256: 0x003,
  RSA_SHA384: 0x101,
  ECDSA_SHA384: 0x102,
  ECDH_SHA384: 0x103,
} as const);

/** One of the two signatures of a certificate. */
export const SevCertSignature = layout(
  'SevCertSignature',
  0x208,
  { spec: 'VIRTEE-SEV', at: 'certs/sev/sev/cert/v1/sig' },
  {
    usage: [0x0, u32le, 'SevCertUsage of the key that signed'],
    algo: [0x4, u32le, 'SevCertAlgo'],
    signature: [0x8, bytes(512), 'SevSignature, or an RSA signature, little-endian'],
  },
);
export type SevCertSignature = DecodedOf<typeof SevCertSignature>;

/**
 * A certificate of a platform: its first 1044 bytes are signed. [VIRTEE-SEV] leaves behind the key of an OCA
 * whatever was in memory there, so no firmware judges it.
 */
export const SevCertificate = layout(
  'SevCertificate',
  0x824,
  { spec: 'VIRTEE-SEV', at: 'certs/sev/sev/cert/v1', gaps: 'ignore' },
  {
    version: [0x000, u32le, '1'],
    api_major: [0x004, u8, 'of the firmware that made it'],
    api_minor: [0x005, u8],
    pubkey_usage: [0x008, u32le, 'SevCertUsage'],
    pubkey_algo: [0x00c, u32le, 'SevCertAlgo'],
    curve: [0x010, u32le, 'SevCurve; 0x404 bytes from here on are the key, as in SevPublicKey'],
    qx: [0x014, bytes(72), 'little-endian, zero-extended'],
    qy: [0x05c, bytes(72), 'little-endian, zero-extended'],
    sig1: [0x414, SevCertSignature.codec],
    sig2: [0x61c, SevCertSignature.codec],
  },
);
export type SevCertificate = DecodedOf<typeof SevCertificate>;

/** Bytes of a platform's certificate that its signatures cover. */
export const SEV_CERT_SIGNED_SIZE = 0x414;

/** A certificate of AMD with a key of 4096 bits: its first 1088 bytes are signed. */
export const SevAmdCertificate = layout(
  'SevAmdCertificate',
  0x640,
  { spec: 'VIRTEE-SEV', at: 'certs/sev/ca/cert/v1' },
  {
    version: [0x000, u32le, '1'],
    key_id: [0x004, bytes(16)],
    certifying_id: [0x014, bytes(16), 'key_id of the key that signed'],
    key_usage: [0x024, u32le, 'SevCertUsage'],
    pub_exp_size: [0x038, u32le, 'in bits'],
    modulus_size: [0x03c, u32le, 'in bits'],
    pub_exp: [0x040, bytes(512), 'little-endian'],
    modulus: [0x240, bytes(512), 'little-endian'],
    signature: [0x440, bytes(512), 'RSASSA-PSS with SHA-384, little-endian'],
  },
);
export type SevAmdCertificate = DecodedOf<typeof SevAmdCertificate>;

/** Bytes of a certificate of AMD that its signature covers. */
export const SEV_AMD_CERT_SIGNED_SIZE = 0x440;
