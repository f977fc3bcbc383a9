// SPDX-License-Identifier: Apache-2.0
/**
 * What CPUID answers a program that is to believe in the processor of the emulated host.
 *
 * Only what names the processor and its memory encryption is the emulated one's: a program that was told of
 * AVX-512 would use it, and must find it in the processor that runs it.
 *
 * Source   [APM3] "Obtaining Processor Information Via the CPUID Instruction"; [DEVICES] "Other things the
 *          clients touch"
 * Differs  docs/limitations.md#cpuid-of-commands
 */
import { cpuidFms, type ProductLine } from '../../abi/product.ts';
import { readU32, utf8 } from '../../lib/bytes.ts';
import type { Processor } from '../../machine/processor.ts';

export interface Registers {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** CPUID for values of EAX and ECX. */
export type Cpuid = (leaf: number, subleaf: number) => Registers;

const LEAF_VENDOR = 0;
const LEAF_SIGNATURE = 1;
const LEAF_EXTENDED = 0x8000_0000;
const LEAF_EXTENDED_SIGNATURE = 0x8000_0001;
const LEAF_NAME = 0x8000_0002;
const LEAF_NAME_END = 0x8000_0004;
const LEAF_ENCRYPTION = 0x8000_001f;
/** Highest leaf that programs look for on an EPYC of these lines. */
const MAX_EXTENDED = 0x8000_0021;

/** AuthenticAMD. */
const VENDOR = { ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 } as const;
const NAME_LENGTH = 48;
/** PkgType of SP3 and SP5, Fn8000_0001 EBX 31:28. */
const SOCKET = 4;
const VMPL_COUNT = 4;

const NAMES: Readonly<Record<ProductLine, string>> = {
  Milan: 'AMD EPYC 7763 64-Core Processor',
  Genoa: 'AMD EPYC 9654 96-Core Processor',
  Turin: 'AMD EPYC 9755 128-Core Processor',
};

/** Fn8000_001F EAX. */
const Encryption = {
  SME: 1 << 0,
  SEV: 1 << 1,
  PageFlushMsr: 1 << 2,
  SevEs: 1 << 3,
  SevSnp: 1 << 4,
  Vmpl: 1 << 5,
  RmpQuery: 1 << 6,
  VmplSss: 1 << 7,
  SecureTsc: 1 << 8,
  TscAuxVirtualization: 1 << 9,
  HwEnfCacheCoh: 1 << 10,
  HostOnly64Bit: 1 << 11,
  RestrictedInjection: 1 << 12,
  AlternateInjection: 1 << 13,
  DebugSwap: 1 << 14,
  PreventHostIbs: 1 << 15,
  Vte: 1 << 16,
  VmgexitParameter: 1 << 17,
  VirtualTomMsr: 1 << 18,
  IbsVirtGuestCtl: 1 << 19,
  VmsaRegProt: 1 << 24,
  SmtProtection: 1 << 25,
  SvsmCommPageMsr: 1 << 28,
  NestedVirtSnpMsr: 1 << 29,
} as const;
type EncryptionFeature = keyof typeof Encryption;

const MILAN: readonly EncryptionFeature[] = [
  ...(['SME', 'SEV', 'PageFlushMsr', 'SevEs', 'SevSnp', 'Vmpl', 'SecureTsc', 'HwEnfCacheCoh'] as const),
  ...(['HostOnly64Bit', 'RestrictedInjection', 'AlternateInjection', 'DebugSwap', 'PreventHostIbs'] as const),
  ...(['Vte', 'VmsaRegProt'] as const),
];
const GENOA: readonly EncryptionFeature[] = [
  ...MILAN,
  ...(['RmpQuery', 'VmplSss', 'TscAuxVirtualization', 'VmgexitParameter', 'VirtualTomMsr'] as const),
  ...(['IbsVirtGuestCtl', 'SmtProtection', 'SvsmCommPageMsr', 'NestedVirtSnpMsr'] as const),
];

/** Milan as such processors answer; the later lines with the features that AMD's manuals add. */
const ENCRYPTION: Readonly<Record<ProductLine, readonly EncryptionFeature[]>> = {
  Milan: MILAN,
  Genoa: GENOA,
  Turin: GENOA,
};

/** CPUID of the emulated processor, where the one that runs programs answers `real`. */
export function emulatedCpuid(processor: Processor, real: Cpuid): Cpuid {
  const { product, family, model, stepping } = processor;
  const signature = cpuidFms(family, model, stepping);
  const name = utf8(NAMES[product].padEnd(NAME_LENGTH - 1).padEnd(NAME_LENGTH, '\0'));
  const encryption = encryptionLeaf(processor);
  const realExtended = real(LEAF_EXTENDED, 0).eax >>> 0;
  return (leaf, subleaf) => {
    const selected = leaf >>> 0;
    if (selected >= LEAF_NAME && selected <= LEAF_NAME_END) {
      const at = 16 * (selected - LEAF_NAME);
      return {
        eax: readU32(name, at),
        ebx: readU32(name, at + 4),
        ecx: readU32(name, at + 8),
        edx: readU32(name, at + 12),
      };
    }
    switch (selected) {
      case LEAF_VENDOR:
        return { eax: real(selected, subleaf).eax, ...VENDOR };
      case LEAF_SIGNATURE:
        return { ...real(selected, subleaf), eax: signature };
      case LEAF_EXTENDED:
        return { eax: Math.max(realExtended, MAX_EXTENDED), ...VENDOR };
      case LEAF_EXTENDED_SIGNATURE:
        return { ...real(selected, subleaf), eax: signature, ebx: (SOCKET << 28) >>> 0 };
      case LEAF_ENCRYPTION:
        return encryption;
      default:
        // Beyond its highest leaf Intel's processors repeat the one of a lower leaf.
        return selected > realExtended && selected >= LEAF_EXTENDED
          ? { eax: 0, ebx: 0, ecx: 0, edx: 0 }
          : real(selected, subleaf);
    }
  };
}

function encryptionLeaf({ product, cBit, physAddrReduction, maxAsid, minSevAsid }: Processor): Registers {
  return {
    eax: ENCRYPTION[product].reduce((bits, feature) => bits | Encryption[feature], 0) >>> 0,
    ebx: cBit | (physAddrReduction << 6) | (VMPL_COUNT << 12),
    ecx: maxAsid,
    edx: minSevAsid,
  };
}
