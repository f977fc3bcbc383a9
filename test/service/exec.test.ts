// SPDX-License-Identifier: Apache-2.0
/** softsnp exec where something is in its way, what a command finds inside, and how it is told of signals. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  bin,
  folderOf,
  identities,
  isRoot,
  LONG,
  ORDINARY,
  Process,
  processesIn,
  removeFolder,
  softsnp,
} from './softsnp.ts';

beforeAll(() => {
  // Builds once, as somebody who may write to dist/.
  execFileSync(process.execPath, [bin, '--version']);
}, 60_000);

const AS_ORDINARY = `setpriv --reuid=${ORDINARY.uid} --regid=${ORDINARY.gid} --clear-groups`;
const SOFTSNP = `${process.execPath} ${bin}`;

describe.skipIf(!isRoot || spawnSync('setpriv', ['--version']).status !== 0)(
  'in a /dev of its own, softsnp exec',
  () => {
    let folder: string;
    beforeAll(() => {
      folder = folderOf(identities.at(-1)!);
    });
    afterAll(() => removeFolder(folder));

    /** Runs a script in a mount namespace whose /dev has little in it. */
    const inDev = (script: string) =>
      spawnSync(
        'unshare',
        [
          '-m',
          'sh',
          '-ec',
          `mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; cd ${folder}; export HOME=$PWD; ${script}`,
        ],
        { encoding: 'utf8', timeout: 20_000 },
      );
    const FUSE = 'mknod -m 666 /dev/fuse c 10 229';
    const exec = (options = '', command = 'true'): string => `${SOFTSNP} exec ${options} -- ${command}`;

    it('says what to do about a device that is missing, and does not blame namespaces', () => {
      const { status, stderr } = inDev(exec());
      expect(status).toBe(3);
      expect(stderr).toContain('softsnp: /dev/fuse cannot be opened: ENOENT [FUSE_UNAVAILABLE]\n');
      expect(stderr).toContain('modprobe fuse');
      expect(stderr).not.toContain('user namespaces');
    });

    it.skipIf(identities.at(-1)!.obstacle !== null)('says so to those who may not open it', () => {
      const { status, stderr } = inDev(`mknod -m 600 /dev/fuse c 10 229; ${AS_ORDINARY} ${exec()}`);
      expect({ status, stderr }).toMatchObject({ status: 3, stderr: /EACCES \[FUSE_UNAVAILABLE\]/ });
    });

    it('ends when a device cannot be put in its place', () => {
      const { status, stderr } = inDev(`${FUSE}; mkdir /dev/sev; ${exec()}`);
      expect({ status, stderr }).toMatchObject({
        status: 3,
        stderr: /^softsnp: \/dev\/sev: \/dev\/sev is a folder \[MOUNT_POINT_INVALID\]/,
      });
    });

    it('ends when devices cannot be served, with the key service up already', () => {
      const { status, stderr } = inDev(`touch /dev/fuse; ${exec('--kds-intercept')}`);
      expect({ status, stderr }).toMatchObject({ status: 3, stderr: /\[MOUNT_POINT_INVALID\]/ });
    });

    it.skipIf(!LONG)('puts devices where those of a killed softsnp are still mounted', () => {
      const { status, stdout, stderr } = inDev(`${FUSE}
        ${SOFTSNP} up --state killed --devices system > ready 2>&1 & host=$!
        until grep -q 'softsnp ready' ready; do sleep 0.05; kill -0 $host; done
        kill -9 $host; wait $host 2> /dev/null || true
        stat /dev/sev-guest > stale 2>&1 || true
        ${exec('--state mine', `sh -c '${SOFTSNP} guest key && ls /dev/.softsnp-original > seen'`)}
        mkdir theirs; chown ${ORDINARY.uid} theirs
        ${AS_ORDINARY} ${exec('--state theirs', `${SOFTSNP} host status`)}
        # The start on the same state takes away what the killed one left.
        ${exec('--state killed')}
        ! grep ' /dev/.*fuse.softsnp' /proc/self/mountinfo`);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(stdout).toMatch(/^[0-9a-f]{64}\n/);
      expect(readFileSync(join(folder, 'stale'), 'utf8')).toContain('not connected');
    });
  },
);

