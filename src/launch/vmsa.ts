// SPDX-License-Identifier: Apache-2.0
/** The register state every VMM gives its vCPUs at launch; it is part of the measurement. */
import { SVM_SEV_FEAT_SNP_ACTIVE, Vmsa, type VmsaSegment } from '../abi/vmsa.ts';
import { InputError } from '../lib/errors.ts';

/**
 * VMMs that are known to launch SNP guests.
 *
 * Differs  ec2 follows sev-snp-measure 0.0.13 (RDX 0x600); ec2-virtee is what virtee's own tools compute for
 *          the same host (RDX 0). krun is known to virtee alone. QEMU-before-6.10 is QEMU on a host kernel
 *          that left the FPU fields zero.
 */
export const VMM_TYPES = ['QEMU', 'ec2', 'gce', 'krun', 'ec2-virtee', 'QEMU-before-6.10'] as const;
export type VmmType = (typeof VMM_TYPES)[number];

/** Address at which the first vCPU starts: the x86 reset vector. */
export const BSP_EIP = 0xffff_fff0;

const segment = (selector: number, attrib: number, limit = 0xffff, base = 0n): VmsaSegment => ({
  selector,
  attrib,
  limit,
  base,
});

const PAT_RESET = 0x0007_0406_0007_0406n;

interface ResetState {
  /** Attributes of CS: the first vCPU of EC2 starts with the accessed bit clear. */
  readonly cs: (eip: number) => number;
  readonly ss: number;
  readonly tr: number;
  readonly gPat: bigint;
  /** null: RDX holds the CPU signature, as after a real reset. */
  readonly rdx: bigint | null;
  readonly mxcsr: number;
  readonly fcw: number;
}

const EC2: ResetState = {
  cs: (eip) => (eip === BSP_EIP ? 0x9a : 0x9b),
  ss: 0x92,
  tr: 0x83,
  gPat: PAT_RESET,
  rdx: 0x600n,
  mxcsr: 0,
  fcw: 0,
};

const QEMU: ResetState = {
  cs: () => 0x9b,
  ss: 0x93,
  tr: 0x8b,
  gPat: PAT_RESET,
  rdx: null,
  mxcsr: 0x1f80,
  fcw: 0x37f,
};

const RESET_STATES: Readonly<Record<VmmType, ResetState>> = {
  QEMU,
  ec2: EC2,
  gce: { cs: () => 0x9b, ss: 0x93, tr: 0x8b, gPat: 0x7_0106n, rdx: 0x600n, mxcsr: 0, fcw: 0 },
  krun: { ...EC2, cs: () => 0x9a, rdx: 0n },
  'ec2-virtee': { ...EC2, rdx: 0n },
  'QEMU-before-6.10': { ...QEMU, mxcsr: 0, fcw: 0 },
};

export interface VmsaOptions {
  readonly eip: number;
  /** CPUID Fn0000_0001_EAX. */
  readonly cpuSig: number;
  readonly sevFeatures: bigint;
  readonly vmmType: VmmType;
}

/**
 * The save area of a vCPU in real mode at `eip`.
 *
 * Units    4096 bytes
 * Errors   LAYOUT_VALUE_OUT_OF_RANGE when the features do not fit 64 bits; OPTION_INVALID for another VMM
 * Source   [LINUX] arch/x86/kvm/svm/svm.c init_vmcb, sev.c sev_es_sync_vmsa; sev-snp-measure vmsa.py
 */
export function buildVmsa({ eip, cpuSig, sevFeatures, vmmType }: VmsaOptions): Uint8Array {
  if (!VMM_TYPES.includes(vmmType)) {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(vmmType)} is none of ${VMM_TYPES.join(', ')}`, {
      where: 'vmmType',
    });
  }
  const state = RESET_STATES[vmmType];
  const data = segment(0, 0x93);
  return Vmsa.encode({
    es: data,
    cs: segment(0xf000, state.cs(eip), 0xffff, BigInt((eip & 0xffff_0000) >>> 0)),
    ss: segment(0, state.ss),
    ds: data,
    fs: data,
    gs: data,
    gdtr: segment(0, 0),
    ldtr: segment(0, 0x82),
    idtr: segment(0, 0),
    tr: segment(0, state.tr),
    efer: 0x1000n,
    cr4: 0x40n,
    cr0: 0x10n,
    dr7: 0x400n,
    dr6: 0xffff_0ff0n,
    rflags: 2n,
    rip: BigInt(eip & 0xffff),
    g_pat: state.gPat,
    rdx: state.rdx ?? BigInt(cpuSig),
    sev_features: sevFeatures,
    xcr0: 1n,
    mxcsr: state.mxcsr,
    x87_fcw: state.fcw,
  });
}

/**
 * The save area every vCPU of a flat Coconut-SVSM image starts with: 32-bit protected mode at `eip`.
 *
 * Source   sev-snp-measure vmsa.py VMSA_SVSM; the QEMU fork of coconut-svsm
 * Differs  x87_fcw stays 0, as in the reference tool and all values published with it
 */
export function buildSvsmVmsa(eip: number, cpuSig: number): Uint8Array {
  const flat = segment(0x10, 0xc93, 0xffff_ffff);
  return Vmsa.encode({
    es: flat,
    cs: segment(0x08, 0xc9b, 0xffff_ffff),
    ss: flat,
    ds: flat,
    fs: flat,
    gs: segment(0, 0x93),
    gdtr: segment(0, 0),
    ldtr: segment(0, 0x82),
    idtr: segment(0, 0),
    tr: segment(0, 0x8b),
    efer: 0x1000n,
    cr4: 0x40n,
    cr0: 0x11n,
    dr7: 0x400n,
    dr6: 0xffff_0ff0n,
    rflags: 2n,
    rip: BigInt(eip),
    g_pat: PAT_RESET,
    rdx: BigInt(cpuSig),
    sev_features: SVM_SEV_FEAT_SNP_ACTIVE,
    xcr0: 1n,
    mxcsr: 0x1f80,
  });
}

/**
 * A VMM type by name.
 *
 * Errors   OPTION_INVALID
 */
export function vmmTypeOf(name: string): VmmType {
  const found = VMM_TYPES.find((type) => type.toLowerCase() === name.toLowerCase());
  if (found === undefined) {
    throw new InputError('OPTION_INVALID', `${JSON.stringify(name)} is none of ${VMM_TYPES.join(', ')}`, {
      where: '--vmm-type',
    });
  }
  return found;
}
