// SPDX-License-Identifier: Apache-2.0
/** CPUID of a command under a real kernel: threads, children, signals and stops of a C program. */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { EnvironmentError } from '../../src/lib/errors.ts';
import { ffiAvailable } from '../../src/os/libc.ts';
import { machineCode } from '../../src/os/machine-code.ts';
import { cpuidDecoder } from '../../src/os/x86-decoder.ts';
import { type Compiled, compile } from '../compile.ts';

const here = dirname(fileURLToPath(import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'softsnp-cpuid-'));
const client = join(folder, 'client');
let compiled: Compiled;
/** Others may keep the machine busy. */
const PATIENT = { timeout: 10_000, interval: 5 };
const started: ChildProcess[] = [];

function obstacle(): string | null {
  if (!ffiAvailable()) {
    return 'koffi is not installed';
  }
  try {
    machineCode();
    cpuidDecoder();
  } catch (error) {
    return error instanceof EnvironmentError ? error.message : String(error);
  }
  const namespace = process.geteuid?.() === 0 ? '-m' : '-Urm';
  if (!existsSync('/dev/fuse') || spawnSync('unshare', [namespace, 'true']).status !== 0) {
    return 'the kernel forbids namespaces, or /dev/fuse is missing';
  }
  return spawnSync('gcc', ['--version']).status === 0 ? null : 'gcc is not installed';
}

const missing = obstacle();
if (missing !== null) {
  process.stderr.write(`SKIPPED: CPUID of commands: ${missing}\n`);
}

function gcc(name: string, ...options: string[]): string {
  const path = join(folder, name);
  const made = spawnSync('gcc', ['-O1', '-pthread', ...options, '-o', path, join(here, 'client.c')], {
    encoding: 'utf8',
  });
  expect(made.stderr).toBe('');
  return path;
}

const execIn = (product: string, ...command: string[]): readonly string[] => [
  compiled.path('test/cpuid/exec'),
  product,
  ...command,
];
const run = promisify(execFile);
const output = async (product: string, ...command: string[]): Promise<string> =>
  (await run(process.execPath, execIn(product, ...command))).stdout;

/** A command that says its process id, and what is said later. */
class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<readonly [code: number | null, signal: NodeJS.Signals | null]>;
  pid = 0;
  #said = '';

  constructor(...command: string[]) {
    this.child = spawn(process.execPath, execIn('Milan', ...command), {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    started.push(this.child);
    this.ended = once(this.child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
    this.child.stdout!.on('data', (chunk) => {
      this.#said += String(chunk);
    });
  }

  async up(): Promise<this> {
    await this.says(/^up (\d+)$/m);
    this.pid = outerPid(this.child.pid!, /^up (\d+)$/m.exec(this.#said)![1]!);
    return this;
  }

  async says(pattern: RegExp): Promise<void> {
    await expect.poll(() => this.#said, PATIENT).toMatch(pattern);
  }

  /** As in /proc: t is a stop that a tracer knows of, Z is dead. */
  get state(): string {
    try {
      return /^State:\s*(\S)/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))![1]!;
    } catch {
      return 'gone';
    }
  }
}

/** What a child of softsnp is called here that has another number in its pid namespace. */
function outerPid(parent: number, inner: string): number {
  const isIt = (pid: string): boolean => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'latin1');
      return new RegExp(`^PPid:\\s*${parent}$[^]*^NSpid:.*\\s${inner}$`, 'm').test(status);
    } catch {
      return false;
    }
  };
  return Number(readdirSync('/proc').find(isIt));
}

beforeAll(() => {
  if (missing === null) {
    compiled = compile(['test/cpuid/exec']);
    gcc('client', '-Wall', '-Wextra');
  }
});

afterEach(() => {
  for (const child of started.splice(0)) {
    child.kill('SIGKILL');
  }
});

afterAll(() => {
  rmSync(folder, { recursive: true });
  compiled?.remove();
});

