// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PageType } from '../abi/page-info.ts';
import { Vmsa } from '../abi/vmsa.ts';
import { utf8, writeU16, writeU32 } from '../lib/bytes.ts';
import { defaultImage } from './default-image.ts';
import { kernelHashes } from './kernel-hashes.ts';
import { sevEsLaunchParts, sevLaunchParts } from './legacy.ts';
import { parseOvmf } from './ovmf.ts';
import { type LaunchOptions, planLaunch, planSvsmLaunch } from './plan.ts';
import { cpuSigOf, VCPU_TYPES } from './vcpu-types.ts';
import { VMM_TYPES } from './vmsa.ts';

const sha256 = (data: Uint8Array): Uint8Array => createHash('sha256').update(data).digest();
const IMAGE = parseOvmf(defaultImage());
const METADATA = IMAGE.bytes.length - 4096;
const HASHES = kernelHashes(sha256, { kernel: utf8('kernel') });
const MILAN = VCPU_TYPES['EPYC-Milan'];
const OPTIONS: LaunchOptions = { ovmf: IMAGE, vcpus: 1, cpuSig: MILAN };

const changed = (change: (b: Uint8Array) => void): Uint8Array => {
  const bytes = defaultImage();
  change(bytes);
  return bytes;
};
/** Changes word `word` (0 gpa, 1 size, 2 type) of metadata descriptor `i`. */
const section = (i: number, word: number, value: number): Uint8Array =>
  changed((b) => writeU32(b, METADATA + 16 + 12 * i + 4 * word, value));
const refusal = (code: string): unknown => expect.objectContaining({ code });

