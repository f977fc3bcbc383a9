// SPDX-License-Identifier: Apache-2.0
/**
 * GHCB MSR protocol: what a guest says before it has a GHCB page.
 * [GHCB] "GHCB MSR Protocol"; Linux asm/sev-common.h.
 *
 * The low 12 bits are the code of the message. A value whose low 12 bits are zero is a page address.
 */
import { bits64 } from '../lib/struct.ts';

export const GHCB_MSR_SEV_INFO_RESP = 0x001;
export const GHCB_MSR_SEV_INFO_REQ = 0x002;
export const GHCB_MSR_CPUID_REQ = 0x004;
export const GHCB_MSR_CPUID_RESP = 0x005;
export const GHCB_MSR_AP_RESET_HOLD_REQ = 0x006;
export const GHCB_MSR_AP_RESET_HOLD_RESP = 0x007;
export const GHCB_MSR_PREF_GPA_REQ = 0x010;
export const GHCB_MSR_PREF_GPA_RESP = 0x011;
export const GHCB_MSR_REG_GPA_REQ = 0x012;
export const GHCB_MSR_REG_GPA_RESP = 0x013;
export const GHCB_MSR_PSC_REQ = 0x014;
export const GHCB_MSR_PSC_RESP = 0x015;
export const GHCB_MSR_VMPL_REQ = 0x016;
export const GHCB_MSR_VMPL_RESP = 0x017;
export const GHCB_MSR_HV_FT_REQ = 0x080;
export const GHCB_MSR_HV_FT_RESP = 0x081;
export const GHCB_MSR_TERM_REQ = 0x100;

/** Code of the message in an MSR value; 0: the value is a page address. */
export const ghcbMsrCode = (msr: bigint): number => Number(msr & 0xfffn);

/** 0x001, hypervisor to guest: which protocol versions, and where the C-bit is. */
export const GhcbMsrSevInfoResp = bits64({ code: [0, 12], c_bit: [24, 8], min: [32, 16], max: [48, 16] });
export type GhcbMsrSevInfoResp = ReturnType<typeof GhcbMsrSevInfoResp.fromWord>;

/** 0x004, guest to hypervisor: one register of one CPUID function. */
export const GhcbMsrCpuidReq = bits64({ code: [0, 12], reg: [30, 2], fn: [32, 32] }, [], 'ignore');
export type GhcbMsrCpuidReq = ReturnType<typeof GhcbMsrCpuidReq.fromWord>;

/** 0x005, hypervisor to guest: its value. */
export const GhcbMsrCpuidResp = bits64({ code: [0, 12], reg: [30, 2], value: [32, 32] }, [], 'ignore');
export type GhcbMsrCpuidResp = ReturnType<typeof GhcbMsrCpuidResp.fromWord>;

/** `reg` of the CPUID messages. */
export const GhcbCpuidReg = Object.freeze({
  GHCB_CPUID_REQ_EAX: 0,
  GHCB_CPUID_REQ_EBX: 1,
  GHCB_CPUID_REQ_ECX: 2,
  GHCB_CPUID_REQ_EDX: 3,
} as const);

/** 0x007, hypervisor to guest: `released` is non-zero iff a SIPI ended the hold. */
export const GhcbMsrApResetHoldResp = bits64({ code: [0, 12], released: [12, 52] });
export type GhcbMsrApResetHoldResp = ReturnType<typeof GhcbMsrApResetHoldResp.fromWord>;

/** 0x011, 0x012 and 0x013: a frame number. */
export const GhcbMsrGpa = bits64({ code: [0, 12], gfn: [12, 52] });
export type GhcbMsrGpa = ReturnType<typeof GhcbMsrGpa.fromWord>;

/** All ones: no preference in 0x011, refused in 0x013. */
export const GHCB_MSR_GFN_NONE = 0xfffffffffffff;

/** 0x014, guest to hypervisor: one 4 KiB page changes state; operations as in PscOp. */
export const GhcbMsrPscReq = bits64({ code: [0, 12], gfn: [12, 40], operation: [52, 4] });
export type GhcbMsrPscReq = ReturnType<typeof GhcbMsrPscReq.fromWord>;

/** 0x015 and 0x017, hypervisor to guest: 0 is success. */
export const GhcbMsrErrorResp = bits64({ code: [0, 12], error: [32, 32] });
export type GhcbMsrErrorResp = ReturnType<typeof GhcbMsrErrorResp.fromWord>;

/** `error` KVM gives for a page state change it did not make. */
export const GHCB_MSR_PSC_RESP_GENERIC = 0x80000000;

/** 0x016, guest to hypervisor: run another VMPL. */
export const GhcbMsrVmplReq = bits64({ code: [0, 12], vmpl: [32, 8] });
export type GhcbMsrVmplReq = ReturnType<typeof GhcbMsrVmplReq.fromWord>;

/** 0x081, hypervisor to guest: GHCB_HV_FT_* bits. */
export const GhcbMsrHvFtResp = bits64({ code: [0, 12], features: [12, 52] });
export type GhcbMsrHvFtResp = ReturnType<typeof GhcbMsrHvFtResp.fromWord>;

