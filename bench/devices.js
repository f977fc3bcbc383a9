// SPDX-License-Identifier: Apache-2.0
/** What the way through the kernel costs: reports by ioctl on the emulated device beside the same requests in process. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { SnpGuestIoctl, SnpReportReq } from '../dist/abi/dev-sev-guest.js';
import { serveTree } from '../dist/devices/fuse/server.js';
import { sevGuestPlaces } from '../dist/devices/sev-guest/files.js';
import { treeOf } from '../dist/service/device-tree.js';
import { GuestQueue } from '../dist/service/guest-driver.js';
import { launched, median, sleep } from './machine.js';

const CLIENT = fileURLToPath(new URL('device-client.js', import.meta.url));
/** As long as a new host takes until the compiler has seen its requests. */
const WARM_UP = 1500;
const ROUNDS = 10;
const ROUND_REQUESTS = 150;
const CLIENTS = [1, 8, 32];
const THROUGHPUT_REQUESTS = 3000;

const percentile = (values, share) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))];

/** Clients with the device open, each a process of its own. */
async function startClients(device, count) {
  return Promise.all(
    Array.from({ length: count }, async () => {
      const client = fork(CLIENT, [device], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
      await once(client, 'message');
      return client;
    }),
  );
}

async function ask(client, count) {
  client.send({ count });
  const waiting = new AbortController();
  const { signal } = waiting;
  const ended = once(client, 'exit', { signal }).then(() => {
    throw new TypeError('a client ended');
  });
  ended.catch(() => undefined);
  const [{ seconds }] = await Promise.race([once(client, 'message', { signal }), ended]);
  waiting.abort();
  return seconds;
}

async function stop(clients) {
  await Promise.all(
    clients.map((client) => {
      client.disconnect();
      return once(client, 'exit');
    }),
  );
}

/** The same requests through the queue that the device puts them in, without a device. */
async function inProcess(queue, count) {
  const req_data = SnpReportReq.encode({});
  const seconds = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const { ret } = await queue.driver({
      ...{ cmd: SnpGuestIoctl.SNP_GET_REPORT, msg_version: 1 },
      ...{ req_data, resp_data: true },
    });
    seconds.push((performance.now() - start) / 1e3);
    if (ret !== 0) {
      throw new TypeError(`SNP_GET_REPORT: ${ret}`);
    }
  }
  return seconds;
}

async function latency(queue, device) {
  const [client] = await startClients(device, 1);
  await inProcess(queue, WARM_UP);
  await ask(client, WARM_UP);
  const [direct, through] = [[], []];
  // Turns, so that a busy neighbour slows both alike.
  for (let round = 0; round < ROUNDS; round++) {
    direct.push(...(await inProcess(queue, ROUND_REQUESTS)));
    through.push(...(await ask(client, ROUND_REQUESTS)));
  }
  await stop([client]);
  const extraMs = (share) => 1e3 * (percentile(through, share) - percentile(direct, share));
  return {
    device_ioctl_extra_ms: {
      value: extraMs(0.5),
      unit: 'ms',
      ceiling: 0.5,
      ratio_to: 'the same request in process',
      note: `medians ${(1e3 * median(through)).toFixed(3)} and ${(1e3 * median(direct)).toFixed(3)}`,
    },
    device_ioctl_extra_p99_ms: {
      value: extraMs(0.99),
      unit: 'ms',
      note: `99th percentiles ${(1e3 * percentile(through, 0.99)).toFixed(3)} and ${(1e3 * percentile(direct, 0.99)).toFixed(3)}`,
    },
  };
}

async function throughput(device) {
  const results = {};
  for (const count of CLIENTS) {
    const clients = await startClients(device, count);
    const each = Math.ceil(THROUGHPUT_REQUESTS / count);
    const start = performance.now();
    await Promise.all(clients.map((client) => ask(client, each)));
    const seconds = (performance.now() - start) / 1e3;
    await stop(clients);
    results[`device_requests_per_s_${count}`] = {
      value: (each * count) / seconds,
      unit: '1/s',
      note: `${count} client${count === 1 ? '' : 's'}, ${each * count} requests`,
    };
  }
  return results;
}

async function run() {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-bench-'));
  const { guest } = launched(2 ** 30);
  guest.boot(sleep);
  const queue = new GuestQueue({
    guest,
    sleep: (ms) => new Promise((resolve) => (ms === 0 ? setImmediate(resolve) : setTimeout(resolve, ms))),
    onEnd: () => undefined,
  });
  let served;
  try {
    served = await serveTree(folder, {
      root: treeOf(sevGuestPlaces({ driver: queue.driver })),
      onFault: (error) => process.stderr.write(`bench: ${error}\n`),
    });
  } catch (error) {
    rmSync(folder, { recursive: true });
    return { device_ioctl_extra_ms: { value: null, unit: 'ms', note: error.message } };
  }
  try {
    const device = join(served.target, 'dev', 'sev-guest');
    return { ...(await latency(queue, device)), ...(await throughput(device)) };
  } finally {
    await served.close();
    rmSync(folder, { recursive: true });
  }
}

export const deviceBenches = [
  {
    names: [
      'device_ioctl_extra_ms',
      'device_ioctl_extra_p99_ms',
      ...CLIENTS.map((count) => `device_requests_per_s_${count}`),
    ],
    run,
  },
];
