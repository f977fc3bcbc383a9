// SPDX-License-Identifier: Apache-2.0
import { fromHex, toHex } from '../lib/bytes.ts';

/**
 * GUID as EFI stores it: the first three groups little-endian, the last eight bytes as written.
 * Certificate tables store theirs as written; never share this helper with them.
 */
export function efiGuidBytes(text: string): Uint8Array {
  const b = fromHex(text.replaceAll('-', ''), 'GUID');
  return Uint8Array.of(b[3]!, b[2]!, b[1]!, b[0]!, b[5]!, b[4]!, b[7]!, b[6]!, ...b.subarray(8));
}

/** Canonical 36-character text of a GUID in EFI byte order. */
export function efiGuidText(b: Uint8Array): string {
  const hex = toHex(
    Uint8Array.of(b[3]!, b[2]!, b[1]!, b[0]!, b[5]!, b[4]!, b[7]!, b[6]!, ...b.subarray(8, 16)),
  );
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
