// SPDX-License-Identifier: Apache-2.0
/**
 * node bench/soak.js [MINUTES]: a softsnp up under load and mixed faults, a day with 1440. Clients ask for
 * reports without a pause and are killed, keys change, guests come and go, blobs are locked and spoilt; now and
 * then a report is verified. A line each minute says what the process has.
 *
 * Exit code 1 when a request was answered wrongly, or when what is promised does not hold: descriptors are
 * constant; event-loop delay is below 20 ms at the 99th percentile, where the machine is quiet enough to tell;
 * resident memory grows by less than 1 MB/h, from an hour on.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ensureBuilt } from '../bin/build.js';

ensureBuilt();
const { controlRequest } = await import('../dist/service/control-client.js');
const { tryLock } = await import('../dist/os/ofd-lock.js');

const idle = monitorEventLoopDelay({ resolution: 5 });
idle.enable();

const minutes = Number(process.argv[2] ?? 2);
const file = (path) => fileURLToPath(new URL(path, import.meta.url));
const BIN = file('../bin/softsnp.js');
const CLIENTS = 8;
const EVERY_MS = Math.min(60_000, (minutes * 60_000) / 8);
/** Delay at the 99th percentile, in a process with nothing to do (this one), of a machine that is busy with others. */
const BUSY_MS = 3;
/** While the compiler sees the code and V8 finds its size. */
const WARM_UP_SHARE = 0.25;

const folder = mkdtempSync(join(tmpdir(), 'softsnp-soak-'));
const [state, devices, log] = ['state', 'devices', 'log'].map((name) => join(folder, name));
const clientProgram = join(folder, 'client');
execFileSync('cc', ['-O1', '-pthread', '-o', clientProgram, file('../test/devices/client.c')]);

const up = spawn(
  process.execPath,
  [
    ...['--import', file('loop-monitor.js'), BIN, 'up', '--state', state, '--devices', devices],
    ...['--guests', '2', '--mem', '64M'],
  ],
  {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, SOAK_LOG: log, SOAK_EVERY_MS: String(EVERY_MS) },
  },
);
const upEnded = once(up, 'close');
await once(up.stdout, 'data');

const ask = (method, path, body) => controlRequest(join(state, 'control.sock'), method, path, body);
const device = (guest) => join(devices, 'guests', guest, 'dev', 'sev-guest');
const wrong = [];
const until = Date.now() + minutes * 60_000;

