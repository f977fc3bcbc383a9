// SPDX-License-Identifier: Apache-2.0
/**
 * Reads what a guest firmware image says about its own launch: the table of GUIDed entries that ends 32
 * bytes before the end of the file, and the SEV metadata it points to. The image comes from whoever hosts
 * the guest, so every length is checked before it is used.
 */

import { type Gpa, gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { readU16, readU32 } from '../lib/bytes.ts';
import type { ErrorCode } from '../lib/error-codes.ts';
import { InputError } from '../lib/errors.ts';
import { efiGuidText } from './guid.ts';

/** Entries of the footer table. [EDK2] OvmfPkg/ResetVector. */
export const OvmfGuid = {
  TABLE_FOOTER: '96b582de-1fb2-45f7-baea-a366c55a082d',
  SEV_ES_RESET_BLOCK: '00f771de-1a7e-4fcb-890e-68c77e2fb44e',
  SEV_SECRET_BLOCK: '4c2eb361-7d9b-4cc3-8081-127c90d3d294',
  SEV_HASH_TABLE: '7255371f-3a3b-4b04-927b-1da6efa8d454',
  SEV_METADATA: 'dc886566-984a-4798-a75e-5585a7bf67cc',
  SVSM_INFO: 'a789a612-0597-4c4b-a49f-cbb1fe9d1ddd',
} as const;

/** Types of SEV metadata sections. */
export const OvmfSectionType = {
  SNP_SEC_MEM: 1,
  SNP_SECRETS: 2,
  CPUID: 3,
  SVSM_CAA: 4,
  SNP_KERNEL_HASHES: 0x10,
} as const;
export type OvmfSectionType = (typeof OvmfSectionType)[keyof typeof OvmfSectionType];

export interface OvmfSection {
  readonly gpa: Gpa;
  readonly sizeBytes: number;
  readonly type: OvmfSectionType;
  /** Name of the type, for listings. */
  readonly name: keyof typeof OvmfSectionType;
}

export interface OvmfImage {
  readonly bytes: Uint8Array;
  /** What errors call it: the file's path, as a rule. */
  readonly name: string;
  /** Footer entries by GUID; null when the image has no footer table. */
  readonly table: ReadonlyMap<string, Uint8Array> | null;
  /** Sections in the order they are launched; null when the image has no SEV metadata. */
  readonly sections: readonly OvmfSection[] | null;
  /** What is wrong with the sections for a launch that takes them; null when nothing is. */
  readonly sectionsFault: string | null;
}

/** Bytes between the table's footer and the end of the file: the reset vector. */
const RESET_VECTOR_SIZE = 32;
/** u16 length, 16-byte GUID. */
const ENTRY_HEADER_SIZE = 18;
const METADATA_HEADER_SIZE = 16;
const METADATA_ITEM_SIZE = 12;
const METADATA_SIGNATURE = 0x56455341; // "ASEV"
const METADATA_VERSION = 1;
/** All sections together. Upstream images have 132 KiB; a hostile one could claim 4 GiB per descriptor. */
const SECTIONS_LIMIT_BYTES = 0x4000_0000;
/** Largest image below 4 GiB that KVM's reserved ranges leave room for. */
const IMAGE_LIMIT_BYTES = 0x1000_0000;

const SECTION_NAMES = new Map(
  Object.entries(OvmfSectionType).map(([name, type]) => [
    type as number,
    { type, name: name as keyof typeof OvmfSectionType },
  ]),
);

/**
 * Reads the footer table and the SEV metadata of a guest firmware image.
 *
 * Returns  an image whose table or sections are null where the file has none: plain SEV needs neither
 * Errors   OVMF_TABLE_INVALID, OVMF_METADATA_INVALID, OVMF_TOO_LARGE
 * Source   [EDK2] OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm, X64/OvmfSevMetadata.asm
 */
export function parseOvmf(bytes: Uint8Array, name = 'OVMF'): OvmfImage {
  if (bytes.length > IMAGE_LIMIT_BYTES) {
    fail('OVMF_TOO_LARGE', name, `${bytes.length} bytes; no guest firmware is larger than 256 MiB`);
  }
  const table = parseFooterTable(bytes, name);
  const metadata = table?.get(OvmfGuid.SEV_METADATA);
  const { sections, sectionsFault } =
    metadata === undefined ? { sections: null, sectionsFault: null } : parseMetadata(bytes, metadata, name);
  return { bytes, name, table, sections, sectionsFault };
}

/** Where the image is mapped: it ends at 4 GiB, or at `end` for an image that lies below another. */
export function ovmfGpa(image: OvmfImage, end = 0x1_0000_0000n): Gpa {
  return gpa(end - BigInt(image.bytes.length));
}

/**
 * Address at which application processors start.
 *
 * Errors   OVMF_RESET_BLOCK_MISSING
 */
export function apResetEip(image: OvmfImage): number {
  const block = image.table?.get(OvmfGuid.SEV_ES_RESET_BLOCK);
  if (block === undefined || block.length < 4) {
    fail(
      'OVMF_RESET_BLOCK_MISSING',
      image.name,
      image.table === null
        ? 'the file has no GUIDed table 32 bytes before its end, so it is no OVMF image'
        : 'the footer table has no SEV-ES reset block (00f771de-...)',
    );
  }
  return readU32(block, 0);
}

/** Where the firmware expects the kernel hashes; null when this build does not check them. */
export function hashTableGpa(image: OvmfImage): number | null {
  const block = image.table?.get(OvmfGuid.SEV_HASH_TABLE);
  const base = block === undefined || block.length < 4 ? 0 : readU32(block, 0);
  return base === 0 ? null : base;
}

function parseFooterTable(bytes: Uint8Array, name: string): Map<string, Uint8Array> | null {
  const footer = bytes.length - RESET_VECTOR_SIZE - ENTRY_HEADER_SIZE;
  if (footer < 0 || entryGuid(bytes, footer) !== OvmfGuid.TABLE_FOOTER) {
    return null;
  }
  const bodySize = readU16(bytes, footer) - ENTRY_HEADER_SIZE;
  if (bodySize < 0 || bodySize > footer) {
    fail('OVMF_TABLE_INVALID', name, `the footer table claims ${bodySize} bytes, ${footer} lie before it`);
  }
  const table = new Map<string, Uint8Array>();
  const start = footer - bodySize;
  let end = footer;
  while (end - start >= ENTRY_HEADER_SIZE) {
    const header = end - ENTRY_HEADER_SIZE;
    const length = readU16(bytes, header);
    if (length < ENTRY_HEADER_SIZE || length > end - start) {
      fail(
        'OVMF_TABLE_INVALID',
        name,
        `footer table entry ${entryGuid(bytes, header)} claims ${length} bytes, ${end - start} are left`,
      );
    }
    table.set(entryGuid(bytes, header), bytes.subarray(end - length, header));
    end -= length;
  }
  return table;
}

const entryGuid = (bytes: Uint8Array, header: number): string =>
  efiGuidText(bytes.subarray(header + 2, header + ENTRY_HEADER_SIZE));

function parseMetadata(
  bytes: Uint8Array,
  entry: Uint8Array,
  name: string,
): Pick<OvmfImage, 'sections' | 'sectionsFault'> {
  const distance = entry.length < 4 ? 0 : readU32(entry, 0);
  const start = bytes.length - distance;
  if (distance < METADATA_HEADER_SIZE || start < 0) {
    fail('OVMF_METADATA_INVALID', name, `SEV metadata ${distance} bytes before the end is outside the file`);
  }
  if (readU32(bytes, start) !== METADATA_SIGNATURE) {
    fail('OVMF_METADATA_INVALID', name, 'SEV metadata does not begin with "ASEV"');
  }
  const version = readU32(bytes, start + 8);
  if (version !== METADATA_VERSION) {
    fail('OVMF_METADATA_INVALID', name, `SEV metadata version ${version}; 1 is the only one`);
  }
  const size = readU32(bytes, start + 4);
  const count = readU32(bytes, start + 12);
  if (size > distance || METADATA_HEADER_SIZE + count * METADATA_ITEM_SIZE > size) {
    fail('OVMF_METADATA_INVALID', name, `${count} SEV metadata descriptors do not fit ${size} bytes`);
  }
  const sections: OvmfSection[] = [];
  let sectionsFault: string | null = null;
  let total = 0;
  for (let i = 0; i < count; i++) {
    const at = start + METADATA_HEADER_SIZE + i * METADATA_ITEM_SIZE;
    const value = readU32(bytes, at + 8);
    const kind = SECTION_NAMES.get(value);
    if (kind === undefined) {
      // A later build's: it stops the launches that take the sections, and no other.
      sectionsFault ??= `SEV metadata descriptor ${i} has the unknown type ${value}`;
      continue;
    }
    const section = { gpa: gpa(BigInt(readU32(bytes, at))), sizeBytes: readU32(bytes, at + 4), ...kind };
    total += section.sizeBytes;
    if (total > SECTIONS_LIMIT_BYTES) {
      fail('OVMF_TOO_LARGE', name, 'the SEV metadata sections cover more than 1 GiB');
    }
    sections.push(section);
  }
  return { sections, sectionsFault };
}

/**
 * The image as whole pages.
 *
 * Errors   OVMF_SIZE_UNALIGNED: SNP measures pages, so an image must consist of them
 */
export function assertWholePages(image: OvmfImage): void {
  if (image.bytes.length === 0 || image.bytes.length % PAGE_SIZE !== 0) {
    fail(
      'OVMF_SIZE_UNALIGNED',
      image.name,
      `${image.bytes.length} bytes are not a whole number of 4 KiB pages`,
    );
  }
}

function fail(code: ErrorCode, where: string, message: string): never {
  throw new InputError(code, message, { where });
}
