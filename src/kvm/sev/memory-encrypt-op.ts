// SPDX-License-Identifier: Apache-2.0
/**
 * KVM_MEMORY_ENCRYPT_OP: the envelope all commands of SEV come in.
 *
 * Source   [KVM] "KVM_MEMORY_ENCRYPT_OP envelope"; [LINUX] svm/sev.c sev_mem_enc_ioctl
 */
import { Errno } from '../../abi/errno.ts';
import { KvmSevCmd, KvmSevCmdId } from '../../abi/kvm-sev.ts';
import type { HostProcess } from '../host-process.ts';
import type { Vm } from '../vm.ts';
import { init2 } from './init2.ts';
import { isLegacyCommand, legacyCommand } from './legacy-commands.ts';
import type { SevOp } from './sev-op.ts';
import { snpLaunchFinish } from './snp-launch-finish.ts';
import { snpLaunchStart } from './snp-launch-start.ts';
import { snpLaunchUpdate } from './snp-launch-update.ts';

const FIRST_SNP_COMMAND = KvmSevCmdId.KVM_SEV_SNP_LAUNCH_START;

export function memoryEncryptOp(vm: Vm, process: HostProcess, arg: bigint): number {
  const { services, sev } = vm;
  if (!services.ccp.present || !(services.asids.hasSev || services.asids.hasEncryptedState)) {
    return -Errno.ENOTTY;
  }
  if (arg === 0n) {
    return 0;
  }
  const envelope = process.memory.read(arg, KvmSevCmd.size);
  if (envelope === null) {
    return -Errno.EFAULT;
  }
  const { id, data, sev_fd, error } = KvmSevCmd.decodeLoose(envelope);
  const op: SevOp = { id, data, sevFd: sev_fd, error };
  if (sev.snp && id < FIRST_SNP_COMMAND) {
    return -Errno.EPERM;
  }
  if (id === KvmSevCmdId.KVM_SEV_ES_INIT && !services.asids.hasEncryptedState) {
    return -Errno.ENOTTY;
  }
  const command = commandOf(vm, id);
  if (command === null) {
    return -Errno.EINVAL;
  }
  const result = command(vm, process, op);
  KvmSevCmd.set(envelope, 'error', op.error);
  return process.memory.write(arg, envelope) ? result : -Errno.EFAULT;
}

type Command = (vm: Vm, process: HostProcess, op: SevOp) => number;

/** Null for an id this kernel does not know. */
function commandOf(vm: Vm, id: number): Command | null {
  switch (id) {
    case KvmSevCmdId.KVM_SEV_INIT2:
      return init2;
    case KvmSevCmdId.KVM_SEV_SNP_LAUNCH_START:
      return snpLaunchStart;
    case KvmSevCmdId.KVM_SEV_SNP_LAUNCH_UPDATE:
      return snpLaunchUpdate;
    case KvmSevCmdId.KVM_SEV_SNP_LAUNCH_FINISH:
      return snpLaunchFinish;
    case KvmSevCmdId.KVM_SEV_SNP_ENABLE_REQ_CERTS:
      return vm.services.generation.reqCerts === null ? null : snpEnableReqCerts;
    default:
      return isLegacyCommand(id) ? legacyCommand : null;
  }
}

/** Certificates are asked for from now on; only before there is a vCPU that could be in the middle of it. */
function snpEnableReqCerts(vm: Vm): number {
  if (vm.vcpus.length !== 0 || !vm.sev.snp) {
    return -Errno.EINVAL;
  }
  vm.sev.certsEnabled = true;
  return 0;
}
