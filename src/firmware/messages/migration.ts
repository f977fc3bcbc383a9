// SPDX-License-Identifier: Apache-2.0
import { MsgVmrkRsp } from '../../abi/guest-message.ts';
import { SevRet } from '../../abi/sev-status.ts';
import type { Answer } from '../attestation-report.ts';

/**
 * MSG_EXPORT_REQ, MSG_IMPORT_REQ, MSG_ABSORB_REQ, MSG_ABSORB_NOMA_REQ and MSG_VMRK_REQ: STATUS SEV_RET_UNSUPPORTED.
 *
 * Differs  no guest can be a migration agent here; the size of these responses is that of MSG_VMRK_RSP
 *          (docs/limitations.md#migration)
 */
export function migration(): Answer {
  const status = SevRet.SEV_RET_UNSUPPORTED;
  return { payload: MsgVmrkRsp.encode({ status }), status, key: null };
}
