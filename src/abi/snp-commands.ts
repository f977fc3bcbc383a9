// SPDX-License-Identifier: Apache-2.0
/**
 * Commands of the secure processor and the buffers they take.
 * [SNP-ABI] chapters "Platform Management" to "Page Management"; [LINUX] include/linux/psp-sev.h.
 *
 * `_paddr` fields are system physical addresses. Policies are kept as words: the firmware compares them
 * whole, and a bad one is a policy failure rather than a bad buffer.
 */
import {
  bits8,
  bits32,
  bits64,
  bytes,
  type DecodedOf,
  layout,
  u8,
  u16le,
  u32le,
  u64le,
} from '../lib/struct.ts';

/** Command numbers, legacy SEV and SNP. */
export const SevCmd = Object.freeze({
  SEV_CMD_INIT: 0x001,
  SEV_CMD_SHUTDOWN: 0x002,
  SEV_CMD_FACTORY_RESET: 0x003,
  SEV_CMD_PLATFORM_STATUS: 0x004,
  SEV_CMD_PEK_GEN: 0x005,
  SEV_CMD_PEK_CSR: 0x006,
  SEV_CMD_PEK_CERT_IMPORT: 0x007,
  SEV_CMD_PDH_CERT_EXPORT: 0x008,
  SEV_CMD_PDH_GEN: 0x009,
  SEV_CMD_DF_FLUSH: 0x00a,
  SEV_CMD_DOWNLOAD_FIRMWARE: 0x00b,
  SEV_CMD_GET_ID: 0x00c,
  SEV_CMD_INIT_EX: 0x00d,
  SEV_CMD_NOP: 0x00e,
  SEV_CMD_RING_BUFFER: 0x00f,
  SEV_CMD_DECOMMISSION: 0x020,
  SEV_CMD_ACTIVATE: 0x021,
  SEV_CMD_DEACTIVATE: 0x022,
  SEV_CMD_GUEST_STATUS: 0x023,
  SEV_CMD_LAUNCH_START: 0x030,
  SEV_CMD_LAUNCH_UPDATE_DATA: 0x031,
  SEV_CMD_LAUNCH_UPDATE_VMSA: 0x032,
  SEV_CMD_LAUNCH_MEASURE: 0x033,
  SEV_CMD_LAUNCH_UPDATE_SECRET: 0x034,
  SEV_CMD_LAUNCH_FINISH: 0x035,
  SEV_CMD_ATTESTATION_REPORT: 0x036,
  SEV_CMD_SEND_START: 0x040,
  SEV_CMD_SEND_UPDATE_DATA: 0x041,
  SEV_CMD_SEND_UPDATE_VMSA: 0x042,
  SEV_CMD_SEND_FINISH: 0x043,
  SEV_CMD_SEND_CANCEL: 0x044,
  SEV_CMD_RECEIVE_START: 0x050,
  SEV_CMD_RECEIVE_UPDATE_DATA: 0x051,
  SEV_CMD_RECEIVE_UPDATE_VMSA: 0x052,
  SEV_CMD_RECEIVE_FINISH: 0x053,
  SEV_CMD_DBG_DECRYPT: 0x060,
  SEV_CMD_DBG_ENCRYPT: 0x061,
  SEV_CMD_SNP_INIT: 0x081,
  SEV_CMD_SNP_SHUTDOWN: 0x082,
  SEV_CMD_SNP_PLATFORM_STATUS: 0x083,
  SEV_CMD_SNP_DF_FLUSH: 0x084,
  SEV_CMD_SNP_INIT_EX: 0x085,
  SEV_CMD_SNP_SHUTDOWN_EX: 0x086,
  SEV_CMD_SNP_DECOMMISSION: 0x090,
  SEV_CMD_SNP_ACTIVATE: 0x091,
  SEV_CMD_SNP_GUEST_STATUS: 0x092,
  SEV_CMD_SNP_GCTX_CREATE: 0x093,
  SEV_CMD_SNP_GUEST_REQUEST: 0x094,
  SEV_CMD_SNP_ACTIVATE_EX: 0x095,
  SEV_CMD_SNP_HV_REPORT_REQ: 0x096,
  SEV_CMD_SNP_LAUNCH_START: 0x0a0,
  SEV_CMD_SNP_LAUNCH_UPDATE: 0x0a1,
  SEV_CMD_SNP_LAUNCH_FINISH: 0x0a2,
  SEV_CMD_SNP_DBG_DECRYPT: 0x0b0,
  SEV_CMD_SNP_DBG_ENCRYPT: 0x0b1,
  SEV_CMD_SNP_VERIFY_MITIGATION: 0x0b2,
  SEV_CMD_SNP_PAGE_SWAP_OUT: 0x0c0,
  SEV_CMD_SNP_PAGE_SWAP_IN: 0x0c1,
  SEV_CMD_SNP_PAGE_MOVE: 0x0c2,
  SEV_CMD_SNP_PAGE_MD_INIT: 0x0c3,
  SEV_CMD_SNP_PAGE_SET_STATE: 0x0c6,
  SEV_CMD_SNP_PAGE_RECLAIM: 0x0c7,
  SEV_CMD_SNP_PAGE_UNSMASH: 0x0c8,
  SEV_CMD_SNP_CONFIG: 0x0c9,
  SEV_CMD_SNP_DOWNLOAD_FIRMWARE_EX: 0x0ca,
  SEV_CMD_SNP_COMMIT: 0x0cb,
  SEV_CMD_SNP_VLEK_LOAD: 0x0cd,
  SEV_CMD_SNP_FEATURE_INFO: 0x0ce,
  SEV_CMD_TIO_STATUS: 0x0d0,
  SEV_CMD_TIO_INIT: 0x0d1,
  SEV_CMD_TIO_DEV_CREATE: 0x0d2,
  SEV_CMD_TIO_DEV_RECLAIM: 0x0d3,
  SEV_CMD_TIO_DEV_CONNECT: 0x0d4,
  SEV_CMD_TIO_DEV_DISCONNECT: 0x0d5,
} as const);

