// SPDX-License-Identifier: Apache-2.0

import {
  FIRMWARE_IMAGE_DIGESTED_SIZE,
  FIRMWARE_IMAGE_FORMAT,
  FIRMWARE_IMAGE_MAGIC,
  FirmwareImage,
} from '../../abi/firmware-image.ts';
import { PRODUCT_LINES } from '../../abi/product.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataDownloadFirmware, SevDataSnpDownloadFirmwareEx } from '../../abi/snp-commands.ts';
import { decodeTcb, tcbAtMost, tcbReservedIsZero } from '../../abi/tcb-version.ts';
import { equalBytes } from '../../lib/bytes.ts';
import type { FirmwareVersion } from '../chip.ts';
import { isAligned } from '../page-state.ts';
import type { Platform } from '../platform.ts';

/**
 * Updates the firmware while guests run. [SNP-ABI] SNP_DOWNLOAD_FIRMWARE_EX
 *
 * Returns  SEV_RET_INVALID_PLATFORM_STATE while legacy SEV is up; SEV_RET_BAD_SIGNATURE, SEV_RET_BAD_VERSION,
 *          SEV_RET_BAD_SVN and SEV_RET_SHUTDOWN_REQUIRED leave everything as it was; SEV_RET_RESTORE_REQUIRED: the
 *          image is installed and does not run
 * Differs  the image is softsnp's own and may change every TCB component (docs/limitations.md#firmware-images)
 */
export function snpDownloadFirmwareEx(platform: Platform, bufferAt: bigint): SevStatus {
  if (platform.legacyState !== 'UNINIT') {
    return SevRet.SEV_RET_INVALID_PLATFORM_STATE;
  }
  const buffer = platform.readBuffer(bufferAt, SevDataSnpDownloadFirmwareEx);
  if (typeof buffer === 'number') {
    return buffer;
  }
  if (buffer.length !== SevDataSnpDownloadFirmwareEx.size) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const status = install(platform, buffer.fw_paddr, buffer.fw_len);
  if (status === SevRet.SEV_RET_SUCCESS && buffer.flags.commit === 1) {
    platform.commit();
  }
  return status;
}

/** Updates the firmware before any use of it. Legacy DOWNLOAD_FIRMWARE */
export function downloadFirmware(platform: Platform, bufferAt: bigint): SevStatus {
  if (platform.state !== 'UNINIT') {
    return SevRet.SEV_RET_INVALID_PLATFORM_STATE;
  }
  const buffer = platform.readBuffer(bufferAt, SevDataDownloadFirmware);
  if (typeof buffer === 'number') {
    return buffer;
  }
  return isAligned(buffer.address, 32)
    ? install(platform, buffer.address, buffer.len)
    : SevRet.SEV_RET_INVALID_ADDRESS;
}

function install(platform: Platform, at: bigint, length: number): SevStatus {
  if (length !== FirmwareImage.size) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const bytes = platform.readBytes(at, length);
  if (bytes === null) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const image = FirmwareImage.tryDecode(bytes);
  const { product } = platform.chip;
  if (
    image === null ||
    !equalBytes(image.magic, FIRMWARE_IMAGE_MAGIC) ||
    !equalBytes(platform.crypto.sha384(bytes.subarray(0, FIRMWARE_IMAGE_DIGESTED_SIZE)), image.digest)
  ) {
    return SevRet.SEV_RET_BAD_SIGNATURE;
  }
  const version = { major: image.major, minor: image.minor, build: image.build };
  if (
    image.format !== FIRMWARE_IMAGE_FORMAT ||
    PRODUCT_LINES[image.product] !== product ||
    !tcbReservedIsZero(image.tcb_version, product) ||
    isOlder(version, platform.committedVersion)
  ) {
    return SevRet.SEV_RET_BAD_VERSION;
  }
  const tcb = decodeTcb(image.tcb_version, product);
  if (!tcbAtMost(platform.committedTcb, tcb, product)) {
    return SevRet.SEV_RET_BAD_SVN;
  }
  if (image.flags.shutdown_required === 1 && platform.state === 'INIT') {
    return SevRet.SEV_RET_SHUTDOWN_REQUIRED;
  }
  if (image.flags.restore_required === 1) {
    platform.restoreRequired = true;
    return SevRet.SEV_RET_RESTORE_REQUIRED;
  }
  platform.restoreRequired = false;
  platform.firmwareVersion = version;
  platform.mitigationsSupported = image.mit_vector;
  platform.mitigationsVerified &= image.mit_vector;
  platform.setCurrentTcb(tcb);
  return SevRet.SEV_RET_SUCCESS;
}

function isOlder(a: FirmwareVersion, b: FirmwareVersion): boolean {
  return (a.major - b.major || a.minor - b.minor || a.build - b.build) < 0;
}
