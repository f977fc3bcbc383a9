// SPDX-License-Identifier: Apache-2.0
import { Errno } from '../../abi/errno.ts';
import { KvmSevSnpLaunchStart } from '../../abi/kvm-sev.ts';
import { SevCmd, SevDataSnpActivate, SevDataSnpAddr, SevDataSnpLaunchStart } from '../../abi/snp-commands.ts';
import { type Pfn, spaOf } from '../../lib/addresses.ts';
import { copyIn } from '../copy-user.ts';
import type { HostProcess } from '../host-process.ts';
import type { Vm } from '../vm.ts';
import { issueForOp, type SevOp } from './sev-op.ts';
import { decommission } from './state.ts';

/** KVM_SEV_SNP_LAUNCH_START: a guest context in the firmware, bound to the VM's ASID. [KVM] "SNP_LAUNCH_START" */
export function snpLaunchStart(vm: Vm, process: HostProcess, op: SevOp): number {
  const { sev, services } = vm;
  if (!sev.snp) {
    return -Errno.ENOTTY;
  }
  const request = copyIn(process, KvmSevSnpLaunchStart, op.data);
  if (request === null) {
    return -Errno.EFAULT;
  }
  if (sev.context !== null || request.flags !== 0) {
    return -Errno.EINVAL;
  }
  const { policyRequired } = services.generation;
  const mask = services.generation.policyMask(services.ccp);
  if ((request.policy & ~mask) !== 0n || (request.policy & policyRequired) !== policyRequired) {
    return -Errno.EINVAL;
  }
  sev.context = createContext(vm, process, op);
  if (sev.context === null) {
    return -Errno.ENOTTY;
  }
  sev.fd = op.sevFd;
  const gctx_paddr = spaOf(sev.context);
  const start = SevDataSnpLaunchStart.encode({ gctx_paddr, policy: request.policy, gosvw: request.gosvw });
  let errno = issueForOp(vm, process, op, SevCmd.SEV_CMD_SNP_LAUNCH_START, start);
  if (errno === 0) {
    const activate = SevDataSnpActivate.encode({ gctx_paddr, asid: sev.asid });
    errno = issueForOp(vm, process, op, SevCmd.SEV_CMD_SNP_ACTIVATE, activate);
  }
  if (errno !== 0) {
    decommission(vm);
  }
  return errno;
}

function createContext(vm: Vm, process: HostProcess, op: SevOp): Pfn | null {
  const { ccp } = vm.services;
  const page = ccp.allocFirmwarePages(1);
  if (page === null) {
    return null;
  }
  const create = SevDataSnpAddr.encode({ address: spaOf(page) });
  if (issueForOp(vm, process, op, SevCmd.SEV_CMD_SNP_GCTX_CREATE, create) !== 0) {
    ccp.freeFirmwarePages(page, 1);
    return null;
  }
  return page;
}
