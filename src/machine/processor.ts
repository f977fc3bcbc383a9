// SPDX-License-Identifier: Apache-2.0
/** The processor of a host, as far as programs ask it who it is. */
import type { ProductLine } from '../abi/product.ts';
import type { ChipConfig } from '../firmware/chip.ts';
import { DEFAULT_CPU, type HostCpu } from '../kvm/asids.ts';

export interface Processor extends HostCpu {
  readonly product: ProductLine;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

/** A processor of the chip's product line whose set-up is the usual one. */
export function processorOf({ product, cpuid, maxAsid }: ChipConfig): Processor {
  return { product, ...cpuid, ...DEFAULT_CPU, maxAsid };
}
