// SPDX-License-Identifier: Apache-2.0
import { MSG_REPORT_RSP_SIZE, MsgReportReq, MsgReportRsp } from '../../abi/guest-message.ts';
import { SevRet } from '../../abi/sev-status.ts';
import { type Answer, answerReport } from '../attestation-report.ts';
import type { Message } from './message.ts';

/**
 * MSG_REPORT_REQ: an attestation report for the requester's VMPL or a less privileged one.
 *
 * Returns  STATUS SEV_RET_INVALID_PARAM for reserved bits or a VMPL more privileged than the requester's;
 *          SEV_RET_INVALID_KEY when the selected key is not to be had
 */
export function report({ platform, guest, payload, vmpl }: Message): Answer {
  const request = MsgReportReq.tryDecode(payload);
  if (request === null || request.vmpl < vmpl || request.vmpl > 3) {
    const refusal = new Uint8Array(MSG_REPORT_RSP_SIZE);
    MsgReportRsp.set(refusal, 'status', SevRet.SEV_RET_INVALID_PARAM);
    return { payload: refusal, status: SevRet.SEV_RET_INVALID_PARAM, key: null };
  }
  return answerReport(platform, guest, {
    reportData: request.report_data,
    vmpl: request.vmpl,
    keySel: request.flags.key_sel,
  });
}
