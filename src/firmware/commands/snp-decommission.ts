// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpAddr } from '../../abi/snp-commands.ts';
import type { Platform } from '../platform.ts';

/** Destroys a guest: its ASID is released and its context page is a Firmware page again. [SNP-ABI] SNP_DECOMMISSION */
export function snpDecommission(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpAddr);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const guest = platform.guestFor(buffer.address, 'SEV_CMD_SNP_DECOMMISSION');
  if (typeof guest === 'number') {
    return guest;
  }
  platform.advance(guest, 'SEV_CMD_SNP_DECOMMISSION');
  return SevRet.SEV_RET_SUCCESS;
}
