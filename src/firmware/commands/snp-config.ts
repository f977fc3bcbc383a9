// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpConfig } from '../../abi/snp-commands.ts';
import { decodeTcb, tcbAtMost, tcbReservedIsZero } from '../../abi/tcb-version.ts';
import type { Platform } from '../platform.ts';

/**
 * Sets the TCB that reports advertise, and the chip masks. [SNP-ABI] SNP_CONFIG
 *
 * Returns  SEV_RET_INVALID_PARAM, nothing changed, when a component is above CommittedTcb
 */
export function snpConfig(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpConfig);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const { product } = platform.chip;
  const wanted = buffer.reported_tcb === 0n ? platform.committedTcb : decodeTcb(buffer.reported_tcb, product);
  if (
    !tcbReservedIsZero(buffer.reported_tcb, product) ||
    !tcbAtMost(wanted, platform.committedTcb, product)
  ) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  platform.maskChipId = buffer.flags.mask_chip_id === 1;
  platform.maskChipKey = buffer.flags.mask_chip_key === 1;
  platform.setReportedTcb(wanted);
  return SevRet.SEV_RET_SUCCESS;
}
