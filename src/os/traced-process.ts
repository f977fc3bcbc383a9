// SPDX-License-Identifier: Apache-2.0
/**
 * Starting a command that stops for a tracer. Node's own child processes will not do: libuv waits for them
 * and would take a tracee's stops for the end of it.
 *
 * The child comes from a bare fork(2) and does system calls only: default signal handlers, stdio without
 * close-on-exec, then it reads from a pipe until it has a tracer, then execve(2).
 */
import { accessSync, closeSync, constants, openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { errnoName } from '../abi/errno.ts';
import { utf8, writeU64 } from '../lib/bytes.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { addressOf, koffiFor } from './libc.ts';
import { machineCode } from './machine-code.ts';
import type { Ptrace } from './ptrace.ts';

const Sys = {
  read: 0,
  rt_sigaction: 13,
  rt_sigprocmask: 14,
  execve: 59,
  fcntl: 72,
  prctl: 157,
  exit_group: 231,
} as const;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const O_CLOEXEC = 0o2000000;
const PR_SET_PDEATHSIG = 1;
const SIGKILL = 9;
const SIG_BLOCK = 0;
const SIG_SETMASK = 2;
/** Bytes of a signal set, for the kernel and for the C library. */
const KERNEL_SIGSET = 8n;
const SIGSET_SIZE = 128;
const SIGNALS = 64;
/** struct sigaction of the kernel: zeros are SIG_DFL, no flags, an empty mask. */
const ZEROS = 64;
const WORD = 8;
/** confstr(_CS_PATH): where a shell looks when there is no PATH. */
const DEFAULT_PATH = '/bin:/usr/bin';
const SHELL = '/bin/sh';

type Environment = Readonly<Record<string, string | undefined>>;

/** What a command starts with besides our stdio. */
export interface Surroundings {
  readonly env: Environment;
  /** Descriptors above 2 that it is to have. */
  readonly descriptors: readonly number[];
}

/**
 * Starts a command, found in PATH as execvp(3) does, and seizes it.
 *
 * Returns  its process id
 * Errors   CPUID_UNAVAILABLE where a process or a trace of it is refused; FFI_UNAVAILABLE
 */
export function startTraced(
  ptrace: Ptrace,
  command: readonly string[],
  { env, descriptors }: Surroundings,
): number {
  const koffi = koffiFor('starting a traced command');
  const libc = koffi.load(null);
  const pipe2 = libc.func('int pipe2(void *fds, int flags)');
  const sigmask = libc.func('int pthread_sigmask(int how, const void *set, void *old)');
  const fcntl = libc.func('fcntl', 'int', ['int', 'int', 'long']);
  const code = machineCode();
  const ends = new Int32Array(2);
  if (pipe2(ends, O_CLOEXEC) !== 0) {
    throw refusedBy('pipe2', -koffi.errno());
  }
  const [readEnd, writeEnd] = ends as unknown as readonly [number, number];
  try {
    const stdioFlags = [0, 1, 2].map((fd) => fcntl(fd, F_GETFL, 0) as number);
    const { calls, arena } = childCalls(command, env, { readEnd, stdioFlags, descriptors });
    // A handler of ours that ran in the child would write to the pipes it shares with us.
    const before = new Uint8Array(SIGSET_SIZE);
    sigmask(SIG_BLOCK, new Uint8Array(SIGSET_SIZE).fill(0xff), before);
    const pid = code.forkCalls(calls);
    sigmask(SIG_SETMASK, before, null);
    arena.done();
    if (pid < 0) {
      throw refusedBy('fork', pid);
    }
    const seized = ptrace.seize(pid);
    if (seized < 0) {
      process.kill(pid, SIGKILL);
      while (ptrace.wait(pid) === null) {
        // It waits in a read and dies at once.
      }
      throw refusedBy('ptrace', seized);
    }
    writeSync(writeEnd, new Uint8Array(1));
    return pid;
  } finally {
    closeSync(readEnd);
    closeSync(writeEnd);
  }
}

function refusedBy(call: string, errno: number): EnvironmentError {
  return new EnvironmentError('CPUID_UNAVAILABLE', `the kernel answers ${errnoName(errno)}`, {
    where: `${call}(2)`,
  });
}

/** Memory with texts and pointers to them, laid out before the fork. */
class Arena {
  readonly #bytes: Uint8Array;
  readonly #address: bigint;
  #used = ZEROS;

  constructor(size: number) {
    this.#bytes = new Uint8Array(ZEROS + size);
    this.#address = addressOf(this.#bytes);
  }

  /** So many zero bytes. */
  get zeros(): bigint {
    return this.#address;
  }

  text(value: string): bigint {
    const bytes = utf8(value);
    const at = this.#take(bytes.length + 1);
    this.#bytes.set(bytes, at);
    return this.#address + BigInt(at);
  }

  /** Pointers to texts, with a null pointer after the last. */
  texts(values: readonly string[]): bigint {
    const at = this.#take((values.length + 1) * WORD);
    values.forEach((value, i) => {
      writeU64(this.#bytes, at + i * WORD, this.text(value));
    });
    return this.#address + BigInt(at);
  }

  /** States that nothing points here any more: until then the memory is in use. */
  done(): void {
    this.#used = this.#bytes.length;
  }

  #take(size: number): number {
    const at = Math.ceil(this.#used / WORD) * WORD;
    this.#used = at + size;
    return at;
  }
}

interface ChildFiles {
  readonly readEnd: number;
  /** Status flags of descriptors 0 to 2; negative for those that are closed. */
  readonly stdioFlags: readonly number[];
  readonly descriptors: readonly number[];
}

function childCalls(
  command: readonly string[],
  env: Environment,
  { readEnd, stdioFlags, descriptors }: ChildFiles,
) {
  const environment = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const file = command[0] ?? '';
  const places = candidates(file, env);
  const scripts = places.filter(({ isScript }) => isScript);
  const size = (texts: readonly string[]): number =>
    texts.reduce((sum, text) => sum + utf8(text).length + 3 * WORD, 2 * WORD);
  const arena = new Arena(
    size(environment) +
      size(command) * (1 + scripts.length) +
      size(places.map(({ path }) => path)) * 3 +
      2 * (places.length + 1) * size([SHELL]),
  );
  const calls: bigint[] = [];
  const call = (number: number, ...args: readonly (number | bigint)[]): void => {
    calls.push(BigInt(number), ...Array.from({ length: 6 }, (_, i) => BigInt(args[i] ?? 0)));
  };
  for (let signal = 1; signal <= SIGNALS; signal++) {
    call(Sys.rt_sigaction, signal, arena.zeros, 0, KERNEL_SIGSET);
  }
  stdioFlags.forEach((flags, fd) => {
    if (flags >= 0) {
      call(Sys.fcntl, fd, F_SETFD, 0);
      call(Sys.fcntl, fd, F_SETFL, flags & ~constants.O_NONBLOCK);
    }
  });
  for (const fd of descriptors) {
    call(Sys.fcntl, fd, F_SETFD, 0);
  }
  // Between here and its seizure nothing else would end it with us.
  call(Sys.prctl, PR_SET_PDEATHSIG, SIGKILL);
  call(Sys.read, readEnd, arena.text(' '), 1);
  call(Sys.prctl, PR_SET_PDEATHSIG, 0);
  call(Sys.rt_sigprocmask, SIG_SETMASK, arena.zeros, 0, KERNEL_SIGSET);
  const argv = arena.texts(command);
  const envp = arena.texts(environment);
  for (const { path, isScript } of places) {
    call(Sys.execve, arena.text(path), argv, envp);
    if (isScript) {
      // ENOEXEC: a script that does not say whose.
      call(Sys.execve, arena.text(SHELL), arena.texts([SHELL, path, ...command.slice(1)]), envp);
    }
  }
  call(Sys.exit_group, places.length === 0 ? NOT_FOUND : NOT_EXECUTABLE);
  return { calls: BigUint64Array.from(calls), arena };
}

/** Exit codes of a shell, and of ours, for a command that cannot be started. */
export const NOT_EXECUTABLE = 126;
export const NOT_FOUND = 127;

interface Candidate {
  readonly path: string;
  /** Neither a program nor a script that names its interpreter. */
  readonly isScript: boolean;
}

function candidates(file: string, env: Environment): readonly Candidate[] {
  const paths = file.includes('/')
    ? [file]
    : (env['PATH'] ?? DEFAULT_PATH).split(':').map((folder) => join(folder === '' ? '.' : folder, file));
  return file === '' ? [] : paths.filter(mayBeThere).map((path) => ({ path, isScript: isPlainScript(path) }));
}

function mayBeThere(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    // In a folder that is not open to us, say: the kernel has the last word.
    return true;
  }
}

function isPlainScript(path: string): boolean {
  const magic = Buffer.alloc(4);
  try {
    accessSync(path, constants.X_OK);
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      readSync(fd, magic, 0, magic.length, 0);
    } finally {
      closeSync(fd);
    }
  } catch {
    // What cannot be read the kernel alone can judge.
    return false;
  }
  return !magic.equals(Buffer.from('\x7fELF', 'latin1')) && magic.toString('latin1', 0, 2) !== '#!';
}
