// SPDX-License-Identifier: Apache-2.0
/** softsnp exec: a command that finds an SNP guest and its host where it runs. */
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import type { FsNode } from '../devices/fuse/filesystem.ts';
import { type ServedTree, serveTree } from '../devices/fuse/server.ts';
import { InputError } from '../lib/errors.ts';
import { arrivedInNamespaces, enterNamespaces } from '../os/namespaces.ts';
import { PrivateTree } from '../os/private-tree.ts';
import { type CommandEnd, endAs, runCommand } from '../os/run-command.ts';
import { type Places, treeOf } from '../service/device-tree.ts';
import { type GuestWords, guestSpecOf, guestWordsOf } from './guest-specs.ts';
import { interceptKds } from './kds-intercept.ts';
import { MACHINE_ARGS, type MachineOptions, readMachineOptions } from './machine-options.ts';
import type { Verb } from './run.ts';
import { openRunningHost, type RunningHost } from './running-host.ts';

const GUEST_NAME = 'guest';

const ARGS = {
  ...MACHINE_ARGS,
  'kds-intercept': {
    type: 'boolean',
    description: 'Give the command a network of its own in which kdsintf.amd.com is the emulated key service',
  },
} as const satisfies ArgsDef;

type Args = ParsedArgs<typeof ARGS>;

export const execCommand: Verb = defineCommand({
  meta: {
    name: 'exec',
    description:
      'Run a command that sees /dev/sev-guest, /dev/sev and configfs-tsm of a softsnp host: softsnp exec [options] -- COMMAND [ARGUMENT...]. Exit code: that of the command; 1 wrong usage, 3 the machine or the kernel refused',
  },
  args: ARGS,
  run: ({ args, rawArgs }) => runExec(args, commandOf(rawArgs)),
});

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

async function runExec(args: Args, command: readonly string[]): Promise<never> {
  const options = readMachineOptions(args);
  const intercept = args['kds-intercept'] === true;
  if (!arrivedInNamespaces()) {
    enterNamespaces({ network: intercept });
  }
  endAs(await runInside(options, guestWordsOf(args), intercept, command));
}

async function runInside(
  options: MachineOptions,
  guestWords: GuestWords,
  intercept: boolean,
  command: readonly string[],
): Promise<CommandEnd> {
  const running = openRunningHost(options);
  try {
    const spec = guestSpecOf(running.opened.crypto, { name: GUEST_NAME, words: guestWords }, {});
    const served = await running.addGuest(spec);
    const tree = new PrivateTree();
    const kds = intercept ? await interceptKds(tree, running) : null;
    const devices = await showPlaces(tree, { ...running.service.hostPlaces, ...served.places }, running);
    await tree.apply();
    const end = await runCommand(command, { ...process.env, ...kds?.env });
    await Promise.all([devices.close(), kds?.server.close()]);
    return end;
  } finally {
    running.close();
  }
}

/** Serves the files and asks for each to be seen at its path. */
async function showPlaces(tree: PrivateTree, places: Places, { onFault }: RunningHost): Promise<ServedTree> {
  const served = await serveTree(tree.folder(), { root: treeOf(places), onFault });
  for (const [path, node] of Object.entries(places)) {
    tree.show(path, kindOf(node), served.target + path);
  }
  return served;
}

const kindOf = ({ kind }: FsNode): 'file' | 'folder' => (kind === 'file' ? 'file' : 'folder');
