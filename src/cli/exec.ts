// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp exec: a command that finds an SNP guest and its host where it runs.
 *
 * This half starts in the user's world and has nothing to do there but to leave it; the other half,
 * exec-inside.ts, is read in the new namespaces alone.
 */
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { InputError } from '../lib/errors.ts';
import { arrivedInNamespaces, enterNamespaces } from '../os/namespaces.ts';
import { MACHINE_ARGS } from './machine-args.ts';
import type { Verb } from './run.ts';

const ARGS = {
  ...MACHINE_ARGS,
  guest: {
    type: 'string',
    valueHint: 'NAME',
    description: 'Be this guest of the host that softsnp up runs on the state folder, with --devices',
  },
  'kds-intercept': {
    type: 'boolean',
    description: 'Give the command a network of its own in which kdsintf.amd.com is the emulated key service',
  },
  cpuid: {
    type: 'boolean',
    description:
      'Answer the CPUID instructions of the command as the processor of the host would, for programs that look for an EPYC (by ptrace; x86-64 alone)',
  },
} as const satisfies ArgsDef;

export type ExecArgs = ParsedArgs<typeof ARGS>;

const verb = defineCommand({
  meta: {
    name: 'exec',
    description:
      'Run a command that sees /dev/sev-guest, /dev/sev and configfs-tsm of a softsnp host. Exit code: that of the command; 1 wrong usage, 3 the machine or the kernel refused',
  },
  args: ARGS,
  run: async ({ args, rawArgs }) => {
    const command = commandOf(rawArgs);
    if (!arrivedInNamespaces()) {
      enterNamespaces({ network: args['kds-intercept'] === true, fuse: args.guest === undefined });
    }
    const { runInside } = await import('./exec-inside.ts');
    return runInside(args, command);
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
