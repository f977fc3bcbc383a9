// SPDX-License-Identifier: Apache-2.0
/**
 * Guest messages: what a guest and the secure processor send each other under a VMPCK.
 * [SNP-ABI] "Guest Messages"; Linux `struct snp_guest_msg_hdr`.
 */
import { writeU64 } from '../lib/bytes.ts';
import { bits32, bits64, bytes, type DecodedOf, layout, u8, u16le, u32le, u64le } from '../lib/struct.ts';

export const GUEST_MESSAGE_HEADER_SIZE = 0x60;
/** Header and payload share one page. */
export const GUEST_MESSAGE_MAX_PAYLOAD = 4000;
/** Bytes 0x30-0x5f are authenticated; the tag and the sequence number before them are not. */
export const GUEST_MESSAGE_AAD_OFFSET = 0x30;
export const GUEST_MESSAGE_AAD_SIZE = 48;
/** AES-256-GCM, the only algorithm. */
export const SNP_AEAD_AES_256_GCM = 1;
export const GUEST_MESSAGE_HDR_VERSION = 1;
export const AUTHTAG_SIZE = 16;
export const VMPCK_SIZE = 32;

/** Header of every guest message. */
export const GuestMessageHeader = layout(
  'GuestMessageHeader',
  GUEST_MESSAGE_HEADER_SIZE,
  { spec: 'SNP-ABI', at: 'Message Header Format' },
  {
    authtag: [0x00, bytes(32), 'GCM tag in the first 16 bytes, then zeros'],
    msg_seqno: [0x20, u64le],
    algo: [0x30, u8, '1 AES-256-GCM'],
    hdr_version: [0x31, u8, '1'],
    hdr_size: [0x32, u16le, '0x60; Linux: hdr_sz'],
    msg_type: [0x34, u8],
    msg_version: [0x35, u8],
    msg_size: [0x36, u16le, 'payload bytes; Linux: msg_sz'],
    msg_vmpck: [0x3c, u8, '0 to 3'],
  },
);
export type GuestMessageHeader = DecodedOf<typeof GuestMessageHeader>;

/** Message types. A response has the type of its request plus one. */
export const SnpMsg = Object.freeze({
  SNP_MSG_TYPE_INVALID: 0,
  SNP_MSG_CPUID_REQ: 1,
  SNP_MSG_CPUID_RSP: 2,
  SNP_MSG_KEY_REQ: 3,
  SNP_MSG_KEY_RSP: 4,
  SNP_MSG_REPORT_REQ: 5,
  SNP_MSG_REPORT_RSP: 6,
  SNP_MSG_EXPORT_REQ: 7,
  SNP_MSG_EXPORT_RSP: 8,
  SNP_MSG_IMPORT_REQ: 9,
  SNP_MSG_IMPORT_RSP: 10,
  SNP_MSG_ABSORB_REQ: 11,
  SNP_MSG_ABSORB_RSP: 12,
  SNP_MSG_VMRK_REQ: 13,
  SNP_MSG_VMRK_RSP: 14,
  SNP_MSG_ABSORB_NOMA_REQ: 15,
  SNP_MSG_ABSORB_NOMA_RSP: 16,
  SNP_MSG_TSC_INFO_REQ: 17,
  SNP_MSG_TSC_INFO_RSP: 18,
} as const);

/** SEV-TIO message types of a Linux patch series; here the response has the type without bit 7. */
export const TioMsg = Object.freeze({
  TIO_MSG_TDI_INFO_REQ: 0x81,
  TIO_MSG_TDI_INFO_RSP: 0x01,
  TIO_MSG_MMIO_VALIDATE_REQ: 0x82,
  TIO_MSG_MMIO_VALIDATE_RSP: 0x02,
  TIO_MSG_MMIO_CONFIG_REQ: 0x83,
  TIO_MSG_MMIO_CONFIG_RSP: 0x03,
  TIO_MSG_SDTE_WRITE_REQ: 0x84,
  TIO_MSG_SDTE_WRITE_RSP: 0x04,
} as const);

