// SPDX-License-Identifier: Apache-2.0
/**
 * Ways an access or an instruction is refused by the RMP, as values: one frozen object per outcome, so
 * that hot paths compare references and never allocate.
 */

export type FaultReason =
  /** The entry does not let this owner in: assignment, ASID, guest address or immutability. */
  | 'rmp'
  /** The entry's page size and the size of the access or instruction differ. */
  | 'sizem'
  /** The permissions of the VMPL do not cover the access. */
  | 'vmpl'
  /** The guest has not validated the page: #VC with exit code 0x404, handled inside the guest. */
  | 'not-validated'
  /** The instruction is not allowed at this VMPL: #GP(0) in the guest. */
  | 'gp';

export interface RmpFault {
  readonly reason: FaultReason;
  /** Bits the RMP adds to the nested page fault's error code; bits 35 and 36 do not fit 32-bit operators. */
  readonly npfErrorCode: number;
}

/** #NPF error code bit 31: the RMP refused the access. */
export const NPF_RMP = 2 ** 31;
/** #NPF error code bit 34: the access was to encrypted (private) memory. */
export const NPF_ENC = 2 ** 34;
/** #NPF error code bit 35: size mismatch between the RMP entry and the access. */
export const NPF_SIZEM = 2 ** 35;
/** #NPF error code bit 36: the VMPL permissions refused the access. */
export const NPF_VMPL = 2 ** 36;

const fault = (reason: FaultReason, npfErrorCode: number): RmpFault =>
  Object.freeze({ reason, npfErrorCode });

export const FAULT_RMP = fault('rmp', NPF_RMP);
export const FAULT_SIZEM = fault('sizem', NPF_RMP + NPF_SIZEM);
export const FAULT_VMPL = fault('vmpl', NPF_RMP + NPF_VMPL);
export const FAULT_NOT_VALIDATED = fault('not-validated', 0);
export const FAULT_GP = fault('gp', 0);
