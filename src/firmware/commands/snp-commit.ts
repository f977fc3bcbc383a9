// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpCommit } from '../../abi/snp-commands.ts';
import type { Platform } from '../platform.ts';

/** Makes the running firmware the one there is no way back from. [SNP-ABI] SNP_COMMIT */
export function snpCommit(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpCommit);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (buffer.length !== SevDataSnpCommit.size) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  platform.commit();
  return SevRet.SEV_RET_SUCCESS;
}
