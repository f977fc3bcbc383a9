// SPDX-License-Identifier: Apache-2.0
/** The guest messages firmware takes, by MSG_TYPE. [SNP-ABI] "Guest Messages" */
import { MsgKeyReqV1, MsgKeyReqV2, MsgReportReq, MsgTscInfoReq, SnpMsg } from '../../abi/guest-message.ts';
import type { Answer } from '../attestation-report.ts';
import { cpuid, isCpuidRequestSize } from './cpuid.ts';
import { key } from './key.ts';
import type { Message } from './message.ts';
import { migration } from './migration.ts';
import { report } from './report.ts';
import { tscInfo } from './tsc-info.ts';

export interface MessageKind {
  /** Report version of the first firmware that takes each MSG_VERSION, from version 1 on. */
  readonly versionsSince: readonly number[];
  /** Whether a payload of this size can be the message. */
  accepts(size: number, version: number): boolean;
  answer(message: Message): Answer;
}

const MIGRATION: MessageKind = { versionsSince: [2], accepts: () => true, answer: migration };

export const MESSAGES: ReadonlyMap<number, MessageKind> = new Map<number, MessageKind>([
  [SnpMsg.SNP_MSG_CPUID_REQ, { versionsSince: [2], accepts: isCpuidRequestSize, answer: cpuid }],
  [
    SnpMsg.SNP_MSG_KEY_REQ,
    {
      versionsSince: [2, 5],
      accepts: (size, version) => size === (version === 1 ? MsgKeyReqV1.size : MsgKeyReqV2.size),
      answer: key,
    },
  ],
  [
    SnpMsg.SNP_MSG_REPORT_REQ,
    { versionsSince: [2], accepts: (size) => size === MsgReportReq.size, answer: report },
  ],
  [
    SnpMsg.SNP_MSG_TSC_INFO_REQ,
    { versionsSince: [2], accepts: (size) => size === MsgTscInfoReq.size, answer: tscInfo },
  ],
  [SnpMsg.SNP_MSG_EXPORT_REQ, MIGRATION],
  [SnpMsg.SNP_MSG_IMPORT_REQ, MIGRATION],
  [SnpMsg.SNP_MSG_ABSORB_REQ, MIGRATION],
  [SnpMsg.SNP_MSG_VMRK_REQ, MIGRATION],
  [SnpMsg.SNP_MSG_ABSORB_NOMA_REQ, MIGRATION],
]);
