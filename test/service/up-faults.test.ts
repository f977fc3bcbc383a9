// SPDX-License-Identifier: Apache-2.0
/** softsnp up in bad surroundings: places it cannot use, signals, kill -9 at every step, too few descriptors. */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { guestVerb } from '../../src/cli/guest.ts';
import { hostVerb } from '../../src/cli/host.ts';
import { type Output, runCli, type Verb } from '../../src/cli/run.ts';
import { verifyVerb } from '../../src/cli/verify.ts';
import { openDevice } from '../../src/os/device-file.ts';
import { tryLock } from '../../src/os/ofd-lock.ts';
import { StateDirectory } from '../../src/os/state-dir.ts';
import { systemClock } from '../../src/os/system-clock.ts';
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
} from './softsnp.ts';

const tests = dirname(dirname(fileURLToPath(import.meta.url)));
const identity = identities[0]!;
const nobody = identities.at(-1)!;
const HEADERS = '#include <linux/sev-guest.h>\n#include <linux/psp-sev.h>\n';
const compiler =
  spawnSync('cc', ['-xc', '-fsyntax-only', '-'], { input: HEADERS }).status === 0
    ? null
    : 'cc or the kernel headers are missing';
const obstacle = identity.obstacle ?? (isRoot ? compiler : 'needs root');
if (obstacle !== null) {
  process.stderr.write(`SKIPPED: softsnp up in bad surroundings: ${obstacle}\n`);
}

let tools: string;
let folder: string;
let state: string;
let devices: string;
beforeAll(() => {
  execFileSync(process.execPath, [bin, '--version']);
  tools = folderOf(identity);
  if (obstacle === null) {
    const source = (...path: string[]): string => join(tests, ...path);
    const client = source('devices', 'client.c');
    execFileSync('cc', ['-O1', '-pthread', '-o', join(tools, 'client'), client]);
    const faults = source('service', 'disk-faults.c');
    execFileSync('cc', ['-O1', '-shared', '-fPIC', '-o', join(tools, 'faults.so'), faults, '-ldl']);
  }
}, 60_000);
afterAll(() => {
  removeFolder(tools);
});
beforeEach(() => {
  folder = folderOf(identity);
  state = join(folder, 'state');
  devices = join(folder, 'devices');
});
afterEach(async () => {
  for (const pid of processesIn(folder)) {
    process.kill(pid, 'SIGKILL');
  }
  await expect.poll(() => processesIn(folder)).toEqual([]);
  for (const line of mountsBelow(folder)) {
    spawnSync('umount', ['-l', line.split(' ')[4]!]);
  }
  removeFolder(folder);
});

const start = (...args: string[]): Process => new Process(['up', ...args], folder, identity.options);
const up = async (...args: string[]): Promise<Process> => {
  const running = start('--state', state, '--mem', '64M', ...args);
  await running.says('softsnp ready');
  return running;
};
const ask = (method: string, path: string, body?: unknown): Promise<unknown> =>
  controlRequest(join(state, 'control.sock'), method, path, body);
const status = async () => (await ask('GET', '/v1/status')) as HostStatus;
const device = (name = 'guest'): string => join(devices, 'guests', name, 'dev', 'sev-guest');
/** A program that asks for report after report: exit code 0, or what it was told. */
const client = (count: number): Process =>
  new Process(['hammer', device(), String(count)], folder, {}, [join(tools, 'client')]);

/** A verb of this process: its exit code and all that it says. */
async function verb(make: (output: Output) => Verb, ...argv: string[]): Promise<[number, string]> {
  let text = '';
  const add = (more: string): void => {
    text += more;
  };
  const output = { stdout: add, stderr: add };
  return [await runCli(make(output), argv, '0', output), text];
}

/** Gets a report with certificates from a guest and has softsnp verify judge the pair. */
async function verified(name = 'guest'): Promise<void> {
  const [report, certs] = [join(folder, 'report.bin'), join(folder, 'certs.bin')];
  const files = ['--out', report, '--certs', certs];
  const [asked, said] = await verb(
    (output) => guestVerb(output, openDevice),
    'ext-report',
    ...['--device', device(name), ...files],
  );
  expect([asked, said]).toEqual([0, expect.anything()]);
  const verdict = await verb(
    (output) => verifyVerb(output, { clock: systemClock, kdsTiming: {} }),
    ...['report', report, '--table', certs, '--no-crl', '--trust', `softsnp:${state}`],
  );
  expect(verdict).toEqual([0, expect.anything()]);
}

/** Ends with an error of the surroundings: its exit code, a known code, and no talk of defects. */
const refused = (ended: { code: number | null; stderr: string }, code: string): void => {
  expect(ended).toMatchObject({ code: 3, stderr: expect.stringContaining(`[${code}]`) });
  expect(ended.stderr).not.toMatch(/defect|^ +at /m);
};