describe.skipIf(missing !== null)('a traced command', () => {
  it('sees a processor of the line, with the features of the real one', async () => {
    const seen = await output('Turin', client, 'leaves');
    expect(seen).toMatch(/^0: \S+ 68747541 444d4163 69746e65$/m);
    expect(seen).toMatch(/^1: b00f21 /m);
    expect(seen).toMatch(/^80000001: b00f21 40000000 /m);
    const name = 'AMD EPYC 9755 128-Core Processor'.padEnd(47);
    expect(seen).toContain(`8000001f: 330fffff 4173 3ee 64\n${name}\nfeatures: real\n`);
  });

  it('sees it in children, threads and the programs that they become', async () => {
    const commands = ['children 10', 'threads 8 20', 'exec', 'exec-thread', 'constants'];
    const script = commands.map((words) => `${client} ${words}`).join(' && ');
    const name = 'AMD EPYC 7763 64-Core Processor'.padEnd(47);
    expect(await output('Milan', 'sh', '-c', script)).toBe(
      `wrong: 0\nwrong: 0\n${name}\n${name}\n90a20f90 a20fa20f fa20fa20fa20fa2\n`,
    );
  });

  it('has its signals: its own SIGILL, alarms at any instant, the stops of a job', async () => {
    const script = ['own-sigill', 'alarmed', 'job'].map((words) => `${client} ${words}`).join(' && ');
    expect((await output('Milan', 'sh', '-c', script)).split('\n')).toEqual([
      ...['ud2: handled 1 code 2 at 1', 'kill: handled 2 code 0', 'cpuid: 1 handled 2', 'wrong: 0'],
      ...['stopped: 1 by 19', 'early: 0', 'continued: 1'],
      ...['stopped: 1 by 20', 'early: 0', 'continued: 1', 'exit: 7', ''],
    ]);
  });

  it('ends as it would: exit codes, signals, the last thread, and programs that cannot be started', async () => {
    const end = async (...command: string[]) => {
      const { code, signal } = await run(process.execPath, execIn('Milan', ...command)).then(
        () => ({ code: 0, signal: null }),
        (failure) => failure,
      );
      return [code, signal ?? null];
    };
    const inside = ['exit 5', 'leader-exits 6', 'die 4'].map((words) => `${client} ${words}; echo $?`);
    expect(await output('Milan', 'sh', '-c', inside.join(';'))).toBe('5\n6\n132\n');
    expect(
      await Promise.all([end(client, 'exit', '7'), end(client, 'die', '15'), end('no-such-command')]),
    ).toEqual([
      [7, null],
      [null, 'SIGTERM'],
      [127, null],
    ]);
  });

  it('gets what is sent to softsnp, and can be stopped and continued', async () => {
    const running = await new Running(client, 'up').up();
    running.child.kill('SIGUSR1');
    await running.says(/caught 10/);
    process.kill(running.pid, 'SIGSTOP');
    await expect.poll(() => running.state, PATIENT).toBe('t');
    process.kill(running.pid, 'SIGCONT');
    await running.says(/caught 18/);
    running.child.kill('SIGINT');
    await running.says(/caught 2\n/);
    running.child.kill('SIGTERM');
    expect(await running.ended).toEqual([null, 'SIGTERM']);
  });

  it('may be killed in the middle of a CPUID, and leaves nothing behind', async () => {
    const kill = `${client} threads 8 2000 & p=$!; sleep 0.0$i; kill -9 $p`;
    const script = `for i in 1 2 3 4 5 6; do ${kill}; done; wait; ${client} threads 4 10`;
    expect(await output('Milan', 'sh', '-c', script)).toBe('wrong: 0\n');
  });

  it('ends when softsnp is killed', async () => {
    const running = await new Running(client, 'up').up();
    running.child.kill('SIGKILL');
    await running.ended;
    await expect.poll(() => running.state, PATIENT).toMatch(/^[ZX]$|^gone$/);
  });

  it('may be at a fixed address and stripped; one that does not say where its functions are is named', async () => {
    const fixed = gcc('fixed', '-no-pie', '-s');
    const bare = gcc('bare', '-s', '-Wl,--no-eh-frame-hdr');
    expect((await output('Genoa', fixed, 'name')).trim()).toBe('AMD EPYC 9654 96-Core Processor');
    const script = `${bare} exit 3; ${bare} exit 3; echo $?`;
    const { stdout, stderr } = await run(process.execPath, execIn('Milan', 'sh', '-c', script));
    expect(stdout).toMatch(/^[13]\n$/);
    expect(stderr).toBe(`untold: ${bare}: it has no table of its functions\n`);
  });

  it('is refused with a reason where the kernel forbids tracing', async () => {
    const refused = await run(client, ['no-ptrace', process.execPath, ...execIn('Milan', 'true')]).catch(
      (failure) => failure,
    );
    expect(refused).toMatchObject({
      code: 3,
      stdout: 'CPUID_UNAVAILABLE: ptrace(2): the kernel answers EPERM\n',
    });
  });

  it('takes well below a millisecond for a CPUID', async () => {
    expect(Number(await output('Milan', client, 'timed', '500'))).toBeLessThan(1000);
  });
});
