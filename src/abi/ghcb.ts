// SPDX-License-Identifier: Apache-2.0
/**
 * GHCB page and the events a guest raises through it.
 * [GHCB] "GHCB Layout", "Supported Exit Events"; Linux asm/svm.h, asm/sev-common.h, uapi asm/svm.h.
 *
 * The page is shared memory: whoever reads it copies a field once and judges the copy.
 */
import { readU64, writeU64 } from '../lib/bytes.ts';
import { bits64, bytes, type DecodedOf, layout, u8, u16le, u32le, u64le } from '../lib/struct.ts';

/** Offsets of the save-area fields that the valid bitmap covers. */
export const GhcbOffset = Object.freeze({
  cpl: 0x0cb,
  xss: 0x140,
  dr7: 0x160,
  rip: 0x178,
  rsp: 0x1d8,
  rax: 0x1f8,
  rcx: 0x308,
  rdx: 0x310,
  rbx: 0x318,
  rbp: 0x328,
  rsi: 0x330,
  rdi: 0x338,
  r8: 0x340,
  r9: 0x348,
  r10: 0x350,
  r11: 0x358,
  r12: 0x360,
  r13: 0x368,
  r14: 0x370,
  r15: 0x378,
  sw_exit_code: 0x390,
  sw_exit_info_1: 0x398,
  sw_exit_info_2: 0x3a0,
  sw_scratch: 0x3a8,
  xcr0: 0x3e8,
} as const);

/** A field with a bit in the valid bitmap. */
export type GhcbField = keyof typeof GhcbOffset;
/** One of them that is 64 bits wide: all but CPL. */
export type GhcbQuad = Exclude<GhcbField, 'cpl'>;

export const GHCB_VALID_BITMAP_OFFSET = 0x3f0;
export const GHCB_VALID_BITMAP_SIZE = 16;
export const GHCB_SHARED_BUFFER_OFFSET = 0x800;
export const GHCB_SHARED_BUFFER_SIZE = 0x7f0;
/** First byte after the shared buffer: a scratch area must end here. */
export const GHCB_SHARED_BUFFER_END = 0xff0;
export const GHCB_PROTOCOL_VERSION_OFFSET = 0xffa;
export const GHCB_USAGE_OFFSET = 0xffc;

/** `ghcb_usage` of the standard format. */
export const GHCB_DEFAULT_USAGE = 0;
export const GHCB_PROTOCOL_MIN = 1;
export const GHCB_PROTOCOL_MAX = 2;

/** The page. Reserved bytes are the guest's business: the hypervisor does not judge them. */
export const Ghcb = layout(
  'Ghcb',
  4096,
  { spec: 'GHCB', at: 'GHCB Layout', gaps: 'ignore' },
  {
    cpl: [GhcbOffset.cpl, u8],
    xss: [GhcbOffset.xss, u64le],
    dr7: [GhcbOffset.dr7, u64le],
    rip: [GhcbOffset.rip, u64le],
    rsp: [GhcbOffset.rsp, u64le],
    rax: [GhcbOffset.rax, u64le],
    rcx: [GhcbOffset.rcx, u64le],
    rdx: [GhcbOffset.rdx, u64le],
    rbx: [GhcbOffset.rbx, u64le],
    rbp: [GhcbOffset.rbp, u64le],
    rsi: [GhcbOffset.rsi, u64le],
    rdi: [GhcbOffset.rdi, u64le],
    r8: [GhcbOffset.r8, u64le],
    r9: [GhcbOffset.r9, u64le],
    r10: [GhcbOffset.r10, u64le],
    r11: [GhcbOffset.r11, u64le],
    r12: [GhcbOffset.r12, u64le],
    r13: [GhcbOffset.r13, u64le],
    r14: [GhcbOffset.r14, u64le],
    r15: [GhcbOffset.r15, u64le],
    sw_exit_code: [GhcbOffset.sw_exit_code, u64le],
    sw_exit_info_1: [GhcbOffset.sw_exit_info_1, u64le],
    sw_exit_info_2: [GhcbOffset.sw_exit_info_2, u64le],
    sw_scratch: [GhcbOffset.sw_scratch, u64le],
    xcr0: [GhcbOffset.xcr0, u64le],
    valid_bitmap: [
      GHCB_VALID_BITMAP_OFFSET,
      bytes(GHCB_VALID_BITMAP_SIZE),
      'bit offset / 8 of each field above',
    ],
    x87_state_gpa: [0x400, u64le, 'outside the bitmap'],
    shared_buffer: [GHCB_SHARED_BUFFER_OFFSET, bytes(GHCB_SHARED_BUFFER_SIZE)],
    protocol_version: [GHCB_PROTOCOL_VERSION_OFFSET, u16le],
    ghcb_usage: [GHCB_USAGE_OFFSET, u32le],
  },
);
export type Ghcb = DecodedOf<typeof Ghcb>;