/** Files of a folder by digest. */
const digests = (path: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((file) => [file, createHash('sha256').update(readFileSync(file)).digest('hex')]),
  );

/** Runs softsnp where /dev is a folder of its own, made by this script. */
function withOwnDev(script: string, args: readonly string[]): Process {
  const words = [
    'set -e; mkdir -p dev; mount -t tmpfs none dev',
    'mknod -m 666 dev/null c 1 3; mknod -m 666 dev/zero c 1 5; mknod -m 666 dev/urandom c 1 9',
    script,
    'mount --rbind dev /dev; exec "$@"',
  ].join('\n');
  return new Process(args, folder, {}, ['unshare', '-m', 'sh', '-c', words, 'sh', process.execPath, bin]);
}

describe.skipIf(obstacle !== null || !LONG)('softsnp up --devices', () => {
  it.each([
    ['a file', 'file'],
    ['below a file', 'file/below'],
    ['a link', 'link'],
    ['a link that leads nowhere', 'dangling'],
  ])('is refused for %s, and nothing is mounted', async (_, name) => {
    mkdirSync(join(folder, 'folder'));
    writeFileSync(join(folder, 'file'), '');
    symlinkSync('folder', join(folder, 'link'));
    symlinkSync('nowhere', join(folder, 'dangling'));
    refused(await start('--state', state, '--devices', name).ended, 'MOUNT_POINT_INVALID');
    expect(mountsBelow(folder)).toEqual([]);
  });

  it('is refused where another softsnp serves, which goes on', async () => {
    const first = await up('--devices', devices);
    const second = await start('--state', join(folder, 'other'), '--devices', devices).ended;
    refused(second, 'MOUNT_POINT_INVALID');
    await verified();
    expect((await status()).pid).toBe(first.child.pid);
  });

  it.skipIf(nobody === identity || nobody.obstacle !== null)(
    'is refused in a folder that may not be entered',
    async () => {
      const own = folderOf(nobody);
      mkdirSync(join(folder, 'closed'), { mode: 0o700 });
      const args = ['up', '--state', join(own, 'state'), '--devices', join(folder, 'closed', 'devices')];
      refused(await new Process(args, own, nobody.options).ended, 'MOUNT_POINT_INVALID');
      removeFolder(own);
    },
  );

  it('is refused without /dev/fuse, and so is softsnp exec, which says what to do about that', async () => {
    const upEnd = await withOwnDev('', ['up', '--state', state, '--devices', devices]).ended;
    refused(upEnd, 'FUSE_UNAVAILABLE');
    const execEnd = await withOwnDev('', ['exec', '--state', state, '--', 'true']).ended;
    refused(execEnd, 'FUSE_UNAVAILABLE');
    expect(execEnd.stderr).toContain('modprobe fuse');
    expect(execEnd.stderr).not.toContain('namespaces');
  });

  it.each([
    ['/dev/sev-guest is a link', 'ln -s null dev/sev-guest'],
    ['/dev/sev is a folder', 'mkdir dev/sev'],
  ])('system is refused when %s, and leaves nothing', async (_, script) => {
    const fuse = `mknod -m 666 dev/fuse c 10 229; ${script}`;
    const args = ['up', '--state', state, '--devices', 'system'];
    refused(await withOwnDev(fuse, args).ended, 'MOUNT_REFUSED');
    expect(readdirSync(state)).not.toContain('mounts.json');
    expect(mountsBelow(folder)).toEqual([]);
  });

  it.each([
    ['another state folder', () => rmSync(state, { recursive: true })],
    ['a record that is broken', () => writeFileSync(join(state, 'mounts.json'), 'broken')],
    ['no record', () => rmSync(join(state, 'mounts.json'))],
  ])('is served again after kill -9, with %s', async (_, spoil) => {
    const killed = await up('--devices', devices);
    killed.child.kill('SIGKILL');
    await killed.ended;
    expect(mountsBelow(folder).length).toBe(1);
    spoil();
    const next = await up('--devices', devices);
    await verified();
    next.child.kill('SIGTERM');
    expect(await next.ended).toMatchObject({ code: 0, stderr: '' });
    expect(mountsBelow(folder)).toEqual([]);
  });

  it('is refused within seconds where a softsnp hangs, which can go on afterwards', async () => {
    const hanging = await up('--devices', devices);
    hanging.child.kill('SIGSTOP');
    const began = performance.now();
    const second = await start('--state', join(folder, 'other'), '--devices', devices).ended;
    refused(second, 'MOUNT_POINT_INVALID');
    expect(second.stderr).toContain('does not answer');
    expect(performance.now() - began).toBeLessThan(20_000);
    hanging.child.kill('SIGCONT');
    await verified();
  });
});

