// SPDX-License-Identifier: Apache-2.0
/**
 * kvm_run: the first page of a vCPU's mapping, shared by KVM and the VMM.
 * [LINUX-UAPI] linux/kvm.h `struct kvm_run`; old generations from their series.
 *
 * The members of the exit union are declared with their offsets inside kvm_run, so that `get` and `set`
 * work on the mapping itself. Bytes no field covers belong to other members.
 */
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

export const KVM_RUN_SIZE = 2352;
export const KVM_RUN_EXIT_UNION_OFFSET = 32;

const kvmRun = (at: string, names: Record<string, string | null>): LayoutSource => ({
  spec: 'LINUX-UAPI',
  at: `struct kvm_run, ${at}`,
  gaps: 'ignore',
  c: { header: 'linux/kvm.h', struct: 'kvm_run', names },
});

/** What every exit has. */
export const KvmRun = layout(
  'KvmRun',
  KVM_RUN_SIZE,
  kvmRun('common part', { exit_union: 'padding', sync_regs: 's' }),
  {
    request_interrupt_window: [0, u8, 'in'],
    immediate_exit: [1, u8, 'in'],
    exit_reason: [8, u32le, 'out'],
    ready_for_interrupt_injection: [12, u8, 'out'],
    if_flag: [13, u8, 'out'],
    flags: [14, u16le, 'out'],
    cr8: [16, u64le],
    apic_base: [24, u64le],
    exit_union: [KVM_RUN_EXIT_UNION_OFFSET, bytes(256)],
    kvm_valid_regs: [288, u64le],
    kvm_dirty_regs: [296, u64le],
    sync_regs: [304, bytes(2048)],
  },
);
export type KvmRun = DecodedOf<typeof KvmRun>;

/** KVM_EXIT_IO. */
export const KvmRunIo = layout(
  'KvmRunIo',
  KVM_RUN_SIZE,
  kvmRun('io', {
    direction: 'io.direction',
    size: 'io.size',
    port: 'io.port',
    count: 'io.count',
    data_offset: 'io.data_offset',
  }),
  {
    direction: [32, u8, '0 in, 1 out'],
    size: [33, u8],
    port: [34, u16le],
    count: [36, u32le],
    data_offset: [40, u64le, '4096 on x86'],
  },
);
export type KvmRunIo = DecodedOf<typeof KvmRunIo>;

/** KVM_EXIT_HYPERCALL. */
export const KvmRunHypercall = layout(
  'KvmRunHypercall',
  KVM_RUN_SIZE,
  kvmRun('hypercall', {
    nr: 'hypercall.nr',
    args: 'hypercall.args',
    ret: 'hypercall.ret',
    flags: 'hypercall.flags',
  }),
  {
    nr: [32, u64le],
    args: [40, array(u64le, 6)],
    ret: [88, u64le, 'in'],
    flags: [96, u64le, 'bit 0 long mode; only on the VMMCALL path'],
  },
);
export type KvmRunHypercall = DecodedOf<typeof KvmRunHypercall>;

/** KVM_EXIT_MMIO. */
export const KvmRunMmio = layout(
  'KvmRunMmio',
  KVM_RUN_SIZE,
  kvmRun('mmio', {
    phys_addr: 'mmio.phys_addr',
    data: 'mmio.data',
    len: 'mmio.len',
    is_write: 'mmio.is_write',
  }),
  {
    phys_addr: [32, u64le],
    data: [40, bytes(8)],
    len: [48, u32le],
    is_write: [52, u8],
  },
);
export type KvmRunMmio = DecodedOf<typeof KvmRunMmio>;

/** KVM_EXIT_FAIL_ENTRY. */
export const KvmRunFailEntry = layout(
  'KvmRunFailEntry',
  KVM_RUN_SIZE,
  kvmRun('fail_entry', {
    hardware_entry_failure_reason: 'fail_entry.hardware_entry_failure_reason',
    cpu: 'fail_entry.cpu',
  }),
  {
    hardware_entry_failure_reason: [32, u64le],
    cpu: [40, u32le],
  },
);
export type KvmRunFailEntry = DecodedOf<typeof KvmRunFailEntry>;

/** KVM_EXIT_INTERNAL_ERROR. */
export const KvmRunInternalError = layout(
  'KvmRunInternalError',
  KVM_RUN_SIZE,
  kvmRun('internal', { suberror: 'internal.suberror', ndata: 'internal.ndata', data: 'internal.data' }),
  {
    suberror: [32, u32le],
    ndata: [36, u32le],
    data: [40, array(u64le, 16)],
  },
);
export type KvmRunInternalError = DecodedOf<typeof KvmRunInternalError>;

/** KVM_EXIT_SYSTEM_EVENT. */
export const KvmRunSystemEvent = layout(
  'KvmRunSystemEvent',
  KVM_RUN_SIZE,
  kvmRun('system_event', {
    type: 'system_event.type',
    ndata: 'system_event.ndata',
    data: 'system_event.data',
  }),
  {
    type: [32, u32le],
    ndata: [36, u32le],
    data: [40, array(u64le, 16)],
  },
);
export type KvmRunSystemEvent = DecodedOf<typeof KvmRunSystemEvent>;

/** KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR. */
export const KvmRunMsr = layout(
  'KvmRunMsr',
  KVM_RUN_SIZE,
  kvmRun('msr', { error: 'msr.error', reason: 'msr.reason', index: 'msr.index', data: 'msr.data' }),
  {
    error: [32, u8, 'in'],
    reason: [40, u32le],
    index: [44, u32le],
    data: [48, u64le],
  },
);
export type KvmRunMsr = DecodedOf<typeof KvmRunMsr>;

