// SPDX-License-Identifier: Apache-2.0
/** Launch digests of plain SEV and SEV-ES: one SHA-256 over the bytes, without pages or addresses. */
import { concat } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { checkKernelHashes, type Hash } from './kernel-hashes.ts';
import { apResetEip, hashTableGpa, type OvmfImage } from './ovmf.ts';
import { vmsaPages } from './plan.ts';
import { BSP_EIP, type VmmType } from './vmsa.ts';

export interface SevLaunchOptions {
  readonly ovmf: OvmfImage;
  readonly kernelHashes?: Uint8Array;
}

export interface SevEsLaunchOptions extends SevLaunchOptions {
  readonly vcpus: number;
  readonly cpuSig: number;
  readonly vmmType?: VmmType;
  /** SEV_FEATURES of every vCPU; none unless given. */
  readonly sevFeatures?: bigint;
}

/**
 * What a plain SEV launch hashes: the image, then the bare table of kernel hashes.
 *
 * Errors   OVMF_KERNEL_HASHES_UNSUPPORTED, OVMF_SIZE_UNALIGNED for an empty image, OPTION_INVALID
 */
export function sevLaunchParts({ ovmf, kernelHashes }: SevLaunchOptions): readonly LaunchPart[] {
  if (ovmf.bytes.length === 0) {
    throw new InputError('OVMF_SIZE_UNALIGNED', 'the file is empty, so there is no firmware to measure', {
      where: ovmf.name,
    });
  }
  const parts = [{ what: 'OVMF', data: ovmf.bytes }];
  if (kernelHashes !== undefined) {
    checkKernelHashes(kernelHashes);
    if (hashTableGpa(ovmf) === null) {
      throw new InputError(
        'OVMF_KERNEL_HASHES_UNSUPPORTED',
        'a kernel is given, but the footer table has no SEV hash table block (7255371f-...)',
        { where: ovmf.name },
      );
    }
    parts.push({ what: 'kernel hashes', data: kernelHashes });
  }
  return parts;
}

/**
 * What a SEV-ES launch hashes: as plain SEV, then one VMSA per vCPU.
 *
 * Errors   OVMF_KERNEL_HASHES_UNSUPPORTED, OVMF_RESET_BLOCK_MISSING, OPTION_INVALID
 */
export function sevEsLaunchParts(options: SevEsLaunchOptions): readonly LaunchPart[] {
  const { ovmf, vcpus, cpuSig, vmmType = 'QEMU', sevFeatures = 0n } = options;
  const regs = { bspEip: BSP_EIP, apEip: apResetEip(ovmf), cpuSig, sevFeatures, vmmType };
  const vmsas = vmsaPages(regs, vcpus, ovmf.name).map((data, i) => ({ what: `VMSA of vCPU ${i}`, data }));
  return [...sevLaunchParts(options), ...vmsas];
}

export interface LaunchPart {
  readonly what: string;
  readonly data: Uint8Array;
}

/**
 * Launch digest of a SEV or SEV-ES guest.
 *
 * Units    32 bytes
 * Source   [SEV-API] LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA
 */
export function sevLaunchDigest(sha256: Hash, parts: readonly LaunchPart[]): Uint8Array {
  return sha256(concat(...parts.map(({ data }) => data)));
}
