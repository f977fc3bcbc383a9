// SPDX-License-Identifier: Apache-2.0
/** `softsnp kds serve`: the key service of a host or of a whole fleet, until a signal ends it. */
import { join, resolve } from 'node:path';
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import {
  FaultPlan,
  Fleet,
  type KdsLogEntry,
  type KdsServer,
  KdsService,
  type ListenAddress,
  MAX_FLEET_BYTES,
  parseFaultRules,
  parseFleet,
  parseRate,
  startKdsServer,
} from '../kds/index.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';
import { decodeHostState } from '../machine/state.ts';
import { nodeCrypto, systemRandom } from '../os/node-crypto.ts';
import { shutdownSignal } from '../os/shutdown.ts';
import { systemClock } from '../os/system-clock.ts';
import { STATE_FILE } from './host-state.ts';
import { type TlsFiles, tlsFiles } from './kds-tls-files.ts';
import { fileOption } from './options.ts';
import { EXIT_OK, type Output, type Verb } from './run.ts';

const DEFAULT_LISTEN = '127.0.0.1:8480';
const STATE_LIMIT_BYTES = 1 << 20;

const ARGS = {
  state: { type: 'string', valueHint: 'DIR', description: 'Serve the chip of this host' },
  fleet: { type: 'string', valueHint: 'FILE', description: 'Serve the chips of this fleet file' },
  listen: {
    type: 'string',
    valueHint: 'HOST:PORT',
    description: `Plain HTTP; ${DEFAULT_LISTEN} when no port is given at all`,
  },
  tls: {
    type: 'string',
    valueHint: 'HOST:PORT',
    description: 'HTTPS as kdsintf.amd.com, AMD’s port 443',
  },
  provider: {
    type: 'string',
    valueHint: 'HOST:PORT',
    description: 'HTTPS with client certificates for VLEKs and hash sticks, AMD’s port 444',
  },
  'tls-dir': {
    type: 'string',
    valueHint: 'DIR',
    description:
      'Keeps the TLS root (root.pem, for trust stores) and client certificates; DIR/tls of --state',
  },
  rate: {
    type: 'string',
    valueHint: 'N/TIME',
    description: '429 beyond this many requests per address and VCEK: 1/10s, or amd for what AMD does',
  },
  'retry-after': { type: 'boolean', description: 'Say in a 429 when to come back' },
  fault: {
    type: 'string',
    valueHint: 'RULES',
    description: 'Wrong answers, such as vcek=500*2,crl=slow: docs/reference/kds-http.md',
  },
  json: { type: 'boolean', description: 'One JSON object per line' },
  verbose: { type: 'boolean', alias: 'v', description: 'A line for every answer' },
} as const satisfies ArgsDef;

type Args = ParsedArgs<typeof ARGS>;

/** `softsnp kds serve`, writing to `output` and serving until the promise resolves. */
export function kdsServeVerb(output: Output, untilEnd: () => Promise<unknown> = shutdownSignal): Verb {
  return defineCommand({
    meta: {
      name: 'serve',
      description:
        'Serve AMD’s key service for softsnp chips. Prints a line when it is ready; SIGTERM, SIGINT and SIGHUP end it. Exit codes: 0 ended by a signal, 1 wrong usage or unreadable files, 3 the system refused',
    },
    args: ARGS,
    run: ({ args }) => serve(args, output, untilEnd),
  });
}