/** KVM_EXIT_MEMORY_FAULT; KVM_RUN returns -EFAULT or -EHWPOISON with it. */
export const KvmRunMemoryFault = layout(
  'KvmRunMemoryFault',
  KVM_RUN_SIZE,
  kvmRun('memory_fault', {
    flags: 'memory_fault.flags',
    gpa: 'memory_fault.gpa',
    size: 'memory_fault.size',
  }),
  {
    flags: [32, u64le],
    gpa: [40, u64le],
    size: [48, u64le, '4096'],
  },
);
export type KvmRunMemoryFault = DecodedOf<typeof KvmRunMemoryFault>;

/** KVM_EXIT_SNP_REQ_CERTS. */
export const KvmRunSnpReqCerts = layout(
  'KvmRunSnpReqCerts',
  KVM_RUN_SIZE,
  {
    spec: 'KVM-CERTS-V7',
    at: 'struct kvm_exit_snp_req_certs in kvm_run',
    gaps: 'ignore',
    c: {
      header: 'linux/kvm.h',
      struct: 'kvm_run',
      names: { gpa: 'snp_req_certs.gpa', npages: 'snp_req_certs.npages', ret: 'snp_req_certs.ret' },
    },
  },
  {
    gpa: [32, u64le, 'guest RAX, 4 KiB aligned'],
    npages: [40, u64le, 'guest RBX; in for ENOSPC'],
    ret: [48, u64le, 'in: 0, ENOSPC, EAGAIN or EIO'],
  },
);
export type KvmRunSnpReqCerts = DecodedOf<typeof KvmRunSnpReqCerts>;

/** KVM_EXIT_VMGEXIT of v15: certificates, with a notification when the request is done. */
export const KvmRunVmgexitV15 = layout(
  'KvmRunVmgexitV15',
  KVM_RUN_SIZE,
  { spec: 'KVM-SNP-V15', at: 'struct kvm_user_vmgexit in kvm_run', gaps: 'ignore' },
  {
    type: [32, u32le, '1 REQ_CERTS'],
    data_gpa: [40, u64le],
    data_npages: [48, u64le, 'in/out'],
    ret: [56, u32le, 'in'],
    flags: [60, u8, 'in: bit 0 NOTIFY_DONE'],
    status: [61, u8, '0 PENDING, 1 DONE'],
  },
);
export type KvmRunVmgexitV15 = DecodedOf<typeof KvmRunVmgexitV15>;

/** KVM_EXIT_VMGEXIT of v12 to v14, type 1: a page state change by the MSR protocol. */
export const KvmRunVmgexitV12PscMsr = layout(
  'KvmRunVmgexitV12PscMsr',
  KVM_RUN_SIZE,
  { spec: 'KVM-SNP-V12', at: 'struct kvm_user_vmgexit, psc_msr, in kvm_run', gaps: 'ignore' },
  {
    type: [32, u32le, '1 PSC_MSR'],
    gpa: [40, u64le],
    op: [48, u8, '1 private, 2 shared'],
    ret: [52, u32le, 'in'],
  },
);
export type KvmRunVmgexitV12PscMsr = DecodedOf<typeof KvmRunVmgexitV12PscMsr>;

/** KVM_EXIT_VMGEXIT of v12 to v14, type 2: a page state change by the GHCB page. */
export const KvmRunVmgexitV12Psc = layout(
  'KvmRunVmgexitV12Psc',
  KVM_RUN_SIZE,
  { spec: 'KVM-SNP-V12', at: 'struct kvm_user_vmgexit, psc, in kvm_run', gaps: 'ignore' },
  {
    type: [32, u32le, '2 PSC'],
    shared_gpa: [40, u64le, 'SW_SCRATCH'],
    ret: [48, u64le, 'in: SW_EXITINFO2'],
  },
);
export type KvmRunVmgexitV12Psc = DecodedOf<typeof KvmRunVmgexitV12Psc>;

/** KVM_EXIT_VMGEXIT of v12 to v14, type 3: an extended guest request. */
export const KvmRunVmgexitV12ExtGuestReq = layout(
  'KvmRunVmgexitV12ExtGuestReq',
  KVM_RUN_SIZE,
  { spec: 'KVM-SNP-V12', at: 'struct kvm_user_vmgexit, ext_guest_req, in kvm_run', gaps: 'ignore' },
  {
    type: [32, u32le, '3 EXT_GUEST_REQ'],
    data_gpa: [40, u64le],
    data_npages: [48, u64le, 'in/out'],
    ret: [56, u32le, 'in'],
  },
);
export type KvmRunVmgexitV12ExtGuestReq = DecodedOf<typeof KvmRunVmgexitV12ExtGuestReq>;

/** KVM_EXIT_VMGEXIT of v10: page state changes, with the raw GHCB MSR. */
export const KvmRunVmgexitV10 = layout(
  'KvmRunVmgexitV10',
  KVM_RUN_SIZE,
  { spec: 'KVM-SNP-V10', at: 'vmgexit in kvm_run', gaps: 'ignore' },
  {
    ghcb_msr: [32, u64le, 'in/out'],
    ret: [40, u64le, 'in'],
  },
);
export type KvmRunVmgexitV10 = DecodedOf<typeof KvmRunVmgexitV10>;
