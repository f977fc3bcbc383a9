// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { utf8 } from '../lib/bytes.ts';
import { kernelHashes, kernelHashesPage } from './kernel-hashes.ts';

const sha256 = (data: Uint8Array): Uint8Array => createHash('sha256').update(data).digest();
const hexOf = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');

describe('the table of kernel hashes', () => {
  it('of kernel, initrd and command line has the published SHA-256', () => {
    const boot = { kernel: utf8('kernel'), initrd: utf8('initrd'), append: 'console=ttyS0' };
    expect(hexOf(kernelHashes(sha256, boot))).toBe(
      'c1b2d6975c0ce0b6a60116dfc7710772454b8c44820d3e3ef310ad4f7c7f85a7',
    );
  });

  it('of a kernel alone hashes an empty initrd and a single NUL', () => {
    expect(hexOf(kernelHashes(sha256, { kernel: utf8('kernel') }))).toBe(
      '4bbcf687ded97effb131a4ed787f7892489b8e703a7dc1a6dab30a01ac0de575',
    );
  });

  it('keeps white space around the command line', () => {
    const of = (append: string): string => hexOf(kernelHashes(sha256, { kernel: utf8('k'), append }));
    expect(of(' quiet ')).not.toBe(of('quiet'));
  });

  it('lies at the offset the firmware names, in a page of zeros', () => {
    const table = kernelHashes(sha256, { kernel: utf8('kernel') });
    const page = kernelHashesPage(table, 0x81_0c00);
    expect(page).toHaveLength(4096);
    expect(page.slice(0xc00, 0xc00 + 176)).toEqual(table);
    expect(page.slice(0, 0xc00).some((byte) => byte !== 0)).toBe(false);
    expect(page.slice(0xc00 + 176).some((byte) => byte !== 0)).toBe(false);
  });

  it('may end with the page but not run over it', () => {
    const table = kernelHashes(sha256, { kernel: utf8('kernel') });
    expect(() => kernelHashesPage(table, 4096 - 176)).not.toThrow();
    expect(() => kernelHashesPage(table, 4096 - 175)).toThrow(
      expect.objectContaining({ code: 'OVMF_HASH_TABLE_INVALID' }),
    );
  });
});
