// SPDX-License-Identifier: Apache-2.0
/** JSON whose author is held to say each thing once. */
import type { ErrorCode } from './error-codes.ts';
import { type ErrorDetail, InputError } from './errors.ts';

/**
 * The value of a JSON text.
 *
 * Errors   `code`, with the detail that is given, for what is not JSON, and for an object that has a name twice: JSON.parse
 *          keeps the last of them, so that a demand somebody wrote would be gone without a word
 */
export function parseJson(text: string, code: ErrorCode, detail: ErrorDetail): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InputError(code, `not JSON: ${(cause as SyntaxError).message}`, { ...detail, cause });
  }
  const twice = nameGivenTwice(text);
  if (twice !== null) {
    throw new InputError(code, `${twice} stands twice`, detail);
  }
  return value;
}

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]/g;

/** Path of the first name that an object of a JSON text has twice, or null; the text is known to be JSON. */
function nameGivenTwice(text: string): string | null {
  // One set of names for each object that is open; null for a list.
  const open: { readonly names: Set<string> | null; at: string }[] = [];
  let last = '';
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{' || token === '[') {
      open.push({ names: token === '{' ? new Set() : null, at: '' });
    } else if (token === '}' || token === ']') {
      open.pop();
    } else if (token === ':') {
      const object = open.at(-1)!;
      // Two spellings of one name are one name: "vmpl" and "\u0076mpl".
      object.at = JSON.parse(last) as string;
      if (object.names!.has(object.at)) {
        return open.flatMap(({ names, at }) => (names === null ? [] : [at])).join('.');
      }
      object.names!.add(object.at);
    }
    last = token;
  }
  return null;
}
