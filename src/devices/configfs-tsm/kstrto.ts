// SPDX-License-Identifier: Apache-2.0
/** Numbers in text attributes, read as the kernel reads them. [LINUX] lib/kstrtox.c */
import { Errno } from '../../abi/errno.ts';
import { type Refusal, refuse } from '../fuse/filesystem.ts';

const U32_MAX = 0xffff_ffffn;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

/**
 * kstrtouint() with base 0.
 *
 * Shape    [+]number[\n], the number 0x… hexadecimal, 0… octal, otherwise decimal; a NUL ends the text
 * Returns  EINVAL for another text; ERANGE for a number above 2^32 - 1, and for one above 2^64 - 1 whatever
 *          follows it
 */
export function kstrtouint(bytes: Uint8Array): number | Refusal {
  const text = textUpToNul(bytes);
  const match =
    /^\+?(?:0[xX](?<hex>[0-9a-fA-F]+)|(?<octal>0[0-7]*)|(?<decimal>[1-9][0-9]*))(?<rest>.*)$/s.exec(text);
  if (match?.groups === undefined) {
    return refuse(Errno.EINVAL);
  }
  const { hex, octal, decimal, rest } = match.groups;
  const value = BigInt(
    hex !== undefined ? `0x${hex}` : octal !== undefined ? `0o0${octal}` : (decimal ?? '0'),
  );
  if (value > U64_MAX) {
    return refuse(Errno.ERANGE);
  }
  if (rest !== '' && rest !== '\n') {
    return refuse(Errno.EINVAL);
  }
  return value > U32_MAX ? refuse(Errno.ERANGE) : Number(value);
}

/** One character for each byte: an attribute is no UTF-8. */
function textUpToNul(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return String.fromCharCode(...(end < 0 ? bytes : bytes.subarray(0, end)));
}
