// SPDX-License-Identifier: Apache-2.0
/** Hypercalls. [GHCB] "VMMCALL"; [KVM] "Page state change upstream", VMMCALL variant */
import { KvmExit, KvmHypercall, KvmHypercallErr } from '../../abi/kvm.ts';
import { KvmRun, KvmRunHypercall } from '../../abi/kvm-run.ts';
import { isPageAligned } from '../../lib/addresses.ts';
import { writeU64 } from '../../lib/bytes.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, RESUME } from './mapping.ts';

const ARGS_OFFSET = KvmRunHypercall.offsetOf('args');
/** KVM_EXIT_HYPERCALL_LONG_MODE. A protected guest is always taken to be in 64-bit mode. */
const LONG_MODE = 1n;

export function vmmcallEvent(vcpu: Vcpu): number {
  const { shadow, vm } = vcpu;
  if (shadow.cpl !== 0) {
    return fail(vcpu, KvmHypercallErr.KVM_EPERM);
  }
  const isMapGpaRange = shadow.rax === BigInt(KvmHypercall.KVM_HC_MAP_GPA_RANGE);
  if (!isMapGpaRange || !vm.exitsOnHypercall(KvmHypercall.KVM_HC_MAP_GPA_RANGE)) {
    return fail(vcpu, KvmHypercallErr.KVM_ENOSYS);
  }
  const { rbx: gpa, rcx: npages, rdx: attributes } = shadow;
  const end = BigInt.asUintN(64, (gpa >> 12n) + npages);
  if (!isPageAligned(gpa) || npages === 0n || end <= gpa >> 12n) {
    return fail(vcpu, KvmHypercallErr.KVM_EINVAL);
  }
  const { run } = vcpu;
  KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_HYPERCALL);
  KvmRunHypercall.set(run, 'nr', shadow.rax);
  writeU64(run, ARGS_OFFSET, gpa);
  writeU64(run, ARGS_OFFSET + 8, npages);
  writeU64(run, ARGS_OFFSET + 16, attributes);
  KvmRunHypercall.set(run, 'flags', LONG_MODE);
  if (vm.services.generation.hypercallRetZeroed) {
    KvmRunHypercall.set(run, 'ret', 0n);
  }
  vcpu.completion = () => {
    shadow.rax = KvmRunHypercall.get(run, 'ret');
    return RESUME;
  };
  return EXIT;
}

function fail(vcpu: Vcpu, error: number): number {
  vcpu.shadow.rax = BigInt.asUintN(64, -BigInt(error));
  return RESUME;
}
