// SPDX-License-Identifier: Apache-2.0
import { ApCreation } from '../../abi/ghcb.ts';
import { isPageAligned, PAGE_SIZE, PAGES_PER_2M } from '../../lib/addresses.ts';
import type { Vcpu } from '../vcpu.ts';
import { type GhcbMapping, malformed, RESUME } from './mapping.ts';

const TWO_MIB = BigInt(PAGES_PER_2M * PAGE_SIZE);

/**
 * SNP AP creation: another vCPU gets a VMSA the guest made, or loses it. The target acts on it later.
 *
 * Source   [GHCB] "SNP AP creation"
 */
export function apCreation(vcpu: Vcpu, ghcb: GhcbMapping): number {
  // KVM takes all 32 bits for the kind of request, so that one with a VMPL in it is unknown.
  const request = Number(ghcb.exitInfo1 & 0xffff_ffffn);
  const target = vcpu.vm.vcpuById(Number(ghcb.exitInfo1 >> 32n));
  const vmsaGpa = ghcb.exitInfo2;
  if (target === undefined) {
    return malformed(vcpu, ghcb, 'GHCB_ERR_INVALID_INPUT');
  }
  switch (request) {
    case ApCreation.SVM_VMGEXIT_AP_CREATE_ON_INIT:
    case ApCreation.SVM_VMGEXIT_AP_CREATE:
      if (!featuresMatch(vcpu) || !isUsableVmsa(vmsaGpa, vcpu.cpuid.physBits)) {
        return malformed(vcpu, ghcb, 'GHCB_ERR_INVALID_INPUT');
      }
      target.apUpdate = { vmsaGpa };
      break;
    case ApCreation.SVM_VMGEXIT_AP_DESTROY:
      target.apUpdate = { vmsaGpa: null };
      break;
    default:
      return malformed(vcpu, ghcb, 'GHCB_ERR_INVALID_INPUT');
  }
  if (request !== ApCreation.SVM_VMGEXIT_AP_CREATE_ON_INIT) {
    target.updateRequested = true;
  }
  return RESUME;
}

function featuresMatch({ vm, shadow }: Vcpu): boolean {
  return ((shadow.rax ^ vm.sev.vmsaFeatures) & vm.services.generation.apFeaturesCompared) === 0n;
}

/** A VMSA at the start of a 2 MiB page would hit an erratum of the processor. */
function isUsableVmsa(gpa: bigint, physBits: number): boolean {
  return isPageAligned(gpa) && gpa >> BigInt(physBits) === 0n && gpa % TWO_MIB !== 0n;
}
