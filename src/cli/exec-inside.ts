// SPDX-License-Identifier: Apache-2.0
/** softsnp exec, in namespaces of its own: host, devices and key service around the command. */
import { join } from 'node:path';
import { emulatedCpuid } from '../devices/cpuid/answers.ts';
import { type ServedTree, serveTree } from '../devices/fuse/server.ts';
import { FaultPlan } from '../kds/index.ts';
import { InputError } from '../lib/errors.ts';
import { decodeHostState, type Processor } from '../machine/index.ts';
import type { CpuidTracing } from '../os/cpuid-tracer.ts';
import { machineCode } from '../os/machine-code.ts';
import { nodeCrypto, systemRandom } from '../os/node-crypto.ts';
import { PrivateTree } from '../os/private-tree.ts';
import { type CommandEnd, endAs, runCommand } from '../os/run-command.ts';
import { systemClock } from '../os/system-clock.ts';
import { cpuidDecoder } from '../os/x86-decoder.ts';
import { controlRequest } from '../service/control-client.ts';
import { pathsOf, treeOf } from '../service/device-tree.ts';
import type { HostStatus } from '../service/host-control.ts';
import type { ExecArgs } from './exec.ts';
import { guestSpecOf, guestWordsOf } from './guest-specs.ts';
import { CONTROL_SOCKET, defaultStateDir, STATE_FILE } from './host-state.ts';
import { type InterceptedKds, interceptKds, type KeyedHost } from './kds-intercept.ts';
import { type MachineOptions, readMachineOptions } from './machine-options.ts';
import { fileOption } from './options.ts';
import { openRunningHost, type RunningHost } from './running-host.ts';

/** The one guest of a host that lives as long as the command. */
const OWN_GUEST = 'guest';
const STATE_LIMIT_BYTES = 1 << 20;

/** What the command gets besides the devices. */
interface Wishes {
  readonly command: readonly string[];
  /** The key service under AMD's name. */
  readonly intercept: boolean;
  /** How CPUID is answered, when a processor is to be emulated at all. */
  readonly cpuid: ((processor: Processor) => CpuidTracing) | null;
}

/** Runs the command to its end; this process ends the same way. */
export async function runInside(args: ExecArgs, command: readonly string[]): Promise<never> {
  const options = readMachineOptions(args);
  const wishes = {
    command,
    intercept: args['kds-intercept'] === true,
    cpuid: args.cpuid === true ? cpuidAnswers() : null,
  };
  const end =
    args.guest === undefined
      ? await runOnOwnHost(args, options, wishes)
      : await runAsGuest(args.guest, options, wishes);
  endAs(end);
}

/** Loads what answering needs, so that what is missing is told before anything is started. */
function cpuidAnswers(): (processor: Processor) => CpuidTracing {
  const { cpuid } = machineCode();
  const offsets = cpuidDecoder();
  return (processor) => ({
    answer: emulatedCpuid(processor, cpuid),
    offsets,
    onUntold: (path, why) => {
      process.stderr.write(`softsnp: ${path} sees the real processor, for ${why}\n`);
    },
  });
}

async function runOnOwnHost(args: ExecArgs, options: MachineOptions, wishes: Wishes): Promise<CommandEnd> {
  const running = openRunningHost(options);
  try {
    const spec = guestSpecOf(running.opened.crypto, { name: OWN_GUEST, words: guestWordsOf(args) }, {});
    await running.addGuest(spec);
    const tree = new PrivateTree();
    const kds = wishes.intercept ? await interceptKds(tree, keysOf(running)) : null;
    const devices = await serveIn(tree, running, wishes);
    try {
      return await runIn(tree, kds, wishes, running.service.host.processor);
    } finally {
      await devices.close();
    }
  } finally {
    await running.close();
  }
}

/** Serves the devices of host and guest, to be seen at their paths. */
async function serveIn(
  tree: PrivateTree,
  { service, onFault }: RunningHost,
  { cpuid }: Wishes,
): Promise<ServedTree> {
  const places = {
    ...service.hostPlaces,
    ...(cpuid === null ? {} : service.processorPlaces),
    ...service.guests.get(OWN_GUEST)!.door.places,
  };
  const served = await serveTree(tree.folder(), { root: treeOf(places), onFault });
  showAll(tree, pathsOf(places), served.target);
  return served;
}

function keysOf({ opened, kdsFaults: faults, onFault }: RunningHost): KeyedHost {
  const { state, crypto, random, clock, directory } = opened;
  return { state, crypto, random, clock, faults, onFault, folder: directory.path };
}

/** The devices are those of a host that is running: this process only puts them in their places. */
async function runAsGuest(name: string, options: MachineOptions, wishes: Wishes): Promise<CommandEnd> {
  const folder = options.state ?? defaultStateDir(options.product ?? 'Milan');
  const status = (await controlRequest(join(folder, CONTROL_SOCKET), 'GET', '/v1/status')) as HostStatus;
  const guest = status.guests.find((candidate) => candidate.name === name);
  if (guest === undefined) {
    throw new InputError('GUEST_UNKNOWN', 'no guest of this host has the name', { where: `--guest ${name}` });
  }
  if (status.devices === null) {
    throw new InputError(
      'OPTION_INVALID',
      'the running host shows no devices: start softsnp up with --devices',
      {
        where: `--guest ${name}`,
      },
    );
  }
  const tree = new PrivateTree();
  const kds = wishes.intercept ? await interceptKds(tree, keysIn(status.state)) : null;
  const places = [...status.places, ...(wishes.cpuid === null ? [] : status.processor.places)];
  showAll(tree, places, join(status.devices, 'host'));
  showAll(tree, guest.places, join(status.devices, 'guests', name));
  return runIn(tree, kds, wishes, status.processor);
}

/** Read without the folder's lock: the secrets of a host never change. */
function keysIn(folder: string): KeyedHost {
  const path = join(folder, STATE_FILE);
  const crypto = nodeCrypto({ deterministic: false });
  return {
    ...{ folder, crypto },
    state: decodeHostState(crypto, fileOption('state', path, STATE_LIMIT_BYTES), path),
    random: systemRandom,
    clock: systemClock,
    faults: new FaultPlan(),
    onFault: (error, request) => {
      process.stderr.write(
        `softsnp: ${request}: ${error instanceof Error ? error.message : String(error)}\n`,
      );
    },
  };
}

function showAll(tree: PrivateTree, paths: readonly string[], below: string): void {
  for (const path of paths) {
    const isFolder = path.endsWith('/');
    const place = isFolder ? path.slice(0, -1) : path;
    tree.show(place, isFolder ? 'folder' : 'file', below + place);
  }
}

async function runIn(
  tree: PrivateTree,
  kds: InterceptedKds | null,
  { command, cpuid }: Wishes,
  processor: Processor,
): Promise<CommandEnd> {
  try {
    await tree.apply();
    const env = { ...process.env, ...kds?.env };
    return await runCommand(command, { env, cpuid: cpuid?.(processor) ?? null });
  } finally {
    await kds?.server.close();
  }
}
