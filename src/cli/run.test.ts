// SPDX-License-Identifier: Apache-2.0
import { type ArgsDef, defineCommand, parseArgs } from 'citty';
import { describe, expect, it } from 'vitest';
import { BugError, EnvironmentError, InputError } from '../lib/errors.ts';
import { resolved } from './help.ts';
import { softsnpCommand } from './main.ts';
import { checkedArguments, runCli, type Verb } from './run.ts';
import { everyVerb, said } from './testing.ts';

const verbs = (await everyVerb(softsnpCommand, ['softsnp'])).filter(([, { run }]) => run !== undefined);

interface Case {
  readonly argv: readonly string[];
  /** What it is read as, or why it is refused. */
  readonly outcome: string | readonly string[];
}

/** What becomes of one option, written in every way that people write options. */
function casesOf(name: string, { type, ...arg }: ArgsDef[string], options: readonly string[]): Case[] {
  const option = `--${name}`;
  const alias = 'alias' in arg && arg.alias !== undefined ? [arg.alias].flat() : [];
  const spelled = (letters: string): string => `${letters.length === 1 ? '-' : '--'}${letters}`;
  const hint = `; did you mean ${option}?`;
  const value = type === 'boolean' ? [] : ['x'];
  const read = type === 'boolean' ? [option, '--'] : [`${option}=x`, '--'];
  const cases: Case[] = [
    { argv: [option, ...value], outcome: read },
    ...alias.map((other) => ({ argv: [spelled(other), ...value], outcome: read })),
    { argv: [option, ...value, option, ...value], outcome: `option ${option} given twice` },
    ...alias.map((other) => ({
      argv: [option, ...value, spelled(other), ...value],
      outcome: `options ${option} and ${spelled(other)} exclude each other`,
    })),
  ];
  if (!alias.includes(name) && name.length > 1) {
    cases.push(
      { argv: [`-${name}`, ...value], outcome: `unknown option -${name}${hint}` },
      { argv: [`-${name}=x`], outcome: `unknown option -${name}${hint}` },
    );
  }
  const no = `--no-${name}`;
  if (type === 'boolean') {
    cases.push(
      { argv: [`${option}=x`], outcome: `option ${option} takes no value` },
      { argv: [no], outcome: [no, '--'] },
      { argv: [option, no], outcome: `options ${option} and ${no} exclude each other` },
    );
    return cases;
  }
  const needs = `option ${option} needs a value`;
  cases.push(
    { argv: [option], outcome: needs },
    { argv: [option, '--', 'x'], outcome: needs },
    { argv: [option, '-x'], outcome: `${needs}; one that begins with a dash is given as ${option}=-x` },
    { argv: [option, '--x'], outcome: `${needs}; one that begins with a dash is given as ${option}=--x` },
    { argv: [`${option}=`], outcome: [`${option}=`, '--'] },
    { argv: [`${option}=-x`], outcome: [`${option}=-x`, '--'] },
    { argv: [`${option}=--x=y`], outcome: [`${option}=--x=y`, '--'] },
    { argv: [option, '-1'], outcome: [`${option}=-1`, '--'] },
    { argv: [option, '-0x10'], outcome: [`${option}=-0x10`, '--'] },
    { argv: [option, '-'], outcome: [`${option}=-`, '--'] },
    ...(options.includes(`no-${name}`) ? [] : [{ argv: [no, 'x'], outcome: `unknown option ${no}` }]),
  );
  return cases;
}

function outcomeOf(args: ArgsDef, argv: readonly string[], operands: boolean): string | readonly string[] {
  try {
    return checkedArguments(args, argv, 'x', { operands });
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as InputError).message.replace(/^x: /, '');
  }
}

