// SPDX-License-Identifier: Apache-2.0
/**
 * What a VMM puts into a guest before it runs, in order. The same list is measured to know the launch
 * digest in advance and launched in the machine; there is no second description to drift from it.
 */
import { PageType } from '../abi/page-info.ts';
import { SVM_SEV_FEAT_SNP_ACTIVE } from '../abi/vmsa.ts';
import { type Gpa, gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { readU32 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { cpuidTable } from './cpuid-table.ts';
import { checkKernelHashes, kernelHashesPage } from './kernel-hashes.ts';
import {
  apResetEip,
  assertWholePages,
  hashTableGpa,
  OvmfGuid,
  type OvmfImage,
  type OvmfSection,
  OvmfSectionType,
  ovmfGpa,
} from './ovmf.ts';
import { BSP_EIP, buildSvsmVmsa, buildVmsa, type VmmType } from './vmsa.ts';

/** One run of pages of one type: what a VMM hands to KVM in one KVM_SEV_SNP_LAUNCH_UPDATE. */
export interface LaunchRegion {
  readonly gpa: Gpa;
  readonly sizeBytes: number;
  readonly type: PageType;
  /** Contents; null where the firmware writes them or where they are zero. */
  readonly data: Uint8Array | null;
  /** For people: which part of the guest this is. */
  readonly what: string;
}

/** One 4 KiB page, as KVM hands it to the firmware. */
export interface LaunchPage {
  readonly gpa: Gpa;
  readonly type: PageType;
  readonly data: Uint8Array | null;
  readonly what: string;
}

export interface LaunchPlan {
  readonly ovmfGpa: Gpa;
  /** In launch order; the VMSAs follow them, launched by KVM when it finishes. */
  readonly regions: readonly LaunchRegion[];
  /** The regions cut into pages. */
  readonly pages: readonly LaunchPage[];
  /** One page per vCPU, in order of their index. */
  readonly vmsas: readonly Uint8Array[];
  readonly vmsaRegs: VmsaRegs;
  /** Null when the image has no such section. */
  readonly secretsGpa: Gpa | null;
  readonly cpuidGpa: Gpa | null;
  readonly sections: readonly OvmfSection[];
}

/** What a VMM needs to know to give its vCPUs the measured state. */
export interface VmsaRegs {
  readonly bspEip: number;
  /** 0: the image starts no application processors. */
  readonly apEip: number;
  readonly cpuSig: number;
  readonly sevFeatures: bigint;
  readonly vmmType: VmmType;
}

export interface LaunchOptions {
  readonly ovmf: OvmfImage;
  readonly vcpus: number;
  /** CPUID Fn0000_0001_EAX; see VCPU_TYPES. */
  readonly cpuSig: number;
  readonly vmmType?: VmmType;
  /** SEV_FEATURES of every vCPU; SNPActive alone unless given. */
  readonly guestFeatures?: bigint;
  /** Table made by kernelHashes, when the VMM boots a kernel directly. */
  readonly kernelHashes?: Uint8Array;
}

/** The part of a plan that is measured. */
export type MeasuredPages = Pick<LaunchPlan, 'regions' | 'pages' | 'vmsas'>;

/** As many vCPUs as KVM can be configured for. */
export const VCPUS_LIMIT = 4096;

/** GPA that firmware and KVM record for every VMSA. */
export const VMSA_GPA = gpa(0xffff_ffff_f000n);

/**
 * The launch of an SNP guest.
 *
 * Errors   OVMF_SIZE_UNALIGNED, OVMF_METADATA_MISSING, OVMF_SECTION_UNKNOWN, OVMF_RESET_BLOCK_MISSING,
 *          OVMF_SECTION_UNALIGNED, OVMF_KERNEL_HASHES_UNSUPPORTED, OVMF_HASH_TABLE_INVALID, OPTION_INVALID
 * Source   [QEMU] target/i386/sev.c; sev-snp-measure guest.py
 * Differs  sev-snp-measure also measures an image without SNP metadata, which no VMM could launch
 */
export function planLaunch(options: LaunchOptions): LaunchPlan {
  const { ovmf, vcpus, cpuSig, vmmType = 'QEMU', guestFeatures = SVM_SEV_FEAT_SNP_ACTIVE } = options;
  assertWholePages(ovmf);
  const apEip = apResetEip(ovmf);
  const regs = { bspEip: BSP_EIP, apEip, cpuSig, sevFeatures: guestFeatures, vmmType };
  const vmsas = vmsaPages(regs, vcpus, ovmf.name);
  const sections = sectionsOf(ovmf);
  const regions = [
    firmwareRegion(ovmf, ovmfGpa(ovmf), 'OVMF'),
    ...sectionRegions(sections, { ...options, vmmType }),
  ];
  return planOf(ovmfGpa(ovmf), regions, vmsas, regs, sections);
}

/**
 * The firmware image alone.
 *
 * Errors   OVMF_SIZE_UNALIGNED
 */
export function planFirmware(ovmf: OvmfImage): MeasuredPages {
  assertWholePages(ovmf);
  const regions = [firmwareRegion(ovmf, ovmfGpa(ovmf), 'OVMF')];
  return { regions, pages: regions.flatMap(pagesOf), vmsas: [] };
}

export interface SvsmLaunchOptions {
  readonly ovmf: OvmfImage;
  /** Flat Coconut-SVSM image; its own metadata is launched, the firmware's is not. */
  readonly svsm: OvmfImage;
  /** Size of the flash with the firmware's variables; the SVSM ends where that begins. */
  readonly varsSizeBytes: number;
  readonly vcpus: number;
  readonly cpuSig: number;
}

/**
 * The launch of a flat Coconut-SVSM image by the QEMU fork that knows it.
 *
 * Errors   as planLaunch; OVMF_SVSM_INFO_MISSING
 * Source   sev-snp-measure guest.py svsm_calc_launch_digest
 */
export function planSvsmLaunch({ ovmf, svsm, varsSizeBytes, vcpus, cpuSig }: SvsmLaunchOptions): LaunchPlan {
  checkVcpus(vcpus);
  assertWholePages(ovmf);
  assertWholePages(svsm);
  const firmwareGpa = ovmfGpa(ovmf);
  if (
    !Number.isInteger(varsSizeBytes) ||
    varsSizeBytes <= 0 ||
    varsSizeBytes % PAGE_SIZE !== 0 ||
    varsSizeBytes > Number(firmwareGpa) - svsm.bytes.length
  ) {
    throw new InputError(
      'OPTION_INVALID',
      `${varsSizeBytes} is not a multiple of 4096 that leaves room for the SVSM below the firmware`,
      { where: '--vars-size' },
    );
  }
  const svsmGpa = ovmfGpa(svsm, firmwareGpa - BigInt(varsSizeBytes));
  const info = svsm.table?.get(OvmfGuid.SVSM_INFO);
  if (info === undefined || info.length < 4) {
    throw new InputError('OVMF_SVSM_INFO_MISSING', 'the footer table has no SVSM info entry (a789a612-...)', {
      where: svsm.name,
    });
  }
  const eip = Number(svsmGpa) + readU32(info, 0);
  const sections = sectionsOf(svsm);
  const regions = [
    firmwareRegion(ovmf, firmwareGpa, 'OVMF'),
    firmwareRegion(svsm, svsmGpa, 'SVSM'),
    ...sectionRegions(sections, { ovmf: svsm, vcpus, cpuSig, vmmType: 'QEMU' }),
  ];
  const vmsa = buildSvsmVmsa(eip, cpuSig);
  const regs = {
    bspEip: eip,
    apEip: eip,
    cpuSig,
    sevFeatures: SVM_SEV_FEAT_SNP_ACTIVE,
    vmmType: 'QEMU' as const,
  };
  return planOf(
    firmwareGpa,
    regions,
    Array.from({ length: vcpus }, () => vmsa),
    regs,
    sections,
  );
}

function planOf(
  firmwareGpa: Gpa,
  regions: readonly LaunchRegion[],
  vmsas: readonly Uint8Array[],
  vmsaRegs: VmsaRegs,
  sections: readonly OvmfSection[],
): LaunchPlan {
  const gpaOfType = (type: OvmfSectionType): Gpa | null =>
    sections.find((section) => section.type === type)?.gpa ?? null;
  return {
    ovmfGpa: firmwareGpa,
    regions,
    pages: regions.flatMap(pagesOf),
    vmsas,
    vmsaRegs,
    secretsGpa: gpaOfType(OvmfSectionType.SNP_SECRETS),
    cpuidGpa: gpaOfType(OvmfSectionType.CPUID),
    sections,
  };
}

function pagesOf({ gpa: base, sizeBytes, type, data, what }: LaunchRegion): LaunchPage[] {
  const pages: LaunchPage[] = [];
  for (let at = 0; at < sizeBytes; at += PAGE_SIZE) {
    pages.push({
      gpa: gpa(base + BigInt(at)),
      type,
      data: data === null ? null : data.subarray(at, at + PAGE_SIZE),
      what,
    });
  }
  return pages;
}

const firmwareRegion = (image: OvmfImage, at: Gpa, what: string): LaunchRegion => ({
  gpa: at,
  sizeBytes: image.bytes.length,
  type: PageType.NORMAL,
  data: image.bytes,
  what,
});

function sectionsOf(image: OvmfImage): readonly OvmfSection[] {
  if (image.sections === null) {
    throw new InputError(
      'OVMF_METADATA_MISSING',
      'the image has no SEV metadata: it was built without SEV-SNP support',
      { where: image.name },
    );
  }
  if (image.sectionsFault !== null) {
    throw new InputError('OVMF_SECTION_UNKNOWN', image.sectionsFault, { where: image.name });
  }
  return image.sections;
}

type SectionOptions = LaunchOptions & { readonly vmmType: VmmType };

function sectionRegions(sections: readonly OvmfSection[], options: SectionOptions): LaunchRegion[] {
  if (options.kernelHashes !== undefined) {
    checkKernelHashes(options.kernelHashes);
  }
  const hasHashes = sections.some(({ type }) => type === OvmfSectionType.SNP_KERNEL_HASHES);
  if (options.kernelHashes !== undefined && !hasHashes) {
    throw new InputError(
      'OVMF_KERNEL_HASHES_UNSUPPORTED',
      'a kernel is given, but the SEV metadata has no SNP_KERNEL_HASHES section; use an AmdSev build',
      { where: options.ovmf.name },
    );
  }
  // EC2 launches the CPUID page after everything else.
  const last = options.vmmType === 'ec2' || options.vmmType === 'ec2-virtee' ? OvmfSectionType.CPUID : null;
  const ordered = [
    ...sections.filter(({ type }) => type !== last),
    ...sections.filter(({ type }) => type === last),
  ];
  return ordered.map((section) => sectionRegion(section, options));
}

function sectionRegion(section: OvmfSection, options: SectionOptions): LaunchRegion {
  const { gpa: at, sizeBytes, type, name } = section;
  if (at % BigInt(PAGE_SIZE) !== 0n || sizeBytes % PAGE_SIZE !== 0) {
    throw new InputError(
      'OVMF_SECTION_UNALIGNED',
      `section ${name} at 0x${at.toString(16)}, 0x${sizeBytes.toString(16)} bytes, is not made of pages`,
      { where: options.ovmf.name },
    );
  }
  const zero = { gpa: at, sizeBytes, type: PageType.ZERO, data: null, what: name };
  switch (type) {
    case OvmfSectionType.SNP_SEC_MEM:
      return options.vmmType === 'gce' ? { ...zero, type: PageType.UNMEASURED } : zero;
    case OvmfSectionType.SVSM_CAA:
      return zero;
    case OvmfSectionType.SNP_SECRETS:
      return { ...zero, sizeBytes: PAGE_SIZE, type: PageType.SECRETS };
    case OvmfSectionType.CPUID:
      return {
        ...zero,
        sizeBytes: PAGE_SIZE,
        type: PageType.CPUID,
        data: cpuidTable(options.cpuSig, options.vcpus),
      };
    case OvmfSectionType.SNP_KERNEL_HASHES:
      return options.kernelHashes === undefined
        ? zero
        : hashesRegion(zero, options.kernelHashes, options.ovmf);
  }
}

function hashesRegion(zero: LaunchRegion, table: Uint8Array, ovmf: OvmfImage): LaunchRegion {
  const tableGpa = hashTableGpa(ovmf);
  if (tableGpa === null) {
    throw new InputError(
      'OVMF_KERNEL_HASHES_UNSUPPORTED',
      'a kernel is given, but the footer table has no SEV hash table block (7255371f-...)',
      { where: ovmf.name },
    );
  }
  if (zero.sizeBytes !== PAGE_SIZE) {
    throw new InputError(
      'OVMF_HASH_TABLE_INVALID',
      `section SNP_KERNEL_HASHES has 0x${zero.sizeBytes.toString(16)} bytes, not one page`,
      { where: ovmf.name },
    );
  }
  return {
    ...zero,
    type: PageType.NORMAL,
    data: kernelHashesPage(table, tableGpa, ovmf.name),
    what: 'kernel hashes',
  };
}

/**
 * One VMSA per vCPU: the first starts at the reset vector, all others where the image says.
 *
 * Errors   OPTION_INVALID, OVMF_RESET_BLOCK_MISSING
 */
export function vmsaPages(regs: VmsaRegs, vcpus: number, image = 'OVMF'): Uint8Array[] {
  checkVcpus(vcpus);
  const pages = [buildVmsa({ ...regs, eip: regs.bspEip })];
  if (vcpus > 1) {
    if (regs.apEip === 0) {
      throw new InputError('OVMF_RESET_BLOCK_MISSING', 'the SEV-ES reset block holds address 0', {
        where: image,
      });
    }
    const ap = buildVmsa({ ...regs, eip: regs.apEip });
    for (let i = 1; i < vcpus; i++) {
      pages.push(ap);
    }
  }
  return pages;
}

function checkVcpus(vcpus: number): void {
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > VCPUS_LIMIT) {
    throw new InputError('OPTION_INVALID', `${vcpus} vCPUs; 1 to ${VCPUS_LIMIT} are possible`, {
      where: '--vcpus',
    });
  }
}
