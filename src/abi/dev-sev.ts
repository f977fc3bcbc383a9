// SPDX-License-Identifier: Apache-2.0
/**
 * /dev/sev: the host administrator's way to the secure processor.
 * [LINUX-UAPI] linux/psp-sev.h. The SNP status and configuration are in snp-commands.ts.
 */
import { bytes, type DecodedOf, type LayoutSource, layout, u8, u32le, u64le } from '../lib/struct.ts';

const uapi = (struct: string, names: Record<string, string | null> = {}): LayoutSource => ({
  spec: 'LINUX-UAPI',
  at: `struct ${struct}`,
  c: { header: 'linux/psp-sev.h', struct, names },
});

/** The one ioctl. */
export const SEV_ISSUE_CMD = 0xc0105300;

/** Its argument, packed. */
export const SevIssueCmd = layout('SevIssueCmd', 16, uapi('sev_issue_cmd'), {
  cmd: [0x0, u32le, 'SevUserCmd'],
  data: [0x4, u64le, 'user pointer'],
  error: [0xc, u32le, 'out: firmware status'],
});
export type SevIssueCmd = DecodedOf<typeof SevIssueCmd>;

/** Values of `cmd`. */
export const SevUserCmd = Object.freeze({
  SEV_FACTORY_RESET: 0,
  SEV_PLATFORM_STATUS: 1,
  SEV_PEK_GEN: 2,
  SEV_PEK_CSR: 3,
  SEV_PDH_GEN: 4,
  SEV_PDH_CERT_EXPORT: 5,
  SEV_PEK_CERT_IMPORT: 6,
  /** Deprecated: use SEV_GET_ID2. */
  SEV_GET_ID: 7,
  SEV_GET_ID2: 8,
  SNP_PLATFORM_STATUS: 9,
  SNP_COMMIT: 10,
  SNP_SET_CONFIG: 11,
  SNP_VLEK_LOAD: 12,
} as const);

/** First value that is no command: larger ones fail before they are looked up. */
export const SEV_MAX = 13;

/** Commands of [KVM-SNP-V12] to v14 only. */
export const SevUserCmdV12 = Object.freeze({
  SNP_PAUSE_ATTESTATION: 13,
  SNP_RESUME_ATTESTATION: 14,
} as const);

/** SEV_PLATFORM_STATUS: the legacy platform. */
export const SevUserDataStatus = layout('SevUserDataStatus', 12, uapi('sev_user_data_status'), {
  api_major: [0, u8],
  api_minor: [1, u8],
  state: [2, u8, '0 UNINIT, 1 INIT, 2 WORKING'],
  flags: [3, u32le, 'bit 0 owned, bit 8 SEV-ES'],
  build: [7, u8],
  guest_count: [8, u32le],
});
export type SevUserDataStatus = DecodedOf<typeof SevUserDataStatus>;

/** States of the legacy platform. */
export const SevPlatformState = Object.freeze({
  SEV_STATE_UNINIT: 0,
  SEV_STATE_INIT: 1,
  SEV_STATE_WORKING: 2,
} as const);

export const SEV_STATUS_FLAGS_OWNED = 0x0001;
export const SEV_STATUS_FLAGS_CONFIG_ES = 0x0100;

/** SEV_PEK_CSR. */
export const SevUserDataPekCsr = layout('SevUserDataPekCsr', 12, uapi('sev_user_data_pek_csr'), {
  address: [0, u64le],
  length: [8, u32le, 'in/out'],
});
export type SevUserDataPekCsr = DecodedOf<typeof SevUserDataPekCsr>;

/** SEV_PEK_CERT_IMPORT. */
export const SevUserDataPekCertImport = layout(
  'SevUserDataPekCertImport',
  24,
  uapi('sev_user_data_pek_cert_import'),
  {
    pek_cert_address: [0, u64le],
    pek_cert_len: [8, u32le],
    oca_cert_address: [12, u64le],
    oca_cert_len: [20, u32le],
  },
);
export type SevUserDataPekCertImport = DecodedOf<typeof SevUserDataPekCertImport>;

/** SEV_PDH_CERT_EXPORT. */
export const SevUserDataPdhCertExport = layout(
  'SevUserDataPdhCertExport',
  24,
  uapi('sev_user_data_pdh_cert_export'),
  {
    pdh_cert_address: [0, u64le],
    pdh_cert_len: [8, u32le, 'in/out'],
    cert_chain_address: [12, u64le],
    cert_chain_len: [20, u32le, 'in/out'],
  },
);
export type SevUserDataPdhCertExport = DecodedOf<typeof SevUserDataPdhCertExport>;

/** SEV_GET_ID. */
export const SevUserDataGetId = layout('SevUserDataGetId', 128, uapi('sev_user_data_get_id'), {
  socket1: [0, bytes(64)],
  socket2: [64, bytes(64)],
});
export type SevUserDataGetId = DecodedOf<typeof SevUserDataGetId>;

/** SEV_GET_ID2. */
export const SevUserDataGetId2 = layout('SevUserDataGetId2', 12, uapi('sev_user_data_get_id2'), {
  address: [0, u64le],
  length: [8, u32le, 'in/out'],
});
export type SevUserDataGetId2 = DecodedOf<typeof SevUserDataGetId2>;

/** SNP_VLEK_LOAD. */
export const SevUserDataSnpVlekLoad = layout(
  'SevUserDataSnpVlekLoad',
  16,
  { ...uapi('sev_user_data_snp_vlek_load'), gaps: 'ignore' },
  {
    len: [0, u32le, '16'],
    vlek_wrapped_version: [4, u8, '0'],
    vlek_wrapped_address: [8, u64le, 'WrappedVlekHashstick'],
  },
);
export type SevUserDataSnpVlekLoad = DecodedOf<typeof SevUserDataSnpVlekLoad>;
