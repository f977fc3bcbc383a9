// SPDX-License-Identifier: Apache-2.0
/** Certificate table of the extended guest request. [GHCB] "SNP Extended Guest Request". */
import { fromHex, toHex } from '../lib/bytes.ts';
import { bytes, type DecodedOf, layout, u32le } from '../lib/struct.ts';

export const CERT_TABLE_ENTRY_SIZE = 24;
/** What Linux guests offer for the whole table: four pages. */
export const SEV_FW_BLOB_MAX_SIZE = 0x4000;

/** One entry; 24 zero bytes end the table, and the certificates follow. */
export const CertTableEntry = layout(
  'CertTableEntry',
  CERT_TABLE_ENTRY_SIZE,
  { spec: 'GHCB', at: 'SNP Extended Guest Request, certificate table' },
  {
    guid: [0x00, bytes(16), 'in textual order, not the EFI mix'],
    offset: [0x10, u32le, 'from the start of the table'],
    length: [0x14, u32le],
  },
);
export type CertTableEntry = DecodedOf<typeof CertTableEntry>;

export const VCEK_GUID = '63da758d-e664-4564-adc5-f4b93be8accd';
export const VLEK_GUID = 'a8074bc2-a25a-483e-aae6-39c045a0b8a1';
/** ASK; also ASVK, which has no GUID of its own. */
export const ASK_GUID = '4ab7b379-bbac-4fe4-a02f-05aef327c782';
export const ARK_GUID = 'c0b406a4-a803-4952-9743-3fb6014cd0ae';
export const CRL_GUID = '92f81bc3-5811-4d3d-97ff-d19f88dc67ea';
/** go-sev-guest’s own: eight bytes, u32 size and u32 CPUID Fn1 EAX. */
export const EXTRA_PLATFORM_INFO_GUID = 'ecae0c0f-9502-43b1-afa2-0ae2e0d565b6';
export const ZERO_GUID = '00000000-0000-0000-0000-000000000000';

/** What each GUID stands for. */
export const CERT_GUIDS: Readonly<Record<string, string>> = Object.freeze({
  [VCEK_GUID]: 'VCEK',
  [VLEK_GUID]: 'VLEK',
  [ASK_GUID]: 'ASK or ASVK',
  [ARK_GUID]: 'ARK',
  [CRL_GUID]: 'CRL',
  [EXTRA_PLATFORM_INFO_GUID]: 'extra platform info',
});

/**
 * The 16 bytes of a GUID in textual order.
 *
 * Errors   HEX_INVALID when the text has other characters
 */
export function guidBytes(guid: string): Uint8Array {
  return fromHex(guid.replaceAll('-', ''), 'guid');
}

/** The text of 16 GUID bytes in textual order. */
export function guidText(raw: Uint8Array): string {
  const hex = toHex(raw);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
