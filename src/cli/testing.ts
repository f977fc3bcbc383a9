// SPDX-License-Identifier: Apache-2.0
/** For tests: every command there is. */
import { resolved } from './help.ts';
import type { Verb } from './run.ts';

/** A command and those below it, with the words that name each. */
export async function everyVerb(verb: Verb, words: readonly string[]): Promise<[string, Verb][]> {
  const children = Object.entries((await resolved(verb.subCommands)) ?? {});
  const below = children.map(async ([name, child]) =>
    everyVerb((await resolved(child)) as Verb, [...words, name]),
  );
  return [[words.join(' '), verb], ...(await Promise.all(below)).flat()];
}
