// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpAddr } from '../../abi/snp-commands.ts';
import { SECURE_PROCESSOR_SLOT } from '../../hw/memory.ts';
import { PAGE_SIZE, pfnOf, type Spa } from '../../lib/addresses.ts';
import { newGuestContext } from '../guest-context.ts';
import { checkFirmwarePage, setFirmwarePage } from '../page-state.ts';
import type { Platform } from '../platform.ts';

/** Makes a Firmware page the context of a new guest. [SNP-ABI] SNP_GCTX_CREATE */
export function snpGctxCreate(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpAddr);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (!platform.isPage(buffer.address)) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const pfn = pfnOf(buffer.address as Spa);
  const refused = checkFirmwarePage(platform.hw.rmp, pfn);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  platform.contexts.set(pfn, newGuestContext(pfn, platform.random));
  // The host sees ciphertext where the context is.
  platform.hw.memory.write(buffer.address as Spa, new Uint8Array(PAGE_SIZE), SECURE_PROCESSOR_SLOT);
  setFirmwarePage(platform.hw.rmp, pfn, 0, 'Context');
  return SevRet.SEV_RET_SUCCESS;
}
