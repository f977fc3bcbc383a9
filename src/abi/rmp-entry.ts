// SPDX-License-Identifier: Apache-2.0
/** Reverse map table entry. [APM2] "RMP Entry Fields"; Linux arch/x86/virt/svm/sev.c `struct rmpentry`. */
import { bits64, type DecodedOf, layout, u64le } from '../lib/struct.ts';

/** Bytes at RMP_BASE that precede the first entry. */
export const RMPTABLE_CPU_BOOKKEEPING_SZ = 0x4000;
export const RMP_ENTRY_SIZE = 16;

/** One entry, as a host kernel can read it: the upper half is the processor's and not architectural. */
export const RmpEntry = layout(
  'RmpEntry',
  RMP_ENTRY_SIZE,
  { spec: 'APM2', at: 'RMP entry (Linux struct rmpentry)' },
  {
    lo: [
      0,
      bits64({
        assigned: [0, 1],
        pagesize: [1, 1],
        immutable: [2, 1],
        gfn: [12, 39],
        asid: [51, 10],
        vmsa: [61, 1],
        validated: [62, 1],
      }),
      'pagesize 0 is 4 KiB, 1 is 2 MiB',
    ],
    hi: [8, u64le, 'processor-private'],
  },
);
export type RmpEntry = DecodedOf<typeof RmpEntry>;

/** Operand of RMPUPDATE. */
export const RmpUpdateState = layout(
  'RmpUpdateState',
  16,
  { spec: 'APM2', at: 'RMPUPDATE (Linux struct rmp_state)' },
  {
    gpa: [0, u64le],
    flags: [8, bits64({ assigned: [0, 8], pagesize: [8, 8], immutable: [16, 8], asid: [32, 32] })],
  },
);
export type RmpUpdateState = DecodedOf<typeof RmpUpdateState>;

/** Result codes of RMPUPDATE, PSMASH, PVALIDATE and RMPADJUST. */
export const RmpResult = Object.freeze({
  SUCCESS: 0,
  FAIL_INPUT: 1,
  FAIL_PERMISSION: 2,
  FAIL_INUSE: 3,
  FAIL_OVERLAP: 4,
  FAIL_SIZEMISMATCH: 6,
} as const);

/** Error code bits of a nested page fault. */
export const NpfErrorCode = Object.freeze({
  PFERR_PRESENT: 1n << 0n,
  PFERR_WRITE: 1n << 1n,
  PFERR_USER: 1n << 2n,
  PFERR_FETCH: 1n << 4n,
  PFERR_GUEST_RMP: 1n << 31n,
  PFERR_GUEST_FINAL: 1n << 32n,
  PFERR_GUEST_PAGE: 1n << 33n,
  PFERR_GUEST_ENC: 1n << 34n,
  PFERR_GUEST_SIZEM: 1n << 35n,
  PFERR_GUEST_VMPL: 1n << 36n,
} as const);

/** Permissions of a VMPL on a page, as RMPADJUST and SNP_LAUNCH_UPDATE take them. */
export const VmplPerms = Object.freeze({
  READ: 1,
  WRITE: 2,
  EXECUTE_USER: 4,
  EXECUTE_SUPERVISOR: 8,
} as const);