/** A client that asks until it is killed; one that ends by itself was answered wrongly. */
function client(guest) {
  const child = spawn(clientProgram, ['hammer', device(guest), '1000000000'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.on('data', (chunk) => {
    said += chunk;
  });
  child.once('close', (_, signal) => {
    if (signal !== 'SIGKILL') {
      wrong.push(`a client of ${guest}: ${said.trim()}`);
    }
  });
  return child;
}

/** Gets a report with certificates and verifies it, as a relying party would. */
async function verify(guest) {
  const files = [join(folder, 'report.bin'), join(folder, 'certs.bin')];
  const asked = ['guest', 'ext-report', '--device', device(guest), '--out', files[0], '--certs', files[1]];
  const judged = ['verify', 'report', files[0], '--table', files[1], '--no-crl', '--trust', 'softsnp:milan'];
  for (const args of [asked, judged]) {
    const child = spawn(process.execPath, [BIN, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
    const [code] = await once(child, 'close');
    if (code !== 0) {
      wrong.push(`softsnp ${args[0]} ${args[1]}: exit code ${code}`);
    }
  }
}

const random = (limit) => Math.floor(Math.random() * limit);
const clients = Array.from({ length: CLIENTS }, (_, i) => client(`guest-${1 + (i % 2)}`));

const FAULTS = {
  'kill a client': () => {
    const i = random(CLIENTS);
    clients[i].kill('SIGKILL');
    clients[i] = client(`guest-${1 + (i % 2)}`);
  },
  'lower the TCB': () => ask('PATCH', '/v1/config', { reported_tcb: `3,0,23,${200 + random(14)}` }),
  'reset the TCB': () => ask('DELETE', '/v1/config'),
  'load a VLEK': () => ask('PUT', '/v1/vlek'),
  'remove the VLEK': () => ask('DELETE', '/v1/vlek'),
  'a guest comes and goes': async () => {
    await ask('POST', '/v1/guests', { name: 'passing' });
    await ask('DELETE', '/v1/guests/passing');
  },
  'certificates are busy': () => ask('POST', '/v1/faults', { rule: 'certs=busy*1', guest: 'guest-1' }),
  'a blob is locked': async () => {
    const { guests } = await ask('GET', '/v1/status');
    const fd = openSync(guests[random(2)].certs, 'r+');
    const held = tryLock(fd, 'write') === 'locked';
    await pause(held ? 200 : 0);
    closeSync(fd);
  },
  'verify a report': () => verify(`guest-${1 + random(2)}`),
};

let shown = 0;
function show() {
  const samples = samplesOf();
  for (const { seconds, rss, heapUsed, descriptors, p99Ms, maxMs } of samples.slice(shown)) {
    const numbers = [
      `${Math.round(seconds)} s`,
      `resident ${(rss / 1e6).toFixed(1)} MB`,
      `heap ${(heapUsed / 1e6).toFixed(1)} MB`,
      `descriptors ${descriptors}`,
      `loop delay p99 ${p99Ms.toFixed(1)} ms, most ${maxMs.toFixed(0)} ms`,
    ];
    process.stdout.write(`${numbers.join('  ')}\n`);
  }
  shown = samples.length;
}

function samplesOf() {
  try {
    return readFileSync(log, 'utf8').trim().split('\n').map(JSON.parse);
  } catch {
    return [];
  }
}

const names = Object.keys(FAULTS);
while (Date.now() < until && wrong.length === 0) {
  const name = names[random(names.length)];
  try {
    await FAULTS[name]();
  } catch (error) {
    wrong.push(`${name}: ${error.message}`);
  }
  show();
  await pause(500 + random(4000));
}

const { guests } = await ask('GET', '/v1/status');
const served = guests.reduce((sum, { requests }) => sum + requests.served, 0);
for (const each of clients) {
  each.kill('SIGKILL');
}
up.kill('SIGTERM');
const [code] = await upEnded;
if (code !== 0) {
  wrong.push(`softsnp up: exit code ${code}`);
}

const warm = samplesOf().slice(Math.ceil(samplesOf().length * WARM_UP_SHARE));
/** Slope of the least-squares line, in MB/h. */
function slope(samples) {
  const mean = (of) => samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
  const [meanT, meanRss] = [mean(({ seconds }) => seconds), mean(({ rss }) => rss)];
  const above = mean(({ seconds, rss }) => (seconds - meanT) * (rss - meanRss));
  const below = mean(({ seconds }) => (seconds - meanT) ** 2);
  return ((above / below) * 3600) / 1e6;
}
const growth = slope(warm);
const p99 = warm.map(({ p99Ms }) => p99Ms).toSorted((a, b) => a - b)[warm.length >> 1];
const descriptors = warm.map((sample) => sample.descriptors);
const idleP99 = idle.percentile(99) / 1e6 - 5;
const isBusy = idleP99 >= BUSY_MS;
if (p99 >= 20 && !isBusy) {
  wrong.push(`event-loop delay ${p99.toFixed(1)} ms at the 99th percentile`);
}
// Those of a change that is under way come and go.
if (Math.min(...descriptors.slice(-3)) > Math.max(...descriptors.slice(0, 3))) {
  wrong.push(`descriptors grew: ${descriptors.join(' ')}`);
}
if (minutes >= 60 && growth >= 1) {
  wrong.push(`resident memory grows by ${growth.toFixed(2)} MB/h`);
}
process.stdout.write(
  `${served} requests in ${minutes} min, resident memory ${growth.toFixed(2)} MB/h, loop delay p99 ${p99.toFixed(1)} ms\n`,
);
if (isBusy) {
  process.stdout.write(
    `the delay is not judged: a process with nothing to do has ${idleP99.toFixed(1)} ms here\n`,
  );
}
for (const what of wrong) {
  process.stdout.write(`WRONG: ${what}\n`);
}
rmSync(folder, { recursive: true, force: true });
process.exitCode = wrong.length === 0 ? 0 : 1;
