// SPDX-License-Identifier: Apache-2.0
/**
 * A hypervisor for tests of guest code: it performs the ops of one vCPU on memory of its own and answers
 * each VMGEXIT as the test says. It is not the machine: nothing in kvm/ or hw/ runs here.
 */
import {
  GHCB_SHARED_BUFFER_OFFSET,
  GHCB_VALID_BITMAP_OFFSET,
  GhcbExit,
  type GhcbQuad,
  ghcbClearValid,
  ghcbGet,
  ghcbPut,
} from '../abi/ghcb.ts';
import {
  GHCB_MSR_CPUID_REQ,
  GHCB_MSR_HV_FT_REQ,
  GHCB_MSR_PSC_REQ,
  GHCB_MSR_REG_GPA_REQ,
  GHCB_MSR_SEV_INFO_REQ,
  GHCB_MSR_TERM_REQ,
  GhcbMsrGpa,
  GhcbMsrPscReq,
  GhcbMsrTermReq,
  ghcbMsrCode,
  ghcbMsrCpuidResp,
  ghcbMsrHvFtResp,
  ghcbMsrPscResp,
  ghcbMsrRegGpaResp,
  ghcbMsrSevInfoResp,
} from '../abi/ghcb-msr.ts';
import type { GuestAnswer, GuestOp } from '../abi/guest-ops.ts';
import { Msr } from '../abi/msrs.ts';
import {
  PscOp,
  pscCurEntry,
  pscEndEntry,
  pscEntryAt,
  pscEntryGfn,
  pscEntryOperation,
  pscEntryPagesize,
  pscSetCurEntry,
} from '../abi/psc.ts';
import { type Gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { VirtualClock } from '../lib/clock.ts';
import type { Guest } from './cpu.ts';

export interface PscEntryText {
  readonly gfn: number;
  readonly operation: number;
  readonly pagesize: 0 | 1;
}

/** Memory that is zero until written. */
export class TestMemory {
  readonly #pages = new Map<bigint, Uint8Array>();

  page(gpa: bigint): Uint8Array {
    const frame = gpa >> 12n;
    let page = this.#pages.get(frame);
    if (page === undefined) {
      page = new Uint8Array(PAGE_SIZE);
      this.#pages.set(frame, page);
    }
    return page;
  }

  read(gpa: bigint, length: number): Uint8Array {
    const out = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const offset = Number((gpa + BigInt(at)) & 0xfffn);
      const count = Math.min(length - at, PAGE_SIZE - offset);
      out.set(this.page(gpa + BigInt(at)).subarray(offset, offset + count), at);
      at += count;
    }
    return out;
  }

  write(gpa: bigint, data: Uint8Array): void {
    for (let at = 0; at < data.length; ) {
      const offset = Number((gpa + BigInt(at)) & 0xfffn);
      const count = Math.min(data.length - at, PAGE_SIZE - offset);
      this.page(gpa + BigInt(at)).set(data.subarray(at, at + count), offset);
      at += count;
    }
  }
}

/** Answers one VMGEXIT by the page: fills the page through `put`. */
export type PageExit = (exit: {
  readonly code: number;
  readonly info1: bigint;
  readonly info2: bigint;
  get(field: GhcbQuad): bigint;
  put(field: GhcbQuad, value: bigint): void;
}) => void;

export class ScriptedHost {
  readonly clock = new VirtualClock(0);
  readonly shared = new TestMemory();
  readonly private = new TestMemory();
  /** 4 KiB frames the guest has validated. */
  readonly validated = new Set<number>();
  /** What happened, in order: one line for each exit, PVALIDATE, RMPADJUST and sleep. */
  readonly log: string[] = [];
  sevStatus = 0x7n;
  sevInfo = ghcbMsrSevInfoResp(2, 1, 51);
  features = ghcbMsrHvFtResp(3);
  /** Frames whose RMP entry is 4 KiB although the guest asks for 2 MiB. */
  smallFrames: (frame: number) => boolean = () => false;
  rmpadjustResult = 0;
  /** Answers to MSR requests that differ from the usual ones. */
  msrAnswers: Record<number, bigint> = {};
  /** What each page state change asked for. */
  readonly pscCalls: PscEntryText[][] = [];
  /** Judges a page state change; the default does it all. */
  onPsc: (buffer: Uint8Array) => bigint = (buffer) => {
    pscSetCurEntry(buffer, 0, pscEndEntry(buffer, 0) + 1);
    return 0n;
  };
  /** Answers guest requests and AP creations; the default is success. */
  onExit: PageExit = () => {};
  terminated: { reason_set: number; reason_code: number } | null = null;
  #msr = 0n;

  /** Runs guest code to its end; null when it terminated or did not end within `limit` ops. */
  run<T>(program: Guest<T>, limit = 1_000_000): T | null {
    let answer: GuestAnswer;
    for (let count = 0; count < limit && this.terminated === null; count++) {
      const step = program.next(answer);
      if (step.done === true) {
        return step.value;
      }
      answer = this.#perform(step.value);
    }
    return null;
  }

