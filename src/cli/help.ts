// SPDX-License-Identifier: Apache-2.0
/** Help texts: plain text of a terminal's width, as they are read in pipes, logs and documents too. */
import type { ArgsDef } from 'citty';
import type { Verb } from './run.ts';

/** What a help text is made of, everything that citty lets be a promise resolved. */
export interface HelpContents {
  /** The words that name the command, softsnp first. */
  readonly words: readonly string[];
  readonly description: string;
  readonly args: ArgsDef;
  /** Commands below it and what they are for. */
  readonly commands: readonly (readonly [name: string, description: string])[];
  /** What follows the options. */
  readonly operands: string;
}

const WIDTH = 80;
const WIDEST = 100;
/** Names longer than this stand on a line of their own. */
const NAME_COLUMN = 28;

/** As wide as the terminal, within reason; 80 columns where there is none. */
export const helpWidth = (columns = process.stdout.columns): number =>
  columns === undefined ? WIDTH : Math.min(Math.max(columns, WIDTH / 2), WIDEST);

export async function helpContents(verb: Verb, words: readonly string[]): Promise<HelpContents> {
  const meta = await resolved(verb.meta);
  const children: Readonly<Record<string, unknown>> = (await resolved(verb.subCommands)) ?? {};
  const commands = Object.entries(children).map(async ([name, child]) => {
    const { description = '' } = (await resolved(((await resolved(child)) as Verb).meta)) ?? {};
    return [name, firstSentence(description)] as const;
  });
  return {
    words,
    description: meta?.description ?? '',
    args: (await resolved(verb.args)) ?? {},
    commands: await Promise.all(commands),
    operands: verb.operands ?? '',
  };
}

export function renderHelp(contents: HelpContents, width: number): string {
  const { args, commands, words } = contents;
  const named = (positional: boolean) =>
    Object.entries(args)
      .filter(([, { type }]) => (type === 'positional') === positional)
      .map(([name, arg]) => [positional ? placeholder(name) : optionName(name, arg), describe(arg)] as const);
  const sections = [
    ['Commands', commands],
    ['Arguments', named(true)],
    ['Options', named(false)],
  ] as const;
  return [
    wrap(contents.description, 0, width),
    '',
    wrap(`Usage: ${usage(contents)}`, 7, width),
    ...sections
      .filter(([, rows]) => rows.length > 0)
      .flatMap(([title, rows]) => ['', `${title}:`, ...table(rows, width)]),
    ...(commands.length === 0 ? [] : ['', `${words.join(' ')} COMMAND --help says more of each.`]),
  ]
    .map((line) => `${line}\n`)
    .join('');
}

/** The command line in short. */
export function usage({ words, args, commands, operands }: HelpContents): string {
  const entries = Object.entries(args);
  const options = entries.filter(([, { type }]) => type !== 'positional');
  const needed = options.filter(([, arg]) => isRequired(arg)).map(([name, arg]) => optionName(name, arg));
  const positionals = entries
    .filter(([, { type }]) => type === 'positional')
    .map(([name, arg]) => (isRequired(arg) ? placeholder(name) : `[${placeholder(name)}]`));
  return [
    ...words,
    ...(commands.length === 0 ? [] : [commands.map(([name]) => name).join('|')]),
    ...(options.length === 0 ? [] : ['[OPTIONS]']),
    ...needed,
    ...positionals,
    ...(operands === '' ? [] : [operands]),
  ].join(' ');
}

/** How a positional is called. */
export const placeholder = (name: string): string => name.toUpperCase();

/** Whether the command cannot do without it. */
export const isRequired = ({ type, required, ...arg }: ArgsDef[string]): boolean =>
  (type === 'positional' ? required !== false : required === true) && !('default' in arg);

function optionName(name: string, arg: ArgsDef[string]): string {
  const alias = 'alias' in arg && arg.alias !== undefined ? [arg.alias].flat() : [];
  const names = [...alias.map((letter) => `-${letter}`), `--${name}`].join(', ');
  return arg.type === 'boolean' ? names : `${names} ${arg.valueHint ?? placeholder(name)}`;
}

const describe = ({ description = '', ...arg }: ArgsDef[string]): string =>
  'default' in arg && typeof arg.default === 'string'
    ? `${description} (${arg.default} if left out)`
    : description;

function table(rows: readonly (readonly [name: string, text: string])[], width: number): string[] {
  const fitting = rows.map(([name]) => name.length + 4).filter((length) => length <= NAME_COLUMN);
  const indent = Math.max(...fitting, 6);
  return rows.flatMap(([name, text]) => {
    const first = `  ${name}`.padEnd(indent);
    const described = wrap(`${' '.repeat(indent)}${text}`, indent, width);
    return first.length > indent ? [first, described] : [`${first}${described.slice(indent)}`.trimEnd()];
  });
}

/** Breaks lines between words; all but the first are indented. */
function wrap(text: string, indent: number, width: number): string {
  const margin = ' '.repeat(indent);
  const lines = [/^ */.exec(text)![0]];
  for (const word of text.trim().split(' ')) {
    const line = lines.at(-1)!;
    const isFresh = line.trim() === '';
    if (!isFresh && line.length + 1 + word.length > width) {
      lines.push(`${margin}${word}`);
    } else {
      lines[lines.length - 1] = isFresh ? `${line}${word}` : `${line} ${word}`;
    }
  }
  return lines.join('\n');
}

function firstSentence(text: string): string {
  return text.split(/(?<=\.) (?=[A-Z])/)[0]!.replace(/\.$/, '');
}

/** What citty allows in place of a value. */
export async function resolved<T>(
  resolvable: T | Promise<T> | (() => T | Promise<T>) | undefined,
): Promise<T | undefined> {
  return typeof resolvable === 'function' ? await (resolvable as () => T | Promise<T>)() : await resolvable;
}
