// SPDX-License-Identifier: Apache-2.0
/** Reading option values: each either gives the value or says which option is wrong and why. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { ProductLine } from '../abi/product.ts';
import { fromHex } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';

/** How an option is typed; a positional, in capitals, as the help text has it, and a place in a file as it is. */
export const optionName = (name: string): string => (/^[a-z][a-z0-9-]*$/.test(name) ? `--${name}` : name);

/** Whole number, decimal or 0x-prefixed, within limits. */
export function integerOption(name: string, text: string, min: number, max: number): number {
  const value = /^(0x[0-9a-fA-F]+|[0-9]+)$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new InputError(
      'OPTION_INVALID',
      `${JSON.stringify(text)} is not a whole number from ${min} to ${max}`,
      {
        where: `--${name}`,
      },
    );
  }
  return value;
}

/** 64-bit word, decimal or 0x-prefixed. */
export function wordOption(name: string, text: string): bigint {
  if (!/^(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})$/.test(text) || BigInt(text) > 0xffff_ffff_ffff_ffffn) {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(text)} is not a 64-bit number`, {
      where: `--${name}`,
    });
  }
  return BigInt(text);
}

/** Hexadecimal bytes; fewer than `size` are filled with zeros at the end, more are refused. */
export function hexOption(name: string, text: string, size: number): Uint8Array {
  const bytes = fromHex(text, `--${name}`);
  if (bytes.length > size) {
    throw new InputError('OPTION_INVALID', `${bytes.length} bytes given, at most ${size} fit`, {
      where: `--${name}`,
    });
  }
  const out = new Uint8Array(size);
  out.set(bytes);
  return out;
}

/** 4G, 512M, 1048576: bytes in whole pages. */
export function sizeOption(name: string, text: string): number {
  const match = /^([0-9]+)([KMGT]?)$/i.exec(text);
  const scale = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }[match?.[2]?.toUpperCase() ?? ''];
  const bytes = match === null ? Number.NaN : Number(match[1]) * scale!;
  if (!Number.isSafeInteger(bytes) || bytes < 4096 || bytes % 4096 !== 0) {
    throw new InputError(
      'OPTION_INVALID',
      `${JSON.stringify(text)} is not a size in whole pages, such as 512M or 4G`,
      {
        where: `--${name}`,
      },
    );
  }
  return bytes;
}

const PRODUCTS: Readonly<Record<string, ProductLine>> = { milan: 'Milan', genoa: 'Genoa', turin: 'Turin' };

export function productOption(name: string, text: string): ProductLine {
  const product = PRODUCTS[text.toLowerCase()];
  if (product === undefined) {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(text)} is not milan, genoa or turin`, {
      where: `--${name}`,
    });
  }
  return product;
}

export function choiceOption<const T extends string>(name: string, text: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(text)} is not one of ${choices.join(', ')}`, {
      where: `--${name}`,
    });
  }
  return found;
}

/** What an option or an argument names standard input by; a file of that name is ./-. */
export const STANDARD_INPUT = '-';
const STDIN_FD = 0;

/** What findings and causes call a file. */
export const fileLabel = (path: string): string => (path === STANDARD_INPUT ? 'standard input' : path);

/**
 * The bytes of a file that an option or an argument names, or those of standard input up to its end.
 *
 * Errors   FILE_UNREADABLE with the errno; OPTION_INVALID when it is larger than `maxBytes`
 */
export function fileOption(name: string, path: string, maxBytes: number): Uint8Array {
  let bytes: Uint8Array | null;
  try {
    bytes = readAtMost(path, maxBytes);
  } catch (error) {
    throw new EnvironmentError('FILE_UNREADABLE', `cannot read ${fileLabel(path)}: ${errnoCode(error)}`, {
      where: optionName(name),
      cause: error,
    });
  }
  if (bytes === null) {
    throw new InputError('OPTION_INVALID', `${fileLabel(path)} has more than ${maxBytes} bytes`, {
      where: optionName(name),
      action: 'It is no file of this kind; name another.',
    });
  }
  return bytes;
}

/** What one read can give; more than 2 GiB - 1 Node refuses. */
const READ_LIMIT_BYTES = 2 ** 30;

/** Read in pieces, because a pipe or a device has no size and may never end; null when there is more. */
function readAtMost(path: string, maxBytes: number): Uint8Array | null {
  const file = path === STANDARD_INPUT ? STDIN_FD : openSync(path, 'r');
  try {
    // One byte of room more than fits tells a file that ends here from a longer one.
    const { size } = fstatSync(file);
    let buffer = new Uint8Array(Math.min(Math.max(size, 4096), maxBytes) + 1);
    let length = 0;
    for (;;) {
      const count = readSome(
        file,
        buffer.subarray(length, Math.min(buffer.length, length + READ_LIMIT_BYTES)),
      );
      length += count;
      if (length > maxBytes) {
        return null;
      }
      if (count === 0) {
        return buffer.slice(0, length);
      }
      if (length === buffer.length) {
        const larger = new Uint8Array(Math.min(2 * length, maxBytes + 1));
        larger.set(buffer);
        buffer = larger;
      }
    }
  } finally {
    if (file !== STDIN_FD) {
      closeSync(file);
    }
  }
}

const EMPTY_WAIT_MS = 10;

/** Reads what there is; whoever started us may have left standard input non-blocking, and then there may be nothing yet. */
function readSome(file: number, buffer: Uint8Array): number {
  for (;;) {
    try {
      return readSync(file, buffer, 0, buffer.length, null);
    } catch (error) {
      if (errnoCode(error) !== 'EAGAIN') {
        throw error;
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, EMPTY_WAIT_MS);
    }
  }
}
