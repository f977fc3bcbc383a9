// SPDX-License-Identifier: Apache-2.0
/**
 * The guest's end of the guest-hypervisor protocol: MSR requests before there is a GHCB page, the page
 * afterwards, and the checks Linux makes on what the hypervisor answers.
 */
import {
  EventInj,
  GHCB_DEFAULT_USAGE,
  GHCB_HV_FT_SNP,
  GHCB_PROTOCOL_MAX,
  GHCB_PROTOCOL_MIN,
  GHCB_PROTOCOL_VERSION_OFFSET,
  GHCB_USAGE_OFFSET,
  GHCB_VALID_BITMAP_OFFSET,
  type GhcbField,
  GhcbOffset,
  type GhcbQuad,
  GhcbResponse,
  ghcbClearValid,
  ghcbFieldIsValid,
  ghcbPut,
  SVM_EVTINJ_TYPE_EXEPT,
} from '../abi/ghcb.ts';
import {
  GHCB_MSR_CPUID_RESP,
  GHCB_MSR_HV_FT_RESP,
  GHCB_MSR_PSC_RESP,
  GHCB_MSR_REG_GPA_RESP,
  GHCB_MSR_SEV_INFO_RESP,
  GhcbMsrCpuidResp,
  GhcbMsrErrorResp,
  GhcbMsrGpa,
  GhcbMsrHvFtResp,
  GhcbMsrSevInfoResp,
  ghcbMsrCpuidReq,
  ghcbMsrHvFtReq,
  ghcbMsrPscReq,
  ghcbMsrRegGpaReq,
  ghcbMsrSevInfoReq,
  ghcbMsrTermReq,
  TermReasonGen,
  TermReasonLinux,
  TermReasonSet,
} from '../abi/ghcb-msr.ts';
import { type GuestOp, VECTOR_GP, VECTOR_UD } from '../abi/guest-ops.ts';
import { Msr } from '../abi/msrs.ts';
import { type Gfn, type Gpa, gfnOf, PAGE_SIZE } from '../lib/addresses.ts';
import { readU64, writeU16, writeU32 } from '../lib/bytes.ts';
import { BugError } from '../lib/errors.ts';
import { type Guest, hlt, rdmsr, vmgexit, wrmsr } from './cpu.ts';

/** `enum es_result`: how Linux names the outcome of an exchange. [LINUX] asm/sev.h. */
export const EsResult = Object.freeze({
  ES_OK: 0,
  ES_UNSUPPORTED: 1,
  ES_VMM_ERROR: 2,
  ES_DECODE_FAILED: 3,
  ES_EXCEPTION: 4,
  ES_RETRY: 5,
} as const);
export type EsResult = (typeof EsResult)[keyof typeof EsResult];

/** One request by the MSR protocol. */
export function* msrProtocol(request: bigint): Guest<bigint> {
  yield* wrmsr(Msr.MSR_AMD64_SEV_ES_GHCB, request);
  yield* vmgexit();
  return yield* rdmsr(Msr.MSR_AMD64_SEV_ES_GHCB);
}

/** Tells the hypervisor why the guest gives up; a hypervisor that resumes it finds it halted for good. */
function* terminate(reasonSet: number, reasonCode: number): Guest<never> {
  yield* wrmsr(Msr.MSR_AMD64_SEV_ES_GHCB, ghcbMsrTermReq(reasonSet, reasonCode));
  yield* vmgexit();
  for (;;) {
    yield* hlt();
  }
}

/** Gives up for a reason of Linux's own set. */
export function terminateLinux(reason: keyof typeof TermReasonLinux): Guest<never> {
  return terminate(TermReasonSet.SEV_TERM_SET_LINUX, TermReasonLinux[reason]);
}

/** Gives up for a reason every guest knows. */
export function terminateGeneric(reason: keyof typeof TermReasonGen): Guest<never> {
  return terminate(TermReasonSet.SEV_TERM_SET_GEN, TermReasonGen[reason]);
}

