// SPDX-License-Identifier: Apache-2.0
/** Hashes of kernel, initrd and command line, as QEMU leaves them for the firmware to check. */

import { PAGE_SIZE } from '../lib/addresses.ts';
import { concat, utf8, writeU16 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { efiGuidBytes } from './guid.ts';

export type Hash = (data: Uint8Array) => Uint8Array;

export interface DirectBoot {
  /** The whole kernel file. */
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly append?: string;
}

const TABLE_GUID = efiGuidBytes('9438d606-4f22-4cc9-b479-a793d411fd21');
/** Command line, initrd, kernel. */
const ENTRY_GUIDS = [
  '97d02dd8-bd20-4c94-aa78-e7714d36ab2a',
  '44baf731-3a2f-4bd7-9af1-41e29169781d',
  '4de79437-abd2-427f-b835-d5b172d2045b',
].map(efiGuidBytes);

const HEADER_SIZE = 18;
const ENTRY_SIZE = 50;
const TABLE_SIZE = HEADER_SIZE + 3 * ENTRY_SIZE;
/** The table padded to a multiple of 16. */
export const KERNEL_HASHES_SIZE = 176;

/**
 * The padded hash table of a direct boot.
 *
 * Units    176 bytes
 * Source   [QEMU] target/i386/sev.c
 * Differs  virtee/sev trims white space around the command line first; QEMU and sev-snp-measure do not
 */
export function kernelHashes(sha256: Hash, { kernel, initrd, append = '' }: DirectBoot): Uint8Array {
  const cmdline = concat(utf8(append), Uint8Array.of(0));
  return kernelHashTable(sha256, cmdline, initrd ?? new Uint8Array(0), kernel);
}

/** The padded hash table of any three byte strings; the command line is hashed as given, NUL or not. */
export function kernelHashTable(
  sha256: Hash,
  cmdline: Uint8Array,
  initrd: Uint8Array,
  kernel: Uint8Array,
): Uint8Array {
  return kernelHashTableOf([cmdline, initrd, kernel].map(sha256));
}

/** The padded hash table of command line, initrd and kernel that are hashed already, in this order. */
export function kernelHashTableOf(hashes: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(KERNEL_HASHES_SIZE);
  out.set(TABLE_GUID, 0);
  writeU16(out, 16, TABLE_SIZE);
  hashes.forEach((hash, i) => {
    const at = HEADER_SIZE + i * ENTRY_SIZE;
    out.set(ENTRY_GUIDS[i]!, at);
    writeU16(out, at + 16, ENTRY_SIZE);
    out.set(hash, at + 18);
  });
  return out;
}

/**
 * Refuses what is no padded hash table.
 *
 * Errors   OPTION_INVALID
 */
export function checkKernelHashes(table: Uint8Array): void {
  if (table.length !== KERNEL_HASHES_SIZE) {
    throw new InputError(
      'OPTION_INVALID',
      `${table.length} bytes given, a table of kernel hashes has ${KERNEL_HASHES_SIZE}`,
      { where: 'kernelHashes' },
    );
  }
}

/** Names of the table's entries, in order. */
export const KERNEL_HASH_ENTRIES = ['cmdline', 'initrd', 'kernel'] as const;

/** The three hashes of a table that begins at `at`. */
export function readKernelHashes(bytes: Uint8Array, at: number): readonly Uint8Array[] {
  return KERNEL_HASH_ENTRIES.map((_, i) => {
    const hash = at + HEADER_SIZE + i * ENTRY_SIZE + 18;
    return bytes.slice(hash, hash + 32);
  });
}

/**
 * The page that holds the table where the firmware looks for it.
 *
 * Errors   OVMF_HASH_TABLE_INVALID when the table would run over the end of the page
 */
export function kernelHashesPage(table: Uint8Array, tableGpa: number, image = 'OVMF'): Uint8Array {
  const offset = tableGpa % PAGE_SIZE;
  if (offset + table.length > PAGE_SIZE) {
    throw new InputError(
      'OVMF_HASH_TABLE_INVALID',
      `a hash table at 0x${tableGpa.toString(16)} runs over the end of its page`,
      { where: image },
    );
  }
  const page = new Uint8Array(PAGE_SIZE);
  page.set(table, offset);
  return page;
}
