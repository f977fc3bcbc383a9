// SPDX-License-Identifier: Apache-2.0
/**
 * KVM_SEV_SNP_LAUNCH_FINISH: measures the vCPUs' registers and ends the launch.
 *
 * Source   [KVM] "SNP_LAUNCH_FINISH"; [LINUX] svm/sev.c snp_launch_finish, snp_launch_update_vmsa
 */
import { Errno } from '../../abi/errno.ts';
import { IdAuth, IdBlock } from '../../abi/id-block.ts';
import { KvmSevSnpLaunchFinish, VMSA_GPA } from '../../abi/kvm-sev.ts';
import { PageType } from '../../abi/page-info.ts';
import { SevCmd, SevDataSnpLaunchFinish, SevDataSnpLaunchUpdate } from '../../abi/snp-commands.ts';
import { gfnOf, gpa, type Pfn, spaOf } from '../../lib/addresses.ts';
import { copyIn } from '../copy-user.ts';
import type { HostProcess } from '../host-process.ts';
import { debugActive, vmsaOf } from '../registers.ts';
import type { Vcpu } from '../vcpu.ts';
import type { Vm } from '../vm.ts';
import { issueForOp, issueWithFd, type SevOp } from './sev-op.ts';

export function snpLaunchFinish(vm: Vm, process: HostProcess, op: SevOp): number {
  const { sev, vcpus, services } = vm;
  if (!sev.snp) {
    return -Errno.ENOTTY;
  }
  if (sev.context === null) {
    return -Errno.EINVAL;
  }
  const request = copyIn(process, KvmSevSnpLaunchFinish, op.data);
  if (request === null) {
    return -Errno.EFAULT;
  }
  if (request.flags !== 0) {
    return -Errno.EINVAL;
  }
  // The lock of a vCPU inside KVM_RUN is not free; waiting for it ends as if the caller had been killed.
  if (services.generation.launchFinishLocksVcpus && vcpus.some((vcpu) => vcpu.isRunning)) {
    return -Errno.EINTR;
  }
  for (const vcpu of vcpus) {
    const errno = launchVmsa(vm, process, op, vcpu);
    if (errno !== 0) {
      return errno;
    }
  }
  const idPages = request.id_block_en === 0 ? NO_ID : copyIdPages(vm, process, request);
  if (typeof idPages === 'number') {
    return idPages;
  }
  const finish = SevDataSnpLaunchFinish.encode({
    gctx_paddr: spaOf(sev.context),
    id_block_paddr: idPages.block === null ? 0n : spaOf(idPages.block),
    id_auth_paddr: idPages.auth === null ? 0n : spaOf(idPages.auth),
    flags: {
      id_block_en: request.id_block_en === 0 ? 0 : 1,
      auth_key_en: request.id_block_en !== 0 && request.auth_key_en !== 0 ? 1 : 0,
      vcek_dis: request.vcek_disabled & 1,
    },
    host_data: request.host_data,
  });
  const result = issueWithFd(vm, process, sev.fd, SevCmd.SEV_CMD_SNP_LAUNCH_FINISH, finish);
  op.error = result.status ?? op.error;
  for (const page of [idPages.block, idPages.auth]) {
    if (page !== null) {
      services.frames.free(page, 1);
    }
  }
  vm.preFaultAllowed = vm.preFaultAllowed || result.errno === 0;
  return result.errno;
}

/** The vCPU's registers become its encrypted VMSA; KVM cannot see or set them from now on. */
function launchVmsa(vm: Vm, process: HostProcess, op: SevOp, vcpu: Vcpu): number {
  const { frames, ccp } = vm.services;
  const frame = vcpu.vmsaFrame;
  if (vcpu.isProtected || frame === null || debugActive(vcpu.registers)) {
    return -Errno.EINVAL;
  }
  frames.write(frame, 0, vmsaOf(vcpu.registers, vm.sev.vmsaFeatures));
  if (!frames.makePrivate(frame, gfnOf(gpa(VMSA_GPA)), 0, vm.sev.asid, true)) {
    return -Errno.EFAULT;
  }
  const command = SevDataSnpLaunchUpdate.encode({
    gctx_paddr: spaOf(vm.sev.context!),
    flags: { page_size: 0, page_type: PageType.VMSA, imi_page: 0 },
    page_paddr: spaOf(frame),
  });
  const errno = issueForOp(vm, process, op, SevCmd.SEV_CMD_SNP_LAUNCH_UPDATE, command);
  if (errno !== 0) {
    if (!ccp.reclaim(frame)) {
      vm.dead = true;
    }
    return errno;
  }
  vcpu.isProtected = true;
  return 0;
}

interface IdPages {
  readonly block: Pfn | null;
  readonly auth: Pfn | null;
}

const NO_ID: IdPages = { block: null, auth: null };

function copyIdPages(vm: Vm, process: HostProcess, request: KvmSevSnpLaunchFinish): IdPages | number {
  const { frames } = vm.services;
  const block = userBytes(process, request.id_block_uaddr, IdBlock.size);
  if (typeof block === 'number') {
    return block;
  }
  const auth = userBytes(process, request.id_auth_uaddr, IdAuth.size);
  if (typeof auth === 'number') {
    return auth;
  }
  const pages = frames.alloc(2);
  if (pages === null) {
    return -Errno.ENOMEM;
  }
  const second = (pages + 1) as Pfn;
  frames.write(pages, 0, block);
  frames.write(second, 0, auth);
  return { block: pages, auth: second };
}

function userBytes(process: HostProcess, at: bigint, size: number): Uint8Array | number {
  if (at === 0n) {
    return -Errno.EINVAL;
  }
  return process.memory.read(at, size) ?? -Errno.EFAULT;
}
