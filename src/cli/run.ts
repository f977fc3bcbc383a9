// SPDX-License-Identifier: Apache-2.0
/** Runs a citty command strictly: unknown options and stray words are errors, and every error has an exit code. */
import { type ArgsDef, type CommandDef, runCommand } from 'citty';
import { ERROR_CODES } from '../lib/error-codes.ts';
import { BugError, EnvironmentError, InputError } from '../lib/errors.ts';
import { helpContents, helpWidth, renderHelp, resolved } from './help.ts';

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
      throw new InputError(
        'OPTION_INVALID',
        `unknown command ${JSON.stringify(word)}; known: ${Object.keys(children).join(', ')}`,
        {
          where: ['softsnp', ...path].join(' '),
        },
      );
    }
    command = (await resolved(child)) as Verb;
    path.push(word);
    rest = rest.slice(1);
  }
}

const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** Refuses what citty would silently ignore. */
function checkArguments(args: ArgsDef, argv: readonly string[], where: string): void {
  const options = new Map<string, ArgsDef[string]>();
  const positionals: string[] = [];
  for (const [name, arg] of Object.entries(args)) {
    if (arg.type === 'positional') {
      positionals.push(name);
      continue;
    }
    const alias = 'alias' in arg && arg.alias !== undefined ? [arg.alias].flat() : [];
    for (const known of [name, kebab(name), ...alias]) {
      options.set(known, arg);
    }
  }
  const refuse = (message: string): never => {
    throw new InputError('OPTION_INVALID', message, { where });
  };
  const seen = new Set<string>();
  let words = 0;
  for (let i = 0; i < argv.length; i++) {
    const token = argv[i]!;
    if (token === '--') {
      return;
    }
    if (!token.startsWith('-') || token === '-') {
      words += 1;
      if (words > positionals.length) {
        refuse(`unexpected argument ${JSON.stringify(token)}`);
      }
      continue;
    }
    const [flag = '', inline] = token.replace(/^--?/, '').split(/=(.*)/s);
    const arg = options.get(flag) ?? (flag.startsWith('no-') ? options.get(flag.slice(3)) : undefined);
    if (arg === undefined) {
      refuse(`unknown option ${token.split('=')[0]}`);
    }
    if (seen.has(flag)) {
      refuse(`option --${flag} given twice`);
    }
    seen.add(flag);
    if (arg!.type === 'boolean') {
      if (inline !== undefined) {
        refuse(`option --${flag} takes no value`);
      }
    } else if (inline === undefined) {
      i += 1;
      if (argv[i] === undefined || argv[i]!.startsWith('--')) {
        refuse(`option --${flag} needs a value`);
      }
    }
  }
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
  try {
    if (argv[0] === '--version') {
      output.stdout(`softsnp ${version}\n`);
      return EXIT_OK;
    }
    const { command, path, rest } = await resolveVerb(root, argv);
    const words = ['softsnp', ...path];
    const separator = rest.indexOf('--');
    const own = separator < 0 ? rest : rest.slice(0, separator);
    if (own.includes('--help') || own.includes('-h')) {
      output.stdout(renderHelp(await helpContents(command, words), helpWidth()));
      return EXIT_OK;
    }
    if (command.run === undefined) {
      output.stderr(renderHelp(await helpContents(command, words), helpWidth()));
      return EXIT_USAGE;
    }
    checkArguments((await resolved(command.args)) ?? {}, rest, words.join(' '));
    const { result } = await runCommand(command, { rawArgs: [...rest] });
    return typeof result === 'number' ? result : EXIT_OK;
  } catch (error) {
    return reportError(error, output);
  }
}

function reportError(error: unknown, output: Output): number {
  if (error instanceof InputError || error instanceof EnvironmentError) {
    output.stderr(`softsnp: ${error.message} [${error.code}]\n  ${error.action}\n`);
    return ERROR_CODES[error.code].exit;
  }
  if (error instanceof Error && error.name === 'CLIError') {
    output.stderr(`softsnp: ${error.message}\n`);
    return EXIT_USAGE;
  }
  const bug = error instanceof BugError ? error : new BugError('unexpected exception', { cause: error });
  output.stderr(
    `softsnp: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n  ${bug.action}\n`,
  );
  return ERROR_CODES.BUG.exit;
}
