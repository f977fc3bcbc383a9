// SPDX-License-Identifier: Apache-2.0
/**
 * Registers of a vCPU before its state is encrypted, kept in the form of the VMSA they become.
 *
 * Source   [MEASURE] "VMSA page"; [LINUX] svm/svm.c init_vmcb, svm_set_segment; svm/sev.c sev_es_sync_vmsa
 */
import type {
  KvmDebugregs,
  KvmFpu,
  KvmRegs,
  KvmSegment,
  KvmSregs,
  KvmXcrs,
  KvmXsave,
} from '../abi/kvm-structs.ts';
import { Vmsa, type VmsaSegment } from '../abi/vmsa.ts';

/** Control registers as the VMM set them; the VMSA holds what the processor runs with. */
export interface Registers {
  readonly save: Uint8Array;
  cr0: bigint;
  cr4: bigint;
  efer: bigint;
  cr8: bigint;
  apicBase: bigint;
}

const CR0_PE = 1n << 0n;
const CR0_ET = 1n << 4n;
const CR0_NW = 1n << 29n;
const CR0_CD = 1n << 30n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const CR4_MCE = 1n << 6n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;
const EFER_SVME = 1n << 12n;
const APIC_BSP = 1n << 8n;
const APIC_EXTD = 1n << 10n;
const APIC_ENABLE = 1n << 11n;
export const APIC_DEFAULT_BASE = 0xfee0_0000n;
const APIC_BASE_MAX = 1n << 52n;
const DR7_FIXED_1 = 0x400n;
const DR6_RESET = 0xffff_0ff0n;
const PAT_RESET = 0x0007_0406_0007_0406n;
/** RDX after reset where the VMM has not set CPUID yet: family 6. */
const RDX_RESET = 0x600n;
const CR8_MAX = 0xfn;

type Segment = VmsaSegment;
type SegmentName = 'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'ldtr' | 'tr';

const segment = (attrib: number, selector = 0, base = 0n): Segment => ({
  selector,
  attrib,
  limit: 0xffff,
  base,
});

/** The state after RESET, before a VMM changes it. */
export function resetRegisters(isBsp: boolean): Registers {
  const data = segment(0x92);
  const save = Vmsa.encode({
    es: data,
    cs: segment(0x9a, 0xf000, 0xffff_0000n),
    ss: data,
    ds: data,
    fs: data,
    gs: data,
    gdtr: segment(0),
    ldtr: segment(0x82),
    idtr: segment(0),
    tr: segment(0x83),
    efer: EFER_SVME,
    cr4: CR4_MCE,
    cr0: CR0_ET,
    dr7: DR7_FIXED_1,
    dr6: DR6_RESET,
    rflags: 2n,
    rip: 0xfff0n,
    g_pat: PAT_RESET,
    rdx: RDX_RESET,
    xcr0: 1n,
    mxcsr: 0x1f80,
    x87_fcw: 0x37f,
  });
  return {
    save,
    cr0: CR0_CD | CR0_NW | CR0_ET,
    cr4: 0n,
    efer: 0n,
    cr8: 0n,
    apicBase: APIC_DEFAULT_BASE | APIC_ENABLE | (isBsp ? APIC_BSP : 0n),
  };
}

/** The page that is measured and encrypted at launch. */
export function vmsaOf(registers: Registers, sevFeatures: bigint): Uint8Array {
  const page = registers.save.slice();
  Vmsa.set(page, 'sev_features', sevFeatures);
  return page;
}

/** Debug registers in use: such a vCPU cannot be launched. */
export function debugActive(registers: Registers): boolean {
  return Vmsa.get(registers.save, 'dr7') !== DR7_FIXED_1;
}

const GENERAL = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
  'rip',
  'rflags',
] as const;

export function getRegs({ save }: Registers): KvmRegs {
  return Object.fromEntries(GENERAL.map((name) => [name, Vmsa.get(save, name)])) as unknown as KvmRegs;
}

