// SPDX-License-Identifier: Apache-2.0
/** The FUSE layer under a real kernel, with clients that are other programs. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type ServedTree, serveTree } from '../../src/devices/fuse/server.ts';
import { type TestCounts, testTree } from '../../src/devices/fuse/testing.ts';
import { ffiAvailable } from '../../src/os/libc.ts';
import { type Compiled, compile } from '../compile.ts';
import { identities, isRoot } from '../service/softsnp.ts';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = mkdtempSync(join(tmpdir(), 'softsnp-fuse-'));
const client = join(folder, 'client');
let compiled: Compiled;
const script = (name: string): string => compiled.path(`test/fuse/${name}`);

/** A user that owns nothing here; ourselves when we are no more than that. */
const { options: ordinary, obstacle: ordinaryObstacle } = identities.at(-1)!;

function toolObstacle(): string | null {
  if (!ffiAvailable()) {
    return 'koffi is not installed';
  }
  if (!existsSync('/dev/fuse')) {
    return '/dev/fuse is missing';
  }
  return spawnSync('gcc', ['--version']).status === 0 ? null : 'gcc is not installed';
}

const noTools = toolObstacle();
const missing = noTools ?? (isRoot ? null : 'mounting outside a namespace needs root');
const ordinaryMissing = noTools ?? ordinaryObstacle;
if (missing !== null) {
  process.stderr.write(`SKIPPED: FUSE under a real kernel: ${missing}\n`);
}

/** What a client sees whose request was in hand, or came after. */
const GONE = /^slow: (ECONNABORTED|ENOTCONN)\n$/;

const run = promisify(execFile);
const mounts = (): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(folder));

let served: ServedTree | null = null;
const faults: unknown[] = [];
let counts: TestCounts;

async function serve(name = 'mnt'): Promise<string> {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  counts = { opened: 0, flushed: 0, released: 0 };
  served = await serveTree(path, { root: testTree(counts), onFault: (error) => faults.push(error) });
  return path;
}

/** Starts a script of this folder and waits for its first line. */
async function start(name: string, args: readonly string[], options = {}): Promise<[ChildProcess, string]> {
  const child = spawn(process.execPath, [script(name), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...options,
  });
  const [line] = await once(child.stdout!, 'data');
  return [child, String(line).trim()];
}

beforeAll(() => {
  if (noTools !== null) {
    return;
  }
  compiled = compile(['test/fuse/serve', 'test/fuse/exec']);
  const gcc = spawnSync('gcc', ['-O1', '-pthread', '-o', client, join(root, 'test', 'fuse', 'client.c')], {
    encoding: 'utf8',
  });
  expect(gcc.stderr).toBe('');
  spawnSync('chmod', ['-R', 'a+rX', folder]);
});

afterEach(async () => {
  await served?.close();
  served = null;
  const left = mounts();
  for (const line of left) {
    // Or every later test fails for the same reason.
    spawnSync('umount', ['--lazy', line.split(' ')[4]!]);
  }
  expect(left).toEqual([]);
  expect(faults.splice(0)).toEqual([]);
});

afterAll(() => {
  rmSync(folder, { recursive: true });
  compiled?.remove();
});

