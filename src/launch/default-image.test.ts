// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { toHex } from '../lib/bytes.ts';
import { defaultImage } from './default-image.ts';
import { launchDigest } from './digest.ts';
import { apResetEip, hashTableGpa, OvmfGuid, parseOvmf } from './ovmf.ts';
import { planLaunch } from './plan.ts';
import { VCPU_TYPES } from './vcpu-types.ts';

const sha384 = (data: Uint8Array): Uint8Array => createHash('sha384').update(data).digest();

describe('the default guest firmware image', () => {
  const image = parseOvmf(defaultImage());

  it('carries every structure of an AmdSev build', () => {
    expect([...image.table!.keys()].sort()).toEqual(
      [
        OvmfGuid.SEV_ES_RESET_BLOCK,
        OvmfGuid.SEV_SECRET_BLOCK,
        OvmfGuid.SEV_HASH_TABLE,
        OvmfGuid.SEV_METADATA,
      ].sort(),
    );
    expect(apResetEip(image)).toBe(0x80_b004);
    expect(hashTableGpa(image)).toBe(0x81_0c00);
    expect(image.sections!.map(({ name }) => name)).toEqual([
      'SNP_SEC_MEM',
      'SNP_SEC_MEM',
      'SNP_SECRETS',
      'CPUID',
      'SVSM_CAA',
      'SNP_KERNEL_HASHES',
      'SNP_SEC_MEM',
    ]);
  });

  it('covers its memory without gap or overlap from 0x800000 to 0x820000, the GHCB page at 0x809000 left out', () => {
    const spans = image.sections!.map(
      ({ gpa, sizeBytes }) => [Number(gpa), Number(gpa) + sizeBytes] as const,
    );
    expect(spans[0]![0]).toBe(0x80_0000);
    expect(spans.at(-1)![1]).toBe(0x82_0000);
    expect(spans.slice(1).map(([from], i) => from - spans[i]![1])).toEqual([0x1000, 0, 0, 0, 0, 0]);
  });

  it('starts a vCPU in a loop of hlt', () => {
    expect(toHex(image.bytes.slice(-16, -12))).toBe('faf4ebfd');
  });

  // Also computed by sev-snp-measure 0.0.13: see test/oracle.
  it('has a constant launch digest', () => {
    const plan = planLaunch({ ovmf: image, vcpus: 1, cpuSig: VCPU_TYPES['EPYC-Milan-v2'] });
    expect(toHex(launchDigest(sha384, plan))).toMatchInlineSnapshot(
      `"9cf9548de45e1254fe59acadea98153cb7a81a0d8a4c9431a032edbfa4a240a816b5d653c80f6702492b2cb01d548bff"`,
    );
  });
});
