// SPDX-License-Identifier: Apache-2.0
/** What the firmware measured of a launched guest, and what sev-snp-measure computes from the same files. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultImage } from '../../src/launch/default-image.ts';
import { root, run, softsnp, tool, withFolder } from './tools.ts';

const peer = tool('py/bin/sev-snp-measure', 'launch measurements of attest');
const DEBIAN_OVMF = '/usr/share/ovmf/OVMF.fd';
const FIXTURES = join(
  root,
  '..',
  'shared',
  'vectors',
  'virtee-sev-snp-measure',
  'files',
  'tests',
  'fixtures',
);
const AMDSEV_TAIL = join(FIXTURES, 'ovmf_AmdSev_suffix.bin');

function present(path: string, what: string): boolean {
  const there = existsSync(path);
  if (!there) {
    console.warn(`SKIPPED: ${what}: ${path} is missing`);
  }
  return there;
}

/** MEASUREMENT of the report that a launch of these options ends in. */
function attested(state: string, args: readonly string[]): string {
  const done = softsnp('attest', '--json', '--state', state, ...args);
  expect(done.stderr).toBe('');
  const document = JSON.parse(done.stdout) as {
    report: { measurement: string };
    launch: { measurement: string };
    verdict: { ok: boolean };
  };
  expect(document.verdict.ok).toBe(true);
  expect(document.launch.measurement).toBe(document.report.measurement);
  return document.report.measurement;
}

function computed(args: readonly string[]): string {
  const done = run(peer!, ['--mode', 'snp', ...args]);
  expect(done.stderr).toBe('');
  return done.stdout.trim();
}

const SHAPES = [1, 4, 64].flatMap((vcpus) =>
  ['EPYC-v4', 'EPYC-Milan-v2', 'EPYC-Genoa'].map((cpu) => ({ vcpus, cpu })),
);

describe.skipIf(peer === null || !present(DEBIAN_OVMF, 'attest on OVMF.fd'))('attest --bios OVMF.fd', () => {
  it.each(SHAPES)('measures $vcpus x $cpu as sev-snp-measure does', ({ vcpus, cpu }) => {
    withFolder((folder) => {
      const measured = attested(folder, ['--bios', DEBIAN_OVMF, '--smp', String(vcpus), '--cpu', cpu]);
      expect(measured).toBe(computed(['--vcpus', String(vcpus), '--vcpu-type', cpu, '--ovmf', DEBIAN_OVMF]));
    });
  });
});

describe.skipIf(peer === null)('attest with kernel, initrd and append', () => {
  const IMAGES = [
    { name: 'the embedded image', bytes: () => defaultImage(), path: null },
    ...(present(AMDSEV_TAIL, 'attest on an AmdSev image')
      ? [{ name: 'an AmdSev image', bytes: null, path: AMDSEV_TAIL }]
      : []),
  ];

  it.each(IMAGES)('measures the hash table of $name as sev-snp-measure does', ({ bytes, path }) => {
    withFolder((folder) => {
      const file = (name: string, content: Uint8Array | string): string => {
        writeFileSync(join(folder, name), content);
        return join(folder, name);
      };
      const bios = path ?? file('default.fd', bytes!());
      const boot = [
        ...['--kernel', file('kernel', 'a kernel')],
        ...['--initrd', file('initrd', new Uint8Array(5000).fill(3))],
        ...['--append', 'console=ttyS0 quiet'],
      ];
      const measured = attested(join(folder, 'state'), ['--bios', bios, '--smp', '2', ...boot]);
      const expected = computed(['--vcpus', '2', '--vcpu-type', 'EPYC-Milan-v2', '--ovmf', bios, ...boot]);
      expect(measured).toBe(expected);
      expect(attested(join(folder, 'state'), ['--bios', bios, '--smp', '2'])).not.toBe(measured);
    });
  });
});
