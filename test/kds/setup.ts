// SPDX-License-Identifier: Apache-2.0
/** A key service with a chip of every product line on a loopback port, for the tests of this folder. */
import { request as httpRequest, type IncomingHttpHeaders, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import type { ProductLine } from '../../src/abi/product.ts';
import type { TcbParts } from '../../src/abi/tcb-version.ts';
import {
  FaultPlan,
  Fleet,
  type FleetChip,
  hwidOfChipId,
  type KdsLogEntry,
  type KdsServer,
  type KdsServerOptions,
  KdsService,
  type KdsServiceOptions,
  parseFaultRules,
  startKdsServer,
} from '../../src/kds/index.ts';
import { chipIdOf } from '../../src/keys/index.ts';
import { VirtualClock } from '../../src/lib/clock.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';

export const crypto = nodeCrypto({ deterministic: false });
export const NOW_MS = Date.UTC(2026, 10, 21, 9, 0, 0);
export const CSP = 'CN=cloud.example';
export const OTHER_CSP = 'CN=other.example';

const secretOf = (seed: number): Uint8Array => seededRandom(seed).bytes(48);

export const chipOf = (product: ProductLine, seed: number, csp: string | null = CSP): FleetChip => ({
  product,
  secret: secretOf(seed),
  chipId: chipIdOf(crypto, secretOf(seed), product),
  csp,
  highestTcb: null,
});

export const CHIPS = {
  Milan: chipOf('Milan', 1),
  Genoa: chipOf('Genoa', 2),
  Turin: chipOf('Turin', 3),
} as const;
export const FOREIGN_CHIP = chipOf('Milan', 4, OTHER_CSP);

export const fleet = new Fleet(crypto, {
  chips: [...Object.values(CHIPS), FOREIGN_CHIP],
  providers: [
    { csp: CSP, secret: secretOf(11) },
    { csp: OTHER_CSP, secret: secretOf(12) },
  ],
});

export const hwid = (product: ProductLine): string => hwidOfChipId(product, CHIPS[product].chipId)!;

export const tcbOf = (product: ProductLine, more: Partial<TcbParts> = {}): TcbParts => ({
  fmc: product === 'Turin' ? 1 : 0,
  boot_loader: 3,
  tee: 0,
  snp: 23,
  microcode: 213,
  ...more,
});

export interface TestService {
  readonly server: KdsServer;
  readonly service: KdsService;
  readonly clock: VirtualClock;
  readonly faults: FaultPlan;
  readonly log: KdsLogEntry[];
}

/** Starts a service, runs the test, and closes it whatever happened. */
export async function withService(
  options: Partial<KdsServiceOptions> & Partial<KdsServerOptions> & { readonly fault?: string },
  test: (running: TestService) => Promise<void>,
): Promise<void> {
  const clock = new VirtualClock(NOW_MS);
  const faults = new FaultPlan(options.fault === undefined ? [] : parseFaultRules(options.fault));
  const service = new KdsService({ fleet, clock, random: seededRandom(99), faults, ...options });
  const log: KdsLogEntry[] = [];
  const failures: unknown[] = [];
  const server = await startKdsServer({
    http: { host: '127.0.0.1', port: 0 },
    ...options,
    service,
    limits: { graceMs: 50, ...options.limits },
    onAnswer: (entry) => {
      log.push(entry);
    },
    onFault: (error) => {
      failures.push(error);
    },
  });
  try {
    await test({ server, service, clock, faults, log });
  } finally {
    await server.close();
  }
  if (failures.length > 0) {
    throw failures[0];
  }
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** One request as it is written: neither the path nor anything else is tidied up on the way. */
export function ask(
  base: string,
  path: string,
  options: RequestOptions & {
    readonly content?: string;
    readonly ca?: string;
    cert?: string;
    key?: string;
  } = {},
): Promise<Reply> {
  const { hostname, port, protocol } = new URL(base);
  const send = protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    const request = send(
      { hostname: hostname.replace(/[[\]]/g, ''), port, path, agent: false, ...options },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) });
        });
      },
    );
    request.on('error', reject);
    request.end(options.content);
  });
}

/** Sends bytes on a connection of their own and gives back everything until it ends. */
export function askRaw(base: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(base);
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    let text = '';
    socket.setEncoding('latin1');
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      resolve(text);
    });
  });
}