describe('the plan of a launch', () => {
  it('puts the image first, then the sections in their order', () => {
    const { regions, secretsGpa, cpuidGpa, ovmfGpa } = planLaunch(OPTIONS);
    expect(regions.map(({ gpa, sizeBytes, type, what }) => [Number(gpa), sizeBytes, type, what])).toEqual([
      [0xffff_0000, 0x10000, PageType.NORMAL, 'OVMF'],
      [0x80_0000, 0x9000, PageType.ZERO, 'SNP_SEC_MEM'],
      [0x80_a000, 0x3000, PageType.ZERO, 'SNP_SEC_MEM'],
      [0x80_d000, 0x1000, PageType.SECRETS, 'SNP_SECRETS'],
      [0x80_e000, 0x1000, PageType.CPUID, 'CPUID'],
      [0x80_f000, 0x1000, PageType.ZERO, 'SVSM_CAA'],
      [0x81_0000, 0x1000, PageType.ZERO, 'SNP_KERNEL_HASHES'],
      [0x81_1000, 0xf000, PageType.ZERO, 'SNP_SEC_MEM'],
    ]);
    expect([ovmfGpa, secretsGpa, cpuidGpa]).toEqual([0xffff_0000n, 0x80_d000n, 0x80_e000n]);
  });

  it('cuts its regions into pages without copying them', () => {
    const { pages, regions } = planLaunch(OPTIONS);
    expect(pages).toHaveLength(regions.reduce((sum, { sizeBytes }) => sum + sizeBytes / 4096, 0));
    expect(pages[3]!.gpa).toBe(0xffff_3000n);
    expect(pages[3]!.data!.buffer).toBe(IMAGE.bytes.buffer);
    expect(pages[3]!.data).toHaveLength(4096);
  });

  it('launches the CPUID page last on EC2, and leaves SEC_MEM unmeasured on GCE', () => {
    for (const vmmType of ['ec2', 'ec2-virtee'] as const) {
      const { regions } = planLaunch({ ...OPTIONS, vmmType });
      expect(regions.map(({ what }) => what).indexOf('CPUID')).toBe(regions.length - 1);
    }
    const gce = planLaunch({ ...OPTIONS, vmmType: 'gce' }).regions;
    expect(gce.filter(({ what }) => what === 'SNP_SEC_MEM').map(({ type }) => type)).toEqual(
      Array(3).fill(PageType.UNMEASURED),
    );
    expect(gce.find(({ what }) => what === 'SVSM_CAA')!.type).toBe(PageType.ZERO);
  });

  it('puts the kernel hashes where the footer table says', () => {
    const { regions } = planLaunch({ ...OPTIONS, kernelHashes: HASHES });
    const region = regions.find(({ what }) => what === 'kernel hashes')!;
    expect([region.type, region.gpa]).toEqual([PageType.NORMAL, 0x81_0000n]);
    expect(region.data!.slice(0xc00, 0xc00 + 176)).toEqual(HASHES);
  });

  it('has one VMSA per vCPU, the first of its own', () => {
    const { vmsas, vmsaRegs } = planLaunch({ ...OPTIONS, vcpus: 64 });
    expect(vmsas).toHaveLength(64);
    expect(vmsas[0]).not.toEqual(vmsas[1]);
    expect(vmsas.slice(1).every((page) => page === vmsas[1])).toBe(true);
    expect(vmsaRegs).toEqual({
      bspEip: 0xffff_fff0,
      apEip: 0x80_b004,
      cpuSig: MILAN,
      sevFeatures: 1n,
      vmmType: 'QEMU',
    });
  });

  it('is different for every VMM', () => {
    const first = VMM_TYPES.map((vmmType) => planLaunch({ ...OPTIONS, vmmType }).vmsas[0]!.join());
    expect(new Set(first).size).toBe(VMM_TYPES.length - 1); // krun and ec2-virtee share the first vCPU
  });

  it('takes one vCPU, but not two, where the reset block holds 0', () => {
    const at = IMAGE.bytes.length - 50 - 22;
    const ovmf = parseOvmf(changed((b) => writeU32(b, at, 0)));
    expect(planLaunch({ ...OPTIONS, ovmf }).vmsaRegs.apEip).toBe(0);
    expect(() => planLaunch({ ...OPTIONS, ovmf, vcpus: 2 })).toThrow(refusal('OVMF_RESET_BLOCK_MISSING'));
  });

  it.each<[string, string, Partial<LaunchOptions>]>([
    ['no vCPU', 'OPTION_INVALID', { vcpus: 0 }],
    ['half a vCPU', 'OPTION_INVALID', { vcpus: 1.5 }],
    ['more vCPUs than KVM has', 'OPTION_INVALID', { vcpus: 4097 }],
    ['an empty image', 'OVMF_SIZE_UNALIGNED', { ovmf: parseOvmf(new Uint8Array(0)) }],
    ['an image that is not whole pages', 'OVMF_SIZE_UNALIGNED', { ovmf: parseOvmf(IMAGE.bytes.subarray(1)) }],
    ['an image without a footer', 'OVMF_RESET_BLOCK_MISSING', { ovmf: parseOvmf(new Uint8Array(4096)) }],
    [
      'an image without SEV metadata',
      'OVMF_METADATA_MISSING',
      { ovmf: parseOvmf(changed((b) => writeU16(b, b.length - 50, 18 + 22 + 26 + 26))) },
    ],
    ['a section of an unknown type', 'OVMF_SECTION_UNKNOWN', { ovmf: parseOvmf(section(2, 2, 5)) }],
    ['a table of no kernel hashes', 'OPTION_INVALID', { kernelHashes: new Uint8Array(175) }],
    ['another VMM', 'OPTION_INVALID', { vmmType: 'vmware' as never }],
    ['a section at no page', 'OVMF_SECTION_UNALIGNED', { ovmf: parseOvmf(section(0, 0, 0x80_0001)) }],
    ['a section of half a page', 'OVMF_SECTION_UNALIGNED', { ovmf: parseOvmf(section(0, 1, 0x800)) }],
    [
      'a kernel without a section for its hashes',
      'OVMF_KERNEL_HASHES_UNSUPPORTED',
      { ovmf: parseOvmf(section(5, 2, 1)), kernelHashes: HASHES },
    ],
    [
      'a kernel without a hash table block',
      'OVMF_KERNEL_HASHES_UNSUPPORTED',
      { ovmf: parseOvmf(changed((b) => writeU32(b, b.length - 50 - 22 - 26 - 26, 0))), kernelHashes: HASHES },
    ],
    [
      'kernel hashes of two pages',
      'OVMF_HASH_TABLE_INVALID',
      { ovmf: parseOvmf(section(5, 1, 0x2000)), kernelHashes: HASHES },
    ],
    [
      'kernel hashes over the end of a page',
      'OVMF_HASH_TABLE_INVALID',
      {
        ovmf: parseOvmf(changed((b) => writeU32(b, b.length - 50 - 22 - 26 - 26, 0x81_0fff))),
        kernelHashes: HASHES,
      },
    ],
  ])('with %s is refused as %s', (_, code, options) => {
    expect(() => planLaunch({ ...OPTIONS, ...options })).toThrow(refusal(code));
  });
});

