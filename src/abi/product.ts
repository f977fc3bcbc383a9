// SPDX-License-Identifier: Apache-2.0
/** Product lines: which CPUID means which line at the key service. [KDS] "Product Names". */

/** The names are those of KDS URLs and of the ARK and ASK subjects; they are case-sensitive. */
export type ProductLine = 'Milan' | 'Genoa' | 'Turin';

export const PRODUCT_LINES: readonly ProductLine[] = Object.freeze(['Milan', 'Genoa', 'Turin']);

export interface ProductRow {
  readonly family: number;
  /** Models from..to, both included. */
  readonly models: readonly [from: number, to: number];
  readonly silicon: string;
  readonly product: ProductLine;
}

/** Source   [KDS] product mapping; model 0xAF is included although two verifiers leave it out */
export const PRODUCTS: readonly ProductRow[] = Object.freeze([
  { family: 0x19, models: [0x00, 0x0f], silicon: 'Milan, Milan-X', product: 'Milan' },
  { family: 0x19, models: [0x10, 0x1f], silicon: 'Genoa, Genoa-X', product: 'Genoa' },
  { family: 0x19, models: [0xa0, 0xaf], silicon: 'Bergamo, Siena', product: 'Genoa' },
  { family: 0x1a, models: [0x00, 0x11], silicon: 'Turin, Turin dense', product: 'Turin' },
]);

/**
 * The product line of a CPU.
 *
 * Shape    family = base + extended, model = extended * 16 + base, as in report bytes 0x188 and 0x189
 * Returns  null for a CPU without a known line
 */
export function productOfCpuid(family: number, model: number): ProductLine | null {
  const row = PRODUCTS.find((p) => p.family === family && model >= p.models[0] && model <= p.models[1]);
  return row?.product ?? null;
}

/**
 * CPUID Fn0000_0001_EAX of a family, model and stepping.
 *
 * Source   [APM2] CPUID Fn0000_0001_EAX; 0x19, 0x01, 1 gives 0x00A00F11
 */
export function cpuidFms(family: number, model: number, stepping: number): number {
  const base = Math.min(family, 0xf);
  const extended = family > 0xf ? (family - 0xf) & 0xff : 0;
  return (
    ((extended << 20) |
      (((model >> 4) & 0xf) << 16) |
      (base << 8) |
      ((model & 0xf) << 4) |
      (stepping & 0xf)) >>>
    0
  );
}

/** Family, model and stepping of a CPUID Fn0000_0001_EAX value. */
export function fromCpuidFms(fms: number): { family: number; model: number; stepping: number } {
  const base = (fms >>> 8) & 0xf;
  return {
    family: base === 0xf ? base + ((fms >>> 20) & 0xff) : base,
    model: (((fms >>> 16) & 0xf) << 4) | ((fms >>> 4) & 0xf),
    stepping: fms & 0xf,
  };
}