describe.each(verbs)('%s', (_, verb: Verb) => {
  it('takes each of its options in every spelling that it has, and no other', async () => {
    const args: ArgsDef = (await resolved(verb.args)) ?? {};
    const options = Object.keys(args);
    for (const [name, arg] of Object.entries(args).filter(([, { type }]) => type !== 'positional')) {
      for (const { argv, outcome } of casesOf(name, arg, options)) {
        const wanted = typeof outcome === 'string' ? outcome : outcome.filter((word) => word !== '--');
        const got = outcomeOf(args, argv, false);
        expect([argv, typeof got === 'string' ? got : got.filter((word) => word !== '--')]).toEqual([
          argv,
          wanted,
        ]);
      }
      expect(outcomeOf(args, [`--${name}x`], false)).toMatch(`unknown option --${name}x; did you mean --`);
      expect(outcomeOf(args, [`--${name}-with-more`], false)).toBe(`unknown option --${name}-with-more`);
    }
  });

  it('takes as many words as it names, before "--" and behind', async () => {
    const args: ArgsDef = (await resolved(verb.args)) ?? {};
    const operands = verb.operands !== undefined;
    const words = Object.values(args)
      .filter(({ type }) => type === 'positional')
      .map((_positional, i) => `word${i}`);
    if (operands) {
      expect(outcomeOf(args, ['stray', '--', 'ls'], true)).toMatch(/the command stands behind "--"/);
      expect(outcomeOf(args, ['--', 'ls', '--policy', '-l'], true)).toEqual(['--', 'ls', '--policy', '-l']);
      return;
    }
    expect(outcomeOf(args, words, false)).toEqual(['--', ...words]);
    for (const stray of ['stray', '-', '--policy']) {
      expect(outcomeOf(args, [...words, '--', stray], false)).toBe(
        `unexpected argument ${JSON.stringify(stray)}`,
      );
    }
    expect(outcomeOf(args, [...words, 'stray'], false)).toBe('unexpected argument "stray"');
  });

  it('reads what was checked and nothing else', async () => {
    const args: ArgsDef = (await resolved(verb.args)) ?? {};
    for (const [name, { type }] of Object.entries(args).filter(([, arg]) => arg.type === 'string')) {
      const others = Object.entries(args).filter(([, arg]) => arg.type === 'positional');
      const required = Object.entries(args)
        .filter(([other, arg]) => other !== name && arg.type === 'string' && arg.required === true)
        .map(([other]) => `--${other}=needed`);
      const argv = [...others.map(([word]) => word), `--${name}=-x`, ...required];
      const parsed = parseArgs(checkedArguments(args, argv, 'x'), args);
      expect([name, type, parsed[name]]).toEqual([name, 'string', '-x']);
      for (const [word] of others) {
        expect(parsed[word]).toBe(word);
      }
    }
  });
});

describe('a command line that is wrong', () => {
  it.each([
    [
      'verfy report r',
      'softsnp: unknown command "verfy"; did you mean verify? [OPTION_INVALID]',
      'See softsnp --help.',
    ],
    [
      'verify reports r',
      'softsnp verify: unknown command "reports"; did you mean report? [OPTION_INVALID]',
      'See softsnp verify --help.',
    ],
    [
      'verify bogus',
      'softsnp verify: unknown command "bogus"; known: report, certs [OPTION_INVALID]',
      'See softsnp verify --help.',
    ],
    [
      'verify report r --cert x',
      'softsnp verify report: unknown option --cert; did you mean --certs? [OPTION_INVALID]',
      'See softsnp verify report --help.',
    ],
    [
      'verify report r --polcy=x',
      'softsnp verify report: unknown option --polcy; did you mean --policy? [OPTION_INVALID]',
      'See softsnp verify report --help.',
    ],
    [
      '--verison',
      'softsnp: unknown option --verison; did you mean --version? [OPTION_INVALID]',
      'See softsnp --help.',
    ],
    [
      'host config --hlep=x',
      'softsnp host config: unknown option --hlep; did you mean --help? [OPTION_INVALID]',
      'See softsnp host config --help.',
    ],
    [
      'verify --certs certs',
      'softsnp verify: unknown option --certs [OPTION_INVALID]',
      'See softsnp verify --help.',
    ],
    [
      'verify report --no-crl',
      'softsnp verify report: FILE is missing [OPTION_INVALID]',
      'Usage: softsnp verify report [OPTIONS] FILE. See softsnp verify report --help.',
    ],
    [
      'idblock check --json a',
      'softsnp idblock check: AUTH is missing [OPTION_INVALID]',
      'Usage: softsnp idblock check [OPTIONS] BLOCK AUTH. See softsnp idblock check --help.',
    ],
    [
      'idblock create --id-key k',
      'softsnp idblock create: --measurement is missing [OPTION_INVALID]',
      'Usage: softsnp idblock create [OPTIONS] --measurement HEX|BASE64 -idkey, --id-key FILE. See softsnp idblock create --help.',
    ],
    [
      'attest --smp 0',
      'softsnp: --smp: "0" is not a whole number from 1 to 4096 [OPTION_INVALID]',
      'See softsnp attest --help.',
    ],
  ])('softsnp %s', async (line, error, cure) => {
    expect(await said(...line.split(' '))).toEqual({
      ...{ code: 1, stdout: '' },
      stderr: `${error}\n  ${cure}\n`,
    });
  });

  it.each([
    ['show key', 'no P-384 key', /softsnp show certs/],
    ['idblock show', 'no ID block (96 bytes) and no ID auth (4096 bytes) and no P-384 key', /idblock create/],
    ['measure diff X', 'no file that measure --explain --json wrote', /--explain --json/],
    ['up --guests', 'not JSON', /The file is a list/],
    ['verify report X --trust', 'no root certificate', /the ARK/],
    ['kds fetch vcek --report', 'no report', /softsnp show report/],
  ])('that gives softsnp %s a file of another kind is told which kind', async (line, error, cure) => {
    const file = new URL(import.meta.url).pathname;
    const argv = [...line.split(' '), file].map((word) => (word === 'X' ? file : word));
    const { code, stderr } = await said(...argv);
    expect(code).toBe(1);
    const [first, second] = stderr.split('\n');
    expect(first).toContain(error);
    expect(second).toMatch(cure);
  });
});