async function serve(args: Args, output: Output, untilEnd: () => Promise<unknown>): Promise<number> {
  const crypto = nodeCrypto({ deterministic: false });
  const fleet = fleetOf(args, crypto);
  const ports = portsOf(args);
  const isTls = ports.tls !== undefined || ports.provider !== undefined;
  if (!isTls && args['tls-dir'] !== undefined) {
    throw new InputError('OPTION_INVALID', 'is for --tls and --provider', { where: '--tls-dir' });
  }
  const misbehaviour = misbehaviourOf(args);
  const tls = isTls ? tlsOf(args, fleet) : null;
  const service = new KdsService({
    fleet,
    clock: systemClock,
    random: systemRandom,
    ...misbehaviour,
  });
  const ended = untilEnd();
  for (const warning of tls?.warnings ?? []) {
    output.stderr(`softsnp: ${warning}\n`);
  }
  const server = await startKdsServer({
    ...ports,
    service,
    ...(tls === null ? {} : { identity: tls.identity }),
    ...(args.verbose === true ? { onAnswer: (entry) => logAnswer(entry, args.json === true, output) } : {}),
    onFault: (error, request) => {
      output.stderr(
        `softsnp: ${request} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
      );
    },
  });
  output.stdout(readyLine(server, tls, fleet, args.json === true));
  await ended;
  await server.close();
  return EXIT_OK;
}

function misbehaviourOf({ fault, rate, 'retry-after': retryAfter }: Args) {
  if (rate === undefined && retryAfter === true) {
    throw new InputError('OPTION_INVALID', 'is for --rate', { where: '--retry-after' });
  }
  return {
    faults: new FaultPlan(fault === undefined ? [] : parseFaultRules(fault)),
    ...(rate === undefined ? {} : { rate: parseRate(rate), retryAfter: retryAfter === true }),
  };
}

function fleetOf({ state, fleet }: Args, crypto: MachineCrypto): Fleet {
  if ((state === undefined) === (fleet === undefined)) {
    throw new InputError('OPTION_INVALID', 'give one of --state and --fleet', { where: 'softsnp kds serve' });
  }
  if (fleet !== undefined) {
    return parseFleet(crypto, fileOption('fleet', fleet, MAX_FLEET_BYTES), fleet);
  }
  // Read without the folder's lock: its secrets never change, and a host may be running on it.
  const path = join(state!, STATE_FILE);
  return Fleet.ofHost(crypto, decodeHostState(crypto, fileOption('state', path, STATE_LIMIT_BYTES), path));
}

function portsOf({ listen, tls, provider }: Args) {
  const isDefault = listen === undefined && tls === undefined && provider === undefined;
  const at = (name: string, text: string | undefined): ListenAddress | undefined =>
    text === undefined ? undefined : addressOption(name, text);
  const [http, https, clients] = [
    at('listen', isDefault ? DEFAULT_LISTEN : listen),
    at('tls', tls),
    at('provider', provider),
  ];
  return {
    ...(http === undefined ? {} : { http }),
    ...(https === undefined ? {} : { tls: https }),
    ...(clients === undefined ? {} : { provider: clients }),
  };
}

/** HOST:PORT, [HOST]:PORT for IPv6, or PORT on the loopback interface. */
export function addressOption(name: string, text: string): ListenAddress {
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([^[\]:]+)):)?([0-9]{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(text)} is not HOST:PORT`, {
      where: `--${name}`,
    });
  }
  return { host: match[1] ?? match[2] ?? '127.0.0.1', port };
}

function tlsOf(args: Args, fleet: Fleet): TlsFiles {
  const folder = args['tls-dir'] ?? (args.state === undefined ? undefined : join(args.state, 'tls'));
  if (folder === undefined) {
    throw new InputError('OPTION_INVALID', 'a place for the TLS root is needed', { where: '--tls-dir' });
  }
  const csps = fleet.providers.map(({ csp }) => csp);
  return tlsFiles(resolve(folder), csps, systemClock.nowMs(), systemRandom);
}

function readyLine(server: KdsServer, tls: TlsFiles | null, fleet: Fleet, json: boolean): string {
  const { http, tls: https, provider } = server;
  const facts = { http, tls: https, provider, root: tls?.root ?? null, chips: fleet.chips.length };
  if (json) {
    return `${JSON.stringify({ event: 'ready', ...facts })}\n`;
  }
  const words = Object.entries(facts)
    .filter(([, value]) => value !== null)
    .map(([key, value]) => `${key}=${value}`);
  return `softsnp kds ready ${words.join(' ')}\n`;
}

function logAnswer(entry: KdsLogEntry, json: boolean, output: Output): void {
  if (json) {
    output.stdout(`${JSON.stringify({ event: 'answer', ...entry })}\n`);
    return;
  }
  const { method, target, status, bytes, source, port, csp, fault } = entry;
  // The target is the client's: quoted, it cannot write lines or colours of its own.
  const line = `${source} ${port} ${method} ${JSON.stringify(target)} ${status} ${bytes}`;
  output.stderr(
    `${line}${csp === null ? '' : ` ${JSON.stringify(csp)}`}${fault === null ? '' : ` fault=${fault}`}\n`,
  );
}
