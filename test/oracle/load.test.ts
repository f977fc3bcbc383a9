// SPDX-License-Identifier: Apache-2.0
/** Many clients of one guest for long: a C program that knows nothing of softsnp. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '../../src/cli/run.ts';
import { verifyVerb } from '../../src/cli/verify.ts';
import { systemClock } from '../../src/os/system-clock.ts';
import { controlRequest } from '../../src/service/control-client.ts';
import type { HostStatus } from '../../src/service/host-control.ts';
import { folderOf, identities, isRoot, LONG, Process, removeFolder } from '../service/softsnp.ts';
import { root } from './tools.ts';

/** What a warm host may still grow by: V8 doubles its young generation up to 32 MiB when it sees fit. A leak of 12 KiB a request would show. */
const SLACK_KIB = 48 * 1024;

const HEADERS = '#include <linux/sev-guest.h>\n#include <linux/psp-sev.h>\n';
const obstacle = !isRoot
  ? 'needs root'
  : spawnSync('cc', ['-xc', '-fsyntax-only', '-'], { input: HEADERS }).status !== 0
    ? 'cc or the kernel headers are missing'
    : identities[0]!.obstacle;
if (obstacle !== null) {
  console.warn(`SKIPPED: many clients at once: ${obstacle}`);
}

describe.skipIf(obstacle !== null)('clients of one guest', () => {
  let folder: string;
  let state: string;
  let device: string;
  let running: Process;
  beforeEach(async () => {
    folder = folderOf(identities[0]!);
    state = join(folder, 'state');
    const devices = join(folder, 'devices');
    device = join(devices, 'guests', 'guest', 'dev', 'sev-guest');
    const source = join(root, 'test', 'devices', 'client.c');
    execFileSync('cc', ['-O1', '-pthread', '-o', join(folder, 'client'), source]);
    running = new Process(['up', '--state', state, '--devices', devices], folder);
    await running.says('softsnp ready');
  });
  afterEach(async () => {
    running.child.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
    removeFolder(folder);
  });

  const client = (...args: string[]): ChildProcess =>
    spawn(join(folder, 'client'), args, { stdio: ['ignore', 'inherit', 'inherit'] });
  const hammer = (count: number, ...into: string[]): ChildProcess =>
    client('hammer', device, String(count), ...into);
  const codes = async (clients: readonly ChildProcess[]): Promise<number[]> => {
    const ends = await Promise.all(clients.map((each) => once(each, 'close')));
    return [...new Set(ends.map(([code, signal]) => signal ?? code))];
  };
  const facts = () => {
    const status = readFileSync(`/proc/${running.child.pid}/status`, 'utf8');
    return {
      descriptors: readdirSync(`/proc/${running.child.pid}/fd`).length,
      residentKiB: Number(/VmRSS:\s+(\d+)/.exec(status)![1]),
    };
  };
  const queued = async () => {
    const socket = join(state, 'control.sock');
    const { guests } = (await controlRequest(socket, 'GET', '/v1/status')) as HostStatus;
    return guests[0]!.requests;
  };
  const flat = async (warm: ReturnType<typeof facts>): Promise<void> => {
    await expect.poll(() => facts().descriptors).toBeLessThanOrEqual(warm.descriptors);
    expect(facts().residentKiB).toBeLessThan(warm.residentKiB + SLACK_KIB);
  };

  it('get 5000 reports of their own, 32 at once, some killed in the middle of an ioctl, and leave nothing behind', async () => {
    const [all, warmUp, count] = [5000, 1000, 32];
    const round = async (each: number): Promise<void> => {
      const clients = codes(Array.from({ length: count }, () => hammer(Math.ceil(each / count))));
      const victims = Array.from({ length: count / 4 }, () => hammer(1_000_000));
      const deaths = codes(victims);
      for (const victim of victims) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        victim.kill('SIGKILL');
      }
      expect([await deaths, await clients]).toEqual([['SIGKILL'], [0]]);
    };
    await round(warmUp);
    const warm = facts();
    await round(all - warmUp);
    await flat(warm);
    expect((await queued()).served).toBeGreaterThan(all);
    expect((await queued()).waiting).toBe(0);
  });

  it('are killed in the middle of an ioctl thousands of times, and the next one is served', async () => {
    const count = LONG ? 10_000 : 1000;
    expect(await codes([client('kill', device, String(count / 5))])).toEqual([0]);
    const warm = facts();
    expect(await codes([client('kill', device, String(count))])).toEqual([0]);
    await flat(warm);
    expect(await codes([hammer(10)])).toEqual([0]);
    await expect.poll(async () => (await queued()).waiting).toBe(0);
  });

  it('are a thousand at once, and each gets answers of its own in its turn, the last of which verifies', async () => {
    const [count, each] = [1000, LONG ? 100 : 10];
    const out = join(folder, 'out');
    mkdirSync(out);
    // As many at once as later on: each that waits takes some memory, which V8 keeps.
    expect(await codes(Array.from({ length: count }, () => hammer(3)))).toEqual([0]);
    const warm = facts();
    expect(await codes(Array.from({ length: count }, () => hammer(each, out)))).toEqual([0]);
    const files = (ending: string): string[] =>
      readdirSync(out).filter((name) => name.endsWith(`.${ending}`));

    const requests = files('times').flatMap((name) => {
      const { buffer, byteOffset, length } = readFileSync(join(out, name));
      const times = new Float64Array(buffer.slice(byteOffset, byteOffset + length));
      return Array.from({ length: times.length / 2 }, (_, i) => [times[2 * i]!, times[2 * i + 1]!] as const);
    });
    expect(requests.length).toBe(count * each);
    // They wait in one line: while one waits hardly more are answered than stood before it. How long that takes
    // is the machine's affair.
    const ends = Float64Array.from(requests, ([, end]) => end).sort();
    const meanwhile = requests.map(([begin, end]) => rank(ends, end) - rank(ends, begin));
    meanwhile.sort((x, y) => x - y);
    expect(meanwhile[Math.floor(0.99 * meanwhile.length)]).toBeLessThan(1.2 * count);
    expect(meanwhile.at(-1)).toBeLessThan(2 * count);

    const seen = new Set<string>();
    const quiet = { stdout: () => undefined, stderr: () => undefined };
    const verify = verifyVerb(quiet, { clock: systemClock, kdsTiming: {} });
    for (const name of files('report')) {
      const report = join(out, name);
      const table = report.replace(/report$/, 'certs');
      const args = ['report', report, '--table', table, '--no-crl', '--trust', 'softsnp:milan'];
      expect(await runCli(verify, args, '0', quiet), name).toBe(0);
      seen.add(readFileSync(report).toString('latin1'));
    }
    expect(seen.size).toBe(count);
    await flat(warm);
  });
});

/** How many of these sorted numbers are smaller. */
function rank(sorted: Float64Array, number: number): number {
  let [from, to] = [0, sorted.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (sorted[middle]! < number) {
      from = middle + 1;
    } else {
      to = middle;
    }
  }
  return from;
}
