// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpPlatformStatus, SevUserDataSnpStatus, SnpPlatformState } from '../../abi/snp-commands.ts';
import type { Platform } from '../platform.ts';

/** Versions, state and settings of the platform. [SNP-ABI] SNP_PLATFORM_STATUS */
export function snpPlatformStatus(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpPlatformStatus);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const refused = platform.checkOutput(buffer.status_paddr, SevUserDataSnpStatus.size);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  const { chip, firmwareVersion } = platform;
  platform.deliver(
    buffer.status_paddr,
    SevUserDataSnpStatus.encode({
      api_major: firmwareVersion.major,
      api_minor: firmwareVersion.minor,
      state: SnpPlatformState[platform.state],
      rmp: {
        is_rmp_init: Number(platform.rmpInitialized),
        alias_check_complete: Number(chip.aliasCheckComplete),
        is_tio_en: 0,
      },
      build_id: firmwareVersion.build,
      features: {
        mask_chip_id: Number(platform.maskChipId),
        mask_chip_key: Number(platform.maskChipKey),
        vlek_en: Number(platform.vlek !== null),
        feature_info: 1,
        rapl_dis: Number(platform.raplDisabled),
        ciphertext_hiding_dram_cap: Number(chip.ciphertextHidingCapable),
        ciphertext_hiding_dram_en: Number(platform.ciphertextHiding),
      },
      guest_count: platform.contexts.size,
      current_tcb: platform.currentTcbWord,
      reported_tcb: platform.reportedTcbWord,
    }),
  );
  return SevRet.SEV_RET_SUCCESS;
}