/** The 12-byte GCM nonce of a sequence number: eight bytes of it, four of zero. */
export function guestMessageNonce(msgSeqno: bigint): Uint8Array {
  const nonce = new Uint8Array(12);
  writeU64(nonce, 0, msgSeqno);
  return nonce;
}

/** The authenticated part of a message, as a view into it. */
export function guestMessageAad(message: Uint8Array): Uint8Array {
  return message.subarray(GUEST_MESSAGE_AAD_OFFSET, GUEST_MESSAGE_AAD_OFFSET + GUEST_MESSAGE_AAD_SIZE);
}

/** KEY_SEL of report and key requests. */
export const KeySel = Object.freeze({
  /** VLEK when one is loaded, otherwise VCEK. */
  KEY_SEL_DEFAULT: 0,
  KEY_SEL_VCEK: 1,
  KEY_SEL_VLEK: 2,
} as const);

/** Payload of MSG_REPORT_REQ. */
export const MsgReportReq = layout(
  'MsgReportReq',
  0x60,
  { spec: 'SNP-ABI', at: 'MSG_REPORT_REQ' },
  {
    report_data: [0x00, bytes(64)],
    vmpl: [0x40, u32le, 'at least the requester’s, at most 3'],
    flags: [0x44, bits32({ key_sel: [0, 2] })],
  },
);
export type MsgReportReq = DecodedOf<typeof MsgReportReq>;

/** Head of MSG_REPORT_RSP; the attestation report follows at 0x20. */
export const MsgReportRsp = layout(
  'MsgReportRsp',
  0x20,
  { spec: 'SNP-ABI', at: 'MSG_REPORT_RSP' },
  {
    status: [0x00, u32le, '0, SEV_RET_INVALID_PARAM or SEV_RET_INVALID_KEY'],
    report_size: [0x04, u32le, '0x4a0'],
  },
);
export type MsgReportRsp = DecodedOf<typeof MsgReportRsp>;

/** Head and report. */
export const MSG_REPORT_RSP_SIZE = 0x4c0;

/** ROOT_KEY_SELECT of MSG_KEY_REQ. */
export const RootKeySelect = Object.freeze({ VCEK: 0, VMRK: 1 } as const);

const KeySelectWord = bits32({ root_key_select: [0, 1], key_sel: [1, 2] });

/** GUEST_FIELD_SELECT of version 1: which facts are mixed into the derived key. */
export const GuestFieldSelectV1 = bits64({
  guest_policy: [0, 1],
  image_id: [1, 1],
  family_id: [2, 1],
  measurement: [3, 1],
  guest_svn: [4, 1],
  tcb_version: [5, 1],
});
export type GuestFieldSelectV1 = ReturnType<typeof GuestFieldSelectV1.fromWord>;

/** GUEST_FIELD_SELECT of version 2. */
export const GuestFieldSelectV2 = bits64({
  guest_policy: [0, 1],
  image_id: [1, 1],
  family_id: [2, 1],
  measurement: [3, 1],
  guest_svn: [4, 1],
  tcb_version: [5, 1],
  launch_mit_vector: [6, 1],
});
export type GuestFieldSelectV2 = ReturnType<typeof GuestFieldSelectV2.fromWord>;

/** Payload of MSG_KEY_REQ, message version 1. */
export const MsgKeyReqV1 = layout(
  'MsgKeyReqV1',
  0x20,
  { spec: 'SNP-ABI', at: 'MSG_KEY_REQ, version 1' },
  {
    flags: [0x00, KeySelectWord],
    guest_field_select: [0x08, GuestFieldSelectV1],
    vmpl: [0x10, u32le, 'at least the requester’s, at most 3'],
    guest_svn: [0x14, u32le, 'at most that of the ID block'],
    tcb_version: [0x18, u64le, 'no component above CommittedTcb'],
  },
);
export type MsgKeyReqV1 = DecodedOf<typeof MsgKeyReqV1>;

