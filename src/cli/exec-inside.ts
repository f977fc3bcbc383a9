// SPDX-License-Identifier: Apache-2.0
/** softsnp exec, in namespaces of its own: host, devices and key service around the command. */
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { emulatedCpuid } from '../devices/cpuid/answers.ts';
import { serveTree } from '../devices/fuse/server.ts';
import { InputError } from '../lib/errors.ts';
import type { Processor } from '../machine/index.ts';
import type { CpuidTracing } from '../os/cpuid-tracer.ts';
import { machineCode } from '../os/machine-code.ts';
import { privateFolder } from '../os/private-folder.ts';
import { PrivateTree } from '../os/private-tree.ts';
import { type CommandEnd, endAs, runCommand } from '../os/run-command.ts';
import { cpuidDecoder } from '../os/x86-decoder.ts';
import { controlRequest } from '../service/control-client.ts';
import { pathsOf, treeOf } from '../service/device-tree.ts';
import type { HostStatus } from '../service/host-control.ts';
import { remoteKds } from '../service/kds-door.ts';
import type { ExecArgs } from './exec.ts';
import { findControlSocket } from './find-host.ts';
import { guestSpecOf, guestWordsOf } from './guest-specs.ts';
import { interceptKds, type KdsToIntercept } from './kds-intercept.ts';
import { readKdsOptions } from './kds-service-options.ts';
import { type MachineOptions, readMachineOptions } from './machine-options.ts';
import { openRunningHost } from './running-host.ts';

/** The one guest of a host that lives as long as the command. */
const OWN_GUEST = 'guest';

/** What is to be run. */
export interface CommandToRun {
  readonly command: readonly string[];
  /** Descriptors above 2 that it is to have. */
  readonly descriptors: readonly number[];
}

/** What a part that was started needs to end, in the order of the starts. */
type Closing = (() => Promise<void> | void)[];

/** What is around the command; each part says how it ends as soon as it has begun. */
interface Stage {
  readonly tree: PrivateTree;
  readonly closing: Closing;
  /** Key service under AMD's name. */
  readonly intercept: boolean;
  /** How CPUID is answered, when a processor is to be emulated at all. */
  readonly cpuid: ((processor: Processor) => CpuidTracing) | null;
  /** Folder in memory that is gone with this namespace. */
  readonly private: string;
}

/** Where the command finds what. */
interface Scene {
  readonly processor: Processor;
  /** The key service to intercept, when that was asked for. */
  readonly kds: KdsToIntercept;
}

/** Runs the command to its end; this process ends the same way. */
export async function runInside(args: ExecArgs, run: CommandToRun): Promise<never> {
  const options = readMachineOptions(args);
  const cpuid = args.cpuid === true ? cpuidAnswers() : null;
  const folder = privateFolder();
  const scratch = join(folder, 'tree');
  mkdirSync(scratch);
  const stage: Stage = {
    tree: new PrivateTree(scratch),
    closing: [],
    intercept: args['kds-intercept'] === true,
    cpuid,
    private: folder,
  };
  endAs(await play(args, options, stage, run));
}

async function play(
  args: ExecArgs,
  options: MachineOptions,
  stage: Stage,
  { command, descriptors }: CommandToRun,
): Promise<CommandEnd> {
  try {
    const scene =
      args.guest === undefined
        ? await setUpHost(args, options, stage)
        : await setUpGuest(args.guest, args, stage);
    const environment = await setUpKds(scene.kds, stage);
    await stage.tree.apply();
    const cpuid = stage.cpuid?.(scene.processor) ?? null;
    return await runCommand(command, { env: environment(process.env), cpuid, descriptors });
  } finally {
    for (const close of stage.closing.reverse()) {
      await close();
    }
  }
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

/** Starts a host with one guest and serves the devices of both, to be seen at their paths. */
async function setUpHost(args: ExecArgs, options: MachineOptions, stage: Stage): Promise<Scene> {
  const { tree, closing, cpuid } = stage;
  // Secrets of a seed have no other place than the namespace in which they are used.
  const state = options.state ?? (options.seed === null ? null : join(stage.private, 'state'));
  const running = openRunningHost({ ...options, state }, readKdsOptions(args));
  closing.push(() => running.close());
  const { opened, service, onFault, kds } = running;
  const spec = guestSpecOf(opened.crypto, { name: OWN_GUEST, words: guestWordsOf(args) }, {});
  const { door } = await running.addGuest(spec);
  const places = {
    ...service.hostPlaces,
    ...(cpuid === null ? {} : service.processorPlaces),
    ...door.places,
  };
  const served = await serveTree(tree.folder(), { root: treeOf(places), onFault });
  closing.push(() => served.close());
  showAll(tree, pathsOf(places), served.target);
  return {
    processor: service.host.processor,
    kds: { kds, folder: opened.directory.path, csp: opened.state.csp, onFault },
  };
}

/** The devices are those of a host that is running: this process only puts them in their places. */
async function setUpGuest(name: string, args: ExecArgs, { tree, cpuid }: Stage): Promise<Scene> {
  const socket = await findControlSocket(args);
  const status = (await controlRequest(socket, 'GET', '/v1/status')) as HostStatus;
  const guest = status.guests.find((candidate) => candidate.name === name);
  const where = `--guest ${name}`;
  if (guest === undefined) {
    throw new InputError('GUEST_UNKNOWN', 'no guest of this host has the name', { where });
  }
  if (status.devices === null) {
    const message = 'the running host shows no devices: start softsnp up with --devices';
    throw new InputError('OPTION_INVALID', message, { where });
  }
  const places = [...status.places, ...(cpuid === null ? [] : status.processor.places)];
  showAll(tree, places, join(status.devices, 'host'));
  showAll(tree, guest.places, join(status.devices, 'guests', name));
  return {
    processor: status.processor,
    kds: {
      kds: remoteKds(socket, name),
      folder: dirname(socket),
      csp: status.csp,
      onFault: (error, request) => {
        const what = error instanceof Error ? error.message : String(error);
        process.stderr.write(`softsnp: ${request}: ${what}\n`);
      },
    },
  };
}

/** Returns  what makes the command's environment of ours */
async function setUpKds(
  kds: KdsToIntercept,
  { tree, closing, intercept }: Stage,
): Promise<(outer: NodeJS.ProcessEnv) => NodeJS.ProcessEnv> {
  if (!intercept) {
    return (outer) => outer;
  }
  const { server, environment } = await interceptKds(tree, kds);
  closing.push(() => server.close());
  return environment;
}

function showAll(tree: PrivateTree, paths: readonly string[], below: string): void {
  for (const path of paths) {
    const isFolder = path.endsWith('/');
    const place = isFolder ? path.slice(0, -1) : path;
    tree.show(place, isFolder ? 'folder' : 'file', below + place);
  }
}
