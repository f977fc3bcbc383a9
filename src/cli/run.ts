// SPDX-License-Identifier: Apache-2.0
/** Runs a citty command strictly: unknown options and stray words are errors, and every error has an exit code. */
import { type ArgsDef, type CommandDef, runCommand } from 'citty';
import { ERROR_CODES } from '../lib/error-codes.ts';
import { BugError, EnvironmentError, InputError } from '../lib/errors.ts';
import { nearestName } from '../lib/nearest.ts';
import { printable } from '../lib/text.ts';
import { environmentErrorOf } from '../os/errno.ts';
import {
  type HelpContents,
  helpContents,
  helpWidth,
  isRequired,
  placeholder,
  renderHelp,
  resolved,
  usage,
} from './help.ts';
import { STANDARD_INPUT } from './options.ts';

// biome-ignore lint/suspicious/noExplicitAny: citty types a tree of commands with any.
export type Verb = CommandDef<any> & {
  /** What its usage line ends with, for arguments behind "--". */
  readonly operands?: string;
};

/** Where a verb writes; the process's own streams unless a test gives others. */
export interface Output {
  stdout(text: string): void;
  stderr(text: string): void;
}

export const processOutput: Output = {
  stdout: (text) => {
    process.stdout.write(text);
  },
  stderr: (text) => {
    process.stderr.write(text);
  },
};

export const EXIT_OK = 0;
export const EXIT_USAGE = 1;

interface Resolved {
  readonly command: Verb;
  readonly path: readonly string[];
  readonly rest: readonly string[];
}

async function resolveVerb(root: Verb, argv: readonly string[]): Promise<Resolved> {
  let command = root;
  const path: string[] = [];
  let rest = argv;
  for (;;) {
    const children = await resolved(command.subCommands);
    const word = rest[0];
    if (children === undefined || word === undefined || word.startsWith('-')) {
      return { command, path, rest };
    }
    const child = children[word];
    if (child === undefined) {
      throw unknownCommand(word, Object.keys(children), ['softsnp', ...path].join(' '));
    }
    command = (await resolved(child)) as Verb;
    path.push(word);
    rest = rest.slice(1);
  }
}

/** Letters that are wrong in a word that is still taken for a known one: fewer in short words, which are all alike. */
const slipsIn = (word: string): number => (word.length <= 4 ? 1 : 2);

function unknownCommand(word: string, known: readonly string[], where: string): InputError {
  const meant = nearestName(word, known, slipsIn(word));
  const hint = meant === null ? `known: ${known.join(', ')}` : `did you mean ${meant}?`;
  return new InputError('OPTION_INVALID', `unknown command ${JSON.stringify(word)}; ${hint}`, {
    where,
    action: `See ${where} --help.`,
  });
}

const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

interface Option {
  readonly name: string;
  readonly isBoolean: boolean;
  /** Whether this spelling says no to it. */
  readonly isNegated: boolean;
}

/** The options of a verb as they are written: with their dashes. */
function optionsOf(args: ArgsDef): Map<string, Option> {
  const options = new Map<string, Option>();
  for (const [name, arg] of Object.entries(args)) {
    if (arg.type === 'positional') {
      continue;
    }
    const alias = 'alias' in arg && arg.alias !== undefined ? [arg.alias].flat() : [];
    for (const known of [name, kebab(name), ...alias]) {
      const isBoolean = arg.type === 'boolean';
      options.set(`${known.length === 1 ? '-' : '--'}${known}`, { name, isBoolean, isNegated: false });
    }
  }
  for (const [spelling, option] of [...options]) {
    const no = spelling.replace(/^--/, '--no-');
    if (option.isBoolean && no !== spelling && !options.has(no)) {
      options.set(no, { ...option, isNegated: true });
    }
  }
  return options;
}

/** A word where a value is due. "-" is standard input; what else begins with a dash is an option, but numbers. */
const isValue = (word: string | undefined): word is string =>
  word !== undefined && (!word.startsWith('-') || word === '-' || /^-\.?\d/.test(word));

