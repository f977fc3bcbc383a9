// SPDX-License-Identifier: Apache-2.0
/** The register state of a launch VMSA in the form KVM's ioctls take; KVM builds the same page from it. */
import { CpuidPage } from '../abi/cpuid-page.ts';
import { KvmCpuid2, KvmCpuidEntry2, KvmRegs, type KvmSegment, KvmSregs } from '../abi/kvm-structs.ts';
import { Vmsa, type VmsaSegment } from '../abi/vmsa.ts';
import { concat } from '../lib/bytes.ts';
import type { DecodedOf } from '../lib/struct.ts';

/** KVM sets EFER.SVME itself; user space may not. */
const EFER_SVME = 1n << 12n;

/** Unpacks the twelve attribute bits of a VMCB segment. */
function segment({ selector, attrib, limit, base }: VmsaSegment): DecodedOf<typeof KvmSegment> {
  const bit = (n: number): number => (attrib >> n) & 1;
  return {
    base,
    limit,
    selector,
    type: attrib & 0xf,
    s: bit(4),
    dpl: (attrib >> 5) & 3,
    present: bit(7),
    avl: bit(8),
    l: bit(9),
    db: bit(10),
    g: bit(11),
    unusable: attrib === 0 ? 1 : 0,
  };
}

/** Argument of KVM_SET_SREGS: what the save area says, the rest (apic_base) as KVM had it. */
export function sregsOf(vmsa: Uint8Array, current: KvmSregs): Uint8Array {
  const state = Vmsa.decode(vmsa);
  return KvmSregs.encode({
    ...current,
    cs: segment(state.cs),
    ds: segment(state.ds),
    es: segment(state.es),
    fs: segment(state.fs),
    gs: segment(state.gs),
    ss: segment(state.ss),
    tr: segment(state.tr),
    ldt: segment(state.ldtr),
    gdt: { base: state.gdtr.base, limit: state.gdtr.limit },
    idt: { base: state.idtr.base, limit: state.idtr.limit },
    cr0: state.cr0,
    cr2: state.cr2,
    cr3: state.cr3,
    cr4: state.cr4,
    efer: state.efer & ~EFER_SVME,
  });
}

/** Argument of KVM_SET_REGS. */
export function regsOf(vmsa: Uint8Array): Uint8Array {
  return KvmRegs.encode(Vmsa.decode(vmsa));
}

/**
 * Argument of KVM_SET_CPUID2 with what the CPUID page will tell the guest, so that both agree.
 *
 * Shape    the initial APIC id of function 1 is the vCPU's own
 */
export function cpuidOf(cpuidPage: Uint8Array, vcpuId: number): Uint8Array {
  const { count, entries } = CpuidPage.decodeLoose(cpuidPage);
  const used = entries.slice(0, count);
  return concat(
    KvmCpuid2.encode({ nent: used.length }),
    ...used.map(({ eax_in, ecx_in, eax, ebx, ecx, edx }) =>
      KvmCpuidEntry2.encode({
        function: eax_in,
        index: ecx_in,
        flags: used.some((other) => other.eax_in === eax_in && other.ecx_in !== ecx_in) ? 1 : 0,
        eax,
        ebx: eax_in === 1 ? ((ebx & 0x00ff_ffff) | (vcpuId << 24)) >>> 0 : ebx,
        ecx,
        edx,
      }),
    ),
  );
}
