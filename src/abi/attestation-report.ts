// SPDX-License-Identifier: Apache-2.0
/** Attestation report, versions 2 to 5. [SNP-ABI] "ATTESTATION_REPORT". */
import { bits32, bits64, bytes, type DecodedOf, layout, u8, u32le, u64le } from '../lib/struct.ts';
import { GuestPolicy } from './guest-policy.ts';

export const REPORT_SIZE = 0x4a0;
/** The signature covers the bytes before it. */
export const REPORT_SIGNED_SIZE = 0x2a0;
/** ECDSA on P-384 with SHA-384. */
export const SIGNATURE_ALGO_ECDSA_P384_SHA384 = 1;
/** REPORT_ID_MA of a guest without a migration agent: all ones. */
export const REPORT_ID_MA_NONE = 0xff;

/**
 * What the platform was doing when the report was made. Bits 63:8 are reserved.
 *
 * Genuine Turin reports of version 5 have bit 6 set, although no public source names it.
 */
export const PlatformInfo = bits64({
  smt_en: [0, 1],
  tsme_en: [1, 1],
  ecc_en: [2, 1],
  rapl_dis: [3, 1],
  ciphertext_hiding_dram_en: [4, 1],
  alias_check_complete: [5, 1],
  bit_6: [6, 1],
  tio_en: [7, 1],
});
export type PlatformInfo = ReturnType<typeof PlatformInfo.fromWord>;

/** Which key signed, and whether an author key was used. */
export const KeyInfo = bits32({
  author_key_en: [0, 1],
  mask_chip_key: [1, 1],
  signing_key: [2, 3],
});
export type KeyInfo = ReturnType<typeof KeyInfo.fromWord>;

/** Values of SIGNING_KEY. */
export const SigningKeySelect = Object.freeze({
  VCEK: 0,
  VLEK: 1,
  /** The report is not signed. */
  NONE: 7,
} as const);

/** Version 2, up to ABI 1.55: no word about the product. */
export const AttestationReportV2 = layout(
  'AttestationReportV2',
  REPORT_SIZE,
  { spec: 'SNP-ABI', at: 'ATTESTATION_REPORT, version 2' },
  {
    version: [0x000, u32le],
    guest_svn: [0x004, u32le, 'from the ID block, else 0'],
    policy: [0x008, GuestPolicy],
    family_id: [0x010, bytes(16), 'from the ID block, else 0'],
    image_id: [0x020, bytes(16), 'from the ID block, else 0'],
    vmpl: [0x030, u32le, 'from the request'],
    signature_algo: [0x034, u32le, '1: ECDSA P-384 with SHA-384'],
    current_tcb: [0x038, u64le, 'TCB_VERSION of the product line'],
    platform_info: [0x040, PlatformInfo],
    key_info: [0x048, KeyInfo],
    report_data: [0x050, bytes(64), 'from the request'],
    measurement: [0x090, bytes(48), 'launch digest'],
    host_data: [0x0c0, bytes(32)],
    id_key_digest: [0x0e0, bytes(48), 'SHA-384 of the 1028-byte key'],
    author_key_digest: [0x110, bytes(48)],
    report_id: [0x140, bytes(32)],
    report_id_ma: [0x160, bytes(32), 'all ones without a migration agent'],
    reported_tcb: [0x180, u64le, 'selects the endorsement key'],
    chip_id: [0x1a0, bytes(64), 'zero when masked; Turin: 8 bytes, then zeros'],
    committed_tcb: [0x1e0, u64le],
    current_build: [0x1e8, u8],
    current_minor: [0x1e9, u8],
    current_major: [0x1ea, u8],
    committed_build: [0x1ec, u8],
    committed_minor: [0x1ed, u8],
    committed_major: [0x1ee, u8],
    launch_tcb: [0x1f0, u64le, 'CurrentTcb at SNP_LAUNCH_START'],
    signature_r: [0x2a0, bytes(72), 'little-endian, 48 significant bytes'],
    signature_s: [0x2e8, bytes(72), 'little-endian, 48 significant bytes'],
  },
);
export type AttestationReportV2 = DecodedOf<typeof AttestationReportV2>;

