// SPDX-License-Identifier: Apache-2.0
import { MsgTscInfoReq, MsgTscInfoRsp } from '../../abi/guest-message.ts';
import { SevRet } from '../../abi/sev-status.ts';
import type { Answer } from '../attestation-report.ts';
import { TSC_FACTOR } from '../tsc.ts';
import type { Message } from './message.ts';

/**
 * MSG_TSC_INFO_REQ: scale and offset of the guest's TSC.
 *
 * Returns  STATUS SEV_RET_INVALID_PARAM for a byte that is not zero
 * Differs  no time passes for the TSC here, so the offset is always 0 (docs/limitations.md#tsc)
 */
export function tscInfo({ guest, payload }: Message): Answer {
  const status =
    MsgTscInfoReq.tryDecode(payload) === null ? SevRet.SEV_RET_INVALID_PARAM : SevRet.SEV_RET_SUCCESS;
  const facts = { guest_tsc_scale: guest.tscScale, tsc_factor: TSC_FACTOR };
  return {
    payload: MsgTscInfoRsp.encode(status === SevRet.SEV_RET_SUCCESS ? facts : { status }),
    status,
    key: null,
  };
}