export function setRegs({ save }: Registers, regs: KvmRegs): void {
  for (const name of GENERAL) {
    Vmsa.set(save, name, regs[name]);
  }
  // Bit 1 of RFLAGS always reads as one.
  Vmsa.set(save, 'rflags', regs.rflags | 2n);
}

export function getSregs(registers: Registers): Omit<KvmSregs, 'interrupt_bitmap'> {
  const { save } = registers;
  const read = (name: SegmentName): KvmSegment => toKvmSegment(name, Vmsa.get(save, name));
  const gdtr = Vmsa.get(save, 'gdtr');
  const idtr = Vmsa.get(save, 'idtr');
  return {
    cs: read('cs'),
    ds: read('ds'),
    es: read('es'),
    fs: read('fs'),
    gs: read('gs'),
    ss: read('ss'),
    tr: read('tr'),
    ldt: read('ldtr'),
    gdt: { base: gdtr.base, limit: gdtr.limit & 0xffff },
    idt: { base: idtr.base, limit: idtr.limit & 0xffff },
    cr0: registers.cr0,
    cr2: Vmsa.get(save, 'cr2'),
    cr3: Vmsa.get(save, 'cr3'),
    cr4: registers.cr4,
    cr8: registers.cr8,
    efer: registers.efer,
    apic_base: registers.apicBase,
  };
}

/** False when the combination is one no processor can be in; nothing is changed then. */
export function setSregs(registers: Registers, sregs: Omit<KvmSregs, 'interrupt_bitmap'>): boolean {
  if (!sregsAreValid(sregs)) {
    return false;
  }
  const { save } = registers;
  Vmsa.set(save, 'cs', toVmsaSegment(sregs.cs));
  Vmsa.set(save, 'ds', toVmsaSegment(sregs.ds));
  Vmsa.set(save, 'es', toVmsaSegment(sregs.es));
  Vmsa.set(save, 'fs', toVmsaSegment(sregs.fs));
  Vmsa.set(save, 'gs', toVmsaSegment(sregs.gs));
  Vmsa.set(save, 'ss', toVmsaSegment(sregs.ss));
  Vmsa.set(save, 'tr', toVmsaSegment(sregs.tr));
  Vmsa.set(save, 'ldtr', toVmsaSegment(sregs.ldt));
  Vmsa.set(save, 'gdtr', { selector: 0, attrib: 0, ...sregs.gdt });
  Vmsa.set(save, 'idtr', { selector: 0, attrib: 0, ...sregs.idt });
  Vmsa.set(save, 'cpl', sregs.ss.dpl & 3);
  Vmsa.set(save, 'cr2', sregs.cr2);
  Vmsa.set(save, 'cr3', sregs.cr3);
  registers.cr0 = sregs.cr0 | CR0_ET;
  registers.cr4 = sregs.cr4;
  registers.efer = sregs.efer;
  registers.cr8 = sregs.cr8;
  registers.apicBase = sregs.apic_base;
  // KVM runs guests with caching on and machine checks enabled, and SVM needs SVME.
  Vmsa.set(save, 'cr0', registers.cr0 & ~(CR0_CD | CR0_NW));
  Vmsa.set(save, 'cr4', sregs.cr4 | CR4_MCE);
  Vmsa.set(save, 'efer', sregs.efer | EFER_SVME);
  return true;
}

function sregsAreValid({ cr0, cr4, cr8, efer, apic_base, cs }: Omit<KvmSregs, 'interrupt_bitmap'>): boolean {
  if (cr0 >> 32n !== 0n || ((cr0 & CR0_NW) !== 0n && (cr0 & CR0_CD) === 0n)) {
    return false;
  }
  if ((cr0 & CR0_PG) !== 0n && (cr0 & CR0_PE) === 0n) {
    return false;
  }
  const longMode = (efer & EFER_LME) !== 0n && (cr0 & CR0_PG) !== 0n;
  if (
    longMode ? (cr4 & CR4_PAE) === 0n || (efer & EFER_LMA) === 0n : (efer & EFER_LMA) !== 0n || cs.l !== 0
  ) {
    return false;
  }
  return cr8 <= CR8_MAX && apicBaseIsValid(apic_base);
}