/** Version 3, ABI 1.56: CPUID family, model and stepping name the product. */
export const AttestationReportV3 = AttestationReportV2.extend(
  'AttestationReportV3',
  { spec: 'SNP-ABI', at: 'ATTESTATION_REPORT, version 3' },
  {
    cpuid_fam_id: [0x188, u8, 'base and extended family added'],
    cpuid_mod_id: [0x189, u8, 'extended model * 16 + base model'],
    cpuid_step: [0x18a, u8],
  },
);
export type AttestationReportV3 = DecodedOf<typeof AttestationReportV3>;

/** Version 4: the bytes of version 3. */
export const AttestationReportV4 = AttestationReportV3.extend(
  'AttestationReportV4',
  { spec: 'SNP-ABI', at: 'ATTESTATION_REPORT, version 4 (every consumer reads it as version 3)' },
  {},
);
export type AttestationReportV4 = DecodedOf<typeof AttestationReportV4>;

/** Version 5, ABI 1.58: mitigation vectors. */
export const AttestationReportV5 = AttestationReportV4.extend(
  'AttestationReportV5',
  { spec: 'SNP-ABI', at: 'ATTESTATION_REPORT, version 5' },
  {
    launch_mit_vector: [0x1f8, u64le],
    current_mit_vector: [0x200, u64le],
  },
);
export type AttestationReportV5 = DecodedOf<typeof AttestationReportV5>;

/**
 * Extended TCB of report version 6 (ABI 1.59). One public implementation names the bytes; what they mean
 * for keys is not established, so version 6 reports are refused and this only reserves the room.
 */
export const EtcbVersion = layout(
  'EtcbVersion',
  32,
  { spec: 'SNP-ABI', at: 'ETCB, report version 6' },
  {
    ip_key_manager: [0, u8],
    mp1: [1, u8],
    art_fmc: [2, u8],
    art_rt: [3, u8],
    had_driver: [4, u8],
    boot_driver: [5, u8],
    pre_esid: [6, u8],
    tmpm: [7, u8],
    microcode: [8, u8],
    soc_driver: [9, u8],
    asp_os_driver: [10, u8],
    fhp_driver: [11, u8],
    dpe_driver: [12, u8],
    arg: [13, u8],
  },
);
export type EtcbVersion = DecodedOf<typeof EtcbVersion>;

/** Where version 6 puts its three extended TCBs. */
export const REPORT_V6_ETCB_OFFSETS = Object.freeze({
  current_etcb: 0x220,
  launch_etcb: 0x240,
  committed_etcb: 0x260,
} as const);

export type ReportVersion = 2 | 3 | 4 | 5;
export const REPORT_VERSIONS: readonly ReportVersion[] = Object.freeze([2, 3, 4, 5]);

export type ReportLayout =
  | typeof AttestationReportV2
  | typeof AttestationReportV3
  | typeof AttestationReportV4
  | typeof AttestationReportV5;

/**
 * The layout of a report version.
 *
 * Returns  null for 6, whose extended TCBs have no established meaning, and for every unknown version: a
 *          report is never read as if it were the nearest known one
 */
export function reportLayout(version: 2): typeof AttestationReportV2;
export function reportLayout(version: 3): typeof AttestationReportV3;
export function reportLayout(version: 4): typeof AttestationReportV4;
export function reportLayout(version: 5): typeof AttestationReportV5;
export function reportLayout(version: ReportVersion): ReportLayout;
export function reportLayout(version: number): ReportLayout | null;
export function reportLayout(version: number): ReportLayout | null {
  switch (version) {
    case 2:
      return AttestationReportV2;
    case 3:
      return AttestationReportV3;
    case 4:
      return AttestationReportV4;
    case 5:
      return AttestationReportV5;
    default:
      return null;
  }
}

/** Why a report version is refused; null for those that are not. */
export function reportVersionRefusal(version: number): string | null {
  if (reportLayout(version) !== null) {
    return null;
  }
  return version === 6
    ? 'report version 6 (ABI 1.59, extended TCBs at 0x220) is not supported: their meaning is not established'
    : `report version ${version} is unknown`;
}