/**
 * Agrees on a protocol version.
 *
 * Returns  the highest version both sides know; terminates when there is none
 */
export function* negotiateProtocol(): Guest<number> {
  const answer = yield* msrProtocol(ghcbMsrSevInfoReq());
  const { code, min, max } = GhcbMsrSevInfoResp.fromWord(answer);
  if (code !== GHCB_MSR_SEV_INFO_RESP || max < GHCB_PROTOCOL_MIN || min > GHCB_PROTOCOL_MAX) {
    return yield* terminateGeneric('GHCB_SEV_ES_PROT_UNSUPPORTED');
  }
  return Math.min(max, GHCB_PROTOCOL_MAX);
}

/** The hypervisor's feature bits; terminates when it cannot run SNP guests. */
export function* hypervisorFeatures(): Guest<number> {
  const { code, features } = GhcbMsrHvFtResp.fromWord(yield* msrProtocol(ghcbMsrHvFtReq()));
  if (code !== GHCB_MSR_HV_FT_RESP || features % (2 * GHCB_HV_FT_SNP) === 0) {
    return yield* terminateGeneric('GHCB_SNP_UNSUPPORTED');
  }
  return features;
}

/** Asks the hypervisor to keep this vCPU's GHCB at the page; terminates when it wants another. */
export function* registerGhcb(at: Gpa): Guest<void> {
  const frame = gfnOf(at);
  const { code, gfn } = GhcbMsrGpa.fromWord(yield* msrProtocol(ghcbMsrRegGpaReq(frame)));
  if (code !== GHCB_MSR_REG_GPA_RESP || gfn !== frame) {
    yield* terminateLinux('GHCB_TERM_REGISTER');
  }
}

/** Changes the state of one 4 KiB page before there is a GHCB; terminates when that fails. */
export function* changePageStateByMsr(frame: Gfn, operation: number): Guest<void> {
  const { code, error } = GhcbMsrErrorResp.fromWord(yield* msrProtocol(ghcbMsrPscReq(frame, operation)));
  if (code !== GHCB_MSR_PSC_RESP || error !== 0) {
    yield* terminateLinux('GHCB_TERM_PSC');
  }
}

/** One register of a CPUID function as the hypervisor sees it; terminates when it has no answer. */
export function* hypervisorCpuid(fn: number, reg: number): Guest<number> {
  const { code, value } = GhcbMsrCpuidResp.fromWord(yield* msrProtocol(ghcbMsrCpuidReq(fn, reg)));
  return code === GHCB_MSR_CPUID_RESP ? value : yield* terminateLinux('GHCB_TERM_CPUID_HV');
}

/** First byte the guest reads back: RBX, the only general register a request of Linux's returns here. */
const ANSWER_FROM = GhcbOffset.rbx;
const SAVE_AREA_END = GHCB_VALID_BITMAP_OFFSET + 16;
const VMGEXIT: GuestOp = { op: 'vmgexit' };

/**
 * One vCPU's GHCB page.
 *
 * The guest fills a private image and writes it once for each VMGEXIT, so what the hypervisor reads is one
 * consistent page; answers are read back once and judged from the copy.
 */
export class GhcbPage {
  readonly gpa: Gpa;
  /** What the next call writes. The shared buffer in it belongs to the caller. */
  readonly image = new Uint8Array(PAGE_SIZE);
  #answer: Uint8Array = new Uint8Array(SAVE_AREA_END - ANSWER_FROM);
  // Every call yields the same ops, without helpers between: requests pass here hundreds of times a second.
  readonly #write: GuestOp;
  readonly #wrmsr: GuestOp;
  readonly #read: GuestOp;

