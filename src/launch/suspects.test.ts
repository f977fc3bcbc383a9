// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { utf8 } from '../lib/bytes.ts';
import { defaultImage } from './default-image.ts';
import { launchDigest } from './digest.ts';
import { kernelHashes } from './kernel-hashes.ts';
import { parseOvmf } from './ovmf.ts';
import { type LaunchOptions, planLaunch } from './plan.ts';
import { findLaunch, type SuspectSpace } from './suspects.ts';
import { VCPU_TYPES } from './vcpu-types.ts';

const sha256 = (data: Uint8Array): Uint8Array => createHash('sha256').update(data).digest();
const sha384 = (data: Uint8Array): Uint8Array => createHash('sha384').update(data).digest();

const ovmf = parseOvmf(defaultImage());
const otherBytes = defaultImage();
otherBytes[0] = 0;
const other = parseOvmf(otherBytes);
const hashes = kernelHashes(sha256, { kernel: utf8('k'), append: 'a ' });
const trimmed = kernelHashes(sha256, { kernel: utf8('k'), append: 'a' });

const named = <T>(...values: readonly T[]) => values.map((value, i) => ({ name: `#${i}`, value }));
const SPACE: SuspectSpace = {
  images: named(ovmf, other, parseOvmf(new Uint8Array(4096)), parseOvmf(new Uint8Array(10))),
  boots: named(hashes, trimmed, null),
  vmmTypes: named('QEMU', 'ec2', 'gce'),
  cpus: named<number>(VCPU_TYPES['EPYC-Milan'], VCPU_TYPES.EPYC),
  features: named(1n, 0x21n),
  vcpus: 4,
  maxVcpus: 16,
};
const GIVEN: LaunchOptions = {
  ovmf,
  vcpus: 4,
  cpuSig: VCPU_TYPES['EPYC-Milan'],
  kernelHashes: hashes,
};
const search = (changes: Partial<LaunchOptions>) =>
  findLaunch(sha384, launchDigest(sha384, planLaunch({ ...GIVEN, ...changes })), SPACE);

describe('the search for a launch', () => {
  it('finds the expected one with nothing changed', () => {
    expect(search({})).toEqual([
      { image: '#0', boot: '#0', vmmType: '#0', cpu: '#0', features: '#0', vcpus: 4, changed: [] },
    ]);
  });

  it.each<[string, Partial<LaunchOptions>, object]>([
    ['vCPU count', { vcpus: 1 }, { vcpus: 1, changed: ['vcpus'] }],
    ['CPU', { cpuSig: VCPU_TYPES.EPYC }, { cpu: '#1', changed: ['cpu'] }],
    ['guest features', { guestFeatures: 0x21n }, { features: '#1', changed: ['features'] }],
    ['command line', { kernelHashes: trimmed }, { boot: '#1', changed: ['boot'] }],
    ['VMM', { vmmType: 'gce' }, { vmmType: '#2', changed: ['vmmType'] }],
    ['OVMF build', { ovmf: other }, { image: '#1', changed: ['image'] }],
    [
      'everything',
      { ovmf: other, vmmType: 'ec2', kernelHashes: trimmed, vcpus: 16, guestFeatures: 0x21n },
      { vcpus: 16, changed: ['vcpus', 'features', 'boot', 'vmmType', 'image'] },
    ],
  ])('names another %s', (_, changes, fit) => {
    const fits = search(changes);
    expect(fits).toHaveLength(1);
    expect(fits[0]).toMatchObject(fit);
  });

  it('finds the launch without a kernel', () => {
    const { kernelHashes: _, ...rest } = GIVEN;
    const target = launchDigest(sha384, planLaunch(rest));
    expect(findLaunch(sha384, target, SPACE)).toMatchObject([{ boot: '#2', changed: ['boot'] }]);
  });

  it('finds nothing beyond its limits', () => {
    expect(search({ vcpus: 17 })).toEqual([]);
    expect(findLaunch(sha384, new Uint8Array(48), SPACE)).toEqual([]);
  });

  it('counts no change of vCPUs when their number was not known', () => {
    const target = launchDigest(sha384, planLaunch({ ...GIVEN, vcpus: 7 }));
    expect(findLaunch(sha384, target, { ...SPACE, vcpus: null })).toMatchObject([{ vcpus: 7, changed: [] }]);
  });
});
