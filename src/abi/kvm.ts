// SPDX-License-Identifier: Apache-2.0
/** Numbers of KVM's user-space API. [LINUX-UAPI] linux/kvm.h and asm/kvm.h; the rest as marked. */

/** ioctl numbers, x86-64. */
export const KvmIoctl = Object.freeze({
  KVM_GET_API_VERSION: 0xae00,
  KVM_CREATE_VM: 0xae01,
  KVM_CHECK_EXTENSION: 0xae03,
  KVM_GET_VCPU_MMAP_SIZE: 0xae04,
  KVM_GET_SUPPORTED_CPUID: 0xc008ae05,
  KVM_CREATE_VCPU: 0xae41,
  KVM_SET_USER_MEMORY_REGION: 0x4020ae46,
  KVM_SET_TSS_ADDR: 0xae47,
  KVM_SET_USER_MEMORY_REGION2: 0x40a0ae49,
  KVM_CREATE_IRQCHIP: 0xae60,
  KVM_SET_BOOT_CPU_ID: 0xae78,
  KVM_RUN: 0xae80,
  KVM_GET_REGS: 0x8090ae81,
  KVM_SET_REGS: 0x4090ae82,
  KVM_GET_SREGS: 0x8138ae83,
  KVM_SET_SREGS: 0x4138ae84,
  KVM_GET_FPU: 0x81a0ae8c,
  KVM_SET_FPU: 0x41a0ae8d,
  KVM_SET_CPUID2: 0x4008ae90,
  KVM_GET_CPUID2: 0xc008ae91,
  KVM_GET_MP_STATE: 0x8004ae98,
  KVM_SET_MP_STATE: 0x4004ae99,
  KVM_SET_GUEST_DEBUG: 0x4048ae9b,
  KVM_GET_DEBUGREGS: 0x8080aea1,
  KVM_SET_DEBUGREGS: 0x4080aea2,
  KVM_ENABLE_CAP: 0x4068aea3,
  KVM_GET_XSAVE: 0x9000aea4,
  KVM_SIGNAL_MSI: 0x4020aea5,
  KVM_SET_XSAVE: 0x5000aea5,
  KVM_GET_XCRS: 0x8188aea6,
  KVM_SET_XCRS: 0x4188aea7,
  KVM_MEMORY_ENCRYPT_OP: 0xc008aeba,
  KVM_MEMORY_ENCRYPT_REG_REGION: 0x8010aebb,
  KVM_MEMORY_ENCRYPT_UNREG_REGION: 0x8010aebc,
  KVM_GET_SREGS2: 0x8140aecc,
  KVM_SET_SREGS2: 0x4140aecd,
  KVM_GET_XSAVE2: 0x9000aecf,
  KVM_SET_MEMORY_ATTRIBUTES: 0x4020aed2,
  KVM_CREATE_GUEST_MEMFD: 0xc040aed4,
  KVM_PRE_FAULT_MEMORY: 0xc040aed5,
  KVM_SET_DEVICE_ATTR: 0x4018aee1,
  KVM_GET_DEVICE_ATTR: 0x4018aee2,
  KVM_HAS_DEVICE_ATTR: 0x4018aee3,
} as const);

const IOCTL_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(KvmIoctl).map(([name, value]) => [value, name]),
);

/** The name of an ioctl; "ioctl 0x.." for a number without one. */
export function kvmIoctlName(nr: number): string {
  return IOCTL_NAMES.get(nr >>> 0) ?? `ioctl 0x${(nr >>> 0).toString(16)}`;
}

export const KVM_API_VERSION = 12;
/** kvm_run, the PIO data page, the coalesced MMIO ring. */
export const KVM_VCPU_MMAP_SIZE = 12288;
/** Where the PIO data lies in that mapping. */
export const KVM_PIO_DATA_OFFSET = 4096;