describe('the parts of a launch without SNP', () => {
  const CPU = { vcpus: 2, cpuSig: MILAN };

  it('do not mind a section of a later build', () => {
    const ovmf = parseOvmf(section(2, 2, 5), 'later.fd');
    expect(ovmf.sectionsFault).toBe('SEV metadata descriptor 2 has the unknown type 5');
    expect(sevLaunchParts({ ovmf })).toHaveLength(1);
    expect(sevEsLaunchParts({ ovmf, ...CPU })).toHaveLength(3);
    expect(() => planLaunch({ ovmf, ...CPU })).toThrow(/^later\.fd: SEV metadata descriptor 2/);
  });

  it('carry the SEV features of the vCPUs', () => {
    const [, plain] = sevEsLaunchParts({ ovmf: IMAGE, ...CPU });
    const [, other] = sevEsLaunchParts({ ovmf: IMAGE, ...CPU, sevFeatures: 0x20n });
    expect(Vmsa.get(plain!.data, 'sev_features')).toBe(0n);
    expect(Vmsa.get(other!.data, 'sev_features')).toBe(0x20n);
  });

  it('are refused without firmware, and with a table of no kernel hashes', () => {
    expect(() => sevLaunchParts({ ovmf: parseOvmf(new Uint8Array(0), 'empty.fd') })).toThrow(
      /^empty\.fd: the file is empty/,
    );
    expect(() => sevLaunchParts({ ovmf: IMAGE, kernelHashes: new Uint8Array(1) })).toThrow(
      refusal('OPTION_INVALID'),
    );
  });
});

describe('the plan of an SVSM launch', () => {
  const options = { ovmf: IMAGE, svsm: IMAGE, varsSizeBytes: 0x84000, vcpus: 1, cpuSig: MILAN };

  it('wants an SVSM image with an entry point', () => {
    expect(() => planSvsmLaunch(options)).toThrow(refusal('OVMF_SVSM_INFO_MISSING'));
  });

  it.each([0, -4096, 100, 4097, 2 ** 32, Number.NaN])('refuses %d bytes of variables', (varsSizeBytes) => {
    expect(() => planSvsmLaunch({ ...options, varsSizeBytes })).toThrow(refusal('OPTION_INVALID'));
  });
});

describe('vCPU types', () => {
  it('have the signatures QEMU gives them', () => {
    expect(VCPU_TYPES.EPYC).toBe(0x0080_0f12);
    expect(VCPU_TYPES['EPYC-Rome-v3']).toBe(0x0083_0f10);
    expect(VCPU_TYPES['EPYC-Milan-v2']).toBe(0x00a0_0f11);
    expect(VCPU_TYPES['EPYC-Genoa']).toBe(0x00a1_0f10);
    expect(VCPU_TYPES['EPYC-Turin']).toBe(0x00b0_0f00);
    for (const [type, sig] of Object.entries(VCPU_TYPES)) {
      expect(sig).toBe(VCPU_TYPES[type.replace(/-v\d$|-IBPB$/, '') as keyof typeof VCPU_TYPES]);
    }
    expect(Object.keys(VCPU_TYPES)).toEqual(
      expect.arrayContaining(['EPYC-v5', 'EPYC-Rome-v4', 'EPYC-Rome-v5', 'EPYC-Milan-v3', 'EPYC-Genoa-v2']),
    );
    expect(() => cpuSigOf('EPYC-Milan-v9')).toThrow(refusal('VCPU_TYPE_UNKNOWN'));
  });

  it('are found in any case, others are refused with the list', () => {
    expect(cpuSigOf('epyc-milan')).toBe(MILAN);
    expect(() => cpuSigOf('EPYC-Venice')).toThrow(/none of EPYC, EPYC-v1/);
  });
});
