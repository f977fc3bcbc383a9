// SPDX-License-Identifier: Apache-2.0
/**
 * KVM_MEMORY_ENCRYPT_OP: the envelope, its command numbers and the SNP launch structures.
 * [LINUX-UAPI] asm/kvm.h; SNP_ENABLE_REQ_CERTS from [KVM-CERTS-V7].
 *
 * KVM does not look at the padding of these structures.
 */
import { bytes, type DecodedOf, type LayoutSource, layout, u8, u16le, u32le, u64le } from '../lib/struct.ts';

const uapi = (struct: string, names: Record<string, string | null> = {}): LayoutSource => ({
  spec: 'LINUX-UAPI',
  at: `struct ${struct}`,
  gaps: 'ignore',
  c: { header: 'asm/kvm.h', struct, names },
});

/** Command numbers. */
export const KvmSevCmdId = Object.freeze({
  KVM_SEV_INIT: 0,
  KVM_SEV_ES_INIT: 1,
  KVM_SEV_LAUNCH_START: 2,
  KVM_SEV_LAUNCH_UPDATE_DATA: 3,
  KVM_SEV_LAUNCH_UPDATE_VMSA: 4,
  KVM_SEV_LAUNCH_SECRET: 5,
  KVM_SEV_LAUNCH_MEASURE: 6,
  KVM_SEV_LAUNCH_FINISH: 7,
  KVM_SEV_SEND_START: 8,
  KVM_SEV_SEND_UPDATE_DATA: 9,
  KVM_SEV_SEND_UPDATE_VMSA: 10,
  KVM_SEV_SEND_FINISH: 11,
  KVM_SEV_RECEIVE_START: 12,
  KVM_SEV_RECEIVE_UPDATE_DATA: 13,
  KVM_SEV_RECEIVE_UPDATE_VMSA: 14,
  KVM_SEV_RECEIVE_FINISH: 15,
  KVM_SEV_GUEST_STATUS: 16,
  KVM_SEV_DBG_DECRYPT: 17,
  KVM_SEV_DBG_ENCRYPT: 18,
  KVM_SEV_CERT_EXPORT: 19,
  KVM_SEV_GET_ATTESTATION_REPORT: 20,
  KVM_SEV_SEND_CANCEL: 21,
  KVM_SEV_INIT2: 22,
  KVM_SEV_SNP_LAUNCH_START: 100,
  KVM_SEV_SNP_LAUNCH_UPDATE: 101,
  KVM_SEV_SNP_LAUNCH_FINISH: 102,
  /** [KVM-CERTS-V7]; no parameters. */
  KVM_SEV_SNP_ENABLE_REQ_CERTS: 103,
} as const);

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(KvmSevCmdId).map(([name, value]) => [value, name]),
);

/** The name of a command; "KVM_SEV command 77" for a number without one. */
export function kvmSevCmdName(id: number): string {
  return NAMES.get(id) ?? `KVM_SEV command ${id}`;
}

/** The envelope. */
export const KvmSevCmd = layout('KvmSevCmd', 24, uapi('kvm_sev_cmd'), {
  id: [0, u32le],
  data: [8, u64le, 'user pointer to the command structure'],
  error: [16, u32le, 'out: firmware status'],
  sev_fd: [20, u32le, 'an open /dev/sev'],
});
export type KvmSevCmd = DecodedOf<typeof KvmSevCmd>;

/** KVM_SEV_INIT2. */
export const KvmSevInit = layout('KvmSevInit', 48, uapi('kvm_sev_init'), {
  vmsa_features: [0, u64le, 'a subset of KVM_X86_SEV_VMSA_FEATURES'],
  flags: [8, u32le, '0'],
  ghcb_version: [12, u16le, '0 (default 2), 1 or 2'],
});
export type KvmSevInit = DecodedOf<typeof KvmSevInit>;

/** KVM_SEV_SNP_LAUNCH_START. */
export const KvmSevSnpLaunchStart = layout('KvmSevSnpLaunchStart', 64, uapi('kvm_sev_snp_launch_start'), {
  policy: [0, u64le, 'GuestPolicy'],
  gosvw: [8, bytes(16)],
  flags: [24, u16le, '0'],
});
export type KvmSevSnpLaunchStart = DecodedOf<typeof KvmSevSnpLaunchStart>;

/** KVM_SEV_SNP_LAUNCH_UPDATE. */
export const KvmSevSnpLaunchUpdate = layout('KvmSevSnpLaunchUpdate', 64, uapi('kvm_sev_snp_launch_update'), {
  gfn_start: [0, u64le, 'in/out'],
  uaddr: [8, u64le, 'in/out; unused for ZERO'],
  len: [16, u64le, 'in/out; bytes, a multiple of 4096'],
  type: [24, u8, 'KvmSevSnpPageType'],
  flags: [26, u16le, '0'],
});
export type KvmSevSnpLaunchUpdate = DecodedOf<typeof KvmSevSnpLaunchUpdate>;

/** KVM_SEV_SNP_LAUNCH_FINISH. */
export const KvmSevSnpLaunchFinish = layout('KvmSevSnpLaunchFinish', 88, uapi('kvm_sev_snp_launch_finish'), {
  id_block_uaddr: [0, u64le, '96 bytes'],
  id_auth_uaddr: [8, u64le, '4096 bytes'],
  id_block_en: [16, u8],
  auth_key_en: [17, u8],
  vcek_disabled: [18, u8],
  host_data: [19, bytes(32)],
  flags: [54, u16le, '0'],
});
export type KvmSevSnpLaunchFinish = DecodedOf<typeof KvmSevSnpLaunchFinish>;

/** `type` of KVM_SEV_SNP_LAUNCH_UPDATE. VMSA pages are KVM's own business. */
export const KvmSevSnpPageType = Object.freeze({
  KVM_SEV_SNP_PAGE_TYPE_NORMAL: 1,
  KVM_SEV_SNP_PAGE_TYPE_ZERO: 3,
  KVM_SEV_SNP_PAGE_TYPE_UNMEASURED: 4,
  KVM_SEV_SNP_PAGE_TYPE_SECRETS: 5,
  KVM_SEV_SNP_PAGE_TYPE_CPUID: 6,
} as const);

/** GPA under which KVM measures the VMSA of every vCPU. */
export const VMSA_GPA = 0xfffffffff000n;
