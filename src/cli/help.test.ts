// SPDX-License-Identifier: Apache-2.0
import { defineCommand } from 'citty';
import { describe, expect, it } from 'vitest';
import { helpContents, helpWidth, renderHelp } from './help.ts';
import { softsnpCommand } from './main.ts';
import type { Verb } from './run.ts';
import { everyVerb, said } from './testing.ts';

describe('help texts', () => {
  it('name every command in full, in plain text of 80 columns', async () => {
    const verbs = await everyVerb(softsnpCommand, ['softsnp']);
    expect(verbs.map(([words]) => words)).toContain('softsnp ctl config set');
    for (const [words, verb] of verbs) {
      const text = renderHelp(await helpContents(verb, words.split(' ')), helpWidth(undefined));
      expect(text).toMatch(new RegExp(`^Usage: ${words}`, 'm'));
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there.
      expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f]/);
      const long = text.split('\n').filter((line) => line.length > 80 && line.trim().includes(' '));
      expect(long).toEqual([]);
      expect(text).not.toMatch(/ $/m);
    }
  });

  it('say where the command of softsnp exec goes', async () => {
    const { code, stdout } = await said('exec', '--help');
    expect(code).toBe(0);
    expect(stdout).toContain('Usage: softsnp exec [OPTIONS] -- COMMAND [ARGUMENT...]\n');
  });

  it('go to stderr, with exit code 1, where a command is missing', async () => {
    expect(await said('host', 'config')).toMatchObject({
      ...{ code: 1, stdout: '' },
      stderr: expect.stringContaining('Usage: softsnp host config set|reset\n'),
    });
  });

  it('tell arguments and options that are needed from those that are not', async () => {
    const verb = defineCommand({
      meta: { name: 'x', description: 'Does a thing. And more' },
      args: {
        file: { type: 'positional', description: 'File' },
        more: { type: 'positional', required: false },
        to: { type: 'string', required: true, alias: 't', valueHint: 'PLACE' },
        size: { type: 'string', default: '4', description: 'Size' },
      },
    });
    expect(renderHelp(await helpContents(verb as Verb, ['softsnp', 'x']), 80)).toBe(
      `Does a thing. And more

Usage: softsnp x [OPTIONS] -t, --to PLACE FILE [MORE]

Arguments:
  FILE  File
  MORE

Options:
  -t, --to PLACE
  --size SIZE     Size (4 if left out)
`,
    );
  });

  it.each([
    [undefined, 80],
    [20, 40],
    [72, 72],
    [300, 100],
  ])('of a terminal of %s columns have %s', (columns, width) => {
    expect(helpWidth(columns)).toBe(width);
  });
});
