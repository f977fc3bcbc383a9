// SPDX-License-Identifier: Apache-2.0
/**
 * Ways an access or an instruction is refused by the RMP, as values: one frozen object per outcome, so
 * that hot paths compare references and never allocate.
 */
import { NpfErrorCode } from '../abi/rmp-entry.ts';

export type FaultReason =
  /** The entry does not let this owner in: assignment, ASID, guest address or immutability. */
  | 'rmp'
  /** The entry is of 2 MiB and the instruction for 4 KiB. */
  | 'sizem'
  /** The permissions of the VMPL do not cover the access. */
  | 'vmpl'
  /** The guest has not validated the page: #VC with exit code 0x404, handled inside the guest. */
  | 'not-validated'
  /** The instruction is not allowed at this VMPL: #GP(0) in the guest. */
  | 'gp';

export interface RmpFault {
  readonly reason: FaultReason;
  /** NpfErrorCode bits the RMP adds to the nested page fault; 0 for the two that stay in the guest. */
  readonly npfErrorCode: bigint;
}

const fault = (reason: FaultReason, npfErrorCode: bigint): RmpFault =>
  Object.freeze({ reason, npfErrorCode });

const RMP = NpfErrorCode.PFERR_GUEST_RMP;

export const FAULT_RMP = fault('rmp', RMP);
export const FAULT_SIZEM = fault('sizem', RMP | NpfErrorCode.PFERR_GUEST_SIZEM);
export const FAULT_VMPL = fault('vmpl', RMP | NpfErrorCode.PFERR_GUEST_VMPL);
export const FAULT_NOT_VALIDATED = fault('not-validated', 0n);
export const FAULT_GP = fault('gp', 0n);