describe.skipIf(missing !== null)('a tree served through /dev/fuse', () => {
  it('answers a C client’s system calls as a driver would', async () => {
    const { stdout } = await run(client, ['edges', await serve()]);
    const lines = stdout.split('\n').filter((line) => line !== '' && !line.startsWith('{'));
    expect(lines).toEqual([
      'good pointers: 0',
      'unmapped source: EFAULT',
      'source at the end of the address space: EFAULT',
      'read-only target: EFAULT',
      'source across the end of a mapping: EFAULT',
      'length of 4 GiB: EFAULT',
      'length 0: 0',
      'unmapped argument: EFAULT',
      'read-only argument: EFAULT',
      'refusal with data: EIO',
      'its data: 1',
      'positive result: 12',
      'unknown number: ENOTTY',
      'number of another type: ENOTTY',
      'read: EINVAL',
      'write: EINVAL',
      'ftruncate: EINVAL',
      'shared mmap: ENODEV',
      'poll: 1',
      'ioctl during which a signal came: 0',
      'its data: 1',
      'exchange from a second thread: 0',
      'create: EACCES',
      'open with O_CREAT of what is there: 1',
      'mkdir where none is offered: EPERM',
      'rename: EPERM',
      'unlink: EPERM',
      'symlink: EPERM',
      'link: EPERM',
      'chmod: 0',
      'mode: 100640',
      'unlink of a folder: EISDIR',
      'mkdir: 0',
      'mkdir again: EEXIST',
      'read of a new file: 2',
      'it says: a',
      'rmdir of a folder that has files: 0',
      'rmdir again: ENOENT',
      'open of a file that is gone: ENOENT',
    ]);
  });

  it('serves ordinary tools: find, cat, cp, echo', async () => {
    const path = await serve();
    const shell = async (line: string): Promise<string> =>
      (await run('sh', ['-c', `cd ${path} && ${line}`])).stdout;
    expect(await shell('find . | wc -l')).toBe('106\n');
    expect(await shell('ls -l fixed | tail -1')).toMatch(/^-r--r--r-- 1 root root 3 .* file-99\n$/);
    expect(await shell('cat text | tail -1')).toBe('the quick brown fox\n');
    expect(await shell('cp text /dev/null && echo hello > cell && cat cell')).toBe('hello\n');
    expect(await shell('mkdir folders/x && cat folders/x/name && rmdir folders/x && ls folders')).toBe('x\n');
  });

  it('gives 32 clients at once the right answers, and keeps nothing of them', async () => {
    const device = join(await serve(), 'device');
    await Promise.all(Array.from({ length: 32 }, () => run(client, ['exchange', device, '40'])));
    expect(counts.opened).toBe(32);
    // RELEASE comes after the last close, and nobody waits for it.
    await expect.poll(() => [counts.released, served!.server.session.openCount]).toEqual([32, 0]);
    expect(served!.server.session.nodeCount).toBeLessThan(8);
  });

  it('survives clients that are killed in the middle of an ioctl', async () => {
    const device = join(await serve(), 'device');
    const victims = Array.from({ length: 20 }, () => spawn(client, ['slow', device, '150']));
    await Promise.all(victims.map((victim) => once(victim.stdout, 'data')));
    await expect.poll(() => served!.server.session.inFlight).toBe(20);
    const ends = victims.map((victim) => once(victim, 'exit'));
    for (const victim of victims) {
      victim.kill('SIGKILL');
    }
    await Promise.all(ends);
    await expect.poll(() => [counts.released, served!.server.session.inFlight]).toEqual([20, 0]);
    await run(client, ['exchange', device, '1']);
  });

  it('lets a waiting client have its answer when it is closed, and others an error', async () => {
    const path = await serve();
    const waiting = spawn(client, ['slow', join(path, 'device'), '200']);
    await once(waiting.stdout, 'data');
    await expect.poll(() => served!.server.session.inFlight).toBe(1);
    const answer = once(waiting.stdout, 'data');
    await served!.close();
    expect(String((await answer)[0])).toBe('slow: 0\n');
    expect(mounts()).toEqual([]);
    expect(readdirSync(path)).toEqual([]);
  });

  it('ends when somebody unmounts it', async () => {
    const path = await serve();
    await run('umount', [path]);
    await served!.server.ended;
  });

  it('shows a file at a second place until it is closed', async () => {
    await serve();
    const place = join(folder, 'sev-guest');
    writeFileSync(place, 'below');
    await served!.bind('device', place);
    await run(client, ['exchange', place, '3']);
    await served!.close();
    expect(readFileSync(place, 'utf8')).toBe('below');
  });
});

