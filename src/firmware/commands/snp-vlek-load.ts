// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpVlekLoad, WrappedVlekHashstick } from '../../abi/snp-commands.ts';
import { encodeTcb } from '../../abi/tcb-version.ts';
import { chipWrappingKey, unwrapHashstick } from '../../keys/index.ts';
import type { Platform } from '../platform.ts';

/**
 * Loads a cloud provider's hash stick, wrapped for this chip and its reported TCB. [SNP-ABI] SNP_VLEK_LOAD
 *
 * Returns  SEV_RET_INVALID_PARAM for reserved bytes or a stick of another TCB; SEV_RET_BAD_MEASUREMENT when it
 *          does not authenticate under the chip's key
 * Differs  the failure codes are not published (docs/limitations.md#status-codes)
 */
export function snpVlekLoad(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpVlekLoad);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (buffer.length !== SevDataSnpVlekLoad.size || buffer.vlek_wrapped_version !== 0) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const wrapped = platform.readBytes(buffer.vlek_wrapped_paddr, WrappedVlekHashstick.size);
  if (wrapped === null) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  if (WrappedVlekHashstick.tryDecode(wrapped) === null) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const { crypto, chip } = platform;
  const stick = unwrapHashstick(crypto, chipWrappingKey(crypto, chip.secret), chip.product, wrapped);
  if (stick === null) {
    return SevRet.SEV_RET_BAD_MEASUREMENT;
  }
  if (encodeTcb(stick.tcb, chip.product) !== platform.reportedTcbWord) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  platform.loadVlek({ stick, wrapped });
  return SevRet.SEV_RET_SUCCESS;
}