/**
 * Refuses what citty would silently ignore, and writes the rest so that it can be read in one way only.
 *
 * Returns  options as --name or --name=value, then the words, and from "--" on what stands behind it
 * Errors   OPTION_INVALID
 */
export function checkedArguments(
  args: ArgsDef,
  argv: readonly string[],
  where: string,
  { operands = false }: { readonly operands?: boolean } = {},
): string[] {
  const refuse = (message: string): never => {
    throw new InputError('OPTION_INVALID', message, { where });
  };
  const options = optionsOf(args);
  // Nobody means the negation of an option by a word that is nothing.
  const spellings = [...options].flatMap(([spelling, { isNegated }]) => (isNegated ? [] : [spelling]));
  const positionals = Object.values(args).filter(({ type }) => type === 'positional').length;
  const separator = argv.indexOf('--');
  const own = separator < 0 ? argv : argv.slice(0, separator);
  const behind = separator < 0 ? [] : argv.slice(separator);
  const given: string[] = [];
  const seen = new Map<string, string>();
  const words: string[] = [];
  for (let i = 0; i < own.length; i++) {
    const token = own[i]!;
    if (!token.startsWith('-') || token === '-') {
      words.push(token);
      continue;
    }
    const [spelling = '', inline] = token.split(/=(.*)/s);
    // Quoted options, as `measure diff` takes them, are one word.
    if (!options.has(spelling) && /\s/.test(token) && words.length < positionals) {
      words.push(token);
      continue;
    }
    const option = options.get(spelling) ?? refuse(unknownOption(spelling, [...GROUP_OPTIONS, ...spellings]));
    const { name, isBoolean, isNegated } = option;
    // citty keeps one value for --x and --no-x.
    const subject = name.replace(/^no-/, '');
    const earlier = seen.get(subject);
    if (earlier !== undefined) {
      refuse(
        earlier === spelling
          ? `option ${spelling} given twice`
          : `options ${earlier} and ${spelling} exclude each other`,
      );
    }
    seen.set(subject, spelling);
    if (isBoolean) {
      if (inline !== undefined) {
        refuse(`option ${spelling} takes no value`);
      }
      given.push(isNegated ? `--no-${name}` : `--${name}`);
      continue;
    }
    const next = own[i + 1];
    if (inline === undefined && !isValue(next)) {
      refuse(
        `option ${spelling} needs a value${next === undefined ? '' : `; one that begins with a dash is given as ${spelling}=${next}`}`,
      );
    }
    given.push(`--${name}=${inline ?? next}`);
    i += inline === undefined ? 1 : 0;
  }
  const all = operands ? words : [...words, ...behind.slice(1)];
  // Whoever reads it first leaves nothing for the other.
  const values = [...given.map((option) => option.replace(/^[^=]*=/, '')), ...all];
  if (values.filter((value) => value === STANDARD_INPUT).length > 1) {
    refuse('standard input ("-") can be given once only');
  }
  if (all.length > positionals) {
    const hint = operands ? ': the command stands behind "--"' : '';
    refuse(`unexpected argument ${JSON.stringify(all[positionals])}${hint}`);
  }
  return [...given, ...(operands ? behind : ['--', ...all])];
}

/** Of a command that only has commands, and of softsnp itself. */
const GROUP_OPTIONS = ['--help', '-h'];
const ROOT_OPTIONS = [...GROUP_OPTIONS, '--version'];

function unknownOption(spelling: string, known: readonly string[]): string {
  const bare = spelling.replace(/^-+/, '');
  const long = known.filter((option) => option.startsWith('--'));
  const meant =
    [`--${bare}`, `-${bare}`].find((other) => known.includes(other)) ??
    nearestName(`--${bare}`, long, slipsIn(bare));
  return `unknown option ${spelling}${meant === null ? '' : `; did you mean ${meant}?`}`;
}

