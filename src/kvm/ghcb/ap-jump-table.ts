// SPDX-License-Identifier: Apache-2.0
import { ApJumpTable } from '../../abi/ghcb.ts';
import type { Vcpu } from '../vcpu.ts';
import { type GhcbMapping, malformed, RESUME, succeed } from './mapping.ts';

/** AP jump table: KVM keeps an address for the guest and gives it back. */
export function apJumpTable(vcpu: Vcpu, ghcb: GhcbMapping): number {
  const { sev } = vcpu.vm;
  switch (ghcb.exitInfo1) {
    case BigInt(ApJumpTable.SVM_VMGEXIT_SET_AP_JUMP_TABLE):
      sev.apJumpTable = ghcb.exitInfo2;
      return RESUME;
    case BigInt(ApJumpTable.SVM_VMGEXIT_GET_AP_JUMP_TABLE):
      return succeed(vcpu, ghcb, sev.apJumpTable);
    default:
      return malformed(vcpu, ghcb, 'GHCB_ERR_INVALID_INPUT');
  }
}
