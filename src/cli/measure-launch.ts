// SPDX-License-Identifier: Apache-2.0
/** Measures the launch that the options of `softsnp measure` describe. */

import { writeFileSync } from 'node:fs';
import { Vmsa } from '../abi/vmsa.ts';
import { launchDigest, ovmfHash } from '../launch/digest.ts';
import { type LedgerRow, sevLedger, snpLedger } from '../launch/ledger.ts';
import { type LaunchPart, sevEsLaunchParts, sevLaunchDigest, sevLaunchParts } from '../launch/legacy.ts';
import { type LaunchPlan, planFirmware, planLaunch, planSvsmLaunch } from '../launch/plan.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { hashesOf, type MeasureRequest, sha256, sha384 } from './measure-request.ts';

/** Exit code when launches differ, or a report measures something else than was expected. */
export const EXIT_DIFFERENT = 2;

export interface Measured {
  readonly digest: Uint8Array;
  readonly vmsas: readonly Uint8Array[];
  /** SEV_FEATURES that the vCPUs were measured with; null where none are. */
  readonly sevFeatures: bigint | null;
  ledger(): readonly LedgerRow[];
}

/**
 * Measures the launch a request describes.
 *
 * Errors   OPTION_INVALID for a vCPU count or CPU that is missing; OVMF_*
 */
export function measureLaunch(request: MeasureRequest): Measured {
  const { ovmf } = request.image;
  const hashes = request.boot === null ? {} : { kernelHashes: hashesOf(request.boot) };
  switch (request.mode) {
    case 'snp:ovmf-hash': {
      return {
        digest: ovmfHash(sha384, ovmf),
        vmsas: [],
        sevFeatures: null,
        ledger: () => snpLedger(sha384, planFirmware(ovmf)),
      };
    }
    case 'snp': {
      const { vmmType, guestFeatures } = request;
      return measuredPlan(
        planLaunch({ ovmf, ...vcpusOf(request), vmmType, guestFeatures, ...hashes }),
        request,
      );
    }
    case 'snp:svsm': {
      if (request.vmmType !== 'QEMU') {
        throw new InputError('OPTION_INVALID', 'only QEMU launches flat SVSM images', {
          where: '--vmm-type',
        });
      }
      const { image, varsSizeBytes } = request.svsm!;
      return measuredPlan(planSvsmLaunch({ ovmf, svsm: image, varsSizeBytes, ...vcpusOf(request) }), request);
    }
    case 'seves': {
      const { esFeatures: sevFeatures } = request;
      const parts = sevEsLaunchParts({
        ovmf,
        ...vcpusOf(request),
        vmmType: request.vmmType,
        sevFeatures,
        ...hashes,
      });
      return measuredParts(parts);
    }
    case 'sev':
      return measuredParts(sevLaunchParts({ ovmf, ...hashes }));
  }
}

function measuredPlan(plan: LaunchPlan, { seed }: MeasureRequest): Measured {
  const options = seed === null ? {} : { seed };
  return {
    digest: launchDigest(sha384, plan, options),
    vmsas: plan.vmsas,
    sevFeatures: featuresOf(plan.vmsas),
    ledger: () => snpLedger(sha384, plan, options),
  };
}

function measuredParts(parts: readonly LaunchPart[]): Measured {
  const vmsas = parts.filter(({ what }) => what.startsWith('VMSA')).map(({ data }) => data);
  return {
    digest: sevLaunchDigest(sha256, parts),
    vmsas,
    sevFeatures: featuresOf(vmsas),
    ledger: () => sevLedger(sha256, parts),
  };
}

/** What the measured pages say, whatever the options did. */
const featuresOf = ([vmsa]: readonly Uint8Array[]): bigint | null =>
  vmsa === undefined ? null : Vmsa.decodeLoose(vmsa).sev_features;

function vcpusOf({ mode, vcpus, cpu, vmmType }: MeasureRequest): { vcpus: number; cpuSig: number } {
  if (vcpus === null) {
    throw new InputError('OPTION_INVALID', `is missing: what ${mode} measures depends on it`, {
      where: '--vcpus',
    });
  }
  if (cpu === null && vmmType.startsWith('QEMU')) {
    throw new InputError(
      'OPTION_INVALID',
      'is missing (or --vcpu-sig, or --vcpu-family): QEMU guests measure their CPU signature',
      { where: '--vcpu-type' },
    );
  }
  return { vcpus, cpuSig: cpu?.sig ?? 0 };
}

/**
 * Writes a result into a file.
 *
 * Errors   FILE_UNWRITABLE
 */
export function writeOutFile(path: string, bytes: Uint8Array): void {
  try {
    writeFileSync(path, bytes);
  } catch (error) {
    throw new EnvironmentError('FILE_UNWRITABLE', `cannot be written: ${errnoCode(error)}`, {
      where: path,
      cause: error,
    });
  }
}
