// SPDX-License-Identifier: Apache-2.0
/**
 * /dev/sev-guest: how a program in the guest asks for reports and keys.
 * [LINUX-UAPI] linux/sev-guest.h. The driver passes reserved bytes on unjudged.
 */
import { bytes, type DecodedOf, type LayoutSource, layout, u8, u32le, u64le } from '../lib/struct.ts';

const uapi = (struct: string, names: Record<string, string | null> = {}): LayoutSource => ({
  spec: 'LINUX-UAPI',
  at: `struct ${struct}`,
  gaps: 'ignore',
  c: { header: 'linux/sev-guest.h', struct, names },
});

/** ioctl numbers. */
export const SnpGuestIoctl = Object.freeze({
  SNP_GET_REPORT: 0xc0205300,
  SNP_GET_DERIVED_KEY: 0xc0205301,
  SNP_GET_EXT_REPORT: 0xc0205302,
} as const);

/** Argument of all three. */
export const SnpGuestRequestIoctl = layout('SnpGuestRequestIoctl', 32, uapi('snp_guest_request_ioctl'), {
  msg_version: [0, u8, 'not 0'],
  req_data: [8, u64le, 'user pointer'],
  resp_data: [16, u64le, 'user pointer'],
  fw_error: [24, u32le, 'out: low half of exitinfo2'],
  vmm_error: [28, u32le, 'out: high half of exitinfo2'],
});
export type SnpGuestRequestIoctl = DecodedOf<typeof SnpGuestRequestIoctl>;

/** Offset of the u64 that `fw_error` and `vmm_error` make up. */
export const SNP_GUEST_REQUEST_EXITINFO2_OFFSET = 24;

/** Request of SNP_GET_REPORT: the payload of MSG_REPORT_REQ, so that KEY_SEL is in `rsvd`. */
export const SnpReportReq = layout('SnpReportReq', 96, uapi('snp_report_req'), {
  user_data: [0, bytes(64)],
  vmpl: [64, u32le],
  rsvd: [68, bytes(28), 'passed on unchecked; bits 1:0 of its first byte are KEY_SEL'],
});
export type SnpReportReq = DecodedOf<typeof SnpReportReq>;

export const SNP_REPORT_RESP_SIZE = 4000;

/** Response of SNP_GET_REPORT and SNP_GET_EXT_REPORT: MSG_REPORT_RSP, zero-extended. */
export const SnpReportResp = layout('SnpReportResp', SNP_REPORT_RESP_SIZE, uapi('snp_report_resp'), {
  data: [0, bytes(SNP_REPORT_RESP_SIZE)],
});
export type SnpReportResp = DecodedOf<typeof SnpReportResp>;

/** Request of SNP_GET_EXT_REPORT. */
export const SnpExtReportReq = layout('SnpExtReportReq', 112, uapi('snp_ext_report_req'), {
  data: [0, SnpReportReq.codec],
  certs_address: [96, u64le, 'user pointer; 0: no certificates wanted'],
  certs_len: [104, u32le, 'a multiple of 4096, at most 0x4000; out: needed'],
});
export type SnpExtReportReq = DecodedOf<typeof SnpExtReportReq>;

/** Request of SNP_GET_DERIVED_KEY: the payload of MSG_KEY_REQ, version 1. */
export const SnpDerivedKeyReq = layout('SnpDerivedKeyReq', 32, uapi('snp_derived_key_req'), {
  root_key_select: [0, u32le],
  rsvd: [4, u32le],
  guest_field_select: [8, u64le],
  vmpl: [16, u32le],
  guest_svn: [20, u32le],
  tcb_version: [24, u64le],
});
export type SnpDerivedKeyReq = DecodedOf<typeof SnpDerivedKeyReq>;

/**
 * Request of SNP_GET_DERIVED_KEY with msg_version 2 or more: the payload of MSG_KEY_REQ, version 2.
 *
 * Source   virtee/sev sends it; the structure of Linux 6.12 ends before `launch_mit_vector`
 */
export const SnpDerivedKeyReqV2 = layout(
  'SnpDerivedKeyReqV2',
  40,
  { spec: 'SNP-ABI', at: 'MSG_KEY_REQ, version 2', gaps: 'ignore' },
  {
    root_key_select: [0, u32le],
    rsvd: [4, u32le],
    guest_field_select: [8, u64le],
    vmpl: [16, u32le],
    guest_svn: [20, u32le],
    tcb_version: [24, u64le],
    launch_mit_vector: [32, u64le],
  },
);
export type SnpDerivedKeyReqV2 = DecodedOf<typeof SnpDerivedKeyReqV2>;

/** Response of SNP_GET_DERIVED_KEY: MSG_KEY_RSP. */
export const SnpDerivedKeyResp = layout('SnpDerivedKeyResp', 64, uapi('snp_derived_key_resp'), {
  data: [0, bytes(64)],
});
export type SnpDerivedKeyResp = DecodedOf<typeof SnpDerivedKeyResp>;
