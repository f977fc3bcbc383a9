// SPDX-License-Identifier: Apache-2.0
/**
 * Answers the CPUID instructions of a command and of all that it starts.
 *
 * At each execve(2) the instructions of the program file become UD2, which is as long; where one is met, the
 * kernel stops the thread with SIGILL, its registers are set to the answer, and it goes on behind it. All
 * other signals and stops pass as if nobody were here. Everything happens on the event loop and never waits,
 * for the tracees may be waiting for devices which that loop serves.
 *
 * Differs  docs/limitations.md#cpuid-of-commands
 */

import { readFileSync } from 'node:fs';
import { type FileHandle, open, readFile, readlink } from 'node:fs/promises';
import { constants } from 'node:os';
import { readU32, readU64, writeU64 } from '../lib/bytes.ts';
import { CPUID_SIZE, type CpuidOffsets, type CpuidSites, cpuidSites } from './cpuid-sites.ts';
import { errnoCode } from './errno.ts';
import type { CpuidRegisters } from './machine-code.ts';
import { type Change, Ptrace, PtraceEvent, setRegister, UserRegs } from './ptrace.ts';
import { type Surroundings, startTraced } from './traced-process.ts';

export interface CpuidTracing {
  /** What CPUID gives for EAX and ECX. */
  readonly answer: (leaf: number, subleaf: number) => CpuidRegisters;
  readonly offsets: CpuidOffsets;
  /** Told once of each program whose CPUID instructions stay as they are, or some of them. */
  readonly onUntold: (path: string, why: string) => void;
}

export interface TracedEnd {
  readonly code: number;
  /** Number of the signal that ended the command; null when it exited. */
  readonly signal: number | null;
}

/** What is known of the memory a task runs in. */
interface Program {
  /** Where UD2 stands for CPUID. */
  readonly sites: ReadonlySet<bigint>;
}

const NO_SITES: Program = { sites: new Set() };

const { SIGILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU } = constants.signals;
const GROUP_STOPS: ReadonlySet<number> = new Set([SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
/** si_code of what UD2 raises; a signal that somebody sends has none above zero. */
const ILL_ILLOPN = 2;
/** Second byte of CPUID, and of UD2; the first, 0F, is the same. */
const CPUID_BYTE = 0xa2n;
const UD2_BYTE = 0x0bn;
const ESCAPE_BYTE = 0x0fn;
const AT_ENTRY = 9n;
/** Changes after which other things of the event loop get their turn. */
const CHANGES_IN_A_ROW = 64;
/** Programs whose instructions are remembered; more than any build or test suite runs. */
const MAX_REMEMBERED = 1024;

/**
 * Runs a command with its CPUID answered; stdio, process group and terminal are ours.
 *
 * Errors   CPUID_UNAVAILABLE, FFI_UNAVAILABLE
 */
export class CpuidTracer {
  readonly ended: Promise<TracedEnd>;
  readonly #tracing: CpuidTracing;
  readonly #ptrace = new Ptrace();
  /** Every traced process and thread; null until its program has been looked at. */
  readonly #tasks = new Map<number, Program | null>();
  readonly #remembered = new Map<string, Promise<CpuidSites | null>>();
  readonly #regs = new Uint8Array(UserRegs.size);
  readonly #root: number;
  readonly #end: (end: TracedEnd) => void;
  #running = true;

  constructor(command: readonly string[], surroundings: Surroundings, tracing: CpuidTracing) {
    this.#tracing = tracing;
    let end: (end: TracedEnd) => void;
    this.ended = new Promise((resolve) => {
      end = resolve;
    });
    this.#end = end!;
    process.on('SIGCHLD', this.#poll);
    try {
      this.#root = startTraced(this.#ptrace, command, surroundings);
    } catch (error) {
      this.close();
      throw error;
    }
    this.#tasks.set(this.#root, NO_SITES);
    this.#poll();
  }

  /** Sends a signal to the command, as long as there is one. */
  kill(signal: NodeJS.Signals): void {
    if (this.#running) {
      process.kill(this.#root, signal);
    }
  }

  /** No more is done for tracees; those that are left end with this process. */
  close(): void {
    process.off('SIGCHLD', this.#poll);
  }

  /** One SIGCHLD may stand for any number of changes. */
  readonly #poll = (): void => {
    for (let count = 0; count < CHANGES_IN_A_ROW; count++) {
      const pid = this.#ptrace.anyChanged();
      if (pid === null) {
        return;
      }
      const taken = this.#tasks.has(pid) && this.#take(pid);
      // Else a child of another part of this process, or a tracee that stops before its parent tells of it.
      if (!taken && !this.#takeAll() && !this.#adopt(pid)) {
        return;
      }
    }
    setImmediate(this.#poll);
  };

  #takeAll(): boolean {
    let taken = false;
    for (const task of [...this.#tasks.keys()]) {
      taken = this.#take(task) || taken;
    }
    return taken;
  }

  /** Handles what has become of a task; false when nothing has. */
  #take(task: number): boolean {
    const change = this.#ptrace.wait(task);
    if (change === null) {
      return false;
    }
    if (change === 'gone') {
      // A thread whose process became another program.
      this.#tasks.delete(task);
    } else if (change.kind === 'stopped') {
      this.#stopped(task, change);
    } else {
      this.#tasks.delete(task);
      if (task === this.#root) {
        this.#running = false;
        this.#end(
          change.kind === 'exited'
            ? { code: change.code, signal: null }
            : { code: 128 + change.signal, signal: change.signal },
        );
      }
    }
    return true;
  }

  #adopt(pid: number): boolean {
    if (this.#tasks.has(pid) || tracerOf(pid) !== process.pid) {
      return false;
    }
    this.#tasks.set(pid, null);
    return this.#take(pid);
  }

  #stopped(task: number, { signal, event }: Extract<Change, { kind: 'stopped' }>): void {
    switch (event) {
      case 0:
        this.#ptrace.resume(task, signal === SIGILL && this.#answered(task) ? 0 : signal);
        break;
      case PtraceEvent.FORK:
      case PtraceEvent.VFORK:
      case PtraceEvent.CLONE:
        this.#forked(task);
        break;
      case PtraceEvent.EXEC:
        this.#executed(task);
        break;
      case PtraceEvent.STOP:
        if (GROUP_STOPS.has(signal)) {
          this.#ptrace.listen(task);
        } else if (this.#tasks.get(task) === null) {
          void this.#examine(task).finally(() => this.#ptrace.resume(task, 0));
        } else {
          this.#ptrace.resume(task, 0);
        }
        break;
      default:
        this.#ptrace.resume(task, 0);
    }
  }

  /** A task has a new child or thread, which starts with the same code in its memory. */
  #forked(task: number): void {
    const child = this.#ptrace.eventMessage(task);
    const program = this.#tasks.get(task);
    if (child !== null && program !== undefined && (this.#tasks.get(child) ?? null) === null) {
      this.#tasks.set(child, program);
    }
    this.#ptrace.resume(task, 0);
  }

  #executed(task: number): void {
    // The thread that called execve(2) has the id of its process now; the others are no more.
    const former = this.#ptrace.eventMessage(task);
    if (former !== null && former !== task) {
      this.#tasks.delete(former);
    }
    this.#tasks.set(task, NO_SITES);
    void this.#examine(task).finally(() => this.#ptrace.resume(task, 0));
  }

  /** True when the signal was ours: the thread goes on behind its CPUID. */
  #answered(task: number): boolean {
    const sites = this.#tasks.get(task)?.sites;
    const info = this.#ptrace.signalInfo(task);
    const regs = this.#regs;
    if (
      sites === undefined ||
      info === null ||
      info.code !== ILL_ILLOPN ||
      !sites.has(info.address) ||
      this.#ptrace.getRegs(task, regs) < 0
    ) {
      return false;
    }
    const at = readU64(regs, UserRegs.rip);
    if (at !== info.address) {
      return false;
    }
    const { eax, ebx, ecx, edx } = this.#tracing.answer(
      readU32(regs, UserRegs.rax),
      readU32(regs, UserRegs.rcx),
    );
    setRegister(regs, UserRegs.rax, eax);
    setRegister(regs, UserRegs.rbx, ebx);
    setRegister(regs, UserRegs.rcx, ecx);
    setRegister(regs, UserRegs.rdx, edx);
    writeU64(regs, UserRegs.rip, at + BigInt(CPUID_SIZE));
    this.#ptrace.setRegs(task, regs);
    return true;
  }

  /** Puts UD2 in the places of CPUID, while the task is stopped. Whatever fails leaves the program as it is. */
  async #examine(task: number): Promise<void> {
    const told = await this.#sitesOf(task);
    if (told === null || told.sites.length === 0 || !this.#tasks.has(task)) {
      return;
    }
    const entry = await entryPoint(task);
    if (entry === null) {
      return;
    }
    const moved = entry - BigInt(told.entry);
    const sites = new Set<bigint>();
    for (const site of told.sites) {
      const at = BigInt(site) + moved;
      if (this.#patch(task, at)) {
        sites.add(at);
      }
    }
    if (this.#tasks.has(task)) {
      this.#tasks.set(task, { sites });
    }
  }

  /** False when something else is there. */
  #patch(task: number, at: bigint): boolean {
    const second = at + 1n;
    const word = second & ~7n;
    const shift = (second & 7n) * 8n;
    const first = this.#ptrace.peek(task, at & ~7n);
    const value = this.#ptrace.peek(task, word);
    if (first === null || value === null || ((first >> ((at & 7n) * 8n)) & 0xffn) !== ESCAPE_BYTE) {
      return false;
    }
    const byte = (value >> shift) & 0xffn;
    // A child that is met before its parent tells of it has its parent's memory, with UD2 in place.
    return (
      byte === UD2_BYTE ||
      (byte === CPUID_BYTE && this.#ptrace.poke(task, word, value ^ ((byte ^ UD2_BYTE) << shift)) >= 0)
    );
  }

  async #sitesOf(task: number): Promise<CpuidSites | null> {
    const link = `/proc/${task}/exe`;
    let file: FileHandle | null = null;
    try {
      file = await open(link);
      const { dev, ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
      const key = [dev, ino, size, mtimeNs, ctimeNs].join(' ');
      let known = this.#remembered.get(key);
      if (known === undefined) {
        known = this.#read(file, Number(size), link);
        if (this.#remembered.size < MAX_REMEMBERED) {
          this.#remembered.set(key, known);
        }
      }
      return await known.catch((error) => {
        this.#remembered.delete(key);
        throw error;
      });
    } catch (error) {
      // Otherwise it was killed meanwhile.
      if (['EACCES', 'EPERM'].includes(errnoCode(error))) {
        this.#tracing.onUntold(nameOf(task), 'it cannot be read');
      }
      return null;
    } finally {
      await file?.close();
    }
  }

  async #read(file: FileHandle, size: number, link: string): Promise<CpuidSites | null> {
    const source = {
      async read(at: number, length: number) {
        const bytes = new Uint8Array(Math.max(0, Math.min(length, size - at)));
        const { bytesRead } = await file.read(bytes, 0, bytes.length, at);
        return bytes.subarray(0, bytesRead);
      },
    };
    const told = await cpuidSites(source, this.#tracing.offsets);
    if (told !== null && told.untold !== null) {
      this.#tracing.onUntold(await readlink(link).catch(() => 'a program that has ended'), told.untold);
    }
    return told;
  }
}

/** Where the program of a task starts in its memory; null when the task is gone. */
async function entryPoint(task: number): Promise<bigint | null> {
  try {
    const auxv = await readFile(`/proc/${task}/auxv`);
    for (let at = 0; at + 16 <= auxv.length; at += 16) {
      if (readU64(auxv, at) === AT_ENTRY) {
        return readU64(auxv, at + 8);
      }
    }
  } catch {
    // It was killed meanwhile.
  }
  return null;
}

/** What the kernel calls a program that we may run and not read. */
function nameOf(task: number): string {
  try {
    return readFileSync(`/proc/${task}/comm`, 'utf8').trim();
  } catch {
    return `process ${task}`;
  }
}

/** The process that traces a task; 0 for none. */
function tracerOf(pid: number): number {
  try {
    return Number(/^TracerPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
