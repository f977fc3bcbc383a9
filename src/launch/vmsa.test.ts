// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Vmsa } from '../abi/vmsa.ts';
import { BSP_EIP, buildSvsmVmsa, buildVmsa, VMM_TYPES, type VmmType, vmmTypeOf } from './vmsa.ts';

const sha384 = (data: Uint8Array): string => createHash('sha384').update(data).digest('hex');
const AP_EIP = 0x0080_b004;
const NAPLES = 0x0080_0f12;

describe('VMSA pages', () => {
  it.each<[VmmType, number, number, string]>([
    [
      'QEMU',
      BSP_EIP,
      NAPLES,
      '77920c4c629ff47e90c0e174fc1ad0eb6fa664f88cd4739488058a8c6cb1a77b3856f55378e9518d0da99452d51c553a',
    ],
    [
      'QEMU',
      AP_EIP,
      NAPLES,
      '8413b852790765a310d95867a8b00bfca3a802b5a80830044b45e253fe96222657e11e53fcf63eb0e0afd722385bf7b4',
    ],
    [
      'ec2',
      BSP_EIP,
      NAPLES,
      'd08442e8bcdb6a5dcd7f22e4f7fd6979beffb9f0bb54a9d1977407fe84f482abf23c1baae6ce95a6a9e7a94c3c51f412',
    ],
    [
      'ec2',
      AP_EIP,
      0,
      'acff2d22db95b8eb82272d844aa2ad1f8f84218ccbab003697acade12228a6e901256e160d41713c22fed92e0a1ed0e1',
    ],
    [
      'gce',
      BSP_EIP,
      0,
      'f9e03177dad7f4819ee193af7cfb70507d8a923ab513412e908bc73460a9dfdaa54215d58952816118ffb2ec281e7fd2',
    ],
  ])('of %s at 0x%x has the published SHA-384', (vmmType, eip, cpuSig, digest) => {
    const page = buildVmsa({ eip, cpuSig, sevFeatures: 1n, vmmType });
    expect(page).toHaveLength(4096);
    expect(sha384(page)).toBe(digest);
  });

  it('of an SVSM has the published SHA-384', () => {
    expect(sha384(buildSvsmVmsa(0xff00_0000, NAPLES))).toBe(
      'f80dbf7128bc06ce941986f88322daa0997def7e2a5069aae6ad327df59c4bc3704f4140984c505667d0f8d0d86ef0fb',
    );
  });

  it('split EIP into CS.base and RIP, and carry the CPU signature in RDX for QEMU alone', () => {
    for (const vmmType of VMM_TYPES) {
      const vmsa = Vmsa.decodeLoose(buildVmsa({ eip: AP_EIP, cpuSig: NAPLES, sevFeatures: 0x21n, vmmType }));
      expect(vmsa.cs.base).toBe(0x80_0000n);
      expect(vmsa.rip).toBe(0xb004n);
      expect(vmsa.sev_features).toBe(0x21n);
      expect(vmsa.rdx === BigInt(NAPLES)).toBe(vmmType.startsWith('QEMU'));
    }
  });

  it('of EC2 and krun differ in the accessed bit of CS of application processors', () => {
    const cs = (vmmType: VmmType, eip: number): number =>
      Vmsa.decodeLoose(buildVmsa({ eip, cpuSig: 0, sevFeatures: 1n, vmmType })).cs.attrib;
    expect([cs('ec2', BSP_EIP), cs('ec2', AP_EIP)]).toEqual([0x9a, 0x9b]);
    expect([cs('krun', BSP_EIP), cs('krun', AP_EIP)]).toEqual([0x9a, 0x9a]);
  });

  it('refuse features of more than 64 bits', () => {
    expect(() => buildVmsa({ eip: BSP_EIP, cpuSig: 0, sevFeatures: 1n << 64n, vmmType: 'QEMU' })).toThrow(
      expect.objectContaining({ code: 'LAYOUT_VALUE_OUT_OF_RANGE' }),
    );
  });
});

describe('VMM type names', () => {
  it('are taken in any case, as virtee does', () => {
    expect(vmmTypeOf('qemu')).toBe('QEMU');
    expect(vmmTypeOf('KRUN')).toBe('krun');
  });

  it('that nobody uses are refused with the list of those that are', () => {
    expect(() => vmmTypeOf('vmware')).toThrow(/none of QEMU, ec2, gce, krun/);
  });
});