describe.each(identities)('softsnp exec as $who', (identity) => {
  const skip = identity.obstacle !== null || (!LONG && identity !== identities.at(-1));
  let folder: string;
  let env: NodeJS.ProcessEnv;
  beforeAll(() => {
    folder = folderOf(identity);
    env = { PATH: process.env['PATH'], HOME: folder, NO_COLOR: '1' };
  });
  afterAll(async () => {
    await vi.waitUntil(() => processesIn(folder).length === 0);
    removeFolder(folder);
  });
  it.skipIf(skip)('says that TMPDIR cannot be used', async () => {
    const options = { ...identity.options, env: { ...env, TMPDIR: '/proc' } };
    for (const args of [
      ['exec', '--', 'true'],
      ['attest', '--seed', '1'],
    ]) {
      expect(await softsnp(args, folder, options)).toMatchObject({
        ...{ code: 3, stdout: '' },
        stderr: expect.stringMatching(/^softsnp: \/proc: cannot be written to: \w+ \[TMPDIR_UNWRITABLE\]/),
      });
    }
  });

  it.skipIf(skip)('leaves nothing in TMPDIR but an empty folder, however it ends', async () => {
    const scratch = join(folder, 'scratch');
    mkdirSync(scratch, { mode: 0o777 });
    execFileSync('chmod', ['777', scratch]);
    const options = { ...identity.options, env: { ...env, TMPDIR: scratch } };
    const args = [
      'exec',
      '--seed',
      '7',
      '--',
      'sh',
      '-c',
      'ls $TMPDIR/*/state/state.json; echo up; sleep 60',
    ];
    const killed = new Process(args, folder, options);
    await killed.says('up');
    expect(killed.stdout).toMatch(/^\S+\/softsnp-\d+\/state\/state\.json\n/);
    killed.child.kill('SIGKILL');
    await killed.ended;
    const failed = await softsnp(['exec', '--seed', '7', '--tcb', 'x', '--', 'true'], folder, options);
    expect(failed.code).toBe(1);
    const [left, ...others] = readdirSync(scratch);
    expect([left, others]).toEqual([expect.stringMatching(/^softsnp-\d+$/), []]);
    expect(readdirSync(join(scratch, left!))).toEqual([]);
  });

  it.skipIf(skip)('has the new /dev around a command that is started in /dev', async () => {
    const options = { ...identity.options, env, cwd: '/dev' };
    const args = ['exec', '--', 'sh', '-c', 'pwd; ls sev-guest'];
    expect(await softsnp(args, folder, options)).toMatchObject({ code: 0, stdout: '/dev\nsev-guest\n' });
  });

  it.skipIf(skip).each(LONG ? ['exec', 'exec --cpuid'] : ['exec'])(
    'passes open descriptors on to the command, and only those: %s',
    async (verb) => {
      const file = openSync(join(folder, 'five'), 'w');
      const script =
        'echo to three >&3; echo to five >&5; for n in 3 4 5 6 7 8 9; do test -e /proc/self/fd/$n && echo $n; done; true';
      const child = spawn(process.execPath, [bin, ...verb.split(' '), '--', 'sh', '-c', script], {
        ...{ cwd: folder, env, ...identity.options },
        stdio: ['ignore', 'pipe', 'inherit', 'pipe', 'ignore', file],
      });
      closeSync(file);
      const text = { 1: '', 3: '' };
      for (const fd of [1, 3] as const) {
        child.stdio[fd]!.on('data', (chunk) => {
          text[fd] += String(chunk);
        });
      }
      expect((await once(child, 'close'))[0]).toBe(0);
      expect(text[3]).toBe('to three\n');
      expect(readFileSync(join(folder, 'five'), 'utf8')).toBe('to five\n');
      expect(text[1]).toBe('3\n5\n');
    },
  );

  it.skipIf(skip)(
    'gives the command wrong answers of the key service, and no proxy of the outer network',
    async () => {
      const script = `Promise.all([1, 2].map(() => fetch('https://kdsintf.amd.com/vcek/v1/Milan/crl').then((r) => r.status)))
      .then((all) => console.log(all.sort().join(), Object.keys(process.env).filter((name) => /proxy/i.test(name)).join()))`;
      const proxies = Object.fromEntries(
        ['http_proxy', 'HTTPS_PROXY', 'ALL_PROXY', 'no_proxy'].map((name) => [name, 'http://192.0.2.1:8080']),
      );
      const options = { ...identity.options, env: { ...env, ...proxies } };
      const more = ['--kds-fault', 'crl=503*1', '--kds-rate', '5/1s'];
      const args = ['exec', '--kds-intercept', ...more, '--', process.execPath, '-e', script];
      expect(await softsnp(args, folder, options)).toMatchObject({
        code: 0,
        stderr: '',
        stdout: '200,503 \n',
      });
    },
  );

  const hasTerminal = spawnSync('script', ['--version']).status === 0;
  const SHELL_END = 'for i in 1 2 3 4 5 6 7 8; do sleep 0.1; done; echo end';
  const trapping = `trap "echo caught" INT; trap "echo quit" QUIT; echo up; ${SHELL_END}`;

  /** Does something to a softsnp at a terminal when the command is up; what was seen there then. */
  const atTerminal = async (
    what: (pid: number, type: (keys: string) => void) => void,
    { before = 'exec', input = '', command = `sh -c '${trapping}'` } = {},
  ): Promise<{ code: number; seen: string }> => {
    const line = `echo pid $$; ${before} ${SOFTSNP} exec -- ${command} ${input}`;
    const terminal = spawn('script', ['-qefc', line, '/dev/null'], {
      ...{ cwd: folder, stdio: ['pipe', 'pipe', 'inherit'], ...identity.options },
      env: { ...env, SHELL: '/bin/sh' },
    });
    let seen = '';
    terminal.stdout!.on('data', (chunk) => {
      seen += String(chunk);
    });
    const ended = once(terminal, 'close');
    await expect.poll(() => seen, { timeout: 10_000 }).toContain('up\r\n');
    what(Number(/pid (\d+)/.exec(seen)![1]), (keys) => terminal.stdin!.write(keys));
    const [code] = await ended;
    return {
      code,
      seen: seen
        .slice(seen.indexOf('up\r\n') + 4)
        .replaceAll(/\^.|\r/g, '')
        .replace('Quit\n', ''),
    };
  };

  it.skipIf(skip || !hasTerminal).each([
    ['Ctrl-C', (_: number, type: (keys: string) => void) => type('\x03'), '', 'caught\nend\n'],
    [
      'Ctrl-C with other input',
      (_: number, type: (keys: string) => void) => type('\x03'),
      '< /dev/null',
      'caught\nend\n',
    ],
    ['Ctrl-\\', (_: number, type: (keys: string) => void) => type('\x1c'), '', 'quit\nend\n'],
    ['kill -INT', (pid: number) => process.kill(pid, 'SIGINT'), '', 'caught\nend\n'],
    ['kill -QUIT', (pid: number) => process.kill(pid, 'SIGQUIT'), '< /dev/null', 'quit\nend\n'],
    ['kill -INT of the group', (pid: number) => process.kill(-pid, 'SIGINT'), '', 'caught\nend\n'],
  ] as const)('tells the command once of %s at a terminal', async (_, what, input, expected) => {
    expect(await atTerminal(what, { input })).toEqual({ code: 0, seen: expected });
  });

  it.skipIf(skip || !hasTerminal || !LONG)('stops with the command and goes on with it', async () => {
    const { code, seen } = await atTerminal(
      (pid, type) => {
        type('\x1a');
        setTimeout(() => process.kill(-pid, 'SIGCONT'), 300);
      },
      { before: 'set -m; exec' },
    );
    expect({ code, seen }).toEqual({ code: 0, seen: 'end\n' });
  });

  it.skipIf(skip || !hasTerminal || spawnSync('bash', ['--version']).status !== 0)(
    'gives the terminal back after a shell that had jobs on it',
    async () => {
      const { code, seen } = await atTerminal((_, type) => type('mine\n'), {
        before: '',
        command: `bash --norc -ic 'sleep 0.01; echo up'; read -r line; echo "read $line"`,
      });
      expect({ code, seen: seen.split('\n').at(-2) }).toEqual({ code: 0, seen: 'read mine' });
    },
  );
});