/** Payload of MSG_KEY_REQ, message version 2 (ABI 1.58). */
export const MsgKeyReqV2 = layout(
  'MsgKeyReqV2',
  0x28,
  { spec: 'SNP-ABI', at: 'MSG_KEY_REQ, version 2' },
  {
    flags: [0x00, KeySelectWord],
    guest_field_select: [0x08, GuestFieldSelectV2],
    vmpl: [0x10, u32le],
    guest_svn: [0x14, u32le],
    tcb_version: [0x18, u64le],
    launch_mit_vector: [0x20, u64le, 'a subset of the guest’s launch vector'],
  },
);
export type MsgKeyReqV2 = DecodedOf<typeof MsgKeyReqV2>;

/** Payload of MSG_KEY_RSP. */
export const MsgKeyRsp = layout(
  'MsgKeyRsp',
  0x40,
  { spec: 'SNP-ABI', at: 'MSG_KEY_RSP' },
  {
    status: [0x00, u32le, '0, SEV_RET_INVALID_PARAM or SEV_RET_INVALID_KEY'],
    derived_key: [0x20, bytes(32), 'zero on failure'],
  },
);
export type MsgKeyRsp = DecodedOf<typeof MsgKeyRsp>;

/** Payload of MSG_TSC_INFO_REQ: zeros. */
export const MsgTscInfoReq = layout('MsgTscInfoReq', 128, { spec: 'SNP-ABI', at: 'MSG_TSC_INFO_REQ' }, {});
export type MsgTscInfoReq = DecodedOf<typeof MsgTscInfoReq>;

/** Payload of MSG_TSC_INFO_RSP. */
export const MsgTscInfoRsp = layout(
  'MsgTscInfoRsp',
  128,
  { spec: 'SNP-ABI', at: 'MSG_TSC_INFO_RSP' },
  {
    status: [0x00, u32le],
    guest_tsc_scale: [0x08, u64le],
    guest_tsc_offset: [0x10, u64le],
    tsc_factor: [0x18, u32le, 'mean = nominal - nominal * factor / 100000'],
  },
);
export type MsgTscInfoRsp = DecodedOf<typeof MsgTscInfoRsp>;

/** Head of MSG_CPUID_REQ; `count` of CpuidEntry follow. Not confirmed by a public source. */
export const MsgCpuidReq = layout(
  'MsgCpuidReq',
  0x10,
  { spec: 'SNP-ABI', at: 'MSG_CPUID_REQ' },
  { count: [0x0, u32le, 'at most 64'] },
);
export type MsgCpuidReq = DecodedOf<typeof MsgCpuidReq>;

/** Head of MSG_CPUID_RSP; `count` of CpuidEntry follow. Not confirmed by a public source. */
export const MsgCpuidRsp = layout(
  'MsgCpuidRsp',
  0x10,
  { spec: 'SNP-ABI', at: 'MSG_CPUID_RSP' },
  { status: [0x0, u32le], count: [0x4, u32le] },
);
export type MsgCpuidRsp = DecodedOf<typeof MsgCpuidRsp>;

/** Payload of MSG_VMRK_REQ: a migration agent sets a guest's VMRK. Not confirmed by a public source. */
export const MsgVmrkReq = layout(
  'MsgVmrkReq',
  0x40,
  { spec: 'SNP-ABI', at: 'MSG_VMRK_REQ' },
  { gctx_paddr: [0x00, u64le], vmrk: [0x20, bytes(32)] },
);
export type MsgVmrkReq = DecodedOf<typeof MsgVmrkReq>;

/** Payload of MSG_VMRK_RSP. Not confirmed by a public source. */
export const MsgVmrkRsp = layout(
  'MsgVmrkRsp',
  0x20,
  { spec: 'SNP-ABI', at: 'MSG_VMRK_RSP' },
  { status: [0x00, u32le] },
);
export type MsgVmrkRsp = DecodedOf<typeof MsgVmrkRsp>;
