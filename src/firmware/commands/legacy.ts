// SPDX-License-Identifier: Apache-2.0
/** The legacy SEV commands a host still gives a chip whose guests are all SNP. [LINUX] drivers/crypto/ccp */
import {
  SEV_STATUS_FLAGS_CONFIG_ES,
  SEV_STATUS_FLAGS_OWNED,
  SevPlatformState,
  SevUserDataStatus,
} from '../../abi/dev-sev.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataGetId, SevDataInit } from '../../abi/snp-commands.ts';
import { PAGES_PER_2M, pfnOf, type Spa } from '../../lib/addresses.ts';
import { concat } from '../../lib/bytes.ts';
import { isAligned, pageStateOf } from '../page-state.ts';
import type { Platform } from '../platform.ts';

const TMR_SIZE_WITH_SNP = 2 * 1024 * 1024;

/**
 * Brings legacy SEV up. Legacy INIT
 *
 * Returns  SEV_RET_INVALID_ADDRESS or SEV_RET_INVALID_PAGE_STATE when, under SNP, the trusted memory region for
 *          SEV-ES is not a 2 MiB range of Firmware pages
 */
export function init(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataInit);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (buffer.flags.sev_es === 1) {
    const refused = checkTrustedRegion(platform, buffer.tmr_address, buffer.tmr_len);
    if (refused !== SevRet.SEV_RET_SUCCESS) {
      return refused;
    }
  }
  platform.legacyEs = buffer.flags.sev_es === 1;
  return SevRet.SEV_RET_SUCCESS;
}

function checkTrustedRegion(platform: Platform, at: bigint, length: number): SevStatus {
  if (!platform.hw.memory.contains(at, length)) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  if (platform.state === 'UNINIT') {
    return SevRet.SEV_RET_SUCCESS;
  }
  if (length !== TMR_SIZE_WITH_SNP) {
    return SevRet.SEV_RET_INVALID_LEN;
  }
  if (!isAligned(at, TMR_SIZE_WITH_SNP)) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const { rmp } = platform.hw;
  const first = pfnOf(at as Spa);
  for (let i = 0; i < PAGES_PER_2M; i++) {
    if (pageStateOf(rmp.lookup((first + i) as typeof first)) !== 'Firmware') {
      return SevRet.SEV_RET_INVALID_PAGE_STATE;
    }
  }
  return SevRet.SEV_RET_SUCCESS;
}

/** Ends legacy SEV, and with it what INIT set. Legacy SHUTDOWN */
export function shutdown(platform: Platform): SevStatus {
  platform.legacyEs = false;
  return SevRet.SEV_RET_SUCCESS;
}

/** Legacy PLATFORM_STATUS: the command buffer is the output. */
export function platformStatus(platform: Platform, bufferAt: bigint): SevStatus {
  const refused = platform.checkOutput(bufferAt, SevUserDataStatus.size);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  const { firmwareVersion, keptSevIdentity } = platform;
  platform.deliver(
    bufferAt,
    SevUserDataStatus.encode({
      api_major: firmwareVersion.major,
      api_minor: firmwareVersion.minor,
      state:
        platform.legacyState === 'INIT' ? SevPlatformState.SEV_STATE_INIT : SevPlatformState.SEV_STATE_UNINIT,
      flags:
        (keptSevIdentity?.owned === true ? SEV_STATUS_FLAGS_OWNED : 0) |
        (platform.legacyEs ? SEV_STATUS_FLAGS_CONFIG_ES : 0),
      build: firmwareVersion.build,
      guest_count: 0,
    }),
  );
  return SevRet.SEV_RET_SUCCESS;
}

/**
 * Legacy GET_ID: the chip ids of all sockets.
 *
 * Returns  SEV_RET_INVALID_LEN with the needed length written back when the buffer is too small
 * Differs  the second socket of a two-socket board is the chip of the first (docs/limitations.md#sockets)
 */
export function getId(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataGetId);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const { chip } = platform;
  const ids = concat(...new Array<Uint8Array>(chip.sockets).fill(chip.chipId));
  const { address, len } = buffer;
  return platform.answerSized(bufferAt, SevDataGetId.encode({ address, len: ids.length }), [
    { address, room: len, bytes: ids },
  ]);
}