export type SevCmdName = keyof typeof SevCmd;

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(SevCmd).map(([name, value]) => [value, name]),
);

/** The name of a command; "SEV_CMD 0x.." for a number without one. */
export function sevCmdName(id: number): string {
  return NAMES.get(id) ?? `SEV_CMD 0x${id.toString(16)}`;
}

/** Values of STATE in the platform status. */
export const SnpPlatformState = Object.freeze({ UNINIT: 0, INIT: 1 } as const);

/** Values of STATE in the guest status. */
export const SnpGuestState = Object.freeze({
  GSTATE_INIT: 0,
  GSTATE_LAUNCH: 1,
  GSTATE_RUNNING: 2,
} as const);

/** Initialises SNP with options. */
export const SevDataSnpInitEx = layout(
  'SevDataSnpInitEx',
  64,
  { spec: 'SNP-ABI', at: 'SNP_INIT_EX' },
  {
    flags: [
      0x00,
      bits32({
        init_rmp: [0, 1],
        list_paddr_en: [1, 1],
        rapl_dis: [2, 1],
        ciphertext_hiding_en: [3, 1],
        tio_en: [4, 1],
      }),
    ],
    list_paddr: [0x08, u64le, 'SevDataRangeList'],
    max_snp_asid: [0x10, u16le, 'only with ciphertext hiding'],
  },
);
export type SevDataSnpInitEx = DecodedOf<typeof SevDataSnpInitEx>;

/** Head of the range list; `num_elements` of SevDataRange follow. All of it fits one page. */
export const SevDataRangeList = layout(
  'SevDataRangeList',
  8,
  { spec: 'SNP-ABI', at: 'RANGE_LIST' },
  { num_elements: [0, u32le] },
);
export type SevDataRangeList = DecodedOf<typeof SevDataRangeList>;

/** One range of system physical memory. */
export const SevDataRange = layout(
  'SevDataRange',
  16,
  { spec: 'SNP-ABI', at: 'RANGE' },
  { base: [0x0, u64le], page_count: [0x8, u32le] },
);
export type SevDataRange = DecodedOf<typeof SevDataRange>;

/** Shuts SNP down. */
export const SevDataSnpShutdownEx = layout(
  'SevDataSnpShutdownEx',
  8,
  { spec: 'SNP-ABI', at: 'SNP_SHUTDOWN_EX' },
  {
    length: [0, u32le, '8'],
    flags: [4, bits32({ iommu_snp_shutdown: [0, 1], x86_snp_shutdown: [1, 1] })],
  },
);
export type SevDataSnpShutdownEx = DecodedOf<typeof SevDataSnpShutdownEx>;

/** Where the platform status goes. */
export const SevDataSnpPlatformStatus = layout(
  'SevDataSnpPlatformStatus',
  8,
  { spec: 'SNP-ABI', at: 'SNP_PLATFORM_STATUS' },
  { status_paddr: [0, u64le] },
);
export type SevDataSnpPlatformStatus = DecodedOf<typeof SevDataSnpPlatformStatus>;

