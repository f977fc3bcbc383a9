// SPDX-License-Identifier: Apache-2.0
import {
  AttestationReportV2,
  PlatformInfo,
  REPORT_ID_MA_NONE,
  REPORT_SIGNED_SIZE,
  reportLayout,
  SIGNATURE_ALGO_ECDSA_P384_SHA384,
  SigningKeySelect,
} from '../abi/attestation-report.ts';
import { MSG_REPORT_RSP_SIZE, MsgReportRsp } from '../abi/guest-message.ts';
import { GuestPolicy } from '../abi/guest-policy.ts';
import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import { readU32, writeU32 } from '../lib/bytes.ts';
import type { GuestContext, KeptReport } from './guest-context.ts';
import { selectKey } from './key-selection.ts';
import type { GuestRequestDetail, Platform } from './platform.ts';

export interface ReportRequest {
  /** 64 bytes. */
  readonly reportData: Uint8Array;
  /** 0 to 3, or HOST_REQUESTED_VMPL. */
  readonly vmpl: number;
  readonly keySel: number;
}

/** VMPL of a report that the hypervisor asked for. */
export const HOST_REQUESTED_VMPL = 0xffffffff;

/** A message payload and what was decided about it. */
export interface Answer {
  /** A report's is good until the guest's next one. */
  readonly payload: Uint8Array;
  readonly status: SevStatus;
  readonly key: GuestRequestDetail['key'];
}

const AT = {
  vmpl: AttestationReportV2.offsetOf('vmpl'),
  key_info: AttestationReportV2.offsetOf('key_info'),
  report_data: AttestationReportV2.offsetOf('report_data'),
  signature_r: AttestationReportV2.offsetOf('signature_r'),
  signature_s: AttestationReportV2.offsetOf('signature_s'),
} as const;
const SIGNING_KEY_SHIFT = 2;
const NO_MIGRATION_AGENT = new Uint8Array(32).fill(REPORT_ID_MA_NONE);

/**
 * Payload of MSG_REPORT_RSP: a signed report, or why there is none.
 *
 * Source   [SNP-ABI] "MSG_REPORT_RSP", "ATTESTATION_REPORT"
 */
export function answerReport(platform: Platform, guest: GuestContext, request: ReportRequest): Answer {
  const signer = selectKey(platform, guest, request.keySel);
  if (typeof signer === 'number') {
    const payload = new Uint8Array(MSG_REPORT_RSP_SIZE);
    MsgReportRsp.set(payload, 'status', signer);
    return { payload, status: signer, key: null };
  }
  const { payload, report, signed, keyInfo } = keptReport(platform, guest);
  // Every field that requests differ in is written by each of them.
  writeU32(report, AT.vmpl, request.vmpl);
  report.set(request.reportData, AT.report_data);
  const kind = signer === 'none' ? 'none' : signer.kind;
  const signingKey = SigningKeySelect[kind === 'none' ? 'NONE' : kind];
  writeU32(report, AT.key_info, keyInfo | (signingKey << SIGNING_KEY_SHIFT));
  if (signer === 'none') {
    report.fill(0, REPORT_SIGNED_SIZE);
  } else {
    const { r, s } = signer.key.sign(signed);
    putReversed(report, AT.signature_r, r);
    putReversed(report, AT.signature_s, s);
  }
  return { payload, status: SevRet.SEV_RET_SUCCESS, key: kind };
}

/** Big-endian number into a little-endian field. */
function putReversed(target: Uint8Array, at: number, value: Uint8Array): void {
  for (let i = 0; i < value.length; i++) {
    target[at + i] = value[value.length - 1 - i]!;
  }
}

/** The response with the report as far as the platform and the guest decide it. */
function keptReport(platform: Platform, guest: GuestContext): KeptReport {
  const kept = guest.reportKept;
  if (kept !== null && kept.epoch === platform.epoch) {
    return kept;
  }
  const { chip, firmwareVersion, committedVersion, reportVersion } = platform;
  const bytes = reportLayout(reportVersion).encode({
    version: reportVersion,
    guest_svn: guest.guestSvn,
    policy: GuestPolicy.fromWord(guest.policy),
    family_id: guest.familyId,
    image_id: guest.imageId,
    signature_algo: SIGNATURE_ALGO_ECDSA_P384_SHA384,
    current_tcb: platform.currentTcbWord,
    platform_info: PlatformInfo.fromWord(platform.platformInfo),
    key_info: {
      author_key_en: Number(guest.authorKeyEn),
      mask_chip_key: Number(platform.maskChipKey),
      signing_key: 0,
    },
    measurement: guest.launchDigest,
    host_data: guest.hostData,
    id_key_digest: guest.idKeyDigest,
    author_key_digest: guest.authorKeyDigest,
    report_id: guest.reportId,
    report_id_ma: NO_MIGRATION_AGENT,
    reported_tcb: platform.reportedTcbWord,
    cpuid_fam_id: chip.cpuid.family,
    cpuid_mod_id: chip.cpuid.model,
    cpuid_step: chip.cpuid.stepping,
    chip_id: platform.maskChipId ? new Uint8Array(chip.chipId.length) : chip.chipId,
    committed_tcb: platform.committedTcbWord,
    current_build: firmwareVersion.build & 0xff,
    current_minor: firmwareVersion.minor,
    current_major: firmwareVersion.major,
    committed_build: committedVersion.build & 0xff,
    committed_minor: committedVersion.minor,
    committed_major: committedVersion.major,
    launch_tcb: guest.launchTcb,
    launch_mit_vector: guest.launchMitVector,
    current_mit_vector: platform.mitigationsVerified,
  });
  const payload = new Uint8Array(MSG_REPORT_RSP_SIZE);
  MsgReportRsp.set(payload, 'report_size', bytes.length);
  payload.set(bytes, MsgReportRsp.size);
  const report = payload.subarray(MsgReportRsp.size);
  const made = {
    epoch: platform.epoch,
    ...{ payload, report },
    signed: report.subarray(0, REPORT_SIGNED_SIZE),
    keyInfo: readU32(report, AT.key_info),
  };
  guest.reportKept = made;
  return made;
}
