// SPDX-License-Identifier: Apache-2.0
/** Many clients of one guest for long: a C program that knows nothing of softsnp. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { controlRequest } from '../../src/service/control-client.ts';
import type { HostStatus } from '../../src/service/host-control.ts';
import { folderOf, identities, isRoot, Process, removeFolder } from '../service/softsnp.ts';
import { root } from './tools.ts';

const CLIENTS = 32;
const REQUESTS = 5000;
/** After these nothing may grow any more. */
const WARM_UP = 1000;
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

describe.skipIf(obstacle !== null)(`${CLIENTS} clients at once`, () => {
  it(`get ${REQUESTS} reports of their own, some killed in the middle of an ioctl, and leave nothing behind`, async () => {
    const folder = folderOf(identities[0]!);
    const program = join(folder, 'client');
    const source = join(root, 'test', 'devices', 'client.c');
    expect(spawnSync('cc', ['-O1', '-pthread', '-o', program, source]).status).toBe(0);
    const devices = join(folder, 'devices');
    const state = join(folder, 'state');
    const running = new Process(['up', '--state', state, '--devices', devices], folder);
    try {
      await running.says('softsnp ready');
      const device = join(devices, 'guests', 'guest', 'dev', 'sev-guest');
      const hammer = (count: number): ChildProcess =>
        spawn(program, ['hammer', device, String(count)], { stdio: ['ignore', 'inherit', 'inherit'] });
      const facts = () => {
        const status = readFileSync(`/proc/${running.child.pid}/status`, 'utf8');
        return {
          descriptors: readdirSync(`/proc/${running.child.pid}/fd`).length,
          residentKiB: Number(/VmRSS:\s+(\d+)/.exec(status)![1]),
        };
      };
      const round = async (requests: number): Promise<void> => {
        const clients = Array.from({ length: CLIENTS }, () => hammer(Math.ceil(requests / CLIENTS)));
        const victims = Array.from({ length: CLIENTS / 4 }, () => hammer(1_000_000));
        const ends = Promise.all(clients.map((client) => once(client, 'close')));
        const deaths = Promise.all(victims.map((victim) => once(victim, 'close')));
        for (const victim of victims) {
          await new Promise((resolve) => setTimeout(resolve, 20));
          victim.kill('SIGKILL');
        }
        expect((await deaths).map(([, signal]) => signal)).toEqual(victims.map(() => 'SIGKILL'));
        expect((await ends).map(([code]) => code)).toEqual(clients.map(() => 0));
      };
      await round(WARM_UP);
      const warm = facts();
      await round(REQUESTS - WARM_UP);
      await expect.poll(() => facts().descriptors).toBeLessThanOrEqual(warm.descriptors);
      expect(facts().residentKiB).toBeLessThan(warm.residentKiB + SLACK_KIB);
      const { guests } = (await controlRequest(
        join(state, 'control.sock'),
        'GET',
        '/v1/status',
      )) as HostStatus;
      expect(guests[0]!.requests.served).toBeGreaterThan(REQUESTS);
      expect(guests[0]!.requests.waiting).toBe(0);
    } finally {
      running.child.kill('SIGTERM');
      await running.ended;
      removeFolder(folder);
    }
  });
});