/** Platform status, as the firmware writes it and as /dev/sev hands it out. */
export const SevUserDataSnpStatus = layout(
  'SevUserDataSnpStatus',
  32,
  {
    spec: 'SNP-ABI',
    at: 'STRUCT_PLATFORM_STATUS',
    c: {
      header: 'linux/psp-sev.h',
      struct: 'sev_user_data_snp_status',
      names: {
        rmp: null,
        features: null,
        current_tcb: 'current_tcb_version',
        reported_tcb: 'reported_tcb_version',
      },
    },
  },
  {
    api_major: [0x00, u8],
    api_minor: [0x01, u8],
    state: [0x02, u8, '0 UNINIT, 1 INIT'],
    rmp: [0x03, bits8({ is_rmp_init: [0, 1], alias_check_complete: [1, 1], is_tio_en: [3, 1] })],
    build_id: [0x04, u32le],
    features: [
      0x08,
      bits32({
        mask_chip_id: [0, 1],
        mask_chip_key: [1, 1],
        vlek_en: [2, 1],
        feature_info: [3, 1],
        rapl_dis: [4, 1],
        ciphertext_hiding_dram_cap: [5, 1],
        ciphertext_hiding_dram_en: [6, 1],
      }),
    ],
    guest_count: [0x0c, u32le],
    current_tcb: [0x10, u64le, 'TCB_VERSION of the product line'],
    reported_tcb: [0x18, u64le, 'TCB_VERSION of the product line'],
  },
);
export type SevUserDataSnpStatus = DecodedOf<typeof SevUserDataSnpStatus>;

/** Asks for one sub-function of CPUID Fn8000_0024. */
export const SevDataSnpFeatureInfo = layout(
  'SevDataSnpFeatureInfo',
  16,
  { spec: 'SNP-ABI', at: 'SNP_FEATURE_INFO' },
  {
    length: [0x0, u32le, '16'],
    ecx_in: [0x4, u32le],
    feature_info_paddr: [0x8, u64le],
  },
);
export type SevDataSnpFeatureInfo = DecodedOf<typeof SevDataSnpFeatureInfo>;

/** Sub-function 0 of CPUID Fn8000_0024. */
export const SnpFeatureInfoOut = layout(
  'SnpFeatureInfoOut',
  16,
  { spec: 'SNP-ABI', at: 'FEATURE_INFO' },
  {
    eax: [0x0, u32le, 'highest sub-function'],
    ebx: [0x4, bits32({ sev_legacy: [0, 1], sev_tio: [1, 1] })],
    ecx: [
      0x8,
      bits32({
        x86_snp_shutdown: [1, 1],
        rapl_dis: [2, 1],
        ciphertext_hiding_dram: [3, 1],
        mem_aes_256_xts: [4, 1],
        cxl_allow: [5, 1],
        verify_mitigation: [13, 1],
      }),
    ],
    edx: [0xc, u32le],
  },
);
export type SnpFeatureInfoOut = DecodedOf<typeof SnpFeatureInfoOut>;

/** Sets the reported TCB and the chip masks. */
export const SevDataSnpConfig = layout(
  'SevDataSnpConfig',
  64,
  {
    spec: 'SNP-ABI',
    at: 'SNP_CONFIG',
    c: { header: 'linux/psp-sev.h', struct: 'sev_user_data_snp_config', names: { flags: null } },
  },
  {
    reported_tcb: [0x00, u64le, 'zero: CommittedTcb'],
    flags: [0x08, bits32({ mask_chip_id: [0, 1], mask_chip_key: [1, 1] })],
  },
);
export type SevDataSnpConfig = DecodedOf<typeof SevDataSnpConfig>;

/** Commits the running firmware. */
export const SevDataSnpCommit = layout(
  'SevDataSnpCommit',
  4,
  { spec: 'SNP-ABI', at: 'SNP_COMMIT' },
  { length: [0, u32le, '4'] },
);
export type SevDataSnpCommit = DecodedOf<typeof SevDataSnpCommit>;

/** Live firmware update. */
export const SevDataSnpDownloadFirmwareEx = layout(
  'SevDataSnpDownloadFirmwareEx',
  24,
  { spec: 'SNP-ABI', at: 'SNP_DOWNLOAD_FIRMWARE_EX' },
  {
    length: [0x00, u32le, '24'],
    fw_paddr: [0x08, u64le],
    fw_len: [0x10, u32le],
    flags: [0x14, bits32({ commit: [0, 1] })],
  },
);
export type SevDataSnpDownloadFirmwareEx = DecodedOf<typeof SevDataSnpDownloadFirmwareEx>;

