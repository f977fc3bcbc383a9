// SPDX-License-Identifier: Apache-2.0
/** The processors of usual chips. */
import { PRODUCT_LINES, type ProductLine } from '../../src/abi/product.ts';
import { defaultChip } from '../../src/firmware/chip.ts';
import { type Processor, processorOf } from '../../src/machine/processor.ts';
import { nodeCrypto } from '../../src/os/node-crypto.ts';

const crypto = nodeCrypto({ deterministic: false });

export const isProduct = (name: string): name is ProductLine =>
  (PRODUCT_LINES as readonly string[]).includes(name);

export const PROCESSORS = Object.fromEntries(
  PRODUCT_LINES.map((product) => [product, processorOf(defaultChip(crypto, product, new Uint8Array(48)))]),
) as Record<ProductLine, Processor>;
