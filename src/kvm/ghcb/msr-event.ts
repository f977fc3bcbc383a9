// SPDX-License-Identifier: Apache-2.0
/** RDMSR and WRMSR through the GHCB page. [GHCB] "Table of accepted exit codes", 0x7C */
import { EVENTINJ_GP, GhcbResponse } from '../../abi/ghcb.ts';
import { KvmExit } from '../../abi/kvm.ts';
import { KvmRun, KvmRunMsr } from '../../abi/kvm-run.ts';
import { readMsr, writeMsr } from '../msrs.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, type GhcbMapping, RESUME, setExitInfo } from './mapping.ts';

export function msrEvent(vcpu: Vcpu, ghcb: GhcbMapping): number {
  const { shadow } = vcpu;
  const index = Number(shadow.rcx & 0xffff_ffffn);
  return ghcb.exitInfo1 === 0n ? read(vcpu, ghcb, index) : write(vcpu, ghcb, index);
}

function read(vcpu: Vcpu, ghcb: GhcbMapping, index: number): number {
  const value = readMsr(vcpu, index);
  if (typeof value === 'bigint') {
    return give(vcpu, value);
  }
  if (!leaves(vcpu, value)) {
    return generalProtection(vcpu, ghcb);
  }
  exitForMsr(vcpu, KvmExit.KVM_EXIT_X86_RDMSR, value, index, 0n);
  vcpu.completion = () =>
    KvmRunMsr.get(vcpu.run, 'error') === 0
      ? give(vcpu, KvmRunMsr.get(vcpu.run, 'data'))
      : generalProtection(vcpu, ghcb);
  return EXIT;
}

function write(vcpu: Vcpu, ghcb: GhcbMapping, index: number): number {
  const { rax, rdx } = vcpu.shadow;
  const value = ((rdx & 0xffff_ffffn) << 32n) | (rax & 0xffff_ffffn);
  const refusal = writeMsr(vcpu, index, value);
  if (refusal === null) {
    return RESUME;
  }
  if (!leaves(vcpu, refusal)) {
    return generalProtection(vcpu, ghcb);
  }
  exitForMsr(vcpu, KvmExit.KVM_EXIT_X86_WRMSR, refusal, index, value);
  vcpu.completion = () => (KvmRunMsr.get(vcpu.run, 'error') === 0 ? RESUME : generalProtection(vcpu, ghcb));
  return EXIT;
}

/** Userspace wants accesses that fail for this reason. */
const leaves = (vcpu: Vcpu, reason: number): boolean => (vcpu.vm.userSpaceMsrs & reason) !== 0;

function give(vcpu: Vcpu, value: bigint): number {
  vcpu.shadow.rax = value & 0xffff_ffffn;
  vcpu.shadow.rdx = value >> 32n;
  return RESUME;
}

function generalProtection(vcpu: Vcpu, ghcb: GhcbMapping): number {
  setExitInfo(vcpu, ghcb, GhcbResponse.GHCB_HV_RESP_ISSUE_EXCEPTION, EVENTINJ_GP);
  return RESUME;
}

function exitForMsr({ run }: Vcpu, exit: number, reason: number, index: number, data: bigint): void {
  KvmRun.set(run, 'exit_reason', exit);
  KvmRunMsr.set(run, 'error', 0);
  KvmRunMsr.set(run, 'reason', reason);
  KvmRunMsr.set(run, 'index', index);
  KvmRunMsr.set(run, 'data', data);
}
