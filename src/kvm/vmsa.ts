// SPDX-License-Identifier: Apache-2.0
/** Which VMSA a vCPU runs on: KVM's own, or one the guest made for an AP. */
import { KvmMp } from '../abi/kvm.ts';
import { SVM_SEV_FEAT_SNP_ACTIVE, Vmsa } from '../abi/vmsa.ts';
import { PAGE_SIZE, spaOf, type Vmpl } from '../lib/addresses.ts';
import type { CurrentVmsa, Vcpu } from './vcpu.ts';

/**
 * What INIT and an AP creation's kick do: the pending VMSA, if there is one, replaces the current one.
 *
 * Source   [GHCB] "SNP AP creation", effect
 */
export function installPendingVmsa(vcpu: Vcpu): void {
  const update = vcpu.apUpdate;
  if (update === null) {
    return;
  }
  vcpu.apUpdate = null;
  vcpu.mpState = KvmMp.KVM_MP_STATE_HALTED;
  vcpu.wakeAtMs = null;
  vcpu.vmsaInUse = null;
  vcpu.current = null;
  vcpu.op = null;
  vcpu.answer = undefined;
  vcpu.exception = null;
  if (update.vmsaGpa === null) {
    return;
  }
  const guestFrame = Number(update.vmsaGpa >> 12n);
  const { memory, services } = vcpu.vm;
  const slot = memory.slotAt(guestFrame);
  const gmem = slot?.gmem ?? null;
  if (slot !== undefined && gmem !== null) {
    const page = slot.gmemPage + guestFrame - slot.baseGfn;
    if (!gmem.isPrepared(page)) {
      gmem.prepare(page, guestFrame, vcpu.vm.sev.asid, false);
    }
    vcpu.vmsaInUse = gmem.frameAt(page);
  } else if (!services.generation.apRunnableWithoutVmsa) {
    return;
  }
  vcpu.mpState = KvmMp.KVM_MP_STATE_RUNNABLE;
}

/**
 * VMRUN's look at the VMSA; null when it refuses the page.
 *
 * Differs  of the state in it only SEV_FEATURES and VMPL are judged; whether the registers make sense is the
 *          engine's business (docs/limitations.md#vmsa)
 */
export function loadVmsa(vcpu: Vcpu): CurrentVmsa | null {
  const { vm, vmsaInUse: frame } = vcpu;
  const { hw, engines } = vm.services;
  if (frame === null || !hw.isRunnableVmsa(frame, vm.sev.asid)) {
    return null;
  }
  if (vcpu.current !== null) {
    return vcpu.current;
  }
  const page = hw.memory.read(spaOf(frame), PAGE_SIZE, vm.sev.asid);
  const sevFeatures = Vmsa.get(page, 'sev_features');
  const vmpl = Vmsa.get(page, 'vmpl');
  if ((sevFeatures & SVM_SEV_FEAT_SNP_ACTIVE) === 0n || vmpl > 3) {
    return null;
  }
  const engine = engines(vm.name, vcpu.id, page);
  vcpu.current = { frame, vmpl: vmpl as Vmpl, sevFeatures, engine };
  return vcpu.current;
}