/** x2APIC mode without the APIC enabled does not exist. */
export function apicBaseIsValid(value: bigint): boolean {
  const reserved = 0xffn | (1n << 9n);
  return (
    value < APIC_BASE_MAX &&
    (value & reserved) === 0n &&
    ((value & APIC_EXTD) === 0n || (value & APIC_ENABLE) !== 0n)
  );
}

export const isX2Apic = (apicBase: bigint): boolean => (apicBase & APIC_EXTD) !== 0n;

export const cr8IsValid = (cr8: bigint): boolean => cr8 <= CR8_MAX;

function toKvmSegment(name: SegmentName, { selector, attrib, limit, base }: Segment): KvmSegment {
  const present = (attrib >> 7) & 1;
  let type = attrib & 0xf;
  if (name === 'tr') {
    type |= 2;
  } else if (name === 'ds' || name === 'es' || name === 'fs' || name === 'gs') {
    // A loaded data segment is always accessed; other vendors' processors insist on it.
    type |= present;
  }
  return {
    base,
    limit,
    selector,
    type,
    present,
    dpl: (attrib >> 5) & 3,
    db: (attrib >> 10) & 1,
    s: (attrib >> 4) & 1,
    l: (attrib >> 9) & 1,
    g: (attrib >> 11) & 1,
    avl: (attrib >> 8) & 1,
    unusable: 1 - present,
  };
}

function toVmsaSegment(from: KvmSegment): Segment {
  const present = from.present & 1 & ~from.unusable;
  return {
    selector: from.selector,
    base: from.base,
    limit: from.limit,
    attrib:
      (from.type & 0xf) |
      ((from.s & 1) << 4) |
      ((from.dpl & 3) << 5) |
      (present << 7) |
      ((from.avl & 1) << 8) |
      ((from.l & 1) << 9) |
      ((from.db & 1) << 10) |
      ((from.g & 1) << 11),
  };
}

export function getDebugregs({ save }: Registers): KvmDebugregs {
  return {
    db: [Vmsa.get(save, 'dr0'), Vmsa.get(save, 'dr1'), Vmsa.get(save, 'dr2'), Vmsa.get(save, 'dr3')],
    dr6: Vmsa.get(save, 'dr6'),
    dr7: Vmsa.get(save, 'dr7'),
    flags: 0n,
  };
}

/** False for unknown flags or more than 32 bits of DR6 or DR7. */
export function setDebugregs({ save }: Registers, regs: KvmDebugregs): boolean {
  if (regs.flags !== 0n || regs.dr6 >> 32n !== 0n || regs.dr7 >> 32n !== 0n) {
    return false;
  }
  const names = ['dr0', 'dr1', 'dr2', 'dr3'] as const;
  names.forEach((name, i) => {
    Vmsa.set(save, name, regs.db[i]!);
  });
  Vmsa.set(save, 'dr6', regs.dr6 | DR6_RESET);
  Vmsa.set(save, 'dr7', regs.dr7 | DR7_FIXED_1);
  return true;
}

export function getXcrs({ save }: Registers): KvmXcrs {
  const none = { xcr: 0, value: 0n };
  return {
    nr_xcrs: 1,
    flags: 0,
    xcrs: [{ xcr: 0, value: Vmsa.get(save, 'xcr0') }, ...Array.from({ length: 15 }, () => none)],
  };
}

