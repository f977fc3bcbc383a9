// SPDX-License-Identifier: Apache-2.0
import { MSG_REPORT_RSP_SIZE } from '../../abi/guest-message.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpHvReportReq } from '../../abi/snp-commands.ts';
import { answerReport, HOST_REQUESTED_VMPL } from '../attestation-report.ts';
import type { Platform } from '../platform.ts';

/**
 * A report about a guest for the hypervisor. [SNP-ABI] SNP_HV_REPORT_REQ
 *
 * Returns  success also when no report can be made: the reason is in the STATUS of the output
 * Differs  REPORT_DATA zero and VMPL all ones are not confirmed by a public source (docs/limitations.md#host-reports)
 */
export function snpHvReportReq(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpHvReportReq);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (buffer.length !== SevDataSnpHvReportReq.size) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const guest = platform.guestFor(buffer.gctx_paddr, 'SEV_CMD_SNP_HV_REPORT_REQ');
  if (typeof guest === 'number') {
    return guest;
  }
  const refused = platform.checkOutput(buffer.report_paddr, MSG_REPORT_RSP_SIZE);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  const { payload } = answerReport(platform, guest, {
    reportData: new Uint8Array(64),
    vmpl: HOST_REQUESTED_VMPL,
    keySel: buffer.flags.key_sel,
  });
  platform.deliver(buffer.report_paddr, payload);
  return SevRet.SEV_RET_SUCCESS;
}
