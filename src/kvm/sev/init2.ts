// SPDX-License-Identifier: Apache-2.0
import { Errno } from '../../abi/errno.ts';
import { GHCB_PROTOCOL_MAX } from '../../abi/ghcb.ts';
import { KvmVmType } from '../../abi/kvm.ts';
import { KvmSevCmdId, KvmSevInit } from '../../abi/kvm-sev.ts';
import { SevRet } from '../../abi/sev-status.ts';
import { SVM_SEV_FEAT_SNP_ACTIVE } from '../../abi/vmsa.ts';
import { copyIn } from '../copy-user.ts';
import type { HostProcess } from '../host-process.ts';
import type { Vm } from '../vm.ts';
import type { SevOp } from './sev-op.ts';
import { freeBouncePages, hasEncryptedState } from './state.ts';

interface InitParameters {
  readonly type: number;
  readonly vmsaFeatures: bigint;
  readonly flags: number;
  readonly ghcbVersion: number;
}

/** KVM_SEV_INIT2: makes the VM an encrypted one. [KVM] "KVM_SEV_INIT2" */
export function init2(vm: Vm, process: HostProcess, op: SevOp): number {
  if (!vm.sev.needsInit) {
    return -Errno.EINVAL;
  }
  const request = copyIn(process, KvmSevInit, op.data);
  if (request === null) {
    return -Errno.EFAULT;
  }
  return initSev(vm, op, {
    type: vm.type,
    vmsaFeatures: request.vmsa_features,
    flags: request.flags,
    ghcbVersion: request.ghcb_version,
  });
}

/** KVM_SEV_INIT and KVM_SEV_ES_INIT, which INIT2 replaced: for VMs of the default type only. */
export function initLegacy(vm: Vm, op: SevOp): number {
  if (vm.type !== KvmVmType.KVM_X86_DEFAULT_VM) {
    return -Errno.EINVAL;
  }
  const type = op.id === KvmSevCmdId.KVM_SEV_INIT ? KvmVmType.KVM_X86_SEV_VM : KvmVmType.KVM_X86_SEV_ES_VM;
  return initSev(vm, op, { type, vmsaFeatures: 0n, flags: 0, ghcbVersion: 0 });
}

function initSev(vm: Vm, op: SevOp, { type, vmsaFeatures, flags, ghcbVersion }: InitParameters): number {
  const { sev, services } = vm;
  const es = hasEncryptedState(type);
  const supported = es ? services.supportedVmsaFeatures : 0n;
  if (vm.vcpus.length !== 0 || flags !== 0 || (vmsaFeatures & ~supported) !== 0n) {
    return -Errno.EINVAL;
  }
  if (ghcbVersion > GHCB_PROTOCOL_MAX || (!es && ghcbVersion !== 0) || sev.active) {
    return -Errno.EINVAL;
  }
  const allocated = services.asids.alloc(es);
  if ('errno' in allocated) {
    return allocated.errno;
  }
  const platform = services.ccp.platformInit();
  const snp = type === KvmVmType.KVM_X86_SNP_VM;
  const errno = platform.errno !== 0 || !snp ? platform.errno : allocateBouncePages(vm);
  if (errno !== 0) {
    op.error = platform.status ?? SevRet.SEV_RET_SUCCESS;
    services.asids.release(allocated.asid);
    return errno;
  }
  sev.needsInit = false;
  sev.active = true;
  sev.es = es;
  sev.snp = snp;
  sev.asid = allocated.asid;
  sev.vmsaFeatures = snp ? vmsaFeatures | SVM_SEV_FEAT_SNP_ACTIVE : vmsaFeatures;
  sev.ghcbVersion = es && ghcbVersion === 0 ? GHCB_PROTOCOL_MAX : ghcbVersion;
  return 0;
}

/** Pages guest messages pass through: the firmware never reads or writes guest memory itself. */
function allocateBouncePages(vm: Vm): number {
  const { sev, services } = vm;
  sev.requestPage = services.frames.alloc(1);
  if (sev.requestPage === null) {
    return -Errno.ENOMEM;
  }
  sev.responsePage = services.ccp.allocFirmwarePages(1);
  if (sev.responsePage === null) {
    freeBouncePages(vm);
    return -Errno.EIO;
  }
  return 0;
}
