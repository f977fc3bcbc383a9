// SPDX-License-Identifier: Apache-2.0
import { CPUID_PAGE_MAX_ENTRIES, CpuidEntry } from '../../abi/cpuid-page.ts';
import { MsgCpuidReq, MsgCpuidRsp } from '../../abi/guest-message.ts';
import { SevRet } from '../../abi/sev-status.ts';
import { concat } from '../../lib/bytes.ts';
import type { Answer } from '../attestation-report.ts';
import { correctCpuidEntries } from '../cpuid-policy.ts';
import type { Message } from './message.ts';

/** Whether a payload of this size can be a CPUID request. */
export function isCpuidRequestSize(size: number): boolean {
  const entries = (size - MsgCpuidReq.size) / CpuidEntry.size;
  return Number.isInteger(entries) && entries >= 0 && entries <= CPUID_PAGE_MAX_ENTRIES;
}

/**
 * MSG_CPUID_REQ: a CPUID table checked as the CPUID page is at launch.
 *
 * Returns  the table as firmware would have it; STATUS SEV_RET_INVALID_PARAM when that differs from the request,
 *          or, without a table, when COUNT does not fit the message
 */
export function cpuid({ payload }: Message): Answer {
  const head = MsgCpuidReq.tryDecode(payload.subarray(0, MsgCpuidReq.size));
  const entries = payload.subarray(MsgCpuidReq.size);
  if (head === null || head.count * CpuidEntry.size !== entries.length) {
    const status = SevRet.SEV_RET_INVALID_PARAM;
    return { payload: MsgCpuidRsp.encode({ status }), status, key: null };
  }
  const corrected = correctCpuidEntries(entries);
  const status = corrected === entries ? SevRet.SEV_RET_SUCCESS : SevRet.SEV_RET_INVALID_PARAM;
  return {
    payload: concat(MsgCpuidRsp.encode({ status, count: head.count }), corrected),
    status,
    key: null,
  };
}
