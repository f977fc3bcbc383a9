// SPDX-License-Identifier: Apache-2.0
/**
 * Finds the launch that a measurement in a report comes from, when it is not the one somebody expected:
 * tries every combination of the usual suspects and says which one fits.
 */
import { PageType } from '../abi/page-info.ts';
import { equalBytes } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { LaunchDigestChain, launchDigest, ovmfHash } from './digest.ts';
import type { Hash } from './kernel-hashes.ts';
import type { OvmfImage } from './ovmf.ts';
import { planLaunch, VMSA_GPA } from './plan.ts';
import { buildVmsa, type VmmType } from './vmsa.ts';

/** A value something may have had, and what to call it. */
export interface Suspect<T> {
  readonly name: string;
  readonly value: T;
}

/** The values to try. The first of each list is what was expected. */
export interface SuspectSpace {
  /** Drawn one by one, and only as long as nothing fits. */
  readonly images: Iterable<Suspect<OvmfImage>>;
  /** Tables of kernel hashes; null for a launch without. */
  readonly boots: readonly Suspect<Uint8Array | null>[];
  readonly vmmTypes: readonly Suspect<VmmType>[];
  /** CPU signatures. */
  readonly cpus: readonly Suspect<number>[];
  readonly features: readonly Suspect<bigint>[];
  /** Null when no number was expected. */
  readonly vcpus: number | null;
  readonly maxVcpus: number;
}

/** A launch that measures to the wanted digest. */
export interface Fit {
  readonly image: string;
  readonly boot: string;
  readonly vmmType: string;
  readonly cpu: string;
  readonly features: string;
  readonly vcpus: number;
  /** What is not as expected, in the order most people get it wrong. */
  readonly changed: readonly SuspectKind[];
}

export type SuspectKind = 'vcpus' | 'cpu' | 'features' | 'boot' | 'vmmType' | 'image';

/**
 * The launches that measure to `target`, the one with the fewest changes first.
 *
 * Returns  all that fit with the first image that has any: another build is the last thing suspected
 * Shape    target: 48 bytes, MEASUREMENT of a report
 */
export function findLaunch(sha384: Hash, target: Uint8Array, space: SuspectSpace): Fit[] {
  const fits: Fit[] = [];
  let i = -1;
  for (const image of space.images) {
    i += 1;
    const seed = orNull(() => ovmfHash(sha384, image.value));
    if (seed === null) {
      continue;
    }
    for (const [b, boot] of space.boots.entries()) {
      for (const [v, vmm] of space.vmmTypes.entries()) {
        const base = pagesDigest(sha384, image.value, seed, boot.value, vmm.value);
        if (base === null) {
          continue;
        }
        const changed: SuspectKind[] = [
          ...(b > 0 ? ['boot' as const] : []),
          ...(v > 0 ? ['vmmType' as const] : []),
          ...(i > 0 ? ['image' as const] : []),
        ];
        for (const found of findVcpus(sha384, target, base.digest, base.apEip, vmm.value, space)) {
          fits.push({
            image: image.name,
            boot: boot.name,
            vmmType: vmm.name,
            ...found,
            changed: [...found.changed, ...changed],
          });
        }
      }
    }
    if (fits.length > 0) {
      break;
    }
  }
  return fits.sort((x, y) => x.changed.length - y.changed.length);
}

/** Digest before the VMSAs; null when this image cannot be launched so. */
function pagesDigest(
  sha384: Hash,
  ovmf: OvmfImage,
  seed: Uint8Array,
  hashes: Uint8Array | null,
  vmmType: VmmType,
): { digest: Uint8Array; apEip: number } | null {
  return orNull(() => {
    const plan = planLaunch({
      ovmf,
      vcpus: 1,
      cpuSig: 0,
      vmmType,
      ...(hashes === null ? {} : { kernelHashes: hashes }),
    });
    return { digest: launchDigest(sha384, { ...plan, vmsas: [] }, { seed }), apEip: plan.vmsaRegs.apEip };
  });
}

function orNull<T>(attempt: () => T): T | null {
  try {
    return attempt();
  } catch (error) {
    if (error instanceof InputError) {
      return null;
    }
    throw error;
  }
}

type VcpuFit = Pick<Fit, 'cpu' | 'features' | 'vcpus' | 'changed'>;

/** Tries every CPU and feature word with every vCPU count: one chain of VMSAs passes through all counts. */
function findVcpus(
  sha384: Hash,
  target: Uint8Array,
  base: Uint8Array,
  apEip: number,
  vmmType: VmmType,
  space: SuspectSpace,
): VcpuFit[] {
  const fits: VcpuFit[] = [];
  const seen = new Set<string>();
  for (const [c, cpu] of space.cpus.entries()) {
    for (const [f, features] of space.features.entries()) {
      const regs = { cpuSig: cpu.value, sevFeatures: features.value, vmmType };
      const bsp = sha384(buildVmsa({ ...regs, eip: 0xffff_fff0 }));
      // VMMs that do not show the CPU in RDX give the same pages for every signature.
      if (seen.has(bsp.join())) {
        continue;
      }
      seen.add(bsp.join());
      const ap = apEip === 0 ? null : sha384(buildVmsa({ ...regs, eip: apEip }));
      const chain = new LaunchDigestChain(sha384, base);
      let digest = chain.extend(PageType.VMSA, VMSA_GPA, bsp);
      for (let vcpus = 1; vcpus <= space.maxVcpus; vcpus++) {
        if (equalBytes(digest, target)) {
          const changed: SuspectKind[] = [
            ...(space.vcpus !== null && vcpus !== space.vcpus ? ['vcpus' as const] : []),
            ...(c > 0 ? ['cpu' as const] : []),
            ...(f > 0 ? ['features' as const] : []),
          ];
          fits.push({ cpu: cpu.name, features: features.name, vcpus, changed });
        }
        if (ap === null) {
          break;
        }
        digest = chain.extend(PageType.VMSA, VMSA_GPA, ap);
      }
    }
  }
  return fits;
}
