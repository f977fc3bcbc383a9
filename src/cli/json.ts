// SPDX-License-Identifier: Apache-2.0
import { toHex } from '../lib/bytes.ts';

/** JSON for programs: byte strings as hexadecimal digits, 64-bit words as 0x-prefixed text. */
export function toJson(value: unknown): string {
  const plain = (_key: string, item: unknown): unknown =>
    typeof item === 'bigint' ? `0x${item.toString(16)}` : item instanceof Uint8Array ? toHex(item) : item;
  return `${JSON.stringify(value, plain, 2)}\n`;
}
