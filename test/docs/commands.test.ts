// SPDX-License-Identifier: Apache-2.0
/** Every command that the documents tell people to type is one that softsnp takes. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { resolved } from '../../src/cli/help.ts';
import { softsnpCommand } from '../../src/cli/main.ts';
import { checkedArguments, type Verb } from '../../src/cli/run.ts';
import { everyVerb } from '../../src/cli/testing.ts';
import { splitShell } from '../../src/launch/shell-words.ts';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const documents = ['README.md', ...readdirSync(join(root, 'docs/howto')).map((name) => `docs/howto/${name}`)]
  .concat(readdirSync(join(root, 'docs')).map((name) => `docs/${name}`))
  .filter((path) => path.endsWith('.md'));
const verbs = new Map(await everyVerb(softsnpCommand, ['softsnp']));

/** The softsnp commands in the shell blocks of a document, without what the shell does around them. */
function commandsOf(text: string): string[] {
  const blocks = [...text.matchAll(/^```(?:sh|console)\n(.*?)^```/gms)].map(([, block]) => block!);
  const lines = blocks
    .join('\n')
    .replace(/\\\n\s*/g, ' ')
    .replace(/(^|\s)#.*$/gm, '');
  return [...lines.matchAll(/(?:npx |\$\(npx |^)(softsnp (?:"[^"]*"|'[^']*'|[^|&;>)\n])*)/gm)].map(
    ([, line]) => line!.replace(/\$\(.*$/s, 'X"').replace(/\$[A-Za-z_]+/g, 'X'),
  );
}

/** The verb that the first words name, and the others. */
function verbOf(words: readonly string[]): { verb: Verb; rest: readonly string[] } {
  const count = words.findLastIndex((_, i) => verbs.has(words.slice(0, i + 1).join(' '))) + 1;
  return { verb: verbs.get(words.slice(0, count).join(' '))!, rest: words.slice(count) };
}

describe.each(documents)('%s', (path) => {
  it('has commands that softsnp takes', async () => {
    for (const command of commandsOf(readFileSync(join(root, path), 'utf8'))) {
      const { verb, rest } = verbOf(splitShell(command, command));
      const operands = verb.operands !== undefined;
      expect([command, verb.run === undefined]).toEqual([command, false]);
      const args = (await resolved(verb.args)) ?? {};
      expect(() => checkedArguments(args, rest, command, { operands })).not.toThrow();
    }
  });
});

it('finds the commands of the documents', () => {
  const found = documents.flatMap((path) => commandsOf(readFileSync(join(root, path), 'utf8')));
  expect(found.length).toBeGreaterThan(20);
});