/** What the command cannot do without and the command line does not have; citty would say so in words of its own. */
function missingFrom(args: ArgsDef, checked: readonly string[]): readonly string[] {
  const count = checked.length - 1 - checked.indexOf('--');
  const needed = Object.entries(args).filter(([, arg]) => isRequired(arg));
  const isPositional = ([, { type }]: (typeof needed)[number]): boolean => type === 'positional';
  return [
    ...needed
      .filter((arg) => !isPositional(arg) && !checked.some((word) => word.startsWith(`--${arg[0]}=`)))
      .map(([name]) => `--${name}`),
    ...needed
      .filter(isPositional)
      .slice(count)
      .map(([name]) => placeholder(name)),
  ];
}

function incomplete(missing: readonly string[], contents: HelpContents): InputError {
  const where = contents.words.join(' ');
  return new InputError(
    'OPTION_INVALID',
    `${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} missing`,
    { where, action: `Usage: ${usage(contents)}. See ${where} --help.` },
  );
}

/**
 * Runs the verb the arguments name.
 *
 * Returns  the exit code: what the verb returned, 0 for nothing, else by the kind of error
 */
export async function runCli(
  root: Verb,
  argv: readonly string[],
  version: string,
  output: Output = processOutput,
): Promise<number> {
  let words: readonly string[] = ['softsnp'];
  try {
    if (argv[0] === '--version') {
      output.stdout(`softsnp ${version}\n`);
      return EXIT_OK;
    }
    const { command, path, rest } = await resolveVerb(root, argv);
    words = ['softsnp', ...path];
    const separator = rest.indexOf('--');
    const own = separator < 0 ? rest : rest.slice(0, separator);
    if (own.includes('--help') || own.includes('-h')) {
      output.stdout(renderHelp(await helpContents(command, words), helpWidth()));
      return EXIT_OK;
    }
    if (command.run === undefined) {
      const [stray] = rest;
      if (stray !== undefined) {
        throw new InputError(
          'OPTION_INVALID',
          unknownOption(stray.split('=')[0]!, path.length === 0 ? ROOT_OPTIONS : GROUP_OPTIONS),
          {
            where: words.join(' '),
            action: `See ${words.join(' ')} --help.`,
          },
        );
      }
      output.stderr(renderHelp(await helpContents(command, words), helpWidth()));
      return EXIT_USAGE;
    }
    const args = (await resolved(command.args)) ?? {};
    const rawArgs = checkedArguments(args, rest, words.join(' '), {
      operands: command.operands !== undefined,
    });
    const missing = missingFrom(args, rawArgs);
    if (missing.length > 0) {
      // The help of a command loads those below it: nobody waits for that who gets none.
      throw incomplete(missing, await helpContents(command, words));
    }
    const { result } = await runCommand(command, { rawArgs });
    return typeof result === 'number' ? result : EXIT_OK;
  } catch (error) {
    return reportError(error, words, output);
  }
}

function reportError(thrown: unknown, words: readonly string[], output: Output): number {
  const error = environmentErrorOf(thrown) ?? thrown;
  if (error instanceof InputError || error instanceof EnvironmentError) {
    // File names are in it, and a folder of evidence comes from others.
    const message = named(error).split('\n').map(printable).join('\n');
    output.stderr(`${message} [${error.code}]\n  ${cureOf(error, words.join(' '))}\n`);
    return ERROR_CODES[error.code].exit;
  }
  const bug = error instanceof BugError ? error : new BugError('unexpected exception', { cause: error });
  output.stderr(
    `softsnp: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n  ${bug.action}\n`,
  );
  return ERROR_CODES.BUG.exit;
}

/** The message behind the name of the program, which it may begin with. */
const named = ({ message }: Error): string => (/^softsnp\b/.test(message) ? message : `softsnp: ${message}`);

/** What to do; where that is to look it up, the command that tells. */
const cureOf = ({ code, action }: InputError | EnvironmentError, command: string): string =>
  code === 'OPTION_INVALID' && action === ERROR_CODES[code].action ? `See ${command} --help.` : action;