/** Capabilities. */
export const KvmCap = Object.freeze({
  KVM_CAP_IRQCHIP: 0,
  KVM_CAP_USER_MEMORY: 3,
  KVM_CAP_NR_VCPUS: 9,
  KVM_CAP_NR_MEMSLOTS: 10,
  KVM_CAP_MP_STATE: 14,
  KVM_CAP_MAX_VCPUS: 66,
  KVM_CAP_SYNC_REGS: 74,
  KVM_CAP_SIGNAL_MSI: 77,
  KVM_CAP_SPLIT_IRQCHIP: 121,
  KVM_CAP_MAX_VCPU_ID: 128,
  KVM_CAP_IMMEDIATE_EXIT: 136,
  KVM_CAP_X86_USER_SPACE_MSR: 188,
  KVM_CAP_VM_COPY_ENC_CONTEXT_FROM: 197,
  KVM_CAP_EXIT_HYPERCALL: 201,
  KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM: 206,
  KVM_CAP_SYS_ATTRIBUTES: 209,
  KVM_CAP_USER_MEMORY2: 231,
  KVM_CAP_MEMORY_FAULT_INFO: 232,
  KVM_CAP_MEMORY_ATTRIBUTES: 233,
  KVM_CAP_GUEST_MEMFD: 234,
  KVM_CAP_VM_TYPES: 235,
  KVM_CAP_PRE_FAULT_MEMORY: 236,
} as const);

/** Exit reasons. 40 and 50 mean something else in old trees: see KvmExitV15 and KvmExitV10. */
export const KvmExit = Object.freeze({
  KVM_EXIT_UNKNOWN: 0,
  KVM_EXIT_EXCEPTION: 1,
  KVM_EXIT_IO: 2,
  KVM_EXIT_HYPERCALL: 3,
  KVM_EXIT_DEBUG: 4,
  KVM_EXIT_HLT: 5,
  KVM_EXIT_MMIO: 6,
  KVM_EXIT_IRQ_WINDOW_OPEN: 7,
  KVM_EXIT_SHUTDOWN: 8,
  KVM_EXIT_FAIL_ENTRY: 9,
  KVM_EXIT_INTR: 10,
  KVM_EXIT_INTERNAL_ERROR: 17,
  KVM_EXIT_SYSTEM_EVENT: 24,
  KVM_EXIT_X86_RDMSR: 29,
  KVM_EXIT_X86_WRMSR: 30,
  KVM_EXIT_AP_RESET_HOLD: 32,
  KVM_EXIT_LOONGARCH_IOCSR: 38,
  KVM_EXIT_MEMORY_FAULT: 39,
  KVM_EXIT_TDX: 40,
  KVM_EXIT_ARM_SEA: 41,
  /** [KVM-CERTS-V7]. */
  KVM_EXIT_SNP_REQ_CERTS: 42,
} as const);

/** Exit reasons of [KVM-SNP-V12] to [KVM-SNP-V15]. */
export const KvmExitV15 = Object.freeze({ KVM_EXIT_VMGEXIT: 40 } as const);

/** Exit reasons of [KVM-SNP-V10]. */
export const KvmExitV10 = Object.freeze({ KVM_EXIT_MEMORY_FAULT: 38, KVM_EXIT_VMGEXIT: 50 } as const);

const EXIT_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(KvmExit).map(([name, value]) => [value, name]),
);

/** The name of an exit reason; "exit reason 77" for a number without one. */
export function kvmExitName(reason: number): string {
  return EXIT_NAMES.get(reason) ?? `exit reason ${reason}`;
}

/** VM types: the argument of KVM_CREATE_VM. */
export const KvmVmType = Object.freeze({
  KVM_X86_DEFAULT_VM: 0,
  KVM_X86_SW_PROTECTED_VM: 1,
  KVM_X86_SEV_VM: 2,
  KVM_X86_SEV_ES_VM: 3,
  KVM_X86_SNP_VM: 4,
} as const);

/** Groups of device attributes on /dev/kvm. */
export const KvmAttrGroup = Object.freeze({ KVM_X86_GRP_SYSTEM: 0, KVM_X86_GRP_SEV: 1 } as const);

/** Attributes of KVM_X86_GRP_SYSTEM. */
export const KvmSystemAttr = Object.freeze({ KVM_X86_XCOMP_GUEST_SUPP: 0 } as const);

/** Attributes of KVM_X86_GRP_SEV: the second is newer than 6.12, the third is of [KVM-CERTS-V7]. */
export const KvmSevAttr = Object.freeze({
  KVM_X86_SEV_VMSA_FEATURES: 0,
  KVM_X86_SNP_POLICY_BITS: 1,
  KVM_X86_SEV_SNP_REQ_CERTS: 2,
} as const);

