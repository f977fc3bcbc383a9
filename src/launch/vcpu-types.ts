// SPDX-License-Identifier: Apache-2.0
/** CPU models a VMM can give a guest, by the names QEMU and sev-snp-measure use. */
import { cpuidFms } from '../abi/product.ts';
import { InputError } from '../lib/errors.ts';

const NAPLES = cpuidFms(23, 1, 2);
const ROME = cpuidFms(23, 49, 0);
const MILAN = cpuidFms(25, 1, 1);
const GENOA = cpuidFms(25, 17, 0);
const TURIN = cpuidFms(26, 0, 0);

/**
 * CPU type -> CPUID Fn0000_0001_EAX, which the reset state of a QEMU vCPU carries in RDX. No version of these
 * types has another signature than its first; a version not listed may have.
 *
 * Source   [QEMU] target/i386/cpu.c, builtin_x86_defs
 */
export const VCPU_TYPES = {
  EPYC: NAPLES,
  'EPYC-v1': NAPLES,
  'EPYC-v2': NAPLES,
  'EPYC-IBPB': NAPLES,
  'EPYC-v3': NAPLES,
  'EPYC-v4': NAPLES,
  'EPYC-v5': NAPLES,
  'EPYC-Rome': ROME,
  'EPYC-Rome-v1': ROME,
  'EPYC-Rome-v2': ROME,
  'EPYC-Rome-v3': ROME,
  'EPYC-Rome-v4': ROME,
  'EPYC-Rome-v5': ROME,
  'EPYC-Milan': MILAN,
  'EPYC-Milan-v1': MILAN,
  'EPYC-Milan-v2': MILAN,
  'EPYC-Milan-v3': MILAN,
  'EPYC-Genoa': GENOA,
  'EPYC-Genoa-v1': GENOA,
  'EPYC-Genoa-v2': GENOA,
  'EPYC-Turin': TURIN,
  'EPYC-Turin-v1': TURIN,
  'EPYC-Turin-v2': TURIN,
} as const;
export type VcpuType = keyof typeof VCPU_TYPES;

/**
 * CPU signature of a type, whatever the case of its name.
 *
 * Errors   VCPU_TYPE_UNKNOWN
 * Differs  sev-snp-measure minds the case and does not list the later versions
 */
export function cpuSigOf(name: string, where = 'CPU type'): number {
  const found = Object.entries(VCPU_TYPES).find(([type]) => type.toLowerCase() === name.toLowerCase());
  if (found === undefined) {
    throw new InputError(
      'VCPU_TYPE_UNKNOWN',
      `${JSON.stringify(name)} is none of ${Object.keys(VCPU_TYPES).join(', ')}`,
      { where },
    );
  }
  return found[1];
}
