// SPDX-License-Identifier: Apache-2.0
import type { SevStatus } from '../../abi/sev-status.ts';
import type { Platform } from '../platform.ts';

/**
 * Flushes the data fabric, so that ASIDs can be used again. [SNP-ABI] SNP_DF_FLUSH; legacy DF_FLUSH does the same.
 *
 * Returns  SEV_RET_WBINVD_REQUIRED when the caches were not written back since guest memory was last used
 */
export function snpDfFlush(platform: Platform): SevStatus {
  return platform.flushFabric();
}
