// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpShutdownEx } from '../../abi/snp-commands.ts';
import { setFirmwarePage } from '../page-state.ts';
import type { Platform } from '../platform.ts';

/**
 * Ends SNP; every guest context is lost. [SNP-ABI] SNP_SHUTDOWN
 *
 * Returns  SEV_RET_DFFLUSH_REQUIRED while data of guests may be in flight; done at once when SNP is not up
 */
export function snpShutdown(platform: Platform): SevStatus {
  if (platform.state === 'UNINIT') {
    return SevRet.SEV_RET_SUCCESS;
  }
  if (!platform.fabricFlushed) {
    return SevRet.SEV_RET_DFFLUSH_REQUIRED;
  }
  for (const guest of platform.contexts.values()) {
    if (guest.asid !== 0) {
      platform.hw.memory.setKey(guest.asid, null);
    }
    setFirmwarePage(platform.hw.rmp, guest.pfn, 0, 'Firmware');
  }
  platform.contexts.clear();
  platform.asidOwners.clear();
  platform.maskChipId = false;
  platform.maskChipKey = false;
  platform.raplDisabled = platform.chip.raplDisabled;
  platform.ciphertextHiding = false;
  platform.maxSnpAsid = platform.chip.maxAsid;
  platform.vlek = null;
  platform.setReportedTcb(platform.committedTcb);
  return SevRet.SEV_RET_SUCCESS;
}

/**
 * Ends SNP with options. [SNP-ABI] SNP_SHUTDOWN_EX
 *
 * Returns  as snpShutdown; SEV_RET_INVALID_PARAM for X86_SNP_SHUTDOWN, which FEATURE_INFO does not offer
 * Differs  there is no IOMMU: IOMMU_SNP_SHUTDOWN is accepted and changes nothing (docs/limitations.md#iommu)
 */
export function snpShutdownEx(platform: Platform, bufferAt: bigint): SevStatus {
  const options = platform.readBuffer(bufferAt, SevDataSnpShutdownEx);
  if (typeof options === 'number') {
    return options;
  }
  if (options.length !== SevDataSnpShutdownEx.size || options.flags.x86_snp_shutdown === 1) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  return snpShutdown(platform);
}
