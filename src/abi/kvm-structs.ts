// SPDX-License-Identifier: Apache-2.0
/** Arguments of KVM's other ioctls. [LINUX-UAPI] linux/kvm.h and asm/kvm.h. */
import {
  array,
  bytes,
  type DecodedOf,
  type LayoutSource,
  layout,
  u8,
  u16le,
  u32le,
  u64le,
} from '../lib/struct.ts';

const uapi = (struct: string, names: Record<string, string | null> = {}, at = ''): LayoutSource => ({
  spec: 'LINUX-UAPI',
  at: `struct ${struct}${at}`,
  gaps: 'ignore',
  c: { header: 'linux/kvm.h', struct, names },
});

/** KVM_SET_USER_MEMORY_REGION. */
export const KvmUserspaceMemoryRegion = layout(
  'KvmUserspaceMemoryRegion',
  32,
  uapi('kvm_userspace_memory_region'),
  {
    slot: [0, u32le],
    flags: [4, u32le],
    guest_phys_addr: [8, u64le],
    memory_size: [16, u64le],
    userspace_addr: [24, u64le],
  },
);
export type KvmUserspaceMemoryRegion = DecodedOf<typeof KvmUserspaceMemoryRegion>;

/** KVM_SET_USER_MEMORY_REGION2. */
export const KvmUserspaceMemoryRegion2 = layout(
  'KvmUserspaceMemoryRegion2',
  160,
  uapi('kvm_userspace_memory_region2'),
  {
    slot: [0, u32le, 'low half: number; high half: address space'],
    flags: [4, u32le, 'KvmMemFlag'],
    guest_phys_addr: [8, u64le],
    memory_size: [16, u64le, 'bytes; 0 deletes the slot'],
    userspace_addr: [24, u64le, 'backs the shared state'],
    guest_memfd_offset: [32, u64le],
    guest_memfd: [40, u32le, 'backs the private state'],
  },
);
export type KvmUserspaceMemoryRegion2 = DecodedOf<typeof KvmUserspaceMemoryRegion2>;

/** KVM_SET_MEMORY_ATTRIBUTES. */
export const KvmMemoryAttributes = layout('KvmMemoryAttributes', 32, uapi('kvm_memory_attributes'), {
  address: [0, u64le],
  size: [8, u64le],
  attributes: [16, u64le],
  flags: [24, u64le, '0'],
});
export type KvmMemoryAttributes = DecodedOf<typeof KvmMemoryAttributes>;

/** KVM_CREATE_GUEST_MEMFD. */
export const KvmCreateGuestMemfd = layout('KvmCreateGuestMemfd', 64, uapi('kvm_create_guest_memfd'), {
  size: [0, u64le],
  flags: [8, u64le, '0'],
  reserved: [16, array(u64le, 6)],
});
export type KvmCreateGuestMemfd = DecodedOf<typeof KvmCreateGuestMemfd>;

/** KVM_PRE_FAULT_MEMORY. */
export const KvmPreFaultMemory = layout('KvmPreFaultMemory', 64, uapi('kvm_pre_fault_memory'), {
  gpa: [0, u64le, 'in/out'],
  size: [8, u64le, 'in/out'],
  flags: [16, u64le, '0'],
});
export type KvmPreFaultMemory = DecodedOf<typeof KvmPreFaultMemory>;

/** KVM_HAS_DEVICE_ATTR, KVM_GET_DEVICE_ATTR and KVM_SET_DEVICE_ATTR. */
export const KvmDeviceAttr = layout('KvmDeviceAttr', 24, uapi('kvm_device_attr'), {
  flags: [0, u32le],
  group: [4, u32le],
  attr: [8, u64le],
  addr: [16, u64le, 'user pointer to the u64 value'],
});
export type KvmDeviceAttr = DecodedOf<typeof KvmDeviceAttr>;

/** KVM_ENABLE_CAP. */
export const KvmEnableCap = layout('KvmEnableCap', 104, uapi('kvm_enable_cap'), {
  cap: [0, u32le],
  flags: [4, u32le],
  args: [8, array(u64le, 4)],
});
export type KvmEnableCap = DecodedOf<typeof KvmEnableCap>;

/** KVM_MEMORY_ENCRYPT_REG_REGION and KVM_MEMORY_ENCRYPT_UNREG_REGION. */
export const KvmEncRegion = layout('KvmEncRegion', 16, uapi('kvm_enc_region'), {
  addr: [0, u64le],
  size: [8, u64le],
});
export type KvmEncRegion = DecodedOf<typeof KvmEncRegion>;

/** KVM_GET_MP_STATE and KVM_SET_MP_STATE. */
export const KvmMpState = layout('KvmMpState', 4, uapi('kvm_mp_state'), { mp_state: [0, u32le] });
export type KvmMpState = DecodedOf<typeof KvmMpState>;

/** KVM_GET_REGS and KVM_SET_REGS. */
export const KvmRegs = layout('KvmRegs', 144, uapi('kvm_regs'), {
  rax: [0, u64le],
  rbx: [8, u64le],
  rcx: [16, u64le],
  rdx: [24, u64le],
  rsi: [32, u64le],
  rdi: [40, u64le],
  rsp: [48, u64le],
  rbp: [56, u64le],
  r8: [64, u64le],
  r9: [72, u64le],
  r10: [80, u64le],
  r11: [88, u64le],
  r12: [96, u64le],
  r13: [104, u64le],
  r14: [112, u64le],
  r15: [120, u64le],
  rip: [128, u64le],
  rflags: [136, u64le],
});
export type KvmRegs = DecodedOf<typeof KvmRegs>;