describe.skipIf(missing !== null)('a mount that cannot be', () => {
  const code = async (path: string): Promise<string> =>
    serveTree(path, { root: testTree(), onFault: (error) => faults.push(error) }).then(
      (tree) => tree.close().then(() => 'mounted'),
      (error) => error.code,
    );

  it('is MOUNT_POINT_INVALID on a file, a symbolic link, nothing, and a place that another server has', async () => {
    const path = await serve();
    writeFileSync(join(folder, 'file'), '');
    symlinkSync(path, join(folder, 'link'));
    for (const wrong of ['file', 'link', 'nothing', 'file/below', 'mnt']) {
      expect(await code(join(folder, wrong))).toBe('MOUNT_POINT_INVALID');
    }
    await run(client, ['exchange', join(path, 'device'), '1']);
  });

  it.skipIf(ordinaryMissing !== null)(
    'is MOUNT_REFUSED for an ordinary user outside a namespace',
    async () => {
      const path = join(folder, 'refused');
      mkdirSync(path);
      const [child, line] = await start('serve', [path], ordinary);
      expect(line).toBe('MOUNT_REFUSED');
      await once(child, 'exit');
      expect(child.exitCode).toBe(3);
    },
  );
});

describe.skipIf(missing !== null)('a server that ends', () => {
  const places = (): [string, string] => {
    const [path, place] = [join(folder, 'other'), join(folder, 'bound')];
    mkdirSync(path, { recursive: true });
    writeFileSync(place, '');
    return [path, place];
  };

  it('leaves nothing mounted after SIGTERM', async () => {
    const [child] = await start('serve', places());
    expect(mounts().length).toBe(2);
    child.kill('SIGTERM');
    await once(child, 'exit');
    expect(child.exitCode).toBe(0);
    expect(mounts()).toEqual([]);
  });

  it('leaves nothing mounted after a second SIGTERM, which does not wait for a client', async () => {
    const [path, place] = places();
    const [child] = await start('serve', [path, place]);
    const waiting = spawn(client, ['slow', place, '5000']);
    await once(waiting.stdout, 'data');
    const answer = once(waiting.stdout, 'data');
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await expect.poll(mounts).toEqual([]);
    child.kill('SIGTERM');
    // By the second signal's handler, by the signal itself, or done already when it came.
    const [code, signal] = await ended;
    expect(code ?? signal).toBeOneOf([0, 143, 'SIGTERM']);
    expect(String((await answer)[0])).toMatch(GONE);
  });

  it('by kill -9 gives its clients an error, and the next one takes its places over', async () => {
    const [path, place] = places();
    const [child] = await start('serve', [path, place]);
    const waiting = spawn(client, ['slow', place, '5000']);
    await once(waiting.stdout, 'data');
    const answer = once(waiting.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect(String((await answer)[0])).toMatch(GONE);
    expect(() => statSync(path)).toThrow('ENOTCONN');
    expect(mounts().length).toBe(2);
    const [next, line] = await start('serve', [path, place]);
    expect(line).toBe('ready');
    expect(mounts().length).toBe(2);
    await run(client, ['exchange', place, '1']);
    next.kill('SIGTERM');
    await once(next, 'exit');
  });
});

const inside = `
set -e
"$CLIENT" exchange /dev/sev-guest 20 > /dev/null
mkdir /sys/kernel/config/entry; cat /sys/kernel/config/entry/name; rmdir /sys/kernel/config/entry
cat /etc/hosts /dev/cpu/0/msr
head -n 1 /dev/full
head -c 4 /dev/urandom > /dev/null
ls /sys/kernel > /dev/null
id -u
exit 7`;

describe.each([
  ['root', missing, {}],
  ['an ordinary user', ordinaryMissing, ordinary],
])('private namespaces of %s', (_, why, identity) => {
  const options = { ...identity, cwd: '/', env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', CLIENT: client } };

  it.skipIf(why !== null)('have the devices where programs look, and pass the exit code on', async () => {
    const failure = await run(process.execPath, [script('exec'), 'sh', '-c', inside], options).catch(
      (error) => error,
    );
    expect(failure.stdout).toBe('entry\n127.0.0.1 kdsintf.amd.com\nempty\nthe quick brown fox\n0\n');
    expect(failure.stderr).toBe('');
    expect(failure.code).toBe(7);
  });

  it.skipIf(why !== null)('have a network with nothing but a loopback interface, which is up', async () => {
    const command = [
      '--net',
      'sh',
      '-c',
      'cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/fib_trie',
    ];
    const { stdout } = await run(process.execPath, [script('exec'), ...command], options);
    expect(stdout.split('\n')[0]?.trim()).toBe('lo');
    expect(stdout).toContain('127.0.0.1');
  });

  it.skipIf(why !== null)(
    'leave nothing running after kill -9, SIGTERM, or an end with stragglers',
    async () => {
      // Where the kernel gives no pid namespace, one process can get away: docs/limitations.md#leftovers.
      const trial = [
        '-m',
        ...(identity === ordinary ? ['-Ur'] : []),
        'unshare',
        '-pf',
        '--mount-proc',
        'true',
      ];
      const canKeep = spawnSync('unshare', trial, identity).status === 0;
      // Process ids are other ones inside: the sleepers are told by how long they mean to sleep.
      const mine = String(1000 + Math.floor(Math.random() * 1e6));
      const alive = (): string[] =>
        readdirSync('/proc').filter((pid) => {
          try {
            return readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith(`sleep\0${mine}`);
          } catch {
            return false;
          }
        });
      const sleepers = [
        `sleep ${mine} &`,
        `setsid sleep ${mine} &`,
        ...(canKeep ? [`unshare -m sleep ${mine} &`, `unshare -pf sleep ${mine} &`] : []),
      ];
      const hang = `${sleepers.join(' ')} echo up; wait`;
      for (const [command, signal, expected] of [
        [hang, 'SIGKILL', 'SIGKILL'],
        [hang, 'SIGTERM', 'SIGTERM'],
        [`${sleepers.join(' ')} echo up; sleep 0.2`, null, null],
      ] as const) {
        const child = spawn(process.execPath, [script('exec'), 'sh', '-c', command], {
          ...options,
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        const ended = once(child, 'exit');
        await once(child.stdout, 'data');
        if (signal !== null) {
          await expect.poll(alive).toHaveLength(sleepers.length);
          child.kill(signal);
        }
        expect((await ended)[1]).toBe(expected);
        await expect.poll(alive).toEqual([]);
      }
    },
  );

  it.skipIf(why !== null || identity !== ordinary || missing !== null)(
    'end what is left also where no /proc of their own can be had',
    async () => {
      // Hides a part of /proc, as containers do: what is under it may not be seen through another /proc.
      const mine = String(1000 + Math.floor(Math.random() * 1e6));
      const { uid, gid } = ordinary as { uid: number; gid: number };
      const user = ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
      const alive = (): string => spawnSync('pgrep', ['-f', `sleep ${mine}`]).stdout.toString();
      const hidden = ['sh', '-ec', 'mount -t tmpfs none /proc/fs; cd /; exec "$@"', 'sh'];
      const args = (line: string): string[] => [
        ...['-m', ...hidden, ...user],
        ...[process.execPath, script('exec'), 'sh', '-c', `setsid sleep ${mine} & echo $$; ${line}`],
      ];
      const failure = await run('unshare', args('exit 5'), { env: options.env }).catch((error) => error);
      expect(failure.code).toBe(5);
      // No pid namespace: the command has the number of any process.
      expect(Number(failure.stdout)).toBeGreaterThan(20);
      expect(alive()).toBe('');
      const killed = spawn('unshare', args('wait'), {
        env: options.env,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await once(killed.stdout, 'data');
      killed.kill('SIGKILL');
      await expect.poll(alive).toBe('');
    },
  );

  it.skipIf(why !== null)('answer 127 for a command that is not there', async () => {
    const failure = await run(process.execPath, [script('exec'), 'no-such-command'], options).catch((e) => e);
    expect(failure.code).toBe(127);
  });
});
