// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { CpuidPage } from '../abi/cpuid-page.ts';
import { cpuidTable } from './cpuid-table.ts';
import { VCPU_TYPES } from './vcpu-types.ts';

const leavesOf = (cpuSig: number, vcpus?: number) => {
  const page = CpuidPage.decode(cpuidTable(cpuSig, vcpus));
  return page.entries.slice(0, page.count);
};
const text = (...words: readonly number[]): string =>
  words
    .flatMap((word) => [0, 8, 16, 24].map((shift) => String.fromCharCode((word >>> shift) & 0xff)))
    .join('')
    .replace(/\0+$/, '');

describe('the CPUID table', () => {
  it.each(Object.entries(VCPU_TYPES))('of %s names the CPU and its signature', (type, cpuSig) => {
    const leaves = leavesOf(cpuSig);
    const leaf = (eax: number, ecx = 0) => leaves.find((l) => l.eax_in === eax && l.ecx_in === ecx)!;
    expect(leaf(1).eax).toBe(cpuSig);
    expect(leaf(0x8000_0001).eax).toBe(cpuSig);
    expect(text(leaf(0).ebx, leaf(0).edx, leaf(0).ecx)).toBe('AuthenticAMD');
    const name = [0x8000_0002, 0x8000_0003, 0x8000_0004].flatMap((n) => {
      const { eax, ebx, ecx, edx } = leaf(n);
      return [eax, ebx, ecx, edx];
    });
    expect(text(...name)).toMatch(/^AMD EPYC(-\w+)? Processor$/);
    expect(text(...name)).toContain(type.replace(/-(v\d|IBPB)$/, ''));
    expect(leaf(0x8000_001f).eax & 0x1a).toBe(0x1a);
    expect(leaf(0x8000_001f).ebx & 0x3f).toBe(51);
  });

  it.each(Object.values(VCPU_TYPES))('of 0x%x lists no leaf twice and none beyond its maximum', (cpuSig) => {
    const leaves = leavesOf(cpuSig);
    expect(leaves.length).toBeLessThanOrEqual(64);
    const keys = leaves.map(({ eax_in, ecx_in }) => `${eax_in}/${ecx_in}`);
    expect(new Set(keys).size).toBe(keys.length);
    for (const base of [0, 0x4000_0000, 0x8000_0000]) {
      const max = leaves.find(({ eax_in }) => eax_in === base)!.eax;
      const above = leaves.filter(({ eax_in }) => eax_in >= base && eax_in < base + 0x1000_0000);
      expect(Math.max(...above.map(({ eax_in }) => eax_in))).toBe(max);
    }
  });

  it('asks leaf 0xD with XCR0 = 1 and gives the legacy XSAVE size, as the firmware wants it', () => {
    for (const { eax_in, ecx_in, xcr0_in, ebx } of leavesOf(VCPU_TYPES['EPYC-Genoa'])) {
      const sized = eax_in === 0xd && ecx_in < 2;
      expect(xcr0_in).toBe(sized ? 1n : 0n);
      expect(!sized || ebx === 0x240).toBe(true);
    }
  });

  it('tells a guest how many vCPUs it has', () => {
    const leaf = (vcpus: number, eax: number, ecx = 0) =>
      leavesOf(VCPU_TYPES['EPYC-Milan'], vcpus).find((l) => l.eax_in === eax && l.ecx_in === ecx)!;
    expect(leaf(1, 1).ebx >>> 16).toBe(1);
    expect(leaf(64, 1).ebx >>> 16).toBe(64);
    expect(leaf(64, 0xb, 1)).toMatchObject({ eax: 6, ebx: 64 });
    expect(leaf(65, 0xb, 1)).toMatchObject({ eax: 7, ebx: 65 });
    expect(leaf(64, 0x8000_0008).ecx).toBe(0x603f);
  });

  it('of a signature nobody names has the leaves of its family', () => {
    for (const cpuSig of [0, 0x0060_0f12, 0x0080_0f82, 0x00a2_0f10, 0x00aa_0f02, 0x00b1_0f10, 0xffff_ffff]) {
      expect(leavesOf(cpuSig, 4096).find(({ eax_in }) => eax_in === 1)!.eax).toBe(cpuSig);
    }
  });
});
