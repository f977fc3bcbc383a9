// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { shellWords, splitShell } from './shell-words.ts';

describe('a shell command line', () => {
  it.each([
    ['a  b\tc\n', ['a', 'b', 'c']],
    ['a\r', ['a']],
    [`'a b' "c d"e`, ['a b', 'c de']],
    [`a\\ b "\\"q\\" \\x" '\\'`, ['a b', '"q" \\x', '\\']],
    ['a \\\n b', ['a', 'b']],
    ['a \\\r\n b\r\nc', ['a', 'b', 'c']],
    ['a\u00a0b', ['a\u00a0b']],
    [`'' ""`, ['', '']],
    ['', []],
  ])('%j is the words %j', (text, words) => {
    expect(splitShell(text)).toEqual(words);
  });

  it.each([
    [`a '$(b) $c \`d\` ; # & <'`, ['a', '$(b) $c `d` ; # & <']],
    ['a "x \\$(b) ;|&"', ['a', 'x $(b) ;|&']],
    ['a # -b c\n d#e', ['a', 'd#e']],
    ['a $ 5$ "6$"', ['a', '$', '5$', '6$']],
  ])('%j has nothing to evaluate in %j', (text, words) => {
    expect(splitShell(text)).toEqual(words);
  });

  it.each([
    [`a 'b`, /--qemu: a ' is not closed/],
    ['-smp $(nproc)', /"\$\(nproc\)" is for a shell to evaluate/],
    ['-smp "$N"', /"\$N\\"" is for a shell to evaluate/],
    ['-smp `nproc`', /for a shell to evaluate/],
    ["-append $'a b'", /for a shell to evaluate/],
    ['a && b', /"&" is the shell’s/],
    ['a >log', /">" is the shell’s/],
    ['a\rb', /carriage return/],
    ["'a\r\n'", /carriage return/],
  ])('%j is refused', (text, message) => {
    expect(() => splitShell(text)).toThrow(message);
  });
});

describe('the words of a shell command line', () => {
  it('tell which of them were quoted', () => {
    expect(shellWords(`a 'b' c"d" \\e ''`).map(({ isQuoted }) => isQuoted)).toEqual([
      false,
      true,
      true,
      false,
      true,
    ]);
  });
});
