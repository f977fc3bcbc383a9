// SPDX-License-Identifier: Apache-2.0
import { ghcbMsrApResetHoldResp } from '../../abi/ghcb-msr.ts';
import { KvmExit, KvmMp } from '../../abi/kvm.ts';
import { KvmRun } from '../../abi/kvm-run.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, RESUME, succeed } from './mapping.ts';

/** The hold asked for through the GHCB page: SW_EXITINFO2 tells at its end whether a SIPI came. */
export function apResetHoldPage(vcpu: Vcpu): number {
  vcpu.resetHold = 'page';
  return hold(vcpu);
}

/** The hold asked for through the MSR, which says "not by SIPI" until one comes. */
export function apResetHoldMsr(vcpu: Vcpu): number {
  vcpu.resetHold = 'msr';
  vcpu.ghcbMsr = ghcbMsrApResetHoldResp(0);
  return hold(vcpu);
}

/** A SIPI for a vCPU that has had its INIT. */
export function deliverSipi(vcpu: Vcpu): void {
  if (!vcpu.hadSipi) {
    vcpu.hadSipi = true;
  } else if (vcpu.resetHold === 'page' && vcpu.ghcb !== null) {
    succeed(vcpu, vcpu.ghcb, 1n);
  } else if (vcpu.resetHold === 'msr') {
    vcpu.ghcbMsr = ghcbMsrApResetHoldResp(1);
  }
}

/** The vCPU waits for a SIPI: in the kernel or, without an in-kernel APIC, in userspace. */
function hold(vcpu: Vcpu): number {
  if (!vcpu.vm.irqchip) {
    KvmRun.set(vcpu.run, 'exit_reason', KvmExit.KVM_EXIT_AP_RESET_HOLD);
    return EXIT;
  }
  vcpu.mpState = KvmMp.KVM_MP_STATE_AP_RESET_HOLD;
  vcpu.wakeAtMs = null;
  return RESUME;
}