/** One segment register. */
export const KvmSegment = layout('KvmSegment', 24, uapi('kvm_segment'), {
  base: [0, u64le],
  limit: [8, u32le],
  selector: [12, u16le],
  type: [14, u8],
  present: [15, u8],
  dpl: [16, u8],
  db: [17, u8],
  s: [18, u8],
  l: [19, u8],
  g: [20, u8],
  avl: [21, u8],
  unusable: [22, u8],
});
export type KvmSegment = DecodedOf<typeof KvmSegment>;

/** GDTR or IDTR. */
export const KvmDtable = layout('KvmDtable', 16, uapi('kvm_dtable'), {
  base: [0, u64le],
  limit: [8, u16le],
});
export type KvmDtable = DecodedOf<typeof KvmDtable>;

/** KVM_GET_SREGS and KVM_SET_SREGS. */
export const KvmSregs = layout('KvmSregs', 312, uapi('kvm_sregs'), {
  cs: [0, KvmSegment.codec],
  ds: [24, KvmSegment.codec],
  es: [48, KvmSegment.codec],
  fs: [72, KvmSegment.codec],
  gs: [96, KvmSegment.codec],
  ss: [120, KvmSegment.codec],
  tr: [144, KvmSegment.codec],
  ldt: [168, KvmSegment.codec],
  gdt: [192, KvmDtable.codec],
  idt: [208, KvmDtable.codec],
  cr0: [224, u64le],
  cr2: [232, u64le],
  cr3: [240, u64le],
  cr4: [248, u64le],
  cr8: [256, u64le],
  efer: [264, u64le],
  apic_base: [272, u64le],
  interrupt_bitmap: [280, array(u64le, 4)],
});
export type KvmSregs = DecodedOf<typeof KvmSregs>;

/** KVM_GET_DEBUGREGS and KVM_SET_DEBUGREGS. */
export const KvmDebugregs = layout('KvmDebugregs', 128, uapi('kvm_debugregs'), {
  db: [0, array(u64le, 4)],
  dr6: [32, u64le],
  dr7: [40, u64le],
  flags: [48, u64le],
});
export type KvmDebugregs = DecodedOf<typeof KvmDebugregs>;

/** KVM_GET_FPU and KVM_SET_FPU. */
export const KvmFpu = layout('KvmFpu', 416, uapi('kvm_fpu'), {
  fpr: [0, array(bytes(16), 8)],
  fcw: [128, u16le],
  fsw: [130, u16le],
  ftwx: [132, u8],
  last_opcode: [134, u16le],
  last_ip: [136, u64le],
  last_dp: [144, u64le],
  xmm: [152, array(bytes(16), 16)],
  mxcsr: [408, u32le],
});
export type KvmFpu = DecodedOf<typeof KvmFpu>;

/** Head of KVM_SET_CPUID2 and KVM_GET_SUPPORTED_CPUID; `nent` of KvmCpuidEntry2 follow. */
export const KvmCpuid2 = layout('KvmCpuid2', 8, uapi('kvm_cpuid2'), { nent: [0, u32le] });
export type KvmCpuid2 = DecodedOf<typeof KvmCpuid2>;

/** One CPUID function as a VMM sets it. */
export const KvmCpuidEntry2 = layout('KvmCpuidEntry2', 40, uapi('kvm_cpuid_entry2'), {
  function: [0, u32le],
  index: [4, u32le],
  flags: [8, u32le, 'bit 0: index is significant'],
  eax: [12, u32le],
  ebx: [16, u32le],
  ecx: [20, u32le],
  edx: [24, u32le],
});
export type KvmCpuidEntry2 = DecodedOf<typeof KvmCpuidEntry2>;

/** KVM_SIGNAL_MSI. */
export const KvmMsi = layout('KvmMsi', 32, uapi('kvm_msi'), {
  address_lo: [0, u32le, 'bits 19:12: destination APIC id'],
  address_hi: [4, u32le, 'bits 31:8: its high bits'],
  data: [8, u32le],
  flags: [12, u32le],
  devid: [16, u32le],
});
export type KvmMsi = DecodedOf<typeof KvmMsi>;

/** One extended control register. */
export const KvmXcr = layout('KvmXcr', 16, uapi('kvm_xcr'), { xcr: [0, u32le], value: [8, u64le] });
export type KvmXcr = DecodedOf<typeof KvmXcr>;

/** KVM_GET_XCRS and KVM_SET_XCRS. */
export const KvmXcrs = layout('KvmXcrs', 392, uapi('kvm_xcrs'), {
  nr_xcrs: [0, u32le],
  flags: [4, u32le, '0'],
  xcrs: [8, array(KvmXcr.codec, 16)],
});
export type KvmXcrs = DecodedOf<typeof KvmXcrs>;

/** The header has an array of words only. */
const XSAVE_IS_WORDS = {
  fcw: null,
  fsw: null,
  ftw: null,
  fop: null,
  rip: null,
  rdp: null,
  mxcsr: null,
  st: null,
  xmm: null,
  xstate_bv: null,
};
/** What KVM_GET_XSAVE and KVM_SET_XSAVE carry, as far as it is not extended state: the FXSAVE image. */
export const KvmXsave = layout('KvmXsave', 4096, uapi('kvm_xsave', XSAVE_IS_WORDS), {
  fcw: [0, u16le],
  fsw: [2, u16le],
  ftw: [4, u8],
  fop: [6, u16le],
  rip: [8, u64le],
  rdp: [16, u64le],
  mxcsr: [24, u32le],
  st: [32, array(bytes(16), 8)],
  xmm: [160, array(bytes(16), 16)],
  xstate_bv: [512, u64le],
});
export type KvmXsave = DecodedOf<typeof KvmXsave>;