/** Loads a wrapped VLEK hashstick. */
export const SevDataSnpVlekLoad = layout(
  'SevDataSnpVlekLoad',
  16,
  { spec: 'SNP-ABI', at: 'SNP_VLEK_LOAD' },
  {
    length: [0x0, u32le, '16'],
    vlek_wrapped_version: [0x4, u8, '0'],
    vlek_wrapped_paddr: [0x8, u64le],
  },
);
export type SevDataSnpVlekLoad = DecodedOf<typeof SevDataSnpVlekLoad>;

/** Wrapped VLEK hashstick, as the key service hands it out. */
export const WrappedVlekHashstick = layout(
  'WrappedVlekHashstick',
  432,
  { spec: 'SNP-ABI', at: 'VLEK_WRAPPED' },
  {
    iv: [0x000, bytes(12)],
    vlek_wrapped: [0x010, bytes(384), 'AES-256-GCM ciphertext'],
    tcb_version: [0x190, u64le, 'authenticated'],
    auth_tag: [0x1a0, bytes(16)],
  },
);
export type WrappedVlekHashstick = DecodedOf<typeof WrappedVlekHashstick>;

/** Buffer of SNP_GCTX_CREATE and SNP_DECOMMISSION: the guest context page. */
export const SevDataSnpAddr = layout(
  'SevDataSnpAddr',
  8,
  { spec: 'SNP-ABI', at: 'SNP_GCTX_CREATE, SNP_DECOMMISSION' },
  { address: [0, u64le, 'GCTX_PADDR'] },
);
export type SevDataSnpAddr = DecodedOf<typeof SevDataSnpAddr>;

/** Binds a guest to an ASID. */
export const SevDataSnpActivate = layout(
  'SevDataSnpActivate',
  12,
  { spec: 'SNP-ABI', at: 'SNP_ACTIVATE' },
  { gctx_paddr: [0x0, u64le], asid: [0x8, u32le] },
);
export type SevDataSnpActivate = DecodedOf<typeof SevDataSnpActivate>;

/** Binds a guest to an ASID on listed core complexes. Unconfirmed offsets. */
export const SevDataSnpActivateEx = layout(
  'SevDataSnpActivateEx',
  32,
  { spec: 'SNP-ABI', at: 'SNP_ACTIVATE_EX' },
  {
    ex_len: [0x00, u32le, '32'],
    gctx_paddr: [0x08, u64le],
    asid: [0x10, u32le],
    numids: [0x14, u32le],
    id_paddr: [0x18, u64le],
  },
);
export type SevDataSnpActivateEx = DecodedOf<typeof SevDataSnpActivateEx>;

/** Asks for the state of a guest. */
export const SevDataSnpGuestStatus = layout(
  'SevDataSnpGuestStatus',
  16,
  { spec: 'SNP-ABI', at: 'SNP_GUEST_STATUS' },
  { gctx_paddr: [0x0, u64le], status_paddr: [0x8, u64le] },
);
export type SevDataSnpGuestStatus = DecodedOf<typeof SevDataSnpGuestStatus>;

/** State of a guest. Unconfirmed: no public source shows the structure. */
export const SnpGuestStatusOut = layout(
  'SnpGuestStatusOut',
  32,
  { spec: 'SNP-ABI', at: 'STRUCT_SNP_GUEST_STATUS' },
  {
    policy: [0x00, u64le, 'GuestPolicy'],
    asid: [0x08, u32le],
    state: [0x0c, u8, '0 GSTATE_INIT, 1 GSTATE_LAUNCH, 2 GSTATE_RUNNING'],
  },
);
export type SnpGuestStatusOut = DecodedOf<typeof SnpGuestStatusOut>;

/** Hands a guest message to the firmware. */
export const SevDataSnpGuestRequest = layout(
  'SevDataSnpGuestRequest',
  24,
  { spec: 'SNP-ABI', at: 'SNP_GUEST_REQUEST' },
  { gctx_paddr: [0x00, u64le], req_paddr: [0x08, u64le], rsp_paddr: [0x10, u64le] },
);
export type SevDataSnpGuestRequest = DecodedOf<typeof SevDataSnpGuestRequest>;

