// SPDX-License-Identifier: Apache-2.0
/** Splits a command line into words as a shell does. */
import { InputError } from '../lib/errors.ts';

export interface ShellWord {
  readonly text: string;
  /** Whether any of it stood between quotes: then it is meant as it is. */
  readonly isQuoted: boolean;
}

/** What a shell replaces before the program sees it. */
const EXPANDED = /^(\$[A-Za-z_0-9({@*#?$!-]|`)/;
/** What ends a word and begins something else. */
const OPERATORS = ';|&<>()';

/**
 * Splits a command line as a POSIX shell does, without expanding anything.
 *
 * Errors   OPTION_INVALID for a quote that is not closed, and for what only a shell can evaluate
 */
export function shellWords(text: string, where = '--qemu'): ShellWord[] {
  const fail = (message: string): never => {
    throw new InputError('OPTION_INVALID', message, { where });
  };
  const words: ShellWord[] = [];
  let word: string | null = null;
  let isQuoted = false;
  let quote: '"' | "'" | null = null;
  const end = (): void => {
    if (word !== null) {
      words.push({ text: word, isQuoted });
    }
    word = null;
    isQuoted = false;
  };
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!;
    const two = text.slice(i, i + 2);
    if (char === '\r') {
      if ((two !== '\r\n' && i + 1 < text.length) || quote !== null) {
        fail('holds a carriage return: whether the program would see it cannot be known');
      }
      continue; // The line ends of a file from elsewhere; what follows is the newline.
    }
    if (quote !== "'" && (EXPANDED.test(two) || (quote === null && (two === "$'" || two === '$"')))) {
      fail(
        `${JSON.stringify(text.slice(i, i + 20))} is for a shell to evaluate: write what it stands for, or quote it with '`,
      );
    }
    if (quote === "'") {
      if (char === "'") {
        quote = null;
      } else {
        word = (word ?? '') + char;
      }
    } else if (char === '\\') {
      const next = text[i + 1] ?? '';
      if (quote === '"' && !'"\\$`\n'.includes(next)) {
        word = `${word ?? ''}\\`;
        continue;
      }
      if (next === '\r' && text[i + 2] === '\n') {
        i += 2;
        continue;
      }
      i += 1;
      word = next === '\n' ? word : (word ?? '') + next;
    } else if (quote === '"') {
      if (char === '"') {
        quote = null;
      } else {
        word = (word ?? '') + char;
      }
    } else if (char === '"' || char === "'") {
      quote = char;
      word ??= '';
      isQuoted = true;
    } else if (char === ' ' || char === '\t' || char === '\n') {
      end();
    } else if (OPERATORS.includes(char)) {
      fail(`${JSON.stringify(char)} is the shell’s: give one command alone, or quote it with '`);
    } else if (char === '#' && word === null) {
      const newline = text.indexOf('\n', i);
      i = newline < 0 ? text.length : newline;
    } else {
      word = (word ?? '') + char;
    }
  }
  if (quote !== null) {
    fail(`a ${quote} is not closed`);
  }
  end();
  return words;
}

/** The words alone. */
export const splitShell = (text: string, where = '--qemu'): string[] =>
  shellWords(text, where).map((word) => word.text);