  #perform(op: GuestOp): GuestAnswer {
    switch (op.op) {
      case 'read':
        return (op.encrypted ? this.private : this.shared).read(op.gpa, op.length);
      case 'write':
        (op.encrypted ? this.private : this.shared).write(op.gpa, op.data);
        return undefined;
      case 'rdmsr':
        return op.msr === Msr.MSR_AMD64_SEV ? this.sevStatus : this.#msr;
      case 'wrmsr':
        this.#msr = op.value;
        return undefined;
      case 'vmgexit':
        this.#vmgexit();
        return undefined;
      case 'pvalidate':
        return this.#pvalidate(op.gpa, op.size, op.validate);
      case 'rmpadjust':
        this.log.push(`rmpadjust ${frameText(op.gpa)} vmpl ${op.vmpl}${op.vmsa ? ' vmsa' : ''}`);
        return this.rmpadjustResult;
      case 'hlt':
        this.clock.advance(op.wakeAfterMs ?? 0);
        this.log.push(`hlt ${op.wakeAfterMs ?? ''}`);
        return undefined;
    }
  }

  #pvalidate(gpa: Gpa, size: 0 | 1, validate: boolean): GuestAnswer {
    const frame = Number(gpa >> 12n);
    if (size === 1 && this.smallFrames(frame)) {
      return { rc: 6, unchanged: false };
    }
    let changed = false;
    for (let page = frame; page < frame + (size === 1 ? 512 : 1); page++) {
      changed = this.validated.has(page) !== validate || changed;
      this.validated[validate ? 'add' : 'delete'](page);
    }
    this.log.push(`pvalidate ${frameText(gpa)} ${size} ${validate}`);
    return { rc: 0, unchanged: !changed };
  }

  #vmgexit(): void {
    const code = ghcbMsrCode(this.#msr);
    if (code === 0) {
      this.#pageExit(this.#msr);
      return;
    }
    this.log.push(`msr 0x${code.toString(16)}`);
    this.#msr = this.msrAnswers[code] ?? this.#usualMsrAnswer(code);
  }

  #usualMsrAnswer(code: number): bigint {
    switch (code) {
      case GHCB_MSR_SEV_INFO_REQ:
        return this.sevInfo;
      case GHCB_MSR_HV_FT_REQ:
        return this.features;
      case GHCB_MSR_CPUID_REQ:
        return ghcbMsrCpuidResp(this.#msr, 0);
      case GHCB_MSR_REG_GPA_REQ:
        return ghcbMsrRegGpaResp(GhcbMsrGpa.fromWord(this.#msr).gfn);
      case GHCB_MSR_PSC_REQ: {
        const { gfn, operation } = GhcbMsrPscReq.fromWord(this.#msr);
        this.log.push(
          `psc ${operation === PscOp.SNP_PAGE_STATE_PRIVATE ? 'private' : 'shared'} 0x${gfn.toString(16)}`,
        );
        return ghcbMsrPscResp(0);
      }
      case GHCB_MSR_TERM_REQ: {
        const { reason_set, reason_code } = GhcbMsrTermReq.fromWord(this.#msr);
        this.terminated = { reason_set, reason_code };
        return this.#msr;
      }
      default:
        return this.#msr;
    }
  }

  #pageExit(at: bigint): void {
    const page = this.shared.page(at);
    const copy = page.slice();
    ghcbClearValid(page, GHCB_VALID_BITMAP_OFFSET);
    const put = (field: GhcbQuad, value: bigint): void => ghcbPut(page, field, value);
    put('sw_exit_info_1', 0n);
    put('sw_exit_info_2', 0n);
    const code = Number(ghcbGet(copy, 'sw_exit_code'));
    this.log.push(`page 0x${code.toString(16)}`);
    if (code === GhcbExit.SVM_VMGEXIT_PSC) {
      const buffer = page.subarray(GHCB_SHARED_BUFFER_OFFSET, 0xff0);
      this.pscCalls.push(entriesOf(buffer));
      put('sw_exit_info_2', this.onPsc(buffer));
    }
    this.onExit({
      code,
      info1: ghcbGet(copy, 'sw_exit_info_1'),
      info2: ghcbGet(copy, 'sw_exit_info_2'),
      get: (field) => ghcbGet(copy, field),
      put,
    });
  }
}

const frameText = (gpa: bigint): string => `0x${(gpa >> 12n).toString(16)}`;

function entriesOf(buffer: Uint8Array): PscEntryText[] {
  const entries: PscEntryText[] = [];
  for (let i = pscCurEntry(buffer, 0); i <= pscEndEntry(buffer, 0); i++) {
    const at = pscEntryAt(0, i);
    entries.push({
      gfn: pscEntryGfn(buffer, at),
      operation: pscEntryOperation(buffer, at),
      pagesize: pscEntryPagesize(buffer, at),
    });
  }
  return entries;
}
