// SPDX-License-Identifier: Apache-2.0
/**
 * ptrace(2) and wait4(2) on x86-64, as the kernel answers them: 0 or a value, or a negative errno. The
 * kernel ties a tracee to the thread that seized it, so all of this belongs on the main thread.
 *
 * ESRCH is an answer like any other: a tracee may be killed, and so leave its stop, at any moment.
 */
import { readU32, readU64, writeU64 } from '../lib/bytes.ts';
import { koffiFor } from './libc.ts';

/** <sys/ptrace.h>: those requests that a tracer which seized its tracees needs. */
const Request = {
  PEEKTEXT: 1,
  POKETEXT: 4,
  CONT: 7,
  GETREGS: 12,
  SETREGS: 13,
  GETEVENTMSG: 0x4201,
  GETSIGINFO: 0x4202,
  SEIZE: 0x4206,
  LISTEN: 0x4208,
} as const;

/** Events of a stop that is none for a signal. */
export const PtraceEvent = {
  FORK: 1,
  VFORK: 2,
  CLONE: 3,
  EXEC: 4,
  /** A group stop, the end of one, or the first stop of a new tracee. */
  STOP: 128,
} as const;

/** Follow every child and thread, stop at execve(2), and let nothing outlive the tracer. */
const OPTIONS = (1 << 1) | (1 << 2) | (1 << 3) | (1 << 4) | (1 << 20);

const SYS_PTRACE = 101;
const SYS_WAIT4 = 61;
const SYS_WAITID = 247;

const WNOHANG = 1;
const WSTOPPED = 2;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
const WALL = 0x4000_0000;
const P_ALL = 0;

const SIGINFO_SIZE = 128;
const WORD_SIZE = 8;

/** struct user_regs_struct. */
export const UserRegs = {
  size: 27 * 8,
  rbx: 5 * 8,
  rax: 10 * 8,
  rcx: 11 * 8,
  rdx: 12 * 8,
  rip: 16 * 8,
} as const;

export interface SignalInfo {
  readonly code: number;
  /** Where a fault happened. */
  readonly address: bigint;
}

/** What became of a tracee. */
export type Change =
  | { readonly kind: 'exited'; readonly code: number }
  | { readonly kind: 'killed'; readonly signal: number }
  /** `event` is 0 when a signal is about to be delivered. */
  | { readonly kind: 'stopped'; readonly signal: number; readonly event: number };

type Bytes = Uint8Array;
type Call = (...args: (number | bigint | Bytes | null)[]) => number;

export class Ptrace {
  readonly #errno: () => number;
  readonly #number: Call;
  readonly #pointer: Call;
  readonly #wait4: Call;
  readonly #waitid: Call;
  readonly #word = new Uint8Array(WORD_SIZE);
  readonly #status = new Uint8Array(4);
  readonly #siginfo = new Uint8Array(SIGINFO_SIZE);

  /** Errors   FFI_UNAVAILABLE */
  constructor() {
    const koffi = koffiFor('tracing the command');
    const libc = koffi.load(null);
    // glibc's ptrace() is variadic and returns what it peeks in place of an error, hence the bare calls.
    const call = (...parameters: string[]): Call =>
      libc.func('syscall', 'long', ['long', ...parameters]) as Call;
    this.#errno = () => koffi.errno();
    this.#number = call('long', 'long', 'uint64_t', 'uint64_t');
    this.#pointer = call('long', 'long', 'uint64_t', 'void *');
    this.#wait4 = call('long', 'void *', 'long', 'void *');
    this.#waitid = call('long', 'long', 'void *', 'long', 'void *');
  }

  #outcome(result: number): number {
    return result < 0 ? -this.#errno() : result;
  }

  /** Becomes the tracer of a process that goes on running, and of all that it starts from now on. */
  seize(pid: number): number {
    return this.#outcome(this.#number(SYS_PTRACE, Request.SEIZE, pid, 0, OPTIONS));
  }

  /** Lets a stopped tracee run, with this signal delivered; 0 for none. */
  resume(pid: number, signal: number): number {
    return this.#outcome(this.#number(SYS_PTRACE, Request.CONT, pid, 0, signal));
  }

  /** Leaves a tracee in its group stop, from which SIGCONT wakes it. */
  listen(pid: number): number {
    return this.#outcome(this.#number(SYS_PTRACE, Request.LISTEN, pid, 0, 0));
  }

  /** The process id an event tells of; null when the tracee is gone. */
  eventMessage(pid: number): number | null {
    const result = this.#pointer(SYS_PTRACE, Request.GETEVENTMSG, pid, 0, this.#word);
    return result < 0 ? null : Number(readU64(this.#word, 0));
  }

  signalInfo(pid: number): SignalInfo | null {
    const result = this.#pointer(SYS_PTRACE, Request.GETSIGINFO, pid, 0, this.#siginfo);
    return result < 0 ? null : { code: readU32(this.#siginfo, 8) | 0, address: readU64(this.#siginfo, 16) };
  }

  getRegs(pid: number, regs: Bytes): number {
    return this.#outcome(this.#pointer(SYS_PTRACE, Request.GETREGS, pid, 0, regs));
  }

  setRegs(pid: number, regs: Bytes): number {
    return this.#outcome(this.#pointer(SYS_PTRACE, Request.SETREGS, pid, 0, regs));
  }

  /** Eight bytes of a tracee's memory, whatever its protection; null where there is none. */
  peek(pid: number, at: bigint): bigint | null {
    const result = this.#pointer(SYS_PTRACE, Request.PEEKTEXT, pid, at, this.#word);
    return result < 0 ? null : readU64(this.#word, 0);
  }

  /** Writes eight bytes, also where the tracee itself could not: the page becomes its own copy. */
  poke(pid: number, at: bigint, word: bigint): number {
    return this.#outcome(this.#number(SYS_PTRACE, Request.POKETEXT, pid, at, word));
  }

  /** The next change of a tracee; null when there is none, 'gone' when it is no tracee of ours. Never waits. */
  wait(pid: number): Change | 'gone' | null {
    const result = this.#wait4(SYS_WAIT4, pid, this.#status, WNOHANG | WALL, null);
    if (result <= 0) {
      return result === 0 ? null : 'gone';
    }
    const status = readU32(this.#status, 0);
    const low = status & 0x7f;
    if (low === 0) {
      return { kind: 'exited', code: (status >>> 8) & 0xff };
    }
    return low === 0x7f
      ? { kind: 'stopped', signal: (status >>> 8) & 0xff, event: status >>> 16 }
      : { kind: 'killed', signal: low };
  }

  /** A child or tracee that has changed, be it ours or another part's of this process; null for none. */
  anyChanged(): number | null {
    this.#siginfo.fill(0);
    const options = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WALL;
    const result = this.#waitid(SYS_WAITID, P_ALL, 0, this.#siginfo, options, null);
    const pid = result < 0 ? 0 : readU32(this.#siginfo, 16);
    return pid === 0 ? null : pid;
  }
}

/** Sets the register at an offset of `UserRegs` to a 32-bit value, as an instruction that writes one does. */
export function setRegister(regs: Bytes, offset: number, value: number): void {
  writeU64(regs, offset, BigInt(value >>> 0));
}
