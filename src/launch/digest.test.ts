// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PageType } from '../abi/page-info.ts';
import { gpa } from '../lib/addresses.ts';
import { toHex } from '../lib/bytes.ts';
import { defaultImage } from './default-image.ts';
import { type LedgerEntry, launchDigest, ovmfHash } from './digest.ts';
import { parseOvmf } from './ovmf.ts';
import { type LaunchPage, planLaunch, VMSA_GPA } from './plan.ts';
import { VCPU_TYPES } from './vcpu-types.ts';

const sha384 = (data: Uint8Array): Uint8Array => createHash('sha384').update(data).digest();
const ZERO_PAGE = new Uint8Array(4096);

const page = (type: PageType, at: bigint, data: Uint8Array | null = null): LaunchPage => ({
  gpa: gpa(at),
  type,
  data,
  what: 'test',
});
const digestOf = (pages: readonly LaunchPage[], vmsas: readonly Uint8Array[] = []): string[] => {
  const after: string[] = [];
  launchDigest(sha384, { regions: [], pages, vmsas }, { onPage: ({ digest }) => after.push(toHex(digest)) });
  return after;
};

describe('the launch digest', () => {
  it('of a first NORMAL page, and of two of them as an OVMF hash', () => {
    expect(digestOf([page(PageType.NORMAL, 0xffff_f000n, ZERO_PAGE)])).toEqual([
      '46c510442a54cc32344cef32e14dc3d6312fc4a010780dd11fd33204df5550590356b069e6c6ca5bbfca71561f370399',
    ]);
    expect(toHex(ovmfHash(sha384, parseOvmf(new Uint8Array(8192))))).toBe(
      '84c7a41063512f8ec1789a1bb1f411853f56d920bef401fc84f004e6a8235d332ffc4a4a6d059a6c1df80f52c06cdc02',
    );
  });

  it('of ZERO, SECRETS and CPUID pages', () => {
    const pages = [
      page(PageType.ZERO, 0x80_0000n),
      page(PageType.SECRETS, 0x80_d000n),
      // What a VMM puts into the CPUID page does not count.
      page(PageType.CPUID, 0x80_e000n, new Uint8Array(4096).fill(7)),
    ];
    expect(digestOf(pages)).toEqual([
      '4472405c6dbc65e5629805f2be1b3df74eb119841eff12466c24f43e67083c23df5e645b2742b6d9aa0f943e095cebaa',
      '6075da3db18922da01eedad767483594217d16def785b760d3b4584cf4385029137e8c7bad4e9840b701125c5e19eea4',
      'cc77f32b556b8da8b8ad6b0017bd4f8d6fc2849e67eb2ae3222746bc5c6a3186f7667743c781b6a670d9e1ace62086cb',
    ]);
  });

  it('of an UNMEASURED page', () => {
    expect(digestOf([page(PageType.UNMEASURED, 0x80_0000n)])).toEqual([
      '8cd64e16495d28db9db5fb176885ec972db5d0b66163a37dabe352d30f8501701c570b7c146bf32d6d26903eb36f9398',
    ]);
  });

  it('of every page type in a row, as computed for the firmware', () => {
    const pages = [
      page(PageType.NORMAL, 0n, ZERO_PAGE),
      page(PageType.ZERO, 0x1000n),
      page(PageType.SECRETS, 0x80_d000n),
      page(PageType.CPUID, 0x80_e000n),
      page(PageType.VMSA, VMSA_GPA, new Uint8Array(4096).fill(0xaa)),
      page(PageType.UNMEASURED, 0x2000n),
    ];
    expect(digestOf(pages)).toEqual([
      '9d13634b6014bb21cf059b2dc694e7bff01a8a7137041100cd2b695f3d10fb687267b97808b27f8f471d943bc6f53a20',
      '3bb77aec4f0d90c147b6b7884b6bd5741994d2575305f89639c95186690d949261186702ef51f2fa7c0dd4c90f03ebfd',
      '831e6b544986afb579671d4ab582a9d4272e138e919d8cd7715fd52515eb22e3c760f4012468e3ef98c24b8a119bd9fa',
      '111733001f47351b5db048fd96ae1ab50fb354e6b83add3c8b8d52fb3105f6e3e6244b530ead176a978dd093cc362a00',
      'e6400435052bb8f999e5aac57152a5b649c2300ab3d415107a048e7b041218b6d92e073a8e67f8525949f16116af44d6',
      '10af91ff4b643762e3b125dd36888bbfaaa5af061723b4425b72339bc79410ecc5194350eba0912cf75aa87d850c1d21',
    ]);
  });
});

describe('the digest of a plan', () => {
  const ovmf = parseOvmf(defaultImage());
  const plan = planLaunch({ ovmf, vcpus: 3, cpuSig: VCPU_TYPES['EPYC-Milan'] });

  it('has a ledger of every page and then every VMSA, ending in the digest', () => {
    const ledger: LedgerEntry[] = [];
    const digest = launchDigest(sha384, plan, { onPage: (entry) => ledger.push(entry) });
    expect(ledger.map(({ gpa: at, type }) => [at, type])).toEqual([
      ...plan.pages.map(({ gpa: at, type }) => [at, type]),
      ...[0, 1, 2].map(() => [VMSA_GPA, PageType.VMSA]),
    ]);
    expect(ledger.at(-1)!.digest).toEqual(digest);
    expect(ledger.slice(-3).map(({ what }) => what)).toEqual([
      'VMSA of vCPU 0',
      'VMSA of vCPU 1',
      'VMSA of vCPU 2',
    ]);
    expect(new Set(ledger.map(({ digest: after }) => toHex(after))).size).toBe(ledger.length);
  });

  it('is the same from the hash of the OVMF pages as from the pages', () => {
    const seed = ovmfHash(sha384, ovmf);
    expect(launchDigest(sha384, plan, { seed })).toEqual(launchDigest(sha384, plan));
  });

  it('refuses a seed that is no launch digest', () => {
    expect(() => launchDigest(sha384, plan, { seed: new Uint8Array(32) })).toThrow(
      expect.objectContaining({ code: 'OPTION_INVALID' }),
    );
  });
});
