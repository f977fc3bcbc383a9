// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { utf8 } from '../../lib/bytes.ts';
import { refuse } from '../fuse/filesystem.ts';
import { kstrtouint } from './kstrto.ts';

describe('kstrtouint with base 0', () => {
  it.each([
    ['0', 0],
    ['3\n', 3],
    ['+7', 7],
    ['0x1F', 31],
    ['0X1f\n', 31],
    ['017', 15],
    ['00', 0],
    ['4294967295', 2 ** 32 - 1],
    ['2\0garbage', 2],
    ['2\n\0garbage', 2],
  ])('reads %j as %d', (text, value) => {
    expect(kstrtouint(utf8(text))).toBe(value);
  });

  it.each(['', '\n', '\0', ' 1', '1 ', '1\n\n', '-1', '++1', '0x', '08', '0b1', '1e3', 'two', '\x02'])(
    'answers EINVAL for %j',
    (text) => {
      expect(kstrtouint(utf8(text))).toEqual(refuse(Errno.EINVAL));
    },
  );

  it.each([
    '4294967296',
    '0x100000000',
    '18446744073709551615',
    '18446744073709551616',
    '99999999999999999999x',
  ])('answers ERANGE for %s', (text) => {
    expect(kstrtouint(utf8(text))).toEqual(refuse(Errno.ERANGE));
  });

  it('answers EINVAL, not ERANGE, for a 64-bit number with something behind it', () => {
    expect(kstrtouint(utf8('4294967296x'))).toEqual(refuse(Errno.EINVAL));
  });
});
