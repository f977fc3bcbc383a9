// SPDX-License-Identifier: Apache-2.0
/** softsnp up: a host that goes on running, with several guests, devices, a key service and a control socket. */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { type KdsServer, startKdsServer } from '../kds/index.ts';
import { InputError } from '../lib/errors.ts';
import { makeFolder } from '../os/make-folder.ts';
import { sdNotify } from '../os/sd-notify.ts';
import { shutdownSignal } from '../os/shutdown.ts';
import { type ControlServer, startControlServer } from '../service/control-server.ts';
import { type DeviceFolder, detachRecorded, serveDevices, systemFolder } from '../service/device-folder.ts';
import { HostControl } from '../service/host-control.ts';
import { type GuestWords, guestSpecOf, guestsOption, guestWordsOf } from './guest-specs.ts';
import { CONTROL_SOCKET, defaultStateDir, MOUNT_RECORD } from './host-state.ts';
import { addressOption } from './kds-serve.ts';
import { KDS_ARGS, readKdsOptions } from './kds-service-options.ts';
import { MACHINE_ARGS } from './machine-args.ts';
import { type MachineOptions, readMachineOptions } from './machine-options.ts';
import { EXIT_OK, type Verb } from './run.ts';
import { openRunningHost, type RunningHost } from './running-host.ts';

const ARGS = {
  ...MACHINE_ARGS,
  guests: {
    type: 'string',
    valueHint: 'FILE|N',
    description: 'JSON file with the guests, or so many alike (one if left out)',
  },
  devices: {
    type: 'string',
    valueHint: 'DIR|system',
    description: 'Show the devices below this folder, or at the paths of the system itself',
  },
  kds: {
    type: 'string',
    valueHint: '[HOST:]PORT',
    description: 'Serve the key service of this host in plain HTTP; 0 takes a free port',
  },
  ...KDS_ARGS,
  detach: { type: 'boolean', description: 'Return when the host is ready; it goes on in the background' },
} as const satisfies ArgsDef;

type Args = ParsedArgs<typeof ARGS>;

export const upCommand: Verb = defineCommand({
  meta: {
    name: 'up',
    description:
      'Run a host until SIGTERM. Prints one line when it is ready; softsnp ctl talks to it. Exit codes: 0 ended by a signal, 1 wrong usage, 3 the machine or the system refused',
  },
  args: ARGS,
  run: ({ args }) => {
    const options = readMachineOptions(args);
    return args.detach === true ? detach(options) : run(args, options);
  },
});

/** In the state folder. */
const LOG_FILE = 'up.log';

async function run(args: Args, options: MachineOptions): Promise<number> {
  const asked = shutdownSignal();
  const running = openRunningHost(options, readKdsOptions(args));
  const closing: (() => Promise<void>)[] = [];
  try {
    process.stdout.write(await start(args, running, closing));
    sdNotify(['READY=1', `STATUS=${running.service.guests.size} guests`]);
    const signal = await asked;
    sdNotify(['STOPPING=1', `STATUS=ended by ${signal}`]);
    return EXIT_OK;
  } finally {
    for (const close of closing.reverse()) {
      await close();
    }
    await running.close();
  }
}

/** Starts all parts, the control socket last; the line that says so. */
async function start(args: Args, running: RunningHost, closing: (() => Promise<void>)[]): Promise<string> {
  const { opened, service } = running;
  await detachRecorded(opened.directory.fileOf(MOUNT_RECORD));
  const defaults = guestWordsOf(args);
  const guests = guestsOption(args.guests);
  for (const guest of guests) {
    await running.addGuest(guestSpecOf(opened.crypto, guest, defaults));
  }
  const devices = args.devices === undefined ? null : await startDevices(args.devices, running);
  closing.push(async () => devices?.close());
  const kds = args.kds === undefined ? null : await startKds(args.kds, running);
  closing.push(async () => kds?.close());
  const control = await startControl(running, devices, kds, defaults);
  closing.push(() => control.close());
  const facts = {
    pid: process.pid,
    state: opened.directory.path,
    control: control.path,
    guests: [...service.guests.keys()].join(','),
    devices: devices?.target,
    kds: kds?.http,
  };
  const words = Object.entries(facts).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  return `softsnp ready ${words.join(' ')}\n`;
}

function startDevices(where: string, { opened, service, onFault }: RunningHost): Promise<DeviceFolder> {
  const isSystem = where === 'system';
  const [first] = service.guests.keys();
  if (isSystem && first === undefined) {
    throw new InputError('OPTION_INVALID', 'the system cannot be a guest when there is none', {
      where: '--devices system',
    });
  }
  return serveDevices({
    ...{ service, onFault },
    onMissing: (line) => onFault(line, '--devices system'),
    folder: isSystem ? systemFolder(opened.directory.path) : where,
    system: isSystem ? first! : null,
    record: opened.directory.fileOf(MOUNT_RECORD),
  });
}

function startKds(where: string, { kds, onFault }: RunningHost): Promise<KdsServer> {
  return startKdsServer({ service: kds, http: addressOption('kds', where), onFault });
}

function startControl(
  running: RunningHost,
  devices: DeviceFolder | null,
  kds: KdsServer | null,
  defaults: GuestWords,
): Promise<ControlServer> {
  const { opened, service, onFault } = running;
  const control = new HostControl({
    ...{ service, kds: running.kds },
    surroundings: () => ({
      state: opened.directory.path,
      pid: process.pid,
      devices: devices?.target ?? null,
      system: devices?.system ?? null,
      kds: kds?.http ?? null,
    }),
    guestSpec: (name, words) => guestSpecOf(opened.crypto, { name, words }, defaults),
    keptSpec: (name, words) => guestSpecOf(opened.crypto, { name, words }, {}),
  });
  return startControlServer({ control, path: opened.directory.fileOf(CONTROL_SOCKET), onFault });
}

/** Starts this program again without --detach, in a session of its own, and waits for its ready line. */
async function detach(options: MachineOptions): Promise<number> {
  const folder = options.state ?? defaultStateDir(options.product ?? 'Milan');
  if (options.seed !== null && options.state === null) {
    throw new InputError('OPTION_INVALID', 'a host in the background needs a state folder to be found by', {
      where: '--detach with --seed',
    });
  }
  makeFolder(folder, 0o700);
  const logPath = join(folder, LOG_FILE);
  const log = openSync(logPath, 'a', 0o600);
  const before = statSync(logPath).size;
  const words = process.argv.slice(1).filter((word) => word !== '--detach');
  const child = spawn(process.execPath, [...process.execArgv, ...words], {
    detached: true,
    stdio: ['ignore', 'pipe', log],
  });
  closeSync(log);
  const code = await new Promise<number | null>((resolve) => {
    let line = '';
    child.stdout!.on('data', (chunk: Buffer) => {
      line += chunk.toString();
      if (line.includes('\n')) {
        process.stdout.write(line);
        resolve(null);
      }
    });
    child.once('exit', (exitCode) => resolve(exitCode ?? 1));
  });
  if (code !== null) {
    process.stderr.write(readFileSync(logPath).subarray(before));
    return code;
  }
  child.stdout!.destroy();
  child.unref();
  return EXIT_OK;
}