/** States of a vCPU. */
export const KvmMp = Object.freeze({
  KVM_MP_STATE_RUNNABLE: 0,
  KVM_MP_STATE_UNINITIALIZED: 1,
  KVM_MP_STATE_INIT_RECEIVED: 2,
  KVM_MP_STATE_HALTED: 3,
  KVM_MP_STATE_SIPI_RECEIVED: 4,
  KVM_MP_STATE_AP_RESET_HOLD: 9,
} as const);

/** Memory attribute of private pages, and the only one. */
export const KVM_MEMORY_ATTRIBUTE_PRIVATE = 1n << 3n;

/** Flags of a memory slot. */
export const KvmMemFlag = Object.freeze({
  KVM_MEM_LOG_DIRTY_PAGES: 1 << 0,
  KVM_MEM_READONLY: 1 << 1,
  KVM_MEM_GUEST_MEMFD: 1 << 2,
} as const);

/** `flags` of KVM_EXIT_MEMORY_FAULT: the access was private. */
export const KVM_MEMORY_EXIT_FLAG_PRIVATE = 1n << 3n;

/** `type` of KVM_EXIT_SYSTEM_EVENT. */
export const KvmSystemEvent = Object.freeze({
  KVM_SYSTEM_EVENT_SHUTDOWN: 1,
  KVM_SYSTEM_EVENT_RESET: 2,
  KVM_SYSTEM_EVENT_CRASH: 3,
  KVM_SYSTEM_EVENT_WAKEUP: 4,
  KVM_SYSTEM_EVENT_SUSPEND: 5,
  KVM_SYSTEM_EVENT_SEV_TERM: 6,
} as const);

/** `suberror` of KVM_EXIT_INTERNAL_ERROR. */
export const KvmInternalError = Object.freeze({
  KVM_INTERNAL_ERROR_EMULATION: 1,
  KVM_INTERNAL_ERROR_SIMUL_EX: 2,
  KVM_INTERNAL_ERROR_DELIVERY_EV: 3,
  KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: 4,
} as const);

/** Why an MSR access leaves to user space: `reason` of KVM_EXIT_X86_RDMSR, args[0] of KVM_CAP_X86_USER_SPACE_MSR. */
export const KvmMsrExitReason = Object.freeze({
  KVM_MSR_EXIT_REASON_INVAL: 1 << 0,
  KVM_MSR_EXIT_REASON_UNKNOWN: 1 << 1,
  KVM_MSR_EXIT_REASON_FILTER: 1 << 2,
} as const);

/** `direction` of KVM_EXIT_IO. */
export const KvmIoDirection = Object.freeze({ KVM_EXIT_IO_IN: 0, KVM_EXIT_IO_OUT: 1 } as const);

/** `hardware_entry_failure_reason` of an entry with an invalid VMSA: the exit code -1, 32 bits wide. */
export const KVM_FAIL_ENTRY_INVALID_VMSA = 0xffffffffn;

/** Hypercalls. */
export const KvmHypercall = Object.freeze({ KVM_HC_MAP_GPA_RANGE: 12 } as const);

/** Mask of KVM_CAP_EXIT_HYPERCALL: bit 12, KVM_HC_MAP_GPA_RANGE. */
export const KVM_EXIT_HYPERCALL_VALID_MASK = 1n << 12n;

/** args[2] of KVM_HC_MAP_GPA_RANGE: the page size in bits 3:0, private in bit 4. */
export const KvmMapGpaRange = Object.freeze({
  KVM_MAP_GPA_RANGE_PAGE_SZ_4K: 0,
  KVM_MAP_GPA_RANGE_PAGE_SZ_2M: 1 << 0,
  KVM_MAP_GPA_RANGE_PAGE_SZ_1G: 1 << 1,
  KVM_MAP_GPA_RANGE_DECRYPTED: 0,
  KVM_MAP_GPA_RANGE_ENCRYPTED: 1 << 4,
} as const);

/** Results of a VMMCALL in RAX. */
export const KvmHypercallErr = Object.freeze({
  KVM_ENOSYS: 1000,
  KVM_EFAULT: 14,
  KVM_EINVAL: 22,
  KVM_EPERM: 1,
} as const);

/** Modes of fallocate on a guest_memfd. */
export const FALLOC_FL_KEEP_SIZE = 0x1;
export const FALLOC_FL_PUNCH_HOLE = 0x2;
