// SPDX-License-Identifier: Apache-2.0
/** softsnp exec and up as processes: exit codes, signals, and what is left of them. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { VCEK_GUID } from '../../src/abi/cert-table.ts';
import { decodeCertificateTable } from '../../src/certs/table.ts';
import { controlRequest } from '../../src/service/control-client.ts';
import type { HostStatus } from '../../src/service/host-control.ts';
import {
  bin,
  folderOf,
  identities,
  isRoot,
  LONG,
  mountsBelow,
  Process,
  processesIn,
  removeFolder,
  softsnp,
} from './softsnp.ts';

beforeAll(() => {
  // Builds once, as somebody who may write to dist/.
  execFileSync(process.execPath, [bin, '--version']);
}, 60_000);

const INSIDE = `
set -e
$SOFTSNP guest ext-report --out report.bin --certs certs.bin > report.txt
$SOFTSNP host status > status.txt
mkdir /sys/kernel/config/tsm/report/entry
head -c 64 /dev/zero > /sys/kernel/config/tsm/report/entry/inblob
cat /sys/kernel/config/tsm/report/entry/outblob > outblob
rmdir /sys/kernel/config/tsm/report/entry
head -c 4 /dev/urandom > /dev/null
exit 7`;

describe.each(identities)('softsnp exec as $who', (identity) => {
  const skip = identity.obstacle !== null;
  const skipDetails = skip || (!LONG && identity !== identities.at(-1));
  let folder: string;
  beforeEach(() => {
    folder = folderOf(identity);
  });
  afterEach(async () => {
    await expect.poll(() => processesIn(folder)).toEqual([]);
    expect(mountsBelow('/').filter((line) => line.includes(folder))).toEqual([]);
    removeFolder(folder);
  });
  const exec = (...args: string[]) => softsnp(['exec', ...args], folder, identity.options);

  it.skipIf(skip)('runs a command that finds the devices, and ends with its exit code', async () => {
    const { code, stderr, stdout } = await exec('--', 'sh', '-c', INSIDE);
    expect({ code, stderr, stdout }).toEqual({ code: 7, stderr: '', stdout: '' });
    expect(statSync(join(folder, 'outblob')).size).toBe(1184);
    expect(statSync(join(folder, 'report.bin')).size).toBe(1184);
    expect(readFileSync(join(folder, 'status.txt'), 'utf8')).toMatch(/4,0,24,219/);
    expect(decodeCertificateTable(readFileSync(join(folder, 'certs.bin'))).length).toBe(3);
  });

  it.skipIf(skipDetails)('gives the command a network with the key service in it, over TLS', async () => {
    const script =
      "fetch('https://kdsintf.amd.com/vcek/v1/Milan/cert_chain').then(async (r) => process.exit((await r.text()).includes('BEGIN CERTIFICATE') ? 4 : 5))";
    const { code, stderr } = await exec('--kds-intercept', '--', process.execPath, '-e', script);
    expect({ code, stderr }).toEqual({ code: 4, stderr: '' });
  });

  it.skipIf(skipDetails)('answers 127 for a command that is not there, and 1 for none', async () => {
    expect((await exec('--', 'no-such-command')).code).toBe(127);
    expect(await exec('--seed', '1')).toMatchObject({ code: 1, stderr: /a command is needed/ });
  });

  it.skipIf(skipDetails)(
    'passes signals on: SIGINT is the command’s to handle, SIGTERM ends it',
    async () => {
      const args = (command: string) => ['exec', '--', 'sh', '-c', command];
      const handles = new Process(
        args('trap "exit 5" INT; echo up; sleep 30 & wait'),
        folder,
        identity.options,
      );
      await handles.says('up');
      handles.child.kill('SIGINT');
      expect((await handles.ended).code).toBe(5);
      const dies = new Process(args('echo up; sleep 30 & wait'), folder, identity.options);
      await dies.says('up');
      dies.child.kill('SIGTERM');
      expect((await dies.ended).signal).toBe('SIGTERM');
    },
  );

  it.skipIf(skipDetails)(
    'takes everything along when it is killed, and starts again on the same state',
    async () => {
      const killed = new Process(
        ['exec', '--', 'sh', '-c', 'echo up; sleep 30 & wait'],
        folder,
        identity.options,
      );
      await killed.says('up');
      killed.child.kill('SIGKILL');
      await killed.ended;
      expect((await exec('--', 'test', '-e', '/dev/sev-guest')).code).toBe(0);
    },
  );

  it
    .skipIf(skipDetails || spawnSync('script', ['--version']).status !== 0)
    .each(LONG ? ['exec', 'exec --cpuid'] : ['exec'])(
    'lets Ctrl-C at a terminal reach the command, once: %s',
    async (verb) => {
      const command = `exec ${process.execPath} ${bin} ${verb} -- sh -c 'trap "echo caught; exit 6" INT; echo up; sleep 30 & wait'`;
      const terminal = spawn('script', ['-qefc', command, '/dev/null'], {
        ...{ cwd: folder, stdio: ['pipe', 'pipe', 'inherit'], ...identity.options },
        env: { PATH: process.env['PATH'], HOME: folder, SHELL: '/bin/sh' },
      });
      let seen = '';
      terminal.stdout!.on('data', (chunk) => {
        seen += String(chunk);
      });
      await expect.poll(() => seen, { timeout: 10_000 }).toContain('up');
      terminal.stdin!.write('\x03');
      expect((await once(terminal, 'close'))[0]).toBe(6);
      expect(seen.match(/caught/g)).toEqual(['caught']);
    },
  );
});

describe.skipIf(identities[0]!.obstacle !== null)('softsnp up', () => {
  const identity = identities[0]!;
  let folder: string;
  let state: string;
  beforeEach(() => {
    folder = folderOf(identity);
    state = join(folder, 'state');
  });
  afterEach(async () => {
    for (const pid of processesIn(folder)) {
      process.kill(pid, 'SIGTERM');
    }
    await expect.poll(() => mountsBelow(folder)).toEqual([]);
    removeFolder(folder);
  });
  const up = async (...args: string[]): Promise<Process> => {
    const running = new Process(['up', '--state', state, ...args], folder, identity.options);
    await running.says('softsnp ready');
    return running;
  };
  const ctl = (...args: string[]) =>
    softsnp(['ctl', ...args, '--state', state, '--json'], folder, identity.options);
  const ask = (method: string, path: string, body?: unknown) =>
    controlRequest(join(state, 'control.sock'), method, path, body);
  const status = async () => (await ask('GET', '/v1/status')) as HostStatus;

  it('says one line when it is ready, and ends in order at SIGTERM', async () => {
    const running = await up('--guests', '2', '--kds', '0', '--devices', join(folder, 'devices'));
    expect(running.stdout).toMatch(
      /^softsnp ready pid=\d+ state=\S+ control=\S+control\.sock guests=guest-1,guest-2 devices=\S+ kds=http:\/\/127\.0\.0\.1:\d+\n$/,
    );
    const device = join(folder, 'devices', 'guests', 'guest-2', 'dev', 'sev-guest');
    const report = await softsnp(['guest', 'report', '--device', device], folder);
    expect(report).toMatchObject({ code: 0, stderr: '' });
    const { guests } = JSON.parse((await ctl('status')).stdout);
    expect(guests.map(({ requests }: HostStatus['guests'][number]) => requests.served)).toEqual([0, 1]);
    running.child.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
    expect(mountsBelow(folder)).toEqual([]);
    expect(existsSync(join(state, 'control.sock'))).toBe(false);
    expect((await ctl('status')).code).toBe(3);
  });

  it('keeps others out of its state folder, also those in the background', async () => {
    const first = await up();
    const second = await softsnp(['up', '--state', state, '--detach'], folder, identity.options);
    expect(second).toMatchObject({ code: 3, stderr: /STATE_BUSY/ });
    expect((await status()).pid).toBe(first.child.pid);
  });

  it('goes to the background with --detach, and keeps its chip over a restart', async () => {
    const started = await softsnp(['up', '--state', state, '--detach'], folder, identity.options);
    expect(started).toMatchObject({ code: 0, stdout: /^softsnp ready / });
    const before = await status();
    await ask('PATCH', '/v1/config', { reported_tcb: '3,0,23,200' });
    process.kill(before.pid, 'SIGTERM');
    await expect.poll(() => processesIn(folder)).toEqual([]);
    await up();
    expect(await status()).toMatchObject({ chip_id: before.chip_id, tcb: { reported: '3,0,23,200' } });
  });

  it('tells a service manager that it is ready and that it ends', async (context) => {
    const listen = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('notify')
print('bound', flush=True)
for _ in range(2): print(s.recv(4096).decode().replace(chr(10), ' '), flush=True)`;
    if (spawnSync('python3', ['--version']).status !== 0) {
      context.skip();
    }
    const manager = spawn('python3', ['-c', listen], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] });
    let told = '';
    manager.stdout.on('data', (chunk) => {
      told += String(chunk);
    });
    const closed = once(manager, 'close');
    await once(manager.stdout, 'data');
    const env = { PATH: process.env['PATH'], HOME: folder, NOTIFY_SOCKET: join(folder, 'notify') };
    const running = new Process(['up', '--state', state], folder, { ...identity.options, env });
    await running.says('softsnp ready');
    running.child.kill('SIGTERM');
    await running.ended;
    await closed;
    expect(told).toBe('bound\nREADY=1 STATUS=1 guests\nSTOPPING=1 STATUS=ended by SIGTERM\n');
  });

  it.skipIf(!LONG)('is found by softsnp exec --guest', async () => {
    await up('--guests', '2', '--devices', join(folder, 'devices'));
    const args = ['exec', '--state', state, '--guest', 'guest-2', '--', 'sh', '-c', '$SOFTSNP guest key'];
    expect(await softsnp(args, folder, identity.options)).toMatchObject({ code: 0, stderr: '' });
    expect((await status()).guests.map(({ requests }) => requests.served)).toEqual([0, 1]);
  });

  it(
    'loses nothing it has answered for, and has the same keys, after kill -9 in the middle of anything',
    async () => {
      type Tcbs = HostStatus['tcb'];
      const points = new Map<string, string>();
      const chips = new Set<string>();
      const devices = join(folder, 'devices');
      let count = 0;
      /** Requests in turn, each with what it makes of the platform. */
      const next = (): readonly [method: string, path: string, body: unknown, after: (tcb: Tcbs) => Tcbs] => {
        count += 1;
        // Firmware never goes down: first in microcode, then in the firmware's own part.
        const newer = `4,0,${24 + Math.max(0, count - 180)},${219 + Math.ceil(Math.min(count, 180) / 5)}`;
        const reported = `3,0,23,20${count % 10}`;
        const same = (tcb: Tcbs): Tcbs => tcb;
        return (
          [
            ['PATCH', '/v1/config', { reported_tcb: reported }, (tcb) => ({ ...tcb, reported })],
            ['PUT', '/v1/tcb', { tcb: newer }, (tcb) => ({ ...tcb, current: newer })],
            ['POST', '/v1/commit', {}, ({ current }) => ({ current, committed: current, reported: current })],
            ['PUT', '/v1/vlek', {}, same],
            ['POST', '/v1/guests', { name: `guest-${count}` }, same],
          ] as const satisfies (readonly [string, string, unknown, (tcb: Tcbs) => Tcbs])[]
        )[count % 5]!;
      };
      let answered: Tcbs | null = null;
      let asked: Tcbs | null = null;
      const check = async (): Promise<void> => {
        const { chip_id, tcb, guests } = await status();
        chips.add(chip_id);
        expect([answered ?? tcb, asked ?? tcb]).toContainEqual(tcb);
        answered = tcb;
        asked = null;
        // The certificate in the blob is that of the TCB the platform reports, and its key is always the same.
        const blob = decodeCertificateTable(readFileSync(guests[0]!.certs));
        const vcek = blob.find(({ guid }) => guid === VCEK_GUID)!;
        const point = new X509Certificate(vcek.data).publicKey
          .export({ type: 'spki', format: 'pem' })
          .toString();
        expect(point).toBe(points.get(tcb.reported) ?? point);
        points.set(tcb.reported, point);
      };
      for (let round = 0; round < (LONG ? 20 : 1); round++) {
        if (LONG) {
          const starting = new Process(
            ['up', '--state', state, '--devices', devices],
            folder,
            identity.options,
          );
          setTimeout(() => starting.child.kill('SIGKILL'), Math.random() * 1500);
          await starting.ended;
        }
        const running = await up('--devices', devices);
        await check();
        const changes = (async () => {
          // At least one change has an answer that the next start is held to, but in every other long round.
          for (let done = round % 2; ; done++) {
            const [method, path, body, after] = next();
            if (done === 1) {
              setTimeout(() => running.child.kill('SIGKILL'), Math.random() * (LONG ? 600 : 150));
            }
            asked = after(answered!);
            await ask(method, path, body);
            answered = asked;
          }
        })();
        await expect(changes).rejects.toMatchObject({ code: 'CONTROL_UNREACHABLE' });
        await running.ended;
      }
      const last = await up('--devices', devices);
      await check();
      last.child.kill('SIGTERM');
      await last.ended;
      expect(chips.size).toBe(1);
      expect(mountsBelow(folder)).toEqual([]);
    },
    LONG ? 180_000 : 30_000,
  );

  it('is what a snapshot says after kill -9 and another start', async () => {
    const running = await up('--guests', '2', '--host-data', 'c0');
    await ask('PATCH', '/v1/config', { reported_tcb: '3,0,23,200' });
    await ask('PUT', '/v1/vlek');
    await ask('POST', '/v1/faults', { rule: 'certs=busy*2', guest: 'guest-2' });
    const { pid: _, ...before } = await status();
    const snapshot = await ask('GET', '/v1/snapshot');
    running.child.kill('SIGKILL');
    await running.ended;
    await up('--guests', '1');
    await ask('DELETE', '/v1/config');
    expect(await ask('PUT', '/v1/snapshot', snapshot)).toMatchObject(before);
    expect(await ask('GET', '/v1/faults')).toEqual([{ rule: 'certs=busy*2', guest: 'guest-2' }]);
    expect(await ask('GET', '/v1/snapshot')).toEqual(snapshot);
  });

  it.skipIf(!LONG)('shows the guests of a snapshot, and keeps sessions and open devices', async () => {
    const devices = join(folder, 'devices');
    const file = join(folder, 'snapshot.json');
    const device = (name: string): string => join(devices, 'guests', name, 'dev', 'sev-guest');
    const key = async (name: string): Promise<string> => {
      const args = ['guest', 'key', '--root', 'vmrk', '--device', device(name), '--json'];
      const { code, stdout, stderr } = await softsnp(args, folder);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      return stdout;
    };
    const first = await up('--guests', '2', '--devices', devices);
    const keys = [await key('guest-1'), await key('guest-2')];
    expect(await ctl('snapshot', 'save', file)).toMatchObject({ code: 0, stderr: '' });
    first.child.kill('SIGKILL');
    await first.ended;
    await up('--guests', '1', '--devices', devices);
    await ask('DELETE', '/v1/guests/guest-1');
    await ask('POST', '/v1/guests', { name: 'guest-1' });
    await ask('POST', '/v1/guests', { name: 'other' });
    const wait = 'echo in; while [ ! -e go ]; do sleep 0.05; done; $SOFTSNP guest key --root vmrk --json';
    const session = new Process(
      ['exec', '--state', state, '--guest', 'guest-1', '--', 'sh', '-c', wait],
      folder,
      identity.options,
    );
    await session.says('in');
    expect(await ctl('snapshot', 'restore', file)).toMatchObject({ code: 0, stderr: '' });
    expect(readdirSync(join(devices, 'guests')).sort()).toEqual(['guest-1', 'guest-2']);
    expect([await key('guest-1'), await key('guest-2')]).toEqual(keys);
    writeFileSync(join(folder, 'go'), '');
    expect(await session.ended).toMatchObject({ code: 0, stdout: `in\n${keys[0]}` });
  });

  it.skipIf(!LONG)('has the old or the new state after kill -9 in the middle of a restore', async () => {
    const devices = join(folder, 'devices');
    let running = await up('--guests', '2', '--devices', devices);
    const saved = [];
    for (const reported_tcb of ['3,0,23,200', '3,0,23,201']) {
      await ask('PATCH', '/v1/config', { reported_tcb });
      saved.push(await ask('GET', '/v1/snapshot'));
    }
    for (let round = 0; round < 10; round++) {
      const restores = (async () => {
        for (let i = 0; ; i++) {
          await ask('PUT', '/v1/snapshot', saved[i % 2]);
        }
      })();
      setTimeout(() => running.child.kill('SIGKILL'), Math.random() * 400);
      await expect(restores).rejects.toMatchObject({ code: 'CONTROL_UNREACHABLE' });
      await running.ended;
      running = await up('--guests', '1', '--devices', devices);
      const { tcb, guests } = await status();
      expect(['3,0,23,200', '3,0,23,201']).toContain(tcb.reported);
      expect(guests.map(({ name }) => name)).toEqual(['guest-1']);
    }
    running.child.kill('SIGTERM');
    expect(await running.ended).toMatchObject({ code: 0, stderr: '' });
    expect(mountsBelow(folder)).toEqual([]);
  });

  it.skipIf(!LONG || !isRoot || existsSync('/dev/sev') || existsSync('/dev/sev-guest'))(
    'shows a guest at the paths of the system itself, and takes it away again',
    async () => {
      const running = await up('--devices', 'system');
      expect((await softsnp(['guest', 'report'], folder)).code).toBe(0);
      running.child.kill('SIGKILL');
      await running.ended;
      const next = await up('--devices', 'system');
      expect((await softsnp(['host', 'status'], folder)).code).toBe(0);
      const snapshot = await ask('GET', '/v1/snapshot');
      await ask('DELETE', '/v1/guests/guest');
      expect((await softsnp(['guest', 'report'], folder)).code).toBe(3);
      await ask('PUT', '/v1/snapshot', snapshot);
      expect((await softsnp(['guest', 'report'], folder)).code).toBe(0);
      next.child.kill('SIGTERM');
      await next.ended;
      expect([existsSync('/dev/sev'), existsSync('/dev/sev-guest')]).toEqual([false, false]);
      expect(mountsBelow('/dev/')).toEqual([]);
    },
  );
});
