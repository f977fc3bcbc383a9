// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpActivate } from '../../abi/snp-commands.ts';
import type { Asid } from '../../lib/addresses.ts';
import type { Platform } from '../platform.ts';

/**
 * Binds a guest to an ASID and loads its memory key. [SNP-ABI] SNP_ACTIVATE
 *
 * Returns  SEV_RET_INVALID_ASID outside the SNP range; SEV_RET_ACTIVE: the guest has one; SEV_RET_ASID_OWNED:
 *          another guest has it; SEV_RET_WBINVD_REQUIRED or SEV_RET_DFFLUSH_REQUIRED after earlier use
 */
export function snpActivate(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpActivate);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const guest = platform.guestFor(buffer.gctx_paddr, 'SEV_CMD_SNP_ACTIVATE');
  if (typeof guest === 'number') {
    return guest;
  }
  const asid = buffer.asid as Asid;
  if (asid === 0 || asid > platform.maxSnpAsid) {
    return SevRet.SEV_RET_INVALID_ASID;
  }
  if (guest.asid !== 0) {
    return SevRet.SEV_RET_ACTIVE;
  }
  if (platform.asidOwners.has(asid)) {
    return SevRet.SEV_RET_ASID_OWNED;
  }
  const unflushed = platform.checkFlushed(asid);
  if (unflushed !== SevRet.SEV_RET_SUCCESS) {
    return unflushed;
  }
  platform.bind(guest, asid);
  platform.advance(guest, 'SEV_CMD_SNP_ACTIVATE');
  return SevRet.SEV_RET_SUCCESS;
}
