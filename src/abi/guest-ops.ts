// SPDX-License-Identifier: Apache-2.0
/**
 * What a vCPU does that the rest of the machine can see. A guest program is a generator that yields
 * these; KVM_RUN performs them on the modelled hardware and hands the answer back. Between two of them
 * the guest computes privately. A second engine that executes x86-64 code would raise the same ones.
 */
import type { Gpa, Vmpl } from '../lib/addresses.ts';

export type GuestOp =
  /** Memory read; `encrypted` is the C-bit of the mapping. Answer: the bytes, in `into` where it has `length`. */
  | {
      readonly op: 'read';
      readonly gpa: Gpa;
      readonly length: number;
      readonly encrypted: boolean;
      readonly into?: Uint8Array;
    }
  /** Memory write through a mapping with or without the C-bit. Answer: undefined. */
  | { readonly op: 'write'; readonly gpa: Gpa; readonly data: Uint8Array; readonly encrypted: boolean }
  /** Answer: the 64-bit value. */
  | { readonly op: 'rdmsr'; readonly msr: number }
  | { readonly op: 'wrmsr'; readonly msr: number; readonly value: bigint }
  /** F3 0F 01 D9: leaves to the hypervisor with what the GHCB MSR names. */
  | { readonly op: 'vmgexit' }
  /** Answer: PvalidateResult. `size` 0 is 4 KiB, 1 is 2 MiB. */
  | { readonly op: 'pvalidate'; readonly gpa: Gpa; readonly size: 0 | 1; readonly validate: boolean }
  /** Answer: 0, 1 FAIL_INPUT, 2 FAIL_PERMISSION or 6 FAIL_SIZEMISMATCH. */
  | {
      readonly op: 'rmpadjust';
      readonly gpa: Gpa;
      readonly size: 0 | 1;
      readonly vmpl: Vmpl;
      /** Bit 0 read, 1 write, 2 execute user, 3 execute supervisor. */
      readonly permissions: number;
      readonly vmsa: boolean;
    }
  /** HLT, or HLT with a timer armed: the vCPU sleeps until an event or until the time has passed. */
  | { readonly op: 'hlt'; readonly wakeAfterMs?: number };

export interface PvalidateResult {
  /** 0 done, 1 FAIL_INPUT, 6 FAIL_SIZEMISMATCH. */
  readonly rc: 0 | 1 | 6;
  /** CF: the page already had the wanted state. */
  readonly unchanged: boolean;
}

export type GuestAnswer = undefined | Uint8Array | bigint | number | PvalidateResult;

/** Guest code: resumes with the answer to the op it yielded; an exception is thrown in at the yield. */
export type GuestProgram = Generator<GuestOp, void, GuestAnswer>;

/** An exception the hardware raises in the guest, as its handler would see it. */
export class GuestException extends Error {
  override readonly name = 'GuestException';
  readonly vector: number;
  readonly errorCode: number;

  constructor(vector: number, errorCode: number) {
    super(`vector ${vector}, error code 0x${errorCode.toString(16)}`);
    this.vector = vector;
    this.errorCode = errorCode;
  }
}

/** Exception vectors the model raises. */
export const VECTOR_UD = 6;
export const VECTOR_GP = 13;
export const VECTOR_PF = 14;
/** #VC; its error code is the exit code that caused it (0x404: access to a page that is not validated). */
export const VECTOR_VC = 29;
export const SVM_EXIT_NOT_VALIDATED = 0x404;
export const SVM_EXIT_NPF = 0x400;

/** Runs one vCPU's code up to the next thing the machine sees. */
export interface VcpuEngine {
  /** Continues with the answer to the previous op; null: the code is at an end (a shutdown). */
  next(answer: GuestAnswer): GuestOp | null;
  /** Continues in the guest's handler for an exception; null: no handler (triple fault). */
  raise(exception: GuestException): GuestOp | null;
}

/** The engine for guest programs that are generators. */
export class ProgramEngine implements VcpuEngine {
  readonly #program: GuestProgram;

  constructor(program: GuestProgram) {
    this.#program = program;
  }

  next(answer: GuestAnswer): GuestOp | null {
    const step = this.#program.next(answer);
    return step.done ? null : step.value;
  }

  raise(exception: GuestException): GuestOp | null {
    try {
      const step = this.#program.throw(exception);
      return step.done ? null : step.value;
    } catch (error) {
      if (error === exception) {
        return null;
      }
      throw error;
    }
  }
}
