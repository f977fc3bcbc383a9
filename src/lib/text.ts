// SPDX-License-Identifier: Apache-2.0
/** Text that others wrote: showing it without obeying it, and reading it in the encodings that tools write. */

/** Control, format, surrogate, private and unassigned characters, and the separators of lines and paragraphs. */
const UNSHOWN = /[\p{C}\p{Zl}\p{Zp}]/gu;

/**
 * A text as it may be shown on a terminal, in a log or on a page: what moves the cursor, turns the direction of
 * writing, breaks the line or cannot be seen stands in it as \u{hex}.
 */
export const printable = (text: string): string =>
  text.replace(UNSHOWN, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);

/** Marks that editors and shells put before a text, and the encoding each stands for. */
const BYTE_ORDER_MARKS: readonly (readonly [mark: readonly number[], encoding: string])[] = [
  [[0xef, 0xbb, 0xbf], 'utf-8'],
  [[0xff, 0xfe], 'utf-16le'],
  [[0xfe, 0xff], 'utf-16be'],
];

/**
 * The text that bytes are: UTF-8, UTF-16 behind its byte order mark, or an older encoding with eight bits; without the
 * mark and without white space around it.
 *
 * Returns  null for bytes that no text has: control characters other than white space
 */
export function decodedText(bytes: Uint8Array): string | null {
  const marked = BYTE_ORDER_MARKS.find(([mark]) => mark.every((byte, i) => bytes[i] === byte));
  if (marked !== undefined) {
    const [mark, encoding] = marked;
    const text = textIn(bytes.subarray(mark.length), encoding);
    return text === null || hasControls(text) ? null : text.trim();
  }
  if (bytes.some((byte) => byte < 9 || (byte > 13 && byte < 0x20) || byte === 0x7f)) {
    return null;
  }
  return (textIn(bytes, 'utf-8') ?? new TextDecoder('latin1').decode(bytes)).trim();
}

function textIn(bytes: Uint8Array, encoding: string): string | null {
  try {
    return new TextDecoder(encoding, { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Whether there is a character in a text that is neither shown nor white space. */
function hasControls(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 9 || (code > 13 && code < 0x20) || code === 0x7f) {
      return true;
    }
  }
  return false;
}