  constructor(gpa: Gpa, protocolVersion: number) {
    this.gpa = gpa;
    writeU16(this.image, GHCB_PROTOCOL_VERSION_OFFSET, protocolVersion);
    writeU32(this.image, GHCB_USAGE_OFFSET, GHCB_DEFAULT_USAGE);
    this.#write = { op: 'write', gpa, data: this.image, encrypted: false };
    this.#wrmsr = { op: 'wrmsr', msr: Msr.MSR_AMD64_SEV_ES_GHCB, value: gpa };
    this.#read = { ...this.#readUpTo(SAVE_AREA_END), into: new Uint8Array(SAVE_AREA_END - ANSWER_FROM) };
  }

  /** Starts a request: no field is valid. */
  invalidate(): void {
    ghcbClearValid(this.image, GHCB_VALID_BITMAP_OFFSET);
  }

  /** Sets a field for the next call. */
  put(field: GhcbQuad, value: bigint): void {
    ghcbPut(this.image, field, value);
  }

  /**
   * Makes the request.
   *
   * Returns  what Linux's verify_exception_info returns; nothing else in the answer is judged
   */
  *call(exitCode: number, info1: bigint, info2: bigint): Guest<EsResult> {
    this.#putExit(exitCode, info1, info2);
    yield this.#write;
    yield this.#wrmsr;
    yield VMGEXIT;
    this.#answer = (yield this.#read) as Uint8Array;
    return this.#verifyExceptionInfo();
  }

  /**
   * Makes a request that goes on where the hypervisor left off: of the page only `part`, from its start,
   * is written, and the answer is read up to `readTo`.
   */
  *callWithBuffer(exitCode: number, part: Uint8Array, readTo: number): Guest<EsResult> {
    this.#putExit(exitCode, 0n, 0n);
    yield { op: 'write', gpa: this.gpa, data: part, encrypted: false };
    yield this.#wrmsr;
    yield VMGEXIT;
    this.#answer = (yield this.#readUpTo(readTo)) as Uint8Array;
    return this.#verifyExceptionInfo();
  }

  /** A field of the answer, valid or not, as Linux's ghcb_get_* helpers read it. */
  answer(field: GhcbQuad): bigint {
    return readU64(this.#answer, this.#offsetInAnswer(GhcbOffset[field]));
  }

  /** Whether the hypervisor marked a field of the answer valid. */
  answered(field: GhcbField): boolean {
    return ghcbFieldIsValid(this.#answer, field, this.#offsetInAnswer(GHCB_VALID_BITMAP_OFFSET));
  }

  /** Where byte `offset` of the page is in what was read back. */
  answerBytes(offset: number): Uint8Array {
    return this.#answer.subarray(this.#offsetInAnswer(offset));
  }

  #putExit(exitCode: number, info1: bigint, info2: bigint): void {
    this.put('sw_exit_code', BigInt(exitCode));
    this.put('sw_exit_info_1', info1);
    this.put('sw_exit_info_2', info2);
  }

  #readUpTo(end: number): Extract<GuestOp, { op: 'read' }> {
    const from = (this.gpa + BigInt(ANSWER_FROM)) as Gpa;
    return { op: 'read', gpa: from, length: end - ANSWER_FROM, encrypted: false };
  }

  #offsetInAnswer(offset: number): number {
    if (offset < ANSWER_FROM) {
      throw new BugError(`byte 0x${offset.toString(16)} of the GHCB is not read back`);
    }
    return offset - ANSWER_FROM;
  }

  #verifyExceptionInfo(): EsResult {
    const verdict = Number(this.answer('sw_exit_info_1') & 0xffffffffn);
    if (verdict === GhcbResponse.GHCB_HV_RESP_NO_ACTION) {
      return EsResult.ES_OK;
    }
    if (verdict === GhcbResponse.GHCB_HV_RESP_ISSUE_EXCEPTION) {
      const event = EventInj.fromWord(this.answer('sw_exit_info_2'));
      const sane = event.vector === VECTOR_GP || event.vector === VECTOR_UD;
      if (event.valid === 1 && event.type === SVM_EVTINJ_TYPE_EXEPT && sane) {
        return EsResult.ES_EXCEPTION;
      }
    }
    return EsResult.ES_VMM_ERROR;
  }
}