/**
 * Whether a field's valid bit is set.
 *
 * Shape    `validBitmap` holds the 16 bytes from `at`: 0 for a copy, GHCB_VALID_BITMAP_OFFSET for a page
 */
export function ghcbFieldIsValid(validBitmap: Uint8Array, field: GhcbField, at = 0): boolean {
  const bit = GhcbOffset[field] >> 3;
  return ((validBitmap[at + (bit >> 3)]! >> (bit & 7)) & 1) === 1;
}

/** Sets a field's valid bit. */
export function ghcbMarkValid(validBitmap: Uint8Array, field: GhcbField, at = 0): void {
  const bit = GhcbOffset[field] >> 3;
  validBitmap[at + (bit >> 3)]! |= 1 << (bit & 7);
}

/** Clears the whole bitmap, as both sides do before they fill the page anew. */
export function ghcbClearValid(validBitmap: Uint8Array, at = 0): void {
  validBitmap.fill(0, at, at + GHCB_VALID_BITMAP_SIZE);
}

/** Reads a 64-bit field of a page in place, valid or not. */
export function ghcbGet(page: Uint8Array, field: GhcbQuad): bigint {
  return readU64(page, GhcbOffset[field]);
}

/** Writes a 64-bit field of a page in place and sets its valid bit, as KVM's and Linux's helpers do. */
export function ghcbPut(page: Uint8Array, field: GhcbQuad, value: bigint): void {
  writeU64(page, GhcbOffset[field], value);
  ghcbMarkValid(page, field, GHCB_VALID_BITMAP_OFFSET);
}

/** Values of SW_EXITCODE. KVM compares all 64 bits. */
export const GhcbExit = Object.freeze({
  SVM_EXIT_READ_DR7: 0x27,
  SVM_EXIT_WRITE_DR7: 0x37,
  SVM_EXIT_RDTSC: 0x6e,
  SVM_EXIT_RDPMC: 0x6f,
  SVM_EXIT_CPUID: 0x72,
  SVM_EXIT_INVD: 0x76,
  SVM_EXIT_HLT: 0x78,
  SVM_EXIT_IOIO: 0x7b,
  SVM_EXIT_MSR: 0x7c,
  SVM_EXIT_SHUTDOWN: 0x7f,
  SVM_EXIT_VMMCALL: 0x81,
  SVM_EXIT_RDTSCP: 0x87,
  SVM_EXIT_WBINVD: 0x89,
  SVM_EXIT_MONITOR: 0x8a,
  SVM_EXIT_MWAIT: 0x8b,
  SVM_VMGEXIT_MMIO_READ: 0x80000001,
  SVM_VMGEXIT_MMIO_WRITE: 0x80000002,
  SVM_VMGEXIT_NMI_COMPLETE: 0x80000003,
  SVM_VMGEXIT_AP_HLT_LOOP: 0x80000004,
  SVM_VMGEXIT_AP_JUMP_TABLE: 0x80000005,
  SVM_VMGEXIT_PSC: 0x80000010,
  SVM_VMGEXIT_GUEST_REQUEST: 0x80000011,
  SVM_VMGEXIT_EXT_GUEST_REQUEST: 0x80000012,
  SVM_VMGEXIT_AP_CREATION: 0x80000013,
  SVM_VMGEXIT_HV_DOORBELL_PAGE: 0x80000014,
  SVM_VMGEXIT_HV_IPI: 0x80000015,
  SVM_VMGEXIT_HV_TIMER: 0x80000016,
  SVM_VMGEXIT_APIC_ID_LIST: 0x80000017,
  SVM_VMGEXIT_SNP_RUN_VMPL: 0x80000018,
  SVM_VMGEXIT_SAVIC: 0x8000001a,
  SVM_VMGEXIT_HV_FEATURES: 0x8000fffd,
  SVM_VMGEXIT_TERM_REQUEST: 0x8000fffe,
  SVM_VMGEXIT_UNSUPPORTED_EVENT: 0x8000ffff,
} as const);

const EXIT_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(GhcbExit).map(([name, value]) => [value, name]),
);

/** The name of an exit code; "exit 0x.." for a number without one. */
export function ghcbExitName(code: number | bigint): string {
  return EXIT_NAMES.get(Number(code)) ?? `exit 0x${code.toString(16)}`;
}

/** SVM exit code of the VMGEXIT instruction itself. */
export const SVM_EXIT_VMGEXIT = 0x403;

/** SW_EXITINFO1 [31:0] on return: what the guest has to do. */
export const GhcbResponse = Object.freeze({
  GHCB_HV_RESP_NO_ACTION: 0,
  GHCB_HV_RESP_ISSUE_EXCEPTION: 1,
  GHCB_HV_RESP_MALFORMED_INPUT: 2,
} as const);

