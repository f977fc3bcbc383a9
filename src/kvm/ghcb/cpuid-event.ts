// SPDX-License-Identifier: Apache-2.0
import type { Vcpu } from '../vcpu.ts';
import { RESUME } from './mapping.ts';

/** CPUID with the function in RAX and the index in RCX; answers in RAX, RBX, RCX and RDX. */
export function cpuidEvent(vcpu: Vcpu): number {
  const { shadow } = vcpu;
  const low = (value: bigint): number => Number(value & 0xffff_ffffn);
  const { eax, ebx, ecx, edx } = vcpu.cpuid.execute(low(shadow.rax), low(shadow.rcx), shadow.xcr0);
  shadow.rax = BigInt(eax);
  shadow.rbx = BigInt(ebx);
  shadow.rcx = BigInt(ecx);
  shadow.rdx = BigInt(edx);
  return RESUME;
}
