// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { utf8 } from './bytes.ts';
import { decodedText, printable } from './text.ts';

describe('a text that others wrote', () => {
  it('is shown without what a terminal would obey', () => {
    expect(printable('a\u001b[2Jb')).toBe('a\\u{1b}[2Jb');
    expect(printable('a\nb\r\tc\u0000')).toBe('a\\u{a}b\\u{d}\\u{9}c\\u{0}');
    expect(printable('\u009b31m')).toBe('\\u{9b}31m');
    expect(printable('a\u202eb\u2066\u200b\ufeff')).toBe('a\\u{202e}b\\u{2066}\\u{200b}\\u{feff}');
    expect(printable('\u2028\u2029\ue000\ud800\u{e0001}\u{10ffff}')).toBe(
      '\\u{2028}\\u{2029}\\u{e000}\\u{d800}\\u{e0001}\\u{10ffff}',
    );
  });

  it('is shown as it is where it is text', () => {
    for (const text of ['', 'CN=SEV-VCEK, O=Advanced Micro Devices', 'Zürich, 東京, 🙂, …', '\\u{1b}']) {
      expect(printable(text)).toBe(text);
    }
  });
});

describe('bytes that are text', () => {
  const utf16 = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'utf16le'));
  it('are read in the encodings that editors and shells write', () => {
    expect(decodedText(utf8('  abc\r\n'))).toBe('abc');
    expect(decodedText(utf8('\ufeffabc\n'))).toBe('abc');
    expect(decodedText(utf16('\ufeffabc\r\n'))).toBe('abc');
    expect(decodedText(utf16('\ufeffabc').map((_, i, all) => all[i ^ 1]!))).toBe('abc');
    expect(decodedText(utf8('für'))).toBe('für');
    expect(decodedText(Uint8Array.of(0x66, 0xfc, 0x72))).toBe('für');
  });

  it('are told from bytes that are none', () => {
    for (const bytes of [
      [0x61, 0],
      [0x1b, 0x5b],
      [0x61, 0x7f],
      [0xff, 0xfe, 0x61],
      [0xff, 0xfe, 0, 0],
    ]) {
      expect(decodedText(Uint8Array.from(bytes))).toBeNull();
    }
  });
});
