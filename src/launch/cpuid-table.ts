// SPDX-License-Identifier: Apache-2.0
/**
 * The CPUID table a VMM hands to the firmware in the CPUID page. The firmware checks its contents and
 * the guest believes them, but they are not part of the launch digest.
 *
 * The values are those QEMU gives its named EPYC models under KVM, one socket, one thread per core.
 */
import { CPUID_PAGE_ENTRIES_OFFSET, CpuidEntry } from '../abi/cpuid-page.ts';
import { fromCpuidFms } from '../abi/product.ts';
import { PAGE_SIZE } from '../lib/addresses.ts';
import { readU32, utf8, writeU32 } from '../lib/bytes.ts';

interface Model {
  readonly name: string;
  readonly maxBasic: number;
  readonly maxExtended: number;
  /** Fn0000_0001_ECX. */
  readonly features: number;
  /** Fn0000_0007_x0 EBX, ECX, EDX. */
  readonly structured: readonly [ebx: number, ecx: number, edx: number];
  /** Fn0000_0007_x1 EAX. */
  readonly structured1: number;
  /** Fn8000_0001_ECX. */
  readonly extended: number;
  /** Fn8000_0008 EAX (address sizes), EBX. */
  readonly capacity: readonly [eax: number, ebx: number];
  /** Fn8000_0021_EAX. */
  readonly extended2: number;
  /** Whether XCR0 has the AVX-512 and PKRU components. */
  readonly avx512: boolean;
  readonly pku: boolean;
  readonly l1i: Cache;
  readonly l2: Cache;
  readonly l3: Cache;
}

interface Cache {
  readonly sizeKib: number;
  readonly ways: number;
}

const NAPLES: Model = {
  name: 'AMD EPYC Processor',
  maxBasic: 0xd,
  maxExtended: 0x8000_001f,
  features: 0xf6f8_3203,
  structured: [0x209c_01a9, 0, 0],
  structured1: 0,
  extended: 0x0040_03f1,
  capacity: [0x3030, 0x1000],
  extended2: 0,
  avx512: false,
  pku: false,
  l1i: { sizeKib: 64, ways: 4 },
  l2: { sizeKib: 512, ways: 8 },
  l3: { sizeKib: 8192, ways: 16 },
};

const ROME: Model = {
  ...NAPLES,
  name: 'AMD EPYC-Rome Processor',
  structured: [0x219c_01a9, 0x0040_0004, 0],
  extended: 0x00c0_03f1,
  capacity: [0x3030, 0x9205],
  l1i: { sizeKib: 32, ways: 8 },
  l3: { sizeKib: 16384, ways: 16 },
};

const MILAN: Model = {
  ...ROME,
  name: 'AMD EPYC-Milan Processor',
  features: 0xf6fa_3203,
  structured: [0x219c_07a9, 0x0040_060c, 0x10],
  capacity: [0x3030, 0x0100_d205],
  pku: true,
  l3: { sizeKib: 32768, ways: 16 },
};

const GENOA: Model = {
  ...MILAN,
  name: 'AMD EPYC-Genoa Processor',
  maxExtended: 0x8000_0021,
  structured: [0xf1bf_07a9, 0x0041_5f4e, 0x10],
  structured1: 0x20,
  capacity: [0x3934, 0x1102_d205],
  extended2: 0x145,
  avx512: true,
  l2: { sizeKib: 1024, ways: 8 },
};

const TURIN: Model = {
  ...GENOA,
  name: 'AMD EPYC-Turin Processor',
  structured: [0xf1bf_07a9, 0x1841_5f4e, 0x110],
  structured1: 0x30,
};

/** Fn0000_0001_EDX: everything up to SSE2, and HTT. */
const FEATURES_EDX = 0x178b_fbff;
/** Fn8000_0001_EDX: the AMD aliases of the above; NX, SYSCALL, 1 GiB pages, RDTSCP, long mode. */
const EXTENDED_EDX = 0x2fd3_fbff;
/** Size of the XSAVE area with x87 and SSE alone: guests add the components' own sizes. */
const XSAVE_LEGACY_SIZE = 0x240;
/** SEV, SEV-ES and SEV-SNP active. */
const SEV_FEATURES = 0x1a;
/** C-bit position 51, one address bit lost. */
const SEV_C_BIT = 0x33 | (1 << 6);
/** Feature bits of KVM's paravirtual interface. */
const KVM_FEATURES = 0x0100_7efb;

