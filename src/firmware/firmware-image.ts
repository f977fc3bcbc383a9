// SPDX-License-Identifier: Apache-2.0
import {
  FIRMWARE_IMAGE_DIGESTED_SIZE,
  FIRMWARE_IMAGE_FORMAT,
  FIRMWARE_IMAGE_MAGIC,
  FirmwareImage,
} from '../abi/firmware-image.ts';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { encodeTcb, type TcbParts } from '../abi/tcb-version.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import type { FirmwareVersion } from './chip.ts';

export interface FirmwareImageContents {
  readonly product: ProductLine;
  readonly tcb: TcbParts;
  readonly version: FirmwareVersion;
  /** Mitigations the firmware has. */
  readonly mitVector?: bigint;
  /** The image cannot be applied while SNP is up. */
  readonly shutdownRequired?: boolean;
  /** The image installs and then does not run. */
  readonly restoreRequired?: boolean;
}

/** An image for SNP_DOWNLOAD_FIRMWARE_EX, with its digest. */
export function buildFirmwareImage(crypto: MachineCrypto, contents: FirmwareImageContents): Uint8Array {
  const image = FirmwareImage.encode({
    magic: FIRMWARE_IMAGE_MAGIC,
    format: FIRMWARE_IMAGE_FORMAT,
    product: PRODUCT_LINES.indexOf(contents.product),
    tcb_version: encodeTcb(contents.tcb, contents.product),
    ...contents.version,
    flags: {
      shutdown_required: Number(contents.shutdownRequired ?? false),
      restore_required: Number(contents.restoreRequired ?? false),
    },
    mit_vector: contents.mitVector ?? 0n,
  });
  FirmwareImage.set(image, 'digest', crypto.sha384(image.subarray(0, FIRMWARE_IMAGE_DIGESTED_SIZE)));
  return image;
}
