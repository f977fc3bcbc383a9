// SPDX-License-Identifier: Apache-2.0
/**
 * TCB_VERSION: one byte per component, its place depending on the product line.
 * [SNP-ABI] "TCB Version"; [KDS] "TCB Version" for Turin.
 *
 * A TCB is never compared as an integer: the microcode byte would dominate.
 */
import { InputError } from '../lib/errors.ts';
import { type DecodedOf, layout, u8 } from '../lib/struct.ts';
import type { ProductLine } from './product.ts';

/** TCB_VERSION of Milan and Genoa. */
export const TcbVersionMilan = layout(
  'TcbVersionMilan',
  8,
  { spec: 'SNP-ABI', at: 'TCB_VERSION' },
  {
    boot_loader: [0, u8],
    tee: [1, u8],
    snp: [6, u8],
    microcode: [7, u8],
  },
);
export type TcbVersionMilan = DecodedOf<typeof TcbVersionMilan>;

/** TCB_VERSION of Turin: FMC comes first and moves the others. */
export const TcbVersionTurin = layout(
  'TcbVersionTurin',
  8,
  { spec: 'SNP-ABI', at: 'TCB_VERSION, family 1Ah' },
  {
    fmc: [0, u8],
    boot_loader: [1, u8],
    tee: [2, u8],
    snp: [3, u8],
    microcode: [7, u8],
  },
);
export type TcbVersionTurin = DecodedOf<typeof TcbVersionTurin>;

/** The components of a TCB; `fmc` is 0 and without meaning on Milan and Genoa. */
export interface TcbParts {
  readonly fmc: number;
  readonly boot_loader: number;
  readonly tee: number;
  readonly snp: number;
  readonly microcode: number;
}

export type TcbComponent = keyof TcbParts;

const COMPONENTS_MILAN: readonly TcbComponent[] = ['boot_loader', 'tee', 'snp', 'microcode'];
const COMPONENTS_TURIN: readonly TcbComponent[] = ['fmc', ...COMPONENTS_MILAN];

/** The components a product has, in the order of `--tcb` and of KDS queries. */
export function tcbComponents(product: ProductLine): readonly TcbComponent[] {
  return product === 'Turin' ? COMPONENTS_TURIN : COMPONENTS_MILAN;
}

const byteOf = (low: number, high: number, index: number): number =>
  ((index < 4 ? low : high) >>> (8 * (index & 3))) & 0xff;

/** The components of a TCB word; reserved bytes are not looked at. */
export function decodeTcb(word: bigint, product: ProductLine): TcbParts {
  const fields = product === 'Turin' ? TcbVersionTurin.fields : TcbVersionMilan.fields;
  const low = Number(BigInt.asUintN(32, word));
  const high = Number(BigInt.asUintN(32, word >> 32n));
  return {
    fmc: product === 'Turin' ? byteOf(low, high, TcbVersionTurin.fields.fmc[0]) : 0,
    boot_loader: byteOf(low, high, fields.boot_loader[0]),
    tee: byteOf(low, high, fields.tee[0]),
    snp: byteOf(low, high, fields.snp[0]),
    microcode: byteOf(low, high, fields.microcode[0]),
  };
}

/**
 * The TCB word of components; `fmc` is left out on Milan and Genoa.
 *
 * Errors   LAYOUT_VALUE_OUT_OF_RANGE for a component that is no byte
 */
export function encodeTcb(parts: TcbParts, product: ProductLine): bigint {
  const bytes = product === 'Turin' ? TcbVersionTurin.encode(parts) : TcbVersionMilan.encode(parts);
  return bytes.reduceRight((word, byte) => (word << 8n) | BigInt(byte), 0n);
}

/** Whether the bytes between the components are zero, as a configuration must leave them. */
export function tcbReservedIsZero(word: bigint, product: ProductLine): boolean {
  return encodeTcb(decodeTcb(word, product), product) === BigInt.asUintN(64, word);
}

/** Whether every component of `a` is at most that of `b`; incomparable TCBs are not. */
export function tcbAtMost(a: TcbParts, b: TcbParts, product: ProductLine): boolean {
  return tcbComponents(product).every((component) => a[component] <= b[component]);
}

/**
 * The components of a text such as "3,0,23,213".
 *
 * Shape    boot_loader,tee,snp,microcode; on Turin five numbers, fmc first; decimal
 * Errors   OPTION_INVALID for another count or a number outside 0-255
 */
export function parseTcbText(text: string, product: ProductLine): TcbParts {
  const components = tcbComponents(product);
  const items = text.split(',').map((item) => item.trim());
  const bad = items.find((item) => !/^\d{1,3}$/.test(item) || Number(item) > 255);
  if (items.length !== components.length || bad !== undefined) {
    throw new InputError(
      'OPTION_INVALID',
      `${JSON.stringify(text.slice(0, 80))} is not ${components.length} numbers 0-255 (${components.join(',')})`,
      { where: 'tcb' },
    );
  }
  const parts = { fmc: 0, boot_loader: 0, tee: 0, snp: 0, microcode: 0 };
  components.forEach((component, i) => {
    parts[component] = Number(items[i]);
  });
  return parts;
}

/** The text `parseTcbText` reads. */
export function formatTcb(parts: TcbParts, product: ProductLine): string {
  return tcbComponents(product)
    .map((component) => parts[component])
    .join(',');
}

/** Parameters of the key service's URLs. [KDS] "VCEK Certificate Request". */
export const SPL_PARAMETERS: Readonly<Record<TcbComponent, string>> = Object.freeze({
  fmc: 'fmcSPL',
  boot_loader: 'blSPL',
  tee: 'teeSPL',
  snp: 'snpSPL',
  microcode: 'ucodeSPL',
});

/** The query by which the key service is asked for a certificate of a TCB: blSPL=04&teeSPL=00&... */
export function splQuery(parts: TcbParts, product: ProductLine): string {
  return tcbComponents(product)
    .map((component) => `${SPL_PARAMETERS[component]}=${String(parts[component]).padStart(2, '0')}`)
    .join('&');
}
