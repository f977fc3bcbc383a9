// SPDX-License-Identifier: Apache-2.0
/** For tests: every command there is, and what one says. */
import { resolved } from './help.ts';
import { softsnpCommand } from './main.ts';
import { runCli, type Verb } from './run.ts';

/** A command and those below it, with the words that name each. */
export async function everyVerb(verb: Verb, words: readonly string[]): Promise<[string, Verb][]> {
  const children = Object.entries((await resolved(verb.subCommands)) ?? {});
  const below = children.map(async ([name, child]) =>
    everyVerb((await resolved(child)) as Verb, [...words, name]),
  );
  return [[words.join(' '), verb], ...(await Promise.all(below)).flat()];
}

/** What a command line of `softsnp` says, and its exit code. */
export async function said(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const texts = { stdout: '', stderr: '' };
  const code = await runCli(softsnpCommand, argv, '0', {
    stdout: (text) => {
      texts.stdout += text;
    },
    stderr: (text) => {
      texts.stderr += text;
    },
  });
  return { code, ...texts };
}