describe.skipIf(obstacle !== null)('a second softsnp up', () => {
  it('on the same state folder leaves the first one alone', async () => {
    const first = await up('--devices', devices);
    const before = digests(state);
    refused(await start('--state', state, '--devices', devices).ended, 'STATE_BUSY');
    expect(digests(state)).toEqual(before);
    expect(first.child.exitCode).toBeNull();
    await verified();
  });

  it.skipIf(!LONG)('does so while a request of the first one is under way', async () => {
    await up('--devices', devices);
    const fd = openSync((await status()).guests[0]!.certs, 'r+');
    expect(tryLock(fd, 'write')).toBe('locked');
    const waiting = new Process(['guest', 'ext-report', '--device', device()], folder);
    await expect.poll(async () => (await status()).guests[0]!.requests.waiting).toBe(1);
    refused(await start('--state', state).ended, 'STATE_BUSY');
    closeSync(fd);
    expect(await waiting.ended).toMatchObject({ code: 0, stderr: '' });
  });
});

describe.skipIf(obstacle !== null || !LONG)('softsnp up under load', () => {
  it.each([
    [['SIGTERM']],
    [['SIGHUP']],
    [['SIGINT']],
    [['SIGTERM', 'SIGTERM']],
    [['SIGTERM', 'SIGHUP']],
  ] as const)('ends in order at %j, its clients with an error, and can start again', async (signals) => {
    const running = await up('--devices', devices, '--kds', '0');
    const clients = Array.from({ length: 8 }, () => client(1_000_000));
    await expect
      .poll(async () => (await status()).guests[0]!.requests.served, { timeout: 20_000 })
      .toBeGreaterThan(50);
    for (const signal of signals) {
      running.child.kill(signal);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    const { code, signal, stderr } = await running.ended;
    // The second one ends it at once, unless it was done by then.
    expect(signals.length === 1 ? [0] : [0, 128 + 15, 128 + 1]).toContain(code);
    expect([signal, stderr]).toEqual([null, '']);
    const ends = await Promise.all(clients.map(({ ended }) => ended));
    // EBADF is of one that came too late to open the device.
    for (const end of ends) {
      expect(end).toMatchObject({
        code: 1,
        stdout: expect.stringMatching(/^hammer: (ENOTCONN|ECONNABORTED|ENODEV|EIO|EBADF)\n$/),
      });
    }
    expect(mountsBelow(folder)).toEqual([]);
    StateDirectory.open(state).close();
    await up('--devices', devices);
    await verified();
  });

  it('tells its clients within a second when it is killed, also those that wait for a blob', async () => {
    const running = await up('--devices', devices);
    const fd = openSync((await status()).guests[0]!.certs, 'r+');
    expect(tryLock(fd, 'write')).toBe('locked');
    const clients = Array.from({ length: 8 }, () => client(1_000_000));
    await expect.poll(async () => (await status()).guests[0]!.requests.waiting).toBe(8);
    const ends = Promise.all(clients.map(({ ended }) => ended.then(() => performance.now())));
    const killed = performance.now();
    running.child.kill('SIGKILL');
    expect(Math.max(...(await ends)) - killed).toBeLessThan(1000);
    closeSync(fd);
    for (const { stdout, child } of clients) {
      expect([child.exitCode, stdout]).toEqual([
        1,
        expect.stringMatching(/^hammer: (ENOTCONN|ECONNABORTED)\n$/),
      ]);
    }
  });
});

describe.skipIf(obstacle !== null || !LONG)('softsnp up with too little', () => {
  it.each([20, 24, 32, 48, 64])('says so when %i files may be open at its start', async (limit) => {
    const args = ['up', '--state', state, '--devices', devices];
    const command = ['sh', '-c', `ulimit -n ${limit}; exec "$@"`, 'sh', process.execPath, bin];
    const { code, stdout, stderr } = await new Process(args, folder, {}, command).ended;
    expect([code, stdout]).toEqual([3, '']);
    expect(stderr).toMatch(/\[(RESOURCES_EXHAUSTED|INSTALLATION_INCOMPLETE)\]/);
    expect(stderr).toContain('ulimit -n');
    expect(stderr).not.toContain('defect');
    expect(mountsBelow(folder)).toEqual([]);
  });

  it('makes its clients wait, or says why not, when its descriptors run out; and answers when there are more', async () => {
    const running = await up('--devices', devices);
    const pid = String(running.child.pid);
    const limit = (count: number): void => {
      execFileSync('prlimit', [`--nofile=${count}:1024`, '--pid', pid]);
    };
    limit(32);
    const sockets = await Promise.all(
      Array.from(
        { length: 40 },
        () =>
          new Promise<Socket>((resolve) => {
            const socket = connect(join(state, 'control.sock'), () => resolve(socket));
            socket.on('error', () => undefined);
          }),
      ),
    );
    await expect.poll(() => readdirSync(`/proc/${pid}/fd`).length).toBeGreaterThanOrEqual(30);
    const asking = client(50);
    const sev = join(devices, 'host', 'dev', 'sev');
    const set = ['config', 'set', '--device', sev, '--reported-tcb', '3,0,23,200'];
    const changed = await verb((output) => hostVerb(output, openDevice), ...set);
    expect([0, 3]).toContain(changed[0]);
    for (const socket of sockets) {
      socket.destroy();
    }
    limit(1024);
    expect(await asking.ended).toMatchObject({ code: 0, stdout: '' });
    await verified();
    const { tcb, state_saved, failure } = await status();
    expect([tcb.reported, state_saved, failure]).toEqual([
      changed[0] === 0 ? '3,0,23,200' : '4,0,24,219',
      true,
      null,
    ]);
    await ask('PATCH', '/v1/config', { reported_tcb: '3,0,23,201' });
    await verified();
  });

  it('keeps its state when it runs out of memory', async () => {
    const first = await up();
    const { chip_id } = await status();
    first.child.kill('SIGTERM');
    await first.ended;
    const before = digests(state);
    const args = ['up', '--state', state, '--guests', '64', '--mem', '64M'];
    const command = [process.execPath, '--max-old-space-size=16', bin];
    const { code, signal, stdout } = await new Process(args, folder, {}, command).ended;
    // V8 gives up by itself: there is no code to run then, and nothing half done to be seen.
    expect([code, signal === 'SIGABRT' || code === 134, stdout]).toEqual([code, true, '']);
    expect(digests(state)[join(state, 'state.json')]).toBe(before[join(state, 'state.json')]);
    await up('--devices', devices);
    expect((await status()).chip_id).toBe(chip_id);
    await verified();
  });
});

describe.skipIf(obstacle !== null)('softsnp up killed at any call that changes a file', () => {
  const TCBS = ['4,0,24,219', '3,0,23,200', '3,0,23,201'];
  let chip: string;
  /** What the host reported when it was last known, and what it may report after that. */
  let last: string;

  const begin = async (): Promise<void> => {
    const first = await up('--devices', devices);
    const { chip_id, tcb } = await status();
    [chip, last] = [chip_id, tcb.reported];
    first.child.kill('SIGTERM');
    await first.ended;
  };

  /** Starts and changes the host until its N-th call; true when that came, false when there are fewer. */
  async function killedAt(n: number): Promise<boolean> {
    const wanted = TCBS[1 + (n % 2)]!;
    const faults = { LD_PRELOAD: join(tools, 'faults.so'), FAULT_BELOW: state, FAULT_AT: String(n) };
    const env = { PATH: process.env['PATH'], HOME: folder, ...faults };
    const args = ['up', '--state', state, '--mem', '64M', '--devices', devices];
    const running = new Process(args, folder, { ...identity.options, env });
    const ready = await running.says('softsnp ready').then(
      () => true,
      () => false,
    );
    const done =
      ready &&
      (await ask('PATCH', '/v1/config', { reported_tcb: wanted }).then(
        () => true,
        () => false,
      ));
    if (done) {
      running.child.kill('SIGKILL');
    }
    expect((await running.ended).signal).toBe('SIGKILL');
    // Whatever was saved is there, and what was answered is.
    const next = await up('--devices', devices);
    const { chip_id, tcb, guests } = await status();
    expect(chip_id).toBe(chip);
    expect(done ? [wanted] : ready ? [last, wanted] : [last]).toContain(tcb.reported);
    last = tcb.reported;
    expect(readdirSync(state).filter((name) => name.startsWith('.'))).toEqual([]);
    expect(readdirSync(dirname(guests[0]!.certs))).toEqual(['guest.blob']);
    await verified();
    next.child.kill('SIGTERM');
    expect(await next.ended).toMatchObject({ code: 0, stderr: '' });
    expect(mountsBelow(folder)).toEqual([]);
    return !done;
  }

  it('has the old state or the new one at the next start, and reports that verify', async () => {
    await begin();
    if (!LONG) {
      // The new state is in its place, the new certificates are not yet.
      await killedAt(39);
      return;
    }
    let n = 1;
    while (await killedAt(n)) {
      n += 1;
    }
    // Of which half are of the start and half of the change.
    expect(n).toBeGreaterThan(30);
  }, 900_000);
});
