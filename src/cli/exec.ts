// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp exec: a command that finds an SNP guest and its host where it runs.
 *
 * This half starts in the user's world and has nothing to do there but to leave it; the other half,
 * exec-inside.ts, is read in the new namespaces alone.
 */
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { InputError } from '../lib/errors.ts';
import { arrivedDescriptors, arrivedInNamespaces, enterNamespaces } from '../os/namespaces.ts';
import { detachAfterKill } from './after-kill.ts';
import { KDS_ARGS } from './kds-service-options.ts';
import { MACHINE_ARGS } from './machine-args.ts';
import type { Verb } from './run.ts';

const ARGS = {
  ...MACHINE_ARGS,
  guest: {
    type: 'string',
    valueHint: 'NAME',
    description:
      'Be this guest of the host that softsnp up runs, with --devices; --state or --chip says which host',
  },
  'kds-intercept': {
    type: 'boolean',
    description: 'Give the command a network of its own in which kdsintf.amd.com is the emulated key service',
  },
  ...KDS_ARGS,
  cpuid: {
    type: 'boolean',
    description:
      'Answer the CPUID instructions of the command as the processor of the host would, for programs that look for an EPYC (by ptrace; x86-64 alone)',
  },
} as const satisfies ArgsDef;

export type ExecArgs = ParsedArgs<typeof ARGS>;

/** Options that say which running host it is; the others of the machine it had when it was started. */
const OF_A_RUNNING_HOST: readonly string[] = ['state', 'chip'];
/** An orderly end is given this long. */
const END_TIMEOUT_MS = 5000;

const verb = defineCommand({
  meta: {
    name: 'exec',
    description:
      'Run a command that sees /dev/sev-guest, /dev/sev and configfs-tsm of a softsnp host. Exit code: that of the command; 1 wrong usage, 3 the machine or the kernel refused',
  },
  args: ARGS,
  run: async ({ args, rawArgs }) => {
    const command = commandOf(rawArgs);
    checkOptions(args, rawArgs);
    if (!arrivedInNamespaces()) {
      if (args.guest === undefined) {
        await detachAfterKill(args);
      }
      enterNamespaces({ network: args['kds-intercept'] === true, fuse: args.guest === undefined });
    }
    const descriptors = arrivedDescriptors();
    const { runInside } = await import('./exec-inside.ts');
    try {
      return await runInside(args, { command, descriptors });
    } catch (error) {
      // The exit code is set by then; what may still be open must not keep the caller waiting.
      setTimeout(() => process.exit(), END_TIMEOUT_MS).unref();
      throw error;
    }
  },
});

export const execCommand: Verb = { ...verb, operands: '-- COMMAND [ARGUMENT...]' };

function commandOf(rawArgs: readonly string[]): readonly string[] {
  const at = rawArgs.indexOf('--');
  const command = at < 0 ? [] : rawArgs.slice(at + 1);
  if (command.length === 0) {
    throw new InputError('OPTION_INVALID', 'a command is needed: softsnp exec [options] -- COMMAND', {
      where: 'softsnp exec',
    });
  }
  return command;
}

/** Refuses options that would have no effect. */
function checkOptions(args: ExecArgs, rawArgs: readonly string[]): void {
  const given = new Set(
    rawArgs
      .slice(0, rawArgs.indexOf('--'))
      .filter((word) => word.startsWith('--'))
      .map((word) => word.slice(2).split('=')[0]!),
  );
  const refuse = (names: object, but: readonly string[], why: string): void => {
    const name = Object.keys(names).find((candidate) => given.has(candidate) && !but.includes(candidate));
    if (name !== undefined) {
      throw new InputError('OPTION_INVALID', why, { where: `--${name}` });
    }
  };
  if (args.guest !== undefined) {
    refuse(
      MACHINE_ARGS,
      OF_A_RUNNING_HOST,
      'a host that runs already is not changed by it; leave out --guest',
    );
    refuse(KDS_ARGS, [], 'a host that runs already was told by softsnp up, or is by softsnp ctl fault add');
  }
  if (args['kds-intercept'] !== true) {
    refuse(KDS_ARGS, [], 'needs --kds-intercept');
  }
}