interface Leaf {
  readonly eax_in: number;
  readonly ecx_in: number;
  readonly xcr0_in: bigint;
  readonly xss_in: bigint;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

const leaf = (eaxIn: number, ecxIn: number, eax = 0, ebx = 0, ecx = 0, edx = 0): Leaf => ({
  eax_in: eaxIn,
  ecx_in: ecxIn,
  // The firmware wants leaf 0xD asked with XCR0 = 1: its sizes would depend on what the guest enables.
  xcr0_in: eaxIn === 0xd && ecxIn < 2 ? 1n : 0n,
  xss_in: 0n,
  eax,
  ebx,
  ecx,
  edx,
});

/**
 * CPUID page contents for the first vCPU of a guest.
 *
 * Units    4096 bytes: u32 count, 12 reserved bytes, 48 bytes per leaf
 * Source   [SNP-ABI] "CPUID Page"; [QEMU] target/i386/cpu.c builtin_x86_defs, sev.c
 * Differs  an unknown signature gets the leaves of the newest model of its family
 */
export function cpuidTable(cpuSig: number, vcpus = 1): Uint8Array {
  const leaves = leavesOf(modelOf(cpuSig), cpuSig, vcpus);
  const page = new Uint8Array(PAGE_SIZE);
  writeU32(page, 0, leaves.length);
  leaves.forEach((entry, i) => {
    page.set(CpuidEntry.encode(entry), CPUID_PAGE_ENTRIES_OFFSET + i * CpuidEntry.size);
  });
  return page;
}

function modelOf(cpuSig: number): Model {
  const { family, model } = fromCpuidFms(cpuSig);
  if (family < 0x17) {
    return NAPLES;
  }
  if (family === 0x17) {
    return model < 0x30 ? NAPLES : ROME;
  }
  return family === 0x19 ? (model < 0x10 ? MILAN : GENOA) : TURIN;
}

function leavesOf(model: Model, cpuSig: number, vcpus: number): readonly Leaf[] {
  const [featuresEbx, featuresEcx, featuresEdx] = model.structured;
  const [addressSizes, capacityEbx] = model.capacity;
  const apicIdBits = Math.ceil(Math.log2(vcpus));
  const logical = Math.min(vcpus, 255) << 16;
  const sharing = (Math.min(vcpus, 4096) - 1) << 14;
  const xcr0 = 7 | (model.avx512 ? 0xe0 : 0) | (model.pku ? 0x200 : 0);
  const xsaveSize = model.pku ? 0x988 : model.avx512 ? 0x980 : 0x340;
  const xsaves = model === NAPLES ? 0x7 : 0xf;
  const name = utf8(model.name.padEnd(48, '\0'));
  const nameLeaf = (n: number): Leaf =>
    leaf(
      0x8000_0002 + n,
      0,
      ...([0, 4, 8, 12].map((at) => readU32(name, 16 * n + at)) as [number, number, number, number]),
    );
  return [
    leaf(0, 0, model.maxBasic, 0x6874_7541, 0x444d_4163, 0x6974_6e65),
    leaf(1, 0, cpuSig, logical | 0x0800, model.features, FEATURES_EDX),
    leaf(5, 0),
    leaf(6, 0, 4),
    leaf(7, 0, model.structured1 === 0 ? 0 : 1, featuresEbx, featuresEcx, featuresEdx),
    ...(model.structured1 === 0 ? [] : [leaf(7, 1, model.structured1)]),
    leaf(0xb, 0, 0, 1, 0x100),
    leaf(0xb, 1, apicIdBits, vcpus, 0x201),
    leaf(0xd, 0, xcr0, XSAVE_LEGACY_SIZE, xsaveSize),
    leaf(0xd, 1, xsaves, XSAVE_LEGACY_SIZE),
    leaf(0xd, 2, 0x100, 0x240),
    ...(model.avx512
      ? [leaf(0xd, 5, 0x40, 0x340), leaf(0xd, 6, 0x200, 0x380), leaf(0xd, 7, 0x400, 0x580)]
      : []),
    ...(model.pku ? [leaf(0xd, 9, 8, 0x980)] : []),
    leaf(0x4000_0000, 0, 0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d),
    leaf(0x4000_0001, 0, KVM_FEATURES),
    leaf(0x8000_0000, 0, model.maxExtended, 0x6874_7541, 0x444d_4163, 0x6974_6e65),
    leaf(0x8000_0001, 0, cpuSig, 0, model.extended, EXTENDED_EDX),
    nameLeaf(0),
    nameLeaf(1),
    nameLeaf(2),
    leaf(0x8000_0005, 0, 0x01ff_01ff, 0x01ff_01ff, 0x2008_0140, amdL1(model.l1i)),
    leaf(0x8000_0006, 0, 0, 0x4200_4200, amdL2(model.l2), amdL3(model.l3)),
    leaf(0x8000_0007, 0),
    leaf(
      0x8000_0008,
      0,
      addressSizes,
      capacityEbx,
      vcpus === 1 ? 0 : (apicIdBits << 12) | (Math.min(vcpus, 256) - 1),
    ),
    leaf(0x8000_001d, 0, 0x121, ...cacheShape({ sizeKib: 32, ways: 8 }), 0),
    leaf(0x8000_001d, 1, 0x122, ...cacheShape(model.l1i), 0),
    leaf(0x8000_001d, 2, 0x143, ...cacheShape(model.l2), 2),
    leaf(0x8000_001d, 3, (0x163 | sharing) >>> 0, ...cacheShape(model.l3), 1),
    leaf(0x8000_001e, 0),
    leaf(0x8000_001f, 0, SEV_FEATURES, SEV_C_BIT),
    ...(model.extended2 === 0 ? [] : [leaf(0x8000_0021, 0, model.extended2)]),
  ];
}

/** EBX and ECX of Fn8000_001D: 64-byte lines, one partition. */
const cacheShape = ({ sizeKib, ways }: Cache): [ebx: number, ecx: number] => [
  ((ways - 1) << 22) | 63,
  (sizeKib * 1024) / (64 * ways) - 1,
];
const amdL1 = ({ sizeKib, ways }: Cache): number => ((sizeKib << 24) | (ways << 16) | 0x140) >>> 0;
/** Associativity code 6 is 8 ways, 8 is 16 ways. */
const amdL2 = ({ sizeKib }: Cache): number => (sizeKib << 16) | 0x6140;
const amdL3 = ({ sizeKib }: Cache): number => ((sizeKib / 512) << 18) | 0x8140;
