// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpFeatureInfo, SnpFeatureInfoOut } from '../../abi/snp-commands.ts';
import type { Platform } from '../platform.ts';
import { knowsMitigations } from './snp-verify-mitigation.ts';

/**
 * What the firmware offers. [SNP-ABI] SNP_FEATURE_INFO
 *
 * Returns  SEV_RET_INVALID_PARAM for a sub-function other than 0
 */
export function snpFeatureInfo(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpFeatureInfo);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (buffer.length !== SevDataSnpFeatureInfo.size || buffer.ecx_in !== 0) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const refused = platform.checkOutput(buffer.feature_info_paddr, SnpFeatureInfoOut.size);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  const { chip } = platform;
  platform.deliver(
    buffer.feature_info_paddr,
    SnpFeatureInfoOut.encode({
      eax: 0,
      ebx: { sev_legacy: 1, sev_tio: 0 },
      ecx: {
        x86_snp_shutdown: 0,
        rapl_dis: 1,
        ciphertext_hiding_dram: Number(chip.ciphertextHidingCapable),
        mem_aes_256_xts: Number(chip.memAes256Xts),
        cxl_allow: 1,
        verify_mitigation: Number(knowsMitigations(platform)),
      },
    }),
  );
  return SevRet.SEV_RET_SUCCESS;
}
