// SPDX-License-Identifier: Apache-2.0
/**
 * Commands for SEV and SEV-ES guests, ids below 100.
 *
 * An SNP guest never gets here (-EPERM), and a VM without encryption is refused. For the rest the kernel's
 * part is to read the parameters and ask the firmware, which has no legacy guests and says so.
 *
 * Source   [KVM] "Command ids", "Legacy commands against a type-4 VM"
 * Differs  parameters are not translated for a firmware that refuses the command (docs/limitations.md#legacy-sev)
 */
import { Errno } from '../../abi/errno.ts';
import { KvmSevCmdId } from '../../abi/kvm-sev.ts';
import { SevCmd } from '../../abi/snp-commands.ts';
import type { HostProcess } from '../host-process.ts';
import type { Vm } from '../vm.ts';
import { initLegacy } from './init2.ts';
import { issueForOp, type SevOp } from './sev-op.ts';

interface LegacyRow {
  /** Size of the parameter structure; 0 for none. */
  readonly parameters: number;
  readonly command: number;
}

const ROWS: ReadonlyMap<number, LegacyRow> = new Map([
  [KvmSevCmdId.KVM_SEV_LAUNCH_START, { parameters: 40, command: SevCmd.SEV_CMD_LAUNCH_START }],
  [KvmSevCmdId.KVM_SEV_LAUNCH_UPDATE_DATA, { parameters: 16, command: SevCmd.SEV_CMD_LAUNCH_UPDATE_DATA }],
  [KvmSevCmdId.KVM_SEV_LAUNCH_UPDATE_VMSA, { parameters: 0, command: SevCmd.SEV_CMD_LAUNCH_UPDATE_VMSA }],
  [KvmSevCmdId.KVM_SEV_LAUNCH_SECRET, { parameters: 48, command: SevCmd.SEV_CMD_LAUNCH_UPDATE_SECRET }],
  [KvmSevCmdId.KVM_SEV_LAUNCH_MEASURE, { parameters: 16, command: SevCmd.SEV_CMD_LAUNCH_MEASURE }],
  [KvmSevCmdId.KVM_SEV_LAUNCH_FINISH, { parameters: 0, command: SevCmd.SEV_CMD_LAUNCH_FINISH }],
  [KvmSevCmdId.KVM_SEV_SEND_START, { parameters: 72, command: SevCmd.SEV_CMD_SEND_START }],
  [KvmSevCmdId.KVM_SEV_SEND_UPDATE_DATA, { parameters: 48, command: SevCmd.SEV_CMD_SEND_UPDATE_DATA }],
  [KvmSevCmdId.KVM_SEV_SEND_FINISH, { parameters: 0, command: SevCmd.SEV_CMD_SEND_FINISH }],
  [KvmSevCmdId.KVM_SEV_SEND_CANCEL, { parameters: 0, command: SevCmd.SEV_CMD_SEND_CANCEL }],
  [KvmSevCmdId.KVM_SEV_RECEIVE_START, { parameters: 40, command: SevCmd.SEV_CMD_RECEIVE_START }],
  [KvmSevCmdId.KVM_SEV_RECEIVE_UPDATE_DATA, { parameters: 48, command: SevCmd.SEV_CMD_RECEIVE_UPDATE_DATA }],
  [KvmSevCmdId.KVM_SEV_RECEIVE_FINISH, { parameters: 0, command: SevCmd.SEV_CMD_RECEIVE_FINISH }],
  [KvmSevCmdId.KVM_SEV_GUEST_STATUS, { parameters: 12, command: SevCmd.SEV_CMD_GUEST_STATUS }],
  [KvmSevCmdId.KVM_SEV_DBG_DECRYPT, { parameters: 24, command: SevCmd.SEV_CMD_DBG_DECRYPT }],
  [KvmSevCmdId.KVM_SEV_DBG_ENCRYPT, { parameters: 24, command: SevCmd.SEV_CMD_DBG_ENCRYPT }],
  [
    KvmSevCmdId.KVM_SEV_GET_ATTESTATION_REPORT,
    { parameters: 32, command: SevCmd.SEV_CMD_ATTESTATION_REPORT },
  ],
]);

const INITS: readonly number[] = [KvmSevCmdId.KVM_SEV_INIT, KvmSevCmdId.KVM_SEV_ES_INIT];

/** Ids 10, 14 and 19 have names but nothing behind them. */
export const isLegacyCommand = (id: number): boolean => INITS.includes(id) || ROWS.has(id);

export function legacyCommand(vm: Vm, process: HostProcess, op: SevOp): number {
  if (INITS.includes(op.id)) {
    return initLegacy(vm, op);
  }
  if (!vm.sev.active) {
    return op.id === KvmSevCmdId.KVM_SEV_RECEIVE_UPDATE_DATA ? -Errno.EINVAL : -Errno.ENOTTY;
  }
  const { parameters, command } = ROWS.get(op.id)!;
  const buffer = process.memory.read(op.data, parameters);
  if (parameters !== 0 && buffer === null) {
    return -Errno.EFAULT;
  }
  return issueForOp(vm, process, op, command, buffer ?? new Uint8Array(0));
}
