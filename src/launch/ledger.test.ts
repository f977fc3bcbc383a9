// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { toHex, utf8, writeU32 } from '../lib/bytes.ts';
import { defaultImage } from './default-image.ts';
import { launchDigest } from './digest.ts';
import { kernelHashes } from './kernel-hashes.ts';
import { compareLedgers, type LedgerRow, sevLedger, snpLedger } from './ledger.ts';
import { sevEsLaunchParts } from './legacy.ts';
import { parseOvmf } from './ovmf.ts';
import { type LaunchOptions, planLaunch } from './plan.ts';
import { VCPU_TYPES } from './vcpu-types.ts';

const sha256 = (data: Uint8Array): Uint8Array => createHash('sha256').update(data).digest();
const sha384 = (data: Uint8Array): Uint8Array => createHash('sha384').update(data).digest();
const BASE: LaunchOptions = {
  ovmf: parseOvmf(defaultImage()),
  vcpus: 2,
  cpuSig: VCPU_TYPES['EPYC-Milan'],
  kernelHashes: kernelHashes(sha256, { kernel: utf8('kernel'), append: 'quiet' }),
};
const ledger = (options: Partial<LaunchOptions> = {}): LedgerRow[] =>
  snpLedger(sha384, planLaunch({ ...BASE, ...options }));

describe('the ledger of a launch', () => {
  it('survives JSON and ends in the launch digest', () => {
    const rows = ledger();
    expect(JSON.parse(JSON.stringify(rows))).toEqual(rows);
    expect(rows.at(-1)!.digest).toBe(toHex(launchDigest(sha384, planLaunch(BASE))));
  });

  it('names the registers of VMSAs that are not zero, and the hashes of a kernel', () => {
    const rows = ledger();
    expect(rows.at(-1)!.fields).toMatchObject({
      'cs.selector': '0xf000',
      'cs.base': '0x800000',
      rip: '0xb004',
      sev_features: '0x1',
      x87_fcw: '0x37f',
    });
    expect(rows.at(-1)!.fields).not.toHaveProperty('rax');
    expect(rows.find(({ what }) => what === 'kernel hashes')!.fields).toEqual({
      cmdline: toHex(sha256(utf8('quiet\0'))),
      initrd: toHex(sha256(new Uint8Array(0))),
      kernel: toHex(sha256(utf8('kernel'))),
    });
  });

  it('of SEV-ES has a digest at its end alone', () => {
    const rows = sevLedger(sha256, sevEsLaunchParts(BASE as never));
    expect(rows.map(({ what, digest }) => [what, digest !== null])).toEqual([
      ['OVMF', false],
      ['kernel hashes', false],
      ['VMSA of vCPU 0', false],
      ['VMSA of vCPU 1', true],
    ]);
    expect(rows[1]!.fields).toHaveProperty('cmdline');
  });
});

describe('the comparison of two launches', () => {
  it('finds nothing between equal ones', () => {
    expect(compareLedgers(ledger(), ledger())).toEqual([]);
  });

  it('names the register that differs', () => {
    expect(compareLedgers(ledger(), ledger({ guestFeatures: 0x21n }))).toEqual(
      [0, 1].map((i) => ({
        kind: 'contents',
        gpa: '0xfffffffff000',
        what: `VMSA of vCPU ${i}`,
        fields: [['sev_features', '0x1', '0x21']],
      })),
    );
  });

  it('names the hash of the direct boot that differs', () => {
    const other = kernelHashes(sha256, { kernel: utf8('kernel'), append: 'quiet ' });
    expect(compareLedgers(ledger(), ledger({ kernelHashes: other }))).toEqual([
      expect.objectContaining({
        kind: 'contents',
        what: 'kernel hashes',
        fields: [['cmdline', toHex(sha256(utf8('quiet\0'))), toHex(sha256(utf8('quiet \0')))]],
      }),
    ]);
  });

  it('names the page of the firmware that differs', () => {
    const bytes = defaultImage();
    bytes[0x5123] = 0;
    expect(compareLedgers(ledger(), ledger({ ovmf: parseOvmf(bytes) }))).toEqual([
      expect.objectContaining({ kind: 'contents', gpa: '0x0000ffff5000', what: 'OVMF' }),
    ]);
  });

  it('names the vCPU that only one has', () => {
    expect(compareLedgers(ledger(), ledger({ vcpus: 3 }))).toEqual([
      { kind: 'only-in-b', gpa: '0xfffffffff000', what: 'VMSA of vCPU 2', fields: [] },
    ]);
    expect(compareLedgers(ledger({ vcpus: 3 }), ledger()).map(({ kind }) => kind)).toEqual(['only-in-a']);
  });

  it('names the type of page that differs', () => {
    const differences = compareLedgers(ledger(), ledger({ vmmType: 'gce' }));
    expect(differences.filter(({ kind }) => kind === 'type')).toHaveLength(27);
    expect(differences[0]).toEqual({
      kind: 'type',
      gpa: '0x000000800000',
      what: 'SNP_SEC_MEM',
      fields: [['type', 'ZERO', 'UNMEASURED']],
    });
  });

  it('names the first page that is out of order', () => {
    const differences = compareLedgers(ledger(), ledger({ vmmType: 'ec2' }));
    expect(differences.find(({ kind }) => kind === 'order')).toEqual({
      kind: 'order',
      gpa: '0x00000080e000',
      what: 'CPUID',
      fields: [],
    });
  });

  it('tells pages at one address apart by their turn', () => {
    const overlapping = defaultImage();
    writeU32(overlapping, overlapping.length - 4096 + 16 + 12, 0x80_0000);
    const rows = ledger({ ovmf: parseOvmf(overlapping) });
    expect(compareLedgers(rows, rows)).toEqual([]);
    expect(compareLedgers(ledger(), rows).map(({ kind }) => kind)).toContain('only-in-b');
  });
});