/** SW_EXITINFO2 when SW_EXITINFO1 is GHCB_HV_RESP_MALFORMED_INPUT. */
export const GhcbMalformed = Object.freeze({
  GHCB_ERR_NOT_REGISTERED: 1,
  GHCB_ERR_INVALID_USAGE: 2,
  GHCB_ERR_INVALID_SCRATCH_AREA: 3,
  GHCB_ERR_MISSING_INPUT: 4,
  GHCB_ERR_INVALID_INPUT: 5,
  GHCB_ERR_INVALID_EVENT: 6,
} as const);

/** SW_EXITINFO2 when SW_EXITINFO1 is GHCB_HV_RESP_ISSUE_EXCEPTION: the EVENTINJ form. */
export const EventInj = bits64({
  vector: [0, 8],
  type: [8, 3],
  error_code_valid: [11, 1],
  valid: [31, 1],
  error_code: [32, 32],
});
export type EventInj = ReturnType<typeof EventInj.fromWord>;

/** `type` of an exception. */
export const SVM_EVTINJ_TYPE_EXEPT = 3;
/** What KVM returns for a failed MSR access: vector 13, an exception, valid, without an error code. */
export const EVENTINJ_GP = 0x8000030dn;

/** Hypervisor features. KVM offers the first two. */
export const GHCB_HV_FT_SNP = 1 << 0;
export const GHCB_HV_FT_SNP_AP_CREATION = 1 << 1;
export const GHCB_HV_FT_SNP_RINJ = 1 << 2;
export const GHCB_HV_FT_SNP_RINJ_TIMER = 1 << 3;
export const GHCB_HV_FT_APIC_ID_LIST = 1 << 4;
export const GHCB_HV_FT_SNP_MULTI_VMPL = 1 << 5;
export const GHCB_HV_FT_SUPPORTED = GHCB_HV_FT_SNP | GHCB_HV_FT_SNP_AP_CREATION;

/** SW_EXITINFO1 of an IOIO event; it has the form of the IOIO intercept. */
export const IoioInfo = bits64(
  {
    in: [0, 1],
    string: [2, 1],
    rep: [3, 1],
    size_8: [4, 1],
    size_16: [5, 1],
    size_32: [6, 1],
    address_16: [7, 1],
    address_32: [8, 1],
    address_64: [9, 1],
    segment: [10, 3],
    port: [16, 16],
  },
  [],
  'ignore',
);
export type IoioInfo = ReturnType<typeof IoioInfo.fromWord>;

/** SW_EXITINFO1 of an SNP AP creation event. */
export const ApCreationInfo = bits64(
  {
    request: [0, 16],
    vmpl: [16, 4],
    apic_id: [32, 32],
  },
  [],
  'ignore',
);
export type ApCreationInfo = ReturnType<typeof ApCreationInfo.fromWord>;

/** `request` of an SNP AP creation event. */
export const ApCreation = Object.freeze({
  SVM_VMGEXIT_AP_CREATE_ON_INIT: 0,
  SVM_VMGEXIT_AP_CREATE: 1,
  SVM_VMGEXIT_AP_DESTROY: 2,
} as const);

/** SW_EXITINFO1 of an AP jump table event. */
export const ApJumpTable = Object.freeze({
  SVM_VMGEXIT_SET_AP_JUMP_TABLE: 0,
  SVM_VMGEXIT_GET_AP_JUMP_TABLE: 1,
} as const);

/** SW_EXITINFO1 of a termination request: reason set and reason code. */
export const TerminationInfo = bits64({ reason_set: [0, 4], reason_code: [4, 8] }, [], 'ignore');
export type TerminationInfo = ReturnType<typeof TerminationInfo.fromWord>;

/** High half of SW_EXITINFO2 after a guest request. */
export const SnpGuestVmmErr = Object.freeze({
  SNP_GUEST_VMM_ERR_NONE: 0,
  /** The certificate buffer is too small; RBX holds the pages needed. */
  SNP_GUEST_VMM_ERR_INVALID_LEN: 1,
  /** Not now; the guest repeats the identical request. */
  SNP_GUEST_VMM_ERR_BUSY: 2,
  /** KVM’s own choice for every other host error ([KVM-CERTS-V7]); the specification has none. */
  SNP_GUEST_VMM_ERR_GENERIC: 0xffffffff,
} as const);

/** SW_EXITINFO2 of a guest request: the hypervisor's word high, the firmware's low. */
export function snpGuestErr(vmmErr: number, fwErr: number): bigint {
  return (BigInt(vmmErr >>> 0) << 32n) | BigInt(fwErr >>> 0);
}

/** The hypervisor's word of SW_EXITINFO2. */
export function snpGuestVmmErr(exitInfo2: bigint): number {
  return Number((exitInfo2 >> 32n) & 0xffffffffn);
}

/** The firmware's word of SW_EXITINFO2. */
export function snpGuestFwErr(exitInfo2: bigint): number {
  return Number(exitInfo2 & 0xffffffffn);
}