/** Obtains a report about a guest without the guest. */
export const SevDataSnpHvReportReq = layout(
  'SevDataSnpHvReportReq',
  24,
  { spec: 'SNP-ABI', at: 'SNP_HV_REPORT_REQ' },
  {
    length: [0x00, u32le, '24'],
    flags: [0x04, bits32({ key_sel: [0, 2] })],
    gctx_paddr: [0x08, u64le],
    report_paddr: [0x10, u64le],
  },
);
export type SevDataSnpHvReportReq = DecodedOf<typeof SevDataSnpHvReportReq>;

/** Begins a launch. */
export const SevDataSnpLaunchStart = layout(
  'SevDataSnpLaunchStart',
  48,
  { spec: 'SNP-ABI', at: 'SNP_LAUNCH_START' },
  {
    gctx_paddr: [0x00, u64le],
    policy: [0x08, u64le, 'GuestPolicy'],
    ma_gctx_paddr: [0x10, u64le],
    flags: [0x18, bits32({ ma_en: [0, 1], imi_en: [1, 1] })],
    desired_tsc_khz: [0x1c, u32le, '0: none wanted'],
    gosvw: [0x20, bytes(16)],
  },
);
export type SevDataSnpLaunchStart = DecodedOf<typeof SevDataSnpLaunchStart>;

/** Adds one page to the launch. */
export const SevDataSnpLaunchUpdate = layout(
  'SevDataSnpLaunchUpdate',
  32,
  { spec: 'SNP-ABI', at: 'SNP_LAUNCH_UPDATE' },
  {
    gctx_paddr: [0x00, u64le],
    flags: [0x08, bits32({ page_size: [0, 1], page_type: [1, 3], imi_page: [4, 1] })],
    page_paddr: [0x10, u64le],
    vmpl1_perms: [0x19, u8, 'bit 0 read, 1 write, 2 execute user, 3 execute supervisor'],
    vmpl2_perms: [0x1a, u8],
    vmpl3_perms: [0x1b, u8],
  },
);
export type SevDataSnpLaunchUpdate = DecodedOf<typeof SevDataSnpLaunchUpdate>;

/** Ends the launch. */
export const SevDataSnpLaunchFinish = layout(
  'SevDataSnpLaunchFinish',
  64,
  { spec: 'SNP-ABI', at: 'SNP_LAUNCH_FINISH' },
  {
    gctx_paddr: [0x00, u64le],
    id_block_paddr: [0x08, u64le],
    id_auth_paddr: [0x10, u64le],
    flags: [0x18, bits64({ id_block_en: [0, 1], auth_key_en: [1, 1], vcek_dis: [2, 1] })],
    host_data: [0x20, bytes(32)],
  },
);
export type SevDataSnpLaunchFinish = DecodedOf<typeof SevDataSnpLaunchFinish>;

/** Gives a page back to the hypervisor. */
export const SevDataSnpPageReclaim = layout(
  'SevDataSnpPageReclaim',
  8,
  { spec: 'SNP-ABI', at: 'SNP_PAGE_RECLAIM' },
  { paddr: [0, u64le, 'bit 0: page size, 0 is 4 KiB, 1 is 2 MiB'] },
);
export type SevDataSnpPageReclaim = DecodedOf<typeof SevDataSnpPageReclaim>;

/** Joins 512 entries into one of 2 MiB. */
export const SevDataSnpPageUnsmash = layout(
  'SevDataSnpPageUnsmash',
  8,
  { spec: 'SNP-ABI', at: 'SNP_PAGE_UNSMASH' },
  { paddr: [0, u64le, 'bit 0: page size, 0 is 4 KiB, 1 is 2 MiB'] },
);
export type SevDataSnpPageUnsmash = DecodedOf<typeof SevDataSnpPageUnsmash>;

/** Moves a guest page to another physical page. Unconfirmed offsets. */
export const SevDataSnpPageMove = layout(
  'SevDataSnpPageMove',
  32,
  { spec: 'SNP-ABI', at: 'SNP_PAGE_MOVE' },
  {
    gctx_paddr: [0x00, u64le],
    flags: [0x08, bits32({ page_size: [0, 1] })],
    src_paddr: [0x10, u64le],
    dst_paddr: [0x18, u64le],
  },
);
export type SevDataSnpPageMove = DecodedOf<typeof SevDataSnpPageMove>;

