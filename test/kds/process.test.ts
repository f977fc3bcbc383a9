// SPDX-License-Identifier: Apache-2.0
/** softsnp kds serve as a process: signals, lost readers, several on one folder, and clients that flood it. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { formatKdsTarget } from '../../src/kds/index.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { seededRandom } from '../../src/os/node-crypto.ts';
import { bin, Process } from '../service/softsnp.ts';
import { ask, CHIPS, CSP, hwid, tcbOf } from './setup.ts';

const LONG = process.env['SOFTSNP_LONG'] === '1';

beforeAll(() => {
  // Builds once; the processes of a test would all do it at the same time.
  execFileSync(process.execPath, [bin, '--version']);
}, 60_000);

let folder: string;
let running: Process[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-kds-process-'));
  running = [];
  const { product, secret, csp } = CHIPS.Milan;
  writeFileSync(
    join(folder, 'fleet.json'),
    JSON.stringify({
      softsnp_fleet: 1,
      chips: [{ product, chip_secret: toHex(secret), csp }],
      providers: [{ csp: CSP, csp_secret: toHex(seededRandom(11).bytes(48)) }],
    }),
  );
});
afterEach(async () => {
  for (const { child, ended } of running) {
    child.kill('SIGKILL');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

interface Ready {
  readonly http: string;
  readonly tls: string;
  readonly provider: string;
  readonly root: string;
}

async function serve(...args: string[]): Promise<{ service: Process; ready: Ready }> {
  const service = new Process(['kds', 'serve', '--fleet', 'fleet.json', '--json', ...args], folder);
  running.push(service);
  await service.says('\n');
  return { service, ready: JSON.parse(service.stdout.split('\n')[0]!) as Ready };
}

const CRL = '/vcek/v1/Milan/crl';
const VCEK = formatKdsTarget({ type: 'vcek', product: 'Milan', hwid: hwid('Milan'), tcb: tcbOf('Milan') });
const VLEK = formatKdsTarget({ type: 'vlek', product: 'Milan', tcb: tcbOf('Milan') });

const isRefused = (base: string): Promise<boolean> =>
  ask(base, CRL).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'ECONNREFUSED',
  );

describe('softsnp kds serve', () => {
  it('shares a new TLS folder with others that start at the same time; each ends on its signal', async () => {
    const signals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;
    const args = ['--listen', '0', '--tls', '0', '--provider', '0', '--tls-dir', 'tls'];
    const services = await Promise.all(signals.map(() => serve(...args)));
    const text = (name: string): string => readFileSync(join(folder, 'tls', name), 'utf8');
    const ca = text('root.pem');
    const [cert, key] = [text('client-cloud.example.pem'), text('client-cloud.example.key')];
    for (const [i, { service, ready }] of services.entries()) {
      expect(ready.root).toBe(join(folder, 'tls', 'root.pem'));
      expect((await ask(ready.tls, CRL, { ca })).status).toBe(200);
      expect((await ask(ready.provider, VLEK, { ca, cert, key })).status).toBe(200);
      service.child.kill(signals[i]);
      const { code, signal, stderr } = await service.ended;
      expect([signals[i], code, signal, stderr]).toEqual([signals[i], 0, null, '']);
      expect(await isRefused(ready.http)).toBe(true);
    }
    expect(readdirSync(join(folder, 'tls')).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  it('ends at once on a second signal, whatever is under way', async () => {
    const { service, ready } = await serve('--listen', '0', '--fault', 'vcek=silent', '--verbose');
    const unanswered = ask(ready.http, VCEK).catch((error: NodeJS.ErrnoException) => error.code);
    await service.says('"status":200');
    service.child.kill('SIGTERM');
    await expect.poll(() => isRefused(ready.http)).toBe(true);
    service.child.kill('SIGHUP');
    expect(await service.ended).toMatchObject({ code: 128 + 1, signal: null, stderr: '' });
    expect(await unanswered).toBe('ECONNRESET');
  });

  it('goes on when whoever read its log has gone', async () => {
    const { service, ready } = await serve('--listen', '0', '--verbose');
    service.child.stdout!.destroy();
    for (let i = 0; i < 3; i++) {
      expect((await ask(ready.http, CRL)).status).toBe(200);
    }
    service.child.kill('SIGTERM');
    expect(await service.ended).toMatchObject({ code: 0, stderr: '' });
  });
});

/** Milliseconds of requests one after the other, each on a connection of its own, in order of size. */
async function timesOf(base: string, target: string, requests: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < requests; i++) {
    const started = performance.now();
    expect((await ask(base, target)).status).toBe(200);
    times.push(performance.now() - started);
  }
  return times.sort((a, b) => a - b);
}

/** Opens sockets that begin a request and go on with it a byte at a time; replaces those it loses. */
const SLOWLORIS = `
const { connect } = require('node:net');
const [port, count] = process.argv.slice(1).map(Number);
let open = 0;
const start = () => {
  const socket = connect(port, '127.0.0.1', () => {
    socket.write('GET /vcek/v1/Mi');
    open += 1;
    if (open === count) process.stdout.write('all');
  });
  const drip = setInterval(() => socket.write('l'), 1000);
  socket.on('error', () => {});
  socket.on('close', () => { clearInterval(drip); setTimeout(start, 1000); });
};
for (let i = 0; i < count; i++) setTimeout(start, i / 2);`;

/** Sends requests on one connection as fast as they are taken, and reads the answers. */
const PIPELINING = `
const { connect } = require('node:net');
const [port, , target] = process.argv.slice(1);
const requests = ('GET ' + target + ' HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n').repeat(300);
const socket = connect(Number(port), '127.0.0.1');
const send = () => { while (socket.write(requests)); };
socket.on('connect', send).on('drain', send).on('error', () => {});
socket.once('data', () => process.stdout.write('all')).resume();`;

describe.runIf(LONG)('a flood', () => {
  it.each([
    ['5000 slow connections', SLOWLORIS, ''],
    ['one connection that sends requests for lists ahead', PIPELINING, CRL],
    ['one connection that sends requests for certificates ahead', PIPELINING, VCEK],
    ['one connection that sends requests for nothing ahead', PIPELINING, '/'],
  ])('of %s leaves others their answers in time', { timeout: 120_000 }, async (_what, script, target) => {
    const { service, ready } = await serve('--listen', '0');
    await timesOf(ready.http, CRL, 200);
    const oneCertificate = (await timesOf(ready.http, VCEK, 50))[25]!;
    const attacker = spawn(process.execPath, ['-e', script, new URL(ready.http).port, '5000', target], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      await new Promise((resolve) => {
        attacker.stdout.once('data', resolve);
      });
      const p99 = (await timesOf(ready.http, CRL, 500))[495]!;
      process.stderr.write(`${p99.toFixed(1)} ms; one certificate ${oneCertificate.toFixed(1)} ms\n`);
      // Nobody waits for more than a few answers to others; a machine with other work takes its time for each.
      expect(p99).toBeLessThan(Math.max(50, 4 * oneCertificate));
    } finally {
      attacker.kill('SIGKILL');
    }
    const status = readFileSync(`/proc/${service.child.pid}/status`, 'utf8');
    expect(Number(/VmHWM:\s+(\d+) kB/.exec(status)![1])).toBeLessThan(400_000);
    service.child.kill('SIGTERM');
    expect(await service.ended).toMatchObject({ code: 0, stderr: '' });
  });
});
