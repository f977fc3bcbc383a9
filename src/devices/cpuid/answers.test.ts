// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { PRODUCT_LINES, type ProductLine, productOfCpuid } from '../../abi/product.ts';
import { defaultChip } from '../../firmware/chip.ts';
import { type Processor, processorOf } from '../../machine/processor.ts';
import { nodeCrypto } from '../../os/node-crypto.ts';
import { type Cpuid, emulatedCpuid, type Registers } from './answers.ts';

/** An Intel processor: other vendor, fewer extended leaves, and beyond them a repetition of the last basic one. */
const LAST_BASIC: Registers = { eax: 7, ebx: 7, ecx: 7, edx: 7 };
const INTEL: ReadonlyMap<number, Registers> = new Map([
  [0, { eax: 0x20, ebx: 0x756e_6547, ecx: 0x6c65_746e, edx: 0x4965_6e69 }],
  [1, { eax: 0x806f8, ebx: 0x10_0800, ecx: 0x7ffa_fbff, edx: 0xbfeb_fbff }],
  [7, { eax: 2, ebx: 0xf3bf_fffb, ecx: 0x1bc0_5f7e, edx: 0xffdd_4432 }],
  [0x8000_0000, { eax: 0x8000_0008, ebx: 0, ecx: 0, edx: 0 }],
  [0x8000_0001, { eax: 0, ebx: 0, ecx: 0x121, edx: 0x2c10_0800 }],
  [0x8000_0008, { eax: 0x3934, ebx: 0x200, ecx: 0, edx: 0 }],
]);
const intel: Cpuid = (leaf) => INTEL.get(leaf) ?? LAST_BASIC;

const crypto = nodeCrypto({ deterministic: false });
const processor = (product: ProductLine): Processor =>
  processorOf(defaultChip(crypto, product, new Uint8Array(48)));
const cpuidOf = (product: ProductLine): Cpuid => emulatedCpuid(processor(product), intel);
const text = (...words: readonly number[]): string =>
  Buffer.from(Uint32Array.from(words).buffer).toString('latin1');

describe.each(PRODUCT_LINES)('CPUID of %s on a processor of another vendor', (product) => {
  const cpuid = cpuidOf(product);

  it('says AMD in both places, and a signature of the line in both', () => {
    for (const leaf of [0, 0x8000_0000]) {
      const { ebx, edx, ecx } = cpuid(leaf, 0);
      expect(text(ebx, edx, ecx)).toBe('AuthenticAMD');
    }
    const { eax } = cpuid(1, 0);
    expect(cpuid(0x8000_0001, 0).eax).toBe(eax);
    const family = ((eax >> 8) & 0xf) + ((eax >> 20) & 0xff);
    expect(productOfCpuid(family, ((eax >> 12) & 0xf0) | ((eax >> 4) & 0xf))).toBe(product);
  });

  it('has the name of an EPYC, 48 bytes with a zero at the end', () => {
    const name = [0x8000_0002, 0x8000_0003, 0x8000_0004].flatMap((leaf) => {
      const { eax, ebx, ecx, edx } = cpuid(leaf, 0);
      return [eax, ebx, ecx, edx];
    });
    expect(text(...name)).toMatch(/^AMD EPYC \d{4} \d+-Core Processor *\0$/);
  });

  it('keeps the features and the highest basic leaf of the processor that runs programs', () => {
    expect(cpuid(0, 0).eax).toBe(0x20);
    expect(cpuid(1, 0)).toEqual({ ...intel(1, 0), eax: cpuid(1, 0).eax });
    expect(cpuid(7, 0)).toEqual(intel(7, 0));
    const { ecx, edx } = cpuid(0x8000_0001, 0);
    expect({ ecx, edx }).toEqual({ ecx: 0x121, edx: 0x2c10_0800 });
    expect(cpuid(0x8000_0008, 0)).toEqual(intel(0x8000_0008, 0));
  });

  it('has extended leaves up to 0x80000021, empty where the real processor has none', () => {
    expect(cpuid(0x8000_0000, 0).eax).toBe(0x8000_0021);
    expect(cpuid(0x8000_0021, 0)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
    expect(cpuid(-1, 0)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 });
    expect(cpuid(0x4000_0000, 0)).toEqual(LAST_BASIC);
  });

  it('has memory encryption up to SNP, with the ASIDs of the host', () => {
    const { eax, ebx, ecx, edx } = cpuid(0x8000_001f, 0);
    // SME, SEV, SEV-ES, SEV-SNP, VMPL, SecureTSC.
    expect(eax & 0b1_0011_1011).toBe(0b1_0011_1011);
    expect({ cBit: ebx & 0x3f, reduction: (ebx >> 6) & 0x3f, vmpls: (ebx >> 12) & 0xf }).toEqual({
      cBit: 51,
      reduction: 5,
      vmpls: 4,
    });
    expect([ecx, edx]).toEqual([processor(product).maxAsid, processor(product).minSevAsid]);
  });
});

describe('CPUID', () => {
  it('tells Milan as processors of that line do', () => {
    expect(cpuidOf('Milan')(0x8000_001f, 0)).toEqual({ eax: 0x0101_fd3f, ebx: 0x4173, ecx: 509, edx: 100 });
    expect(cpuidOf('Milan')(0x8000_0001, 0)).toMatchObject({ eax: 0x00a0_0f11, ebx: 0x4000_0000 });
  });

  it('keeps the extended leaves of a processor that has more', () => {
    const newer: Cpuid = (leaf) => ({ ...LAST_BASIC, ...(leaf === 0x8000_0000 ? { eax: 0x8000_0028 } : {}) });
    const cpuid = emulatedCpuid(processor('Genoa'), newer);
    expect(cpuid(0x8000_0000, 0).eax).toBe(0x8000_0028);
    expect(cpuid(0x8000_0026, 0)).toEqual(LAST_BASIC);
  });
});
