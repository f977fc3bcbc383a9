// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp's firmware image: what SNP_DOWNLOAD_FIRMWARE_EX takes here.
 *
 * Differs  AMD's images are code, signed and not documented; this one only says which version and TCB the
 *          platform has after the update (docs/limitations.md)
 */
import { utf8 } from '../lib/bytes.ts';
import { bits32, bytes, type DecodedOf, layout, u8, u32le, u64le } from '../lib/struct.ts';

export const FIRMWARE_IMAGE_MAGIC: Uint8Array = utf8('SOFTSNPF');
export const FIRMWARE_IMAGE_FORMAT = 1;
/** `digest` covers the bytes before it. */
export const FIRMWARE_IMAGE_DIGESTED_SIZE = 0x40;

/** The image. */
export const FirmwareImage = layout(
  'FirmwareImage',
  0x70,
  { spec: 'SOFTSNP', at: 'firmware image' },
  {
    magic: [0x00, bytes(8), '"SOFTSNPF"'],
    format: [0x08, u32le, '1'],
    product: [0x0c, u32le, 'index of the product line: 0 Milan, 1 Genoa, 2 Turin'],
    tcb_version: [0x10, u64le, 'TCB after the update'],
    major: [0x18, u8],
    minor: [0x19, u8],
    build: [0x1a, u8],
    flags: [0x1c, bits32({ shutdown_required: [0, 1], restore_required: [1, 1] })],
    mit_vector: [0x20, u64le, 'mitigations the new firmware has'],
    digest: [FIRMWARE_IMAGE_DIGESTED_SIZE, bytes(48), 'SHA-384; stands for the signature'],
  },
);
export type FirmwareImage = DecodedOf<typeof FirmwareImage>;
