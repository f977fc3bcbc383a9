// SPDX-License-Identifier: Apache-2.0
/**
 * The guest firmware softsnp launches when no other is given. It carries the structures of an AmdSev OVMF
 * build, so that everything that reads, measures or launches such an image works on it; its code is the
 * few instructions a vCPU needs to stand still.
 */

import { PAGE_SIZE } from '../lib/addresses.ts';
import { concat, utf8, writeU16, writeU32 } from '../lib/bytes.ts';
import { efiGuidBytes } from './guid.ts';
import { OvmfGuid, OvmfSectionType } from './ovmf.ts';

const IMAGE_SIZE = 16 * PAGE_SIZE;

/** Erased flash. */
const FILL = 0xff;

/** Where upstream's AmdSev build has application processors start: inside its work area. */
const AP_RESET_EIP = 0x0080_b004;
const SECRET_BLOCK = { gpa: 0x0081_0000, sizeBytes: 0xc00 } as const;
const HASH_TABLE = { gpa: 0x0081_0c00, sizeBytes: 0x400 } as const;

/** Sections of the AmdSev build, in its order. */
const SECTIONS = [
  [0x0080_0000, 0x9000, OvmfSectionType.SNP_SEC_MEM],
  [0x0080_a000, 0x3000, OvmfSectionType.SNP_SEC_MEM],
  [0x0080_d000, 0x1000, OvmfSectionType.SNP_SECRETS],
  [0x0080_e000, 0x1000, OvmfSectionType.CPUID],
  [0x0080_f000, 0x1000, OvmfSectionType.SVSM_CAA],
  [0x0081_0000, 0x1000, OvmfSectionType.SNP_KERNEL_HASHES],
  [0x0081_1000, 0xf000, OvmfSectionType.SNP_SEC_MEM],
] as const;

/** 16-bit real mode at FFFF_FFF0: cli; hlt; jmp to the hlt, should anything wake the vCPU. */
const RESET_VECTOR = Uint8Array.of(0xfa, 0xf4, 0xeb, 0xfd);

/**
 * The default guest firmware image.
 *
 * Units    64 KiB, mapped below 4 GiB
 * Returns  the same bytes every time: its launch digest is a constant
 */
export function defaultImage(): Uint8Array {
  const image = new Uint8Array(IMAGE_SIZE).fill(FILL);
  image.set(utf8('softsnp default guest firmware\n'), 0);

  const metadata = sevMetadata();
  const metadataAt = IMAGE_SIZE - PAGE_SIZE;
  image.set(metadata, metadataAt);

  const table = footerTable(IMAGE_SIZE - metadataAt);
  const resetArea = IMAGE_SIZE - 32;
  image.set(table, resetArea - table.length);
  image.set(RESET_VECTOR, IMAGE_SIZE - 16);
  return image;
}

function sevMetadata(): Uint8Array {
  const out = new Uint8Array(16 + 12 * SECTIONS.length);
  out.set(utf8('ASEV'), 0);
  writeU32(out, 4, out.length);
  writeU32(out, 8, 1);
  writeU32(out, 12, SECTIONS.length);
  SECTIONS.forEach(([gpa, sizeBytes, type], i) => {
    const at = 16 + 12 * i;
    writeU32(out, at, gpa);
    writeU32(out, at + 4, sizeBytes);
    writeU32(out, at + 8, type);
  });
  return out;
}

/** Entries in file order, the footer with the length of them all last. */
function footerTable(metadataDistance: number): Uint8Array {
  const entries = concat(
    tableEntry(OvmfGuid.SEV_METADATA, metadataDistance),
    tableEntry(OvmfGuid.SEV_HASH_TABLE, HASH_TABLE.gpa, HASH_TABLE.sizeBytes),
    tableEntry(OvmfGuid.SEV_SECRET_BLOCK, SECRET_BLOCK.gpa, SECRET_BLOCK.sizeBytes),
    tableEntry(OvmfGuid.SEV_ES_RESET_BLOCK, AP_RESET_EIP),
  );
  const footer = tableEntry(OvmfGuid.TABLE_FOOTER);
  writeU16(footer, 0, entries.length + footer.length);
  return concat(entries, footer);
}

/** Data words, then u16 length of data and header, then the GUID. */
function tableEntry(guid: string, ...words: readonly number[]): Uint8Array {
  const out = new Uint8Array(4 * words.length + 18);
  words.forEach((word, i) => {
    writeU32(out, 4 * i, word);
  });
  writeU16(out, 4 * words.length, out.length);
  out.set(efiGuidBytes(guid), 4 * words.length + 2);
  return out;
}