/** Buffer of SNP_DBG_DECRYPT and SNP_DBG_ENCRYPT; whole pages, policy DEBUG needed. */
export const SevDataSnpDbg = layout(
  'SevDataSnpDbg',
  24,
  { spec: 'SNP-ABI', at: 'SNP_DBG_DECRYPT, SNP_DBG_ENCRYPT' },
  { gctx_paddr: [0x00, u64le], src_paddr: [0x08, u64le], dst_paddr: [0x10, u64le] },
);
export type SevDataSnpDbg = DecodedOf<typeof SevDataSnpDbg>;

/** Asks for the state of mitigations, or verifies one. */
export const SevDataSnpVerifyMitigation = layout(
  'SevDataSnpVerifyMitigation',
  64,
  { spec: 'SNP-ABI', at: 'SNP_VERIFY_MITIGATION' },
  {
    length: [0x00, u32le, '64'],
    subcommand: [0x04, u16le, '0 STATUS, 1 VERIFY'],
    vector: [0x08, u64le, 'one bit set for VERIFY'],
    flags: [0x10, bits32({ dst_paddr_en: [0, 1], src_paddr_en: [1, 1] })],
    src_paddr: [0x18, u64le],
    dst_paddr: [0x20, u64le],
  },
);
export type SevDataSnpVerifyMitigation = DecodedOf<typeof SevDataSnpVerifyMitigation>;

/** What SNP_VERIFY_MITIGATION writes to its destination. */
export const SnpVerifyMitigationOut = layout(
  'SnpVerifyMitigationOut',
  20,
  { spec: 'SNP-ABI', at: 'MIT_VERIFY destination' },
  {
    verified_vector: [0x00, u64le],
    supported_vector: [0x08, u64le],
    failure_status: [0x10, u32le],
  },
);
export type SnpVerifyMitigationOut = DecodedOf<typeof SnpVerifyMitigationOut>;

/** Legacy INIT. */
export const SevDataInit = layout(
  'SevDataInit',
  20,
  { spec: 'LINUX', at: 'struct sev_data_init' },
  {
    flags: [0x00, bits32({ sev_es: [0, 1] })],
    tmr_address: [0x08, u64le, 'trusted memory region for SEV-ES; with SNP 2 MiB, aligned'],
    tmr_len: [0x10, u32le],
  },
);
export type SevDataInit = DecodedOf<typeof SevDataInit>;

/** Legacy GET_ID: where the chip ids go. */
export const SevDataGetId = layout(
  'SevDataGetId',
  12,
  { spec: 'LINUX', at: 'struct sev_data_get_id' },
  { address: [0x0, u64le], len: [0x8, u32le, 'in: room, out: needed'] },
);
export type SevDataGetId = DecodedOf<typeof SevDataGetId>;

/** Legacy PEK_CSR. */
export const SevDataPekCsr = layout(
  'SevDataPekCsr',
  12,
  { spec: 'LINUX', at: 'struct sev_data_pek_csr' },
  { address: [0x0, u64le], len: [0x8, u32le, 'in: room, out: needed'] },
);
export type SevDataPekCsr = DecodedOf<typeof SevDataPekCsr>;

/** Legacy PEK_CERT_IMPORT. */
export const SevDataPekCertImport = layout(
  'SevDataPekCertImport',
  28,
  { spec: 'LINUX', at: 'struct sev_data_pek_cert_import' },
  {
    pek_cert_address: [0x00, u64le],
    pek_cert_len: [0x08, u32le],
    oca_cert_address: [0x10, u64le],
    oca_cert_len: [0x18, u32le],
  },
);
export type SevDataPekCertImport = DecodedOf<typeof SevDataPekCertImport>;

/** Legacy PDH_CERT_EXPORT. */
export const SevDataPdhCertExport = layout(
  'SevDataPdhCertExport',
  28,
  { spec: 'LINUX', at: 'struct sev_data_pdh_cert_export' },
  {
    pdh_cert_address: [0x00, u64le],
    pdh_cert_len: [0x08, u32le, 'in: room, out: needed'],
    cert_chain_address: [0x10, u64le],
    cert_chain_len: [0x18, u32le, 'in: room, out: needed'],
  },
);
export type SevDataPdhCertExport = DecodedOf<typeof SevDataPdhCertExport>;

/** Legacy DOWNLOAD_FIRMWARE; only while the platform is UNINIT. */
export const SevDataDownloadFirmware = layout(
  'SevDataDownloadFirmware',
  12,
  { spec: 'LINUX', at: 'struct sev_data_download_firmware' },
  { address: [0x0, u64le, 'aligned to 32 bytes'], len: [0x8, u32le] },
);
export type SevDataDownloadFirmware = DecodedOf<typeof SevDataDownloadFirmware>;