/** 0x100, guest to hypervisor: the guest gives up. */
export const GhcbMsrTermReq = bits64({ code: [0, 12], reason_set: [12, 4], reason_code: [16, 8] });
export type GhcbMsrTermReq = ReturnType<typeof GhcbMsrTermReq.fromWord>;

export const ghcbMsrSevInfoReq = (): bigint => BigInt(GHCB_MSR_SEV_INFO_REQ);
export const ghcbMsrSevInfoResp = (max: number, min: number, cBit: number): bigint =>
  GhcbMsrSevInfoResp.toWord({ code: GHCB_MSR_SEV_INFO_RESP, c_bit: cBit, min, max });
export const ghcbMsrCpuidReq = (fn: number, reg: number): bigint =>
  GhcbMsrCpuidReq.toWord({ code: GHCB_MSR_CPUID_REQ, reg, fn });
/** The answer to a request keeps the request's bits 31:12. */
export const ghcbMsrCpuidResp = (request: bigint, value: number): bigint =>
  (BigInt(value >>> 0) << 32n) | (request & 0xfffff000n) | BigInt(GHCB_MSR_CPUID_RESP);
export const ghcbMsrApResetHoldReq = (): bigint => BigInt(GHCB_MSR_AP_RESET_HOLD_REQ);
export const ghcbMsrApResetHoldResp = (released: 0 | 1): bigint =>
  GhcbMsrApResetHoldResp.toWord({ code: GHCB_MSR_AP_RESET_HOLD_RESP, released });
export const ghcbMsrPrefGpaReq = (): bigint => BigInt(GHCB_MSR_PREF_GPA_REQ);
export const ghcbMsrPrefGpaResp = (gfn: number): bigint =>
  GhcbMsrGpa.toWord({ code: GHCB_MSR_PREF_GPA_RESP, gfn });
export const ghcbMsrRegGpaReq = (gfn: number): bigint =>
  GhcbMsrGpa.toWord({ code: GHCB_MSR_REG_GPA_REQ, gfn });
export const ghcbMsrRegGpaResp = (gfn: number): bigint =>
  GhcbMsrGpa.toWord({ code: GHCB_MSR_REG_GPA_RESP, gfn });
export const ghcbMsrPscReq = (gfn: number, operation: number): bigint =>
  GhcbMsrPscReq.toWord({ code: GHCB_MSR_PSC_REQ, gfn, operation });
export const ghcbMsrPscResp = (error: number): bigint =>
  GhcbMsrErrorResp.toWord({ code: GHCB_MSR_PSC_RESP, error });
export const ghcbMsrHvFtReq = (): bigint => BigInt(GHCB_MSR_HV_FT_REQ);
export const ghcbMsrHvFtResp = (features: number): bigint =>
  GhcbMsrHvFtResp.toWord({ code: GHCB_MSR_HV_FT_RESP, features });
export const ghcbMsrTermReq = (reasonSet: number, reasonCode: number): bigint =>
  GhcbMsrTermReq.toWord({ code: GHCB_MSR_TERM_REQ, reason_set: reasonSet, reason_code: reasonCode });

/** Reason sets of a termination. */
export const TermReasonSet = Object.freeze({ SEV_TERM_SET_GEN: 0, SEV_TERM_SET_LINUX: 1 } as const);

/** Reasons of the general set. */
export const TermReasonGen = Object.freeze({
  GHCB_SEV_ES_GEN_REQ: 0,
  GHCB_SEV_ES_PROT_UNSUPPORTED: 1,
  GHCB_SNP_UNSUPPORTED: 2,
} as const);

/** Reasons of Linux's set. */
export const TermReasonLinux = Object.freeze({
  GHCB_TERM_REGISTER: 0,
  GHCB_TERM_PSC: 1,
  GHCB_TERM_PVALIDATE: 2,
  GHCB_TERM_NOT_VMPL0: 3,
  GHCB_TERM_CPUID: 4,
  GHCB_TERM_CPUID_HV: 5,
  GHCB_TERM_SECRETS_PAGE: 6,
  GHCB_TERM_NO_SVSM: 7,
  GHCB_TERM_SVSM_VMPL0: 8,
  GHCB_TERM_SVSM_CAA: 9,
  GHCB_TERM_SECURE_TSC: 10,
  GHCB_TERM_SVSM_CA_REMAP_FAIL: 11,
  GHCB_TERM_SAVIC_FAIL: 12,
} as const);

/** Names a termination, for logs: "1:2 GHCB_TERM_PVALIDATE". */
export function terminationName(reasonSet: number, reasonCode: number): string {
  const table: Readonly<Record<string, number>> =
    reasonSet === TermReasonSet.SEV_TERM_SET_GEN
      ? TermReasonGen
      : reasonSet === TermReasonSet.SEV_TERM_SET_LINUX
        ? TermReasonLinux
        : {};
  const name = Object.keys(table).find((key) => table[key] === reasonCode);
  return name === undefined ? `${reasonSet}:${reasonCode}` : `${reasonSet}:${reasonCode} ${name}`;
}