describe('options that silently did nothing', () => {
  it.each([
    ['verify report r -policy p.json', /unknown option -policy; did you mean --policy\?/],
    ['verify report r -at 2025-01-01', /unknown option -at; did you mean --at\?/],
    ['verify report r -- --policy p.json', /unexpected argument "--policy"/],
    ['verify report r --no-trust x', /unknown option --no-trust/],
    ['verify report r --crl c --no-crl', /options --crl and --no-crl exclude each other/],
    ['verify report r --no-crl --crl=c', /options --no-crl and --crl exclude each other/],
    ['attest -smp 4', /unknown option -smp/],
    ['measure -guest-features 0x21', /unknown option -guest-features; did you mean --guest-features\?/],
    ['measure snp -v -v', /option -v given twice/],
    ['measure snp --v', /unknown option --v; did you mean -v\?/],
    ['measure -- snp', /unexpected argument "snp"/],
    ['exec ls', /unexpected argument "ls": the command stands behind "--"/],
  ])('softsnp %s', async (line, message) => {
    const { code, stderr } = await said(...line.split(' '));
    expect(stderr).toMatch(message);
    expect(code).toBe(1);
  });
});

/** How a verb that throws this ends: exit code and what is said. */
async function endOf(error: unknown): Promise<{ code: number; said: string }> {
  const verb: Verb = defineCommand({
    run: () => {
      throw error;
    },
  });
  let said = '';
  const output = {
    stdout: () => undefined,
    stderr: (text: string) => {
      said += text;
    },
  };
  return { code: await runCli(verb, [], '0', output), said };
}

describe('a verb that throws', () => {
  it.each([
    ['what the caller got wrong', new InputError('OPTION_INVALID', 'wrong'), 1, 'OPTION_INVALID'],
    [
      'what the host lacks',
      new EnvironmentError('FUSE_UNAVAILABLE', 'missing', { where: '/dev/fuse' }),
      3,
      'FUSE_UNAVAILABLE',
    ],
    [
      'an exception of Node about the limit of open files',
      Object.assign(new TypeError('EMFILE'), { code: 'EMFILE', path: '/dist/x.js' }),
      3,
      'RESOURCES_EXHAUSTED',
    ],
    [
      'one about a full disk',
      Object.assign(new TypeError('ENOSPC'), { code: 'ENOSPC', syscall: 'write' }),
      3,
      'RESOURCES_EXHAUSTED',
    ],
  ])('%s ends with one line, what to do, and an exit code', async (_, error, code, name) => {
    const end = await endOf(error);
    expect(end.code).toBe(code);
    expect(end.said).toMatch(new RegExp(`^softsnp: .*\\[${name}\\]\\n {2}[A-Z].*\\n$`));
  });

  it.each([new BugError('impossible'), new TypeError('x is undefined'), 'text'])(
    'anything else (%s) is a defect, with its stack',
    async (error) => {
      const end = await endOf(error);
      expect(end.code).toBe(70);
      expect(end.said).toContain('This is a defect in softsnp');
    },
  );
});