/** False for flags, too many registers, or an XCR0 outside what guests may have. */
export function setXcrs({ save }: Registers, { nr_xcrs, flags, xcrs }: KvmXcrs, supported: bigint): boolean {
  if (flags !== 0 || nr_xcrs > xcrs.length) {
    return false;
  }
  const xcr0 = xcrs.slice(0, nr_xcrs).find(({ xcr }) => xcr === 0);
  if (xcr0 === undefined) {
    return true;
  }
  if ((xcr0.value & 1n) === 0n || (xcr0.value & ~supported) !== 0n) {
    return false;
  }
  Vmsa.set(save, 'xcr0', xcr0.value);
  return true;
}

/** x87 and SSE state in whatever structure carries it. */
interface FpuState {
  readonly st: readonly Uint8Array[];
  readonly xmm: readonly Uint8Array[];
  readonly fcw: number;
  readonly fsw: number;
  readonly ftw: number;
  readonly fop: number;
  readonly rip: bigint;
  readonly rdp: bigint;
  readonly mxcsr: number;
}

export function getFpu({ save }: Registers): KvmFpu {
  const { st, xmm, fcw, fsw, ftw, fop, rip, rdp, mxcsr } = readFpu(save);
  return { fpr: st, xmm, fcw, fsw, ftwx: ftw, last_opcode: fop, last_ip: rip, last_dp: rdp, mxcsr };
}

export function setFpu({ save }: Registers, fpu: KvmFpu): void {
  writeFpu(save, {
    st: fpu.fpr,
    xmm: fpu.xmm,
    fcw: fpu.fcw,
    fsw: fpu.fsw,
    ftw: fpu.ftwx,
    fop: fpu.last_opcode,
    rip: fpu.last_ip,
    rdp: fpu.last_dp,
    mxcsr: fpu.mxcsr,
  });
}

/** x87 and SSE components present, as XSTATE_BV says it. */
const XSTATE_FPSSE = 3n;

export function getXsave({ save }: Registers): KvmXsave {
  return { ...readFpu(save), xstate_bv: XSTATE_FPSSE };
}

export function setXsave({ save }: Registers, xsave: KvmXsave): void {
  writeFpu(save, xsave);
}

/** The VMSA keeps the eight mantissas together, then the exponents. */
function readFpu(save: Uint8Array): FpuState {
  const x87 = Vmsa.get(save, 'fpreg_x87');
  const st = Array.from({ length: 8 }, (_, i) => {
    const register = new Uint8Array(16);
    register.set(x87.subarray(8 * i, 8 * i + 8));
    register.set(x87.subarray(64 + 2 * i, 66 + 2 * i), 8);
    return register;
  });
  return {
    st,
    xmm: Vmsa.get(save, 'fpreg_xmm'),
    fcw: Vmsa.get(save, 'x87_fcw'),
    fsw: Vmsa.get(save, 'x87_fsw'),
    ftw: Vmsa.get(save, 'x87_ftw') & 0xff,
    fop: Vmsa.get(save, 'x87_fop'),
    rip: Vmsa.get(save, 'x87_rip'),
    rdp: Vmsa.get(save, 'x87_dp'),
    mxcsr: Vmsa.get(save, 'mxcsr'),
  };
}

function writeFpu(save: Uint8Array, fpu: FpuState): void {
  const x87 = new Uint8Array(80);
  fpu.st.forEach((register, i) => {
    x87.set(register.subarray(0, 8), 8 * i);
    x87.set(register.subarray(8, 10), 64 + 2 * i);
  });
  Vmsa.set(save, 'fpreg_x87', x87);
  Vmsa.set(save, 'fpreg_xmm', fpu.xmm);
  Vmsa.set(save, 'x87_fcw', fpu.fcw);
  Vmsa.set(save, 'x87_fsw', fpu.fsw);
  Vmsa.set(save, 'x87_ftw', fpu.ftw);
  Vmsa.set(save, 'x87_fop', fpu.fop);
  Vmsa.set(save, 'x87_rip', fpu.rip);
  Vmsa.set(save, 'x87_dp', fpu.rdp);
  Vmsa.set(save, 'mxcsr', fpu.mxcsr);
}
