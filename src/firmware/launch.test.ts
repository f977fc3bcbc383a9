// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { crypto, SECRETS_GPA, TestHost } from '../../test/firmware/test-host.ts';
import { CpuidEntry, CpuidPage } from '../abi/cpuid-page.ts';
import { PageType } from '../abi/page-info.ts';
import { SecretsPage } from '../abi/secrets-page.ts';
import { SevRet } from '../abi/sev-status.ts';
import { SevDataSnpLaunchStart, SevDataSnpLaunchUpdate } from '../abi/snp-commands.ts';
import { cpuidTable } from '../launch/cpuid-table.ts';
import { asid, PAGE_SIZE, spaOf } from '../lib/addresses.ts';
import { toHex, writeU32 } from '../lib/bytes.ts';
import { CPUID_RULES, checkCpuidPage, correctCpuidEntries } from './cpuid-policy.ts';
import { extendLaunchDigest } from './launch-digest.ts';

const ZERO_PAGE = new Uint8Array(PAGE_SIZE);
const GOOD_CPUID = cpuidTable(0x00a0_0f11);

/** MEASUREMENT of the guest, read out of a report. */
function measurement(host: TestHost, guest: ReturnType<TestHost['launching']>): string {
  expect(host.launchFinish(guest)).toBe(SevRet.SEV_RET_SUCCESS);
  const { payload } = host.report(guest);
  return toHex(payload!.subarray(0x20 + 0x90, 0x20 + 0xc0));
}

describe('launch digest', () => {
  const vectors: readonly (readonly [type: number, gpa: bigint, data: Uint8Array | undefined, ld: string])[] =
    [
      [
        PageType.NORMAL,
        0x0n,
        ZERO_PAGE,
        '9d13634b6014bb21cf059b2dc694e7bff01a8a7137041100cd2b695f3d10fb687267b97808b27f8f471d943bc6f53a20',
      ],
      [
        PageType.ZERO,
        0x1000n,
        undefined,
        '3bb77aec4f0d90c147b6b7884b6bd5741994d2575305f89639c95186690d949261186702ef51f2fa7c0dd4c90f03ebfd',
      ],
      [
        PageType.SECRETS,
        SECRETS_GPA,
        undefined,
        '831e6b544986afb579671d4ab582a9d4272e138e919d8cd7715fd52515eb22e3c760f4012468e3ef98c24b8a119bd9fa',
      ],
      [
        PageType.CPUID,
        0x80e000n,
        GOOD_CPUID,
        '111733001f47351b5db048fd96ae1ab50fb354e6b83add3c8b8d52fb3105f6e3e6244b530ead176a978dd093cc362a00',
      ],
      [
        PageType.VMSA,
        0xffff_ffff_f000n,
        new Uint8Array(PAGE_SIZE).fill(0xaa),
        'e6400435052bb8f999e5aac57152a5b649c2300ab3d415107a048e7b041218b6d92e073a8e67f8525949f16116af44d6',
      ],
      [
        PageType.UNMEASURED,
        0x2000n,
        undefined,
        '10af91ff4b643762e3b125dd36888bbfaaa5af061723b4425b72339bc79410ecc5194350eba0912cf75aa87d850c1d21',
      ],
    ];

  it('is the published chain for one page of each type', () => {
    let digest: Uint8Array = new Uint8Array(48);
    for (const [pageType, gpa, data, expected] of vectors) {
      const measured = pageType === PageType.NORMAL || pageType === PageType.VMSA;
      digest = extendLaunchDigest(crypto, digest, {
        pageType,
        gpa,
        imiPage: false,
        perms: [0, 0, 0],
        contents: measured ? crypto.sha384(data!) : new Uint8Array(48),
      });
      expect(toHex(digest)).toBe(expected);
    }
  });

  it('is what SNP_LAUNCH_UPDATE of those pages leads to in the report', () => {
    const host = TestHost.up();
    const guest = host.launching();
    for (const [pageType, gpa, data] of vectors) {
      const page = host.preGuest(guest, gpa, data);
      expect(host.launchUpdate(guest, page, pageType)).toBe(SevRet.SEV_RET_SUCCESS);
      if (pageType === PageType.SECRETS) {
        const secrets = host.hw.memory.read(spaOf(page), PAGE_SIZE, asid(guest.asid));
        guest.vmpcks = [secrets.slice(0x20, 0x40)];
      }
    }
    expect(measurement(host, guest)).toBe(vectors.at(-1)![3]);
  });

  it('counts a 2 MiB page as 512 pages of 4 KiB', () => {
    const data = Uint8Array.from({ length: 512 * PAGE_SIZE }, (_, i) => (i >> 12) * 3);
    const whole = TestHost.up();
    const one = whole.launching();
    const large = whole.preGuest(one, 0x20_0000n, data, 1);
    expect(whole.launchUpdate(one, large, PageType.NORMAL)).toBe(SevRet.SEV_RET_SUCCESS);
    expect(whole.hw.rmp.lookup(large)).toMatchObject({ pagesize: 1, validated: true, immutable: false });
    whole.takeVmpcks(one);

    const split = TestHost.up();
    const many = split.launching();
    for (let i = 0; i < 512; i++) {
      const page = split.preGuest(
        many,
        0x20_0000n + BigInt(i * PAGE_SIZE),
        data.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE),
      );
      split.launchUpdate(many, page, PageType.NORMAL);
    }
    split.takeVmpcks(many);
    expect(measurement(whole, one)).toBe(measurement(split, many));
  });

  it('depends on the VMPL permissions, which also go into the RMP', () => {
    const digests = [0, 1].map((perm) => {
      const host = TestHost.up();
      const guest = host.launching();
      const page = host.preGuest(guest, 0x1000n);
      host.launchUpdate(guest, page, PageType.ZERO, { vmpl1_perms: perm, vmpl3_perms: 4 * perm });
      expect(host.hw.rmp.lookup(page).perms).toEqual([15, perm, 0, 4 * perm]);
      host.takeVmpcks(guest);
      return measurement(host, guest);
    });
    expect(digests[0]).not.toBe(digests[1]);
  });
});

describe('SNP_LAUNCH_UPDATE', () => {
  it('leaves a Guest-Valid page that only the guest can read', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const data = new Uint8Array(PAGE_SIZE).fill(0x77);
    const page = host.preGuest(guest, 0x5000n, data);
    host.launchUpdate(guest, page, PageType.NORMAL);
    expect(host.hw.rmp.lookup(page)).toEqual({
      assigned: true,
      pagesize: 0,
      immutable: false,
      gfn: 5,
      asid: guest.asid,
      vmsa: false,
      validated: true,
      perms: [15, 0, 0, 0],
    });
    expect(host.hw.memory.read(spaOf(page), PAGE_SIZE, asid(guest.asid))).toEqual(data);
    expect(host.hw.hostRead(spaOf(page), PAGE_SIZE)).not.toEqual(data);
  });

  it('marks a VMSA page that VMRUN takes', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const page = host.preGuest(guest, 0xffff_ffff_f000n, ZERO_PAGE);
    host.launchUpdate(guest, page, PageType.VMSA);
    expect(host.hw.isRunnableVmsa(page, asid(guest.asid))).toBe(true);
    expect(host.hw.rmp.gfnOf(page)).toBe(0xf_ffff_ffff);
  });

  it('writes zeros for ZERO whatever the page held', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const page = host.preGuest(guest, 0x5000n, new Uint8Array(PAGE_SIZE).fill(1));
    host.launchUpdate(guest, page, PageType.ZERO);
    expect(host.hw.memory.read(spaOf(page), PAGE_SIZE, asid(guest.asid))).toEqual(ZERO_PAGE);
  });

  it('writes the secrets page: family/model/stepping, four different keys, zero sequence numbers', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const page = host.preGuest(guest, SECRETS_GPA, new Uint8Array(PAGE_SIZE).fill(1));
    host.launchUpdate(guest, page, PageType.SECRETS);
    const secrets = SecretsPage.decode(host.hw.memory.read(spaOf(page), PAGE_SIZE, asid(guest.asid)));
    expect(secrets).toMatchObject({
      version: 3,
      flags: { imi_en: 0 },
      fms: 0x00a0_0f11,
      msg_seqno_0: 0,
      msg_seqno_3: 0,
    });
    const keys = [secrets.vmpck0, secrets.vmpck1, secrets.vmpck2, secrets.vmpck3].map(toHex);
    expect(new Set(keys).size).toBe(4);
    expect(keys).not.toContain(toHex(new Uint8Array(32)));
  });

  it.each<[string, number, (host: TestHost, guest: ReturnType<TestHost['launching']>) => number]>([
    [
      'INVALID_PARAM for PAGE_TYPE 0',
      SevRet.SEV_RET_INVALID_PARAM,
      (h, g) => h.launchUpdate(g, h.preGuest(g, 0n), 0),
    ],
    [
      'INVALID_PARAM for PAGE_TYPE 7',
      SevRet.SEV_RET_INVALID_PARAM,
      (h, g) => h.launchUpdate(g, h.preGuest(g, 0n), 7),
    ],
    ...([PageType.VMSA, PageType.SECRETS, PageType.CPUID] as const).map(
      (type): [string, number, (host: TestHost, guest: ReturnType<TestHost['launching']>) => number] => [
        `INVALID_PARAM for a 2 MiB page of PAGE_TYPE ${type}`,
        SevRet.SEV_RET_INVALID_PARAM,
        (h, g) => h.launchUpdate(g, h.preGuest(g, 0n, undefined, 1), type),
      ],
    ),
    [
      'INVALID_PARAM for IMI_PAGE without IMI_EN',
      SevRet.SEV_RET_INVALID_PARAM,
      (h, g) =>
        h.launchUpdate(g, h.preGuest(g, 0n), 1, { flags: { page_size: 0, page_type: 1, imi_page: 1 } }),
    ],
    [
      'INVALID_PARAM for reserved permission bits',
      SevRet.SEV_RET_INVALID_PARAM,
      (h, g) => h.launchUpdate(g, h.preGuest(g, 0n), 1, { vmpl2_perms: 0x10 }),
    ],
    [
      'INVALID_ADDRESS for an unaligned page',
      SevRet.SEV_RET_INVALID_ADDRESS,
      (h, g) => h.launchUpdate(g, h.preGuest(g, 0n), 1, { page_paddr: 0x1001n }),
    ],
    [
      'INVALID_ADDRESS for a page outside memory',
      SevRet.SEV_RET_INVALID_ADDRESS,
      (h, g) => h.launchUpdate(g, h.preGuest(g, 0n), 1, { page_paddr: 0xffff_ffff_ffff_f000n }),
    ],
    [
      'INVALID_PAGE_STATE for a Hypervisor page',
      SevRet.SEV_RET_INVALID_PAGE_STATE,
      (h, g) => h.launchUpdate(g, h.alloc(), 1),
    ],
    [
      'INVALID_PAGE_STATE for a page that was launched already',
      SevRet.SEV_RET_INVALID_PAGE_STATE,
      (h, g) => {
        const page = h.preGuest(g, 0n);
        h.launchUpdate(g, page, PageType.NORMAL);
        return h.launchUpdate(g, page, PageType.NORMAL);
      },
    ],
    [
      'INVALID_PAGE_OWNER for a page of another guest',
      SevRet.SEV_RET_INVALID_PAGE_OWNER,
      (h, g) => h.launchUpdate(g, h.preGuest(h.launching(), 0n), 1),
    ],
    [
      'INVALID_PAGE_SIZE for 4 KiB of a 2 MiB entry',
      SevRet.SEV_RET_INVALID_PAGE_SIZE,
      (h, g) =>
        h.launchUpdate(g, h.preGuest(g, 0n, undefined, 1), 1, {
          flags: { page_size: 0, page_type: 1, imi_page: 0 },
        }),
    ],
    [
      'INACTIVE for a guest without an ASID',
      SevRet.SEV_RET_INACTIVE,
      (h, g) => {
        const gctx = h.gctx();
        h.launchStart(gctx);
        return h.issue(
          'SEV_CMD_SNP_LAUNCH_UPDATE',
          SevDataSnpLaunchUpdate.encode({
            gctx_paddr: gctx,
            page_paddr: spaOf(h.preGuest(g, 0n)),
            flags: { page_size: 0, page_type: 1, imi_page: 0 },
          }),
        );
      },
    ],
  ])('answers %s', (_, status, run) => {
    const host = TestHost.up();
    expect(run(host, host.launching())).toBe(status);
  });
});

describe('SNP_LAUNCH_START', () => {
  const start = (host: TestHost, more: Partial<SevDataSnpLaunchStart>): number =>
    host.issue(
      'SEV_CMD_SNP_LAUNCH_START',
      SevDataSnpLaunchStart.encode({ gctx_paddr: host.gctx(), policy: 0x30000n, ...more }),
    );

  it.each<[string, bigint, number]>([
    ['the usual policy', 0x30000n, SevRet.SEV_RET_SUCCESS],
    ['an ABI equal to the firmware’s', 0x30000n | 0x0137n, SevRet.SEV_RET_SUCCESS],
    ['a newer minor ABI', 0x30000n | 0x0138n, SevRet.SEV_RET_POLICY_FAILURE],
    ['a newer major ABI', 0x30000n | 0x0200n, SevRet.SEV_RET_POLICY_FAILURE],
    ['the reserved-one bit clear', 0x10000n, SevRet.SEV_RET_POLICY_FAILURE],
    ['a bit above 25', 0x30000n | (1n << 26n), SevRet.SEV_RET_POLICY_FAILURE],
    ['SMT forbidden on a board with SMT', 0x20000n, SevRet.SEV_RET_POLICY_FAILURE],
    ['SINGLE_SOCKET on a board with one', 0x30000n | (1n << 20n), SevRet.SEV_RET_SUCCESS],
    ['CXL_ALLOW', 0x30000n | (1n << 21n), SevRet.SEV_RET_SUCCESS],
    ['MEM_AES_256_XTS, which Milan has not', 0x30000n | (1n << 22n), SevRet.SEV_RET_POLICY_FAILURE],
    ['RAPL_DIS with RAPL on', 0x30000n | (1n << 23n), SevRet.SEV_RET_POLICY_FAILURE],
    ['CIPHERTEXT_HIDING_DRAM without it', 0x30000n | (1n << 24n), SevRet.SEV_RET_POLICY_FAILURE],
    ['PAGE_SWAP_DISABLE', 0x30000n | (1n << 25n), SevRet.SEV_RET_SUCCESS],
    ['DEBUG and MIGRATE_MA', 0xf0000n, SevRet.SEV_RET_SUCCESS],
  ])('takes %s as the platform demands', (_, policy, status) => {
    expect(start(TestHost.up('Milan', { reportVersion: 3 }), { policy })).toBe(status);
  });

  it('refuses SINGLE_SOCKET on a board with two', () => {
    const host = TestHost.up('Milan', { sockets: 2 });
    expect(start(host, { policy: 0x130000n })).toBe(SevRet.SEV_RET_POLICY_FAILURE);
  });

  it('refuses a migration agent: POLICY_FAILURE without MIGRATE_MA, UNSUPPORTED with it', () => {
    const host = TestHost.up();
    const flags = { ma_en: 1, imi_en: 0 };
    expect(start(host, { flags })).toBe(SevRet.SEV_RET_POLICY_FAILURE);
    expect(start(host, { flags, policy: 0x70000n })).toBe(SevRet.SEV_RET_UNSUPPORTED);
  });

  it('refuses a TSC frequency whose scale has no room', () => {
    const host = TestHost.up();
    expect(start(host, { desired_tsc_khz: 3_000_000 })).toBe(SevRet.SEV_RET_SUCCESS);
    expect(start(host, { desired_tsc_khz: 256 * host.chip.tscKhz - 1 })).toBe(SevRet.SEV_RET_SUCCESS);
    expect(start(host, { desired_tsc_khz: 256 * host.chip.tscKhz })).toBe(SevRet.SEV_RET_INVALID_PARAM);
  });

  it('with IMI_EN lets pages be part of an initial migration image', () => {
    const host = TestHost.up();
    const gctx = host.gctx();
    host.done(
      'SEV_CMD_SNP_LAUNCH_START',
      SevDataSnpLaunchStart.encode({
        gctx_paddr: gctx,
        policy: 0x30000n,
        flags: { ma_en: 0, imi_en: 1 },
      }),
    );
    host.activate(gctx, 9);
    const guest = { gctx, asid: 9, request: host.alloc(), response: host.alloc(), next: [], vmpcks: [] };
    const page = host.preGuest(guest, 0n);
    expect(host.launchUpdate(guest, page, 1, { flags: { page_size: 0, page_type: 1, imi_page: 1 } })).toBe(
      SevRet.SEV_RET_SUCCESS,
    );
  });
});

describe('CPUID page', () => {
  it('lets the tables of every VMM model through', () => {
    for (const signature of [0x0080_0f12, 0x0083_0f10, 0x00a0_0f11, 0x00a1_0f10, 0x00b0_0f21]) {
      expect(checkCpuidPage(cpuidTable(signature, 4))).toBe('ok');
    }
  });

  it.each(CPUID_RULES.map((rule) => [rule.reason, rule] as const))('corrects %s', (_, rule) => {
    const wrong = rule.value === 0 ? rule.mask : rule.value ^ 1;
    const leaf = { eax_in: rule.function, ecx_in: rule.index ?? 5, [rule.register]: wrong >>> 0 };
    const entries = CpuidEntry.encode(leaf);
    const corrected = CpuidEntry.decode(correctCpuidEntries(entries));
    expect(corrected[rule.register] & rule.mask).toBe(rule.value);
    expect(correctCpuidEntries(CpuidEntry.encode(corrected))).toEqual(CpuidEntry.encode(corrected));
  });

  it('is refused with INVALID_PARAM, the corrected table left in clear, and then taken', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const wrong = GOOD_CPUID.slice();
    const at = 0x10 + 48;
    expect(CpuidEntry.get(wrong, 'eax_in', at)).toBe(1);
    CpuidEntry.set(wrong, 'ecx', (CpuidEntry.get(wrong, 'ecx', at) | (1 << 24)) >>> 0, at);
    const page = host.preGuest(guest, 0x80e000n, wrong);
    expect(host.launchUpdate(guest, page, PageType.CPUID)).toBe(SevRet.SEV_RET_INVALID_PARAM);
    expect(host.hw.hostRead(spaOf(page), PAGE_SIZE)).toEqual(GOOD_CPUID);
    expect(host.hw.rmp.lookup(page)).toMatchObject({ immutable: true, validated: false });
    expect(host.launchUpdate(guest, page, PageType.CPUID)).toBe(SevRet.SEV_RET_SUCCESS);
    const reference = TestHost.up();
    const other = reference.launching();
    reference.launchUpdate(other, reference.preGuest(other, 0x80e000n, GOOD_CPUID), PageType.CPUID);
    for (const [h, g] of [
      [host, guest],
      [reference, other],
    ] as const) {
      h.takeVmpcks(g);
    }
    expect(measurement(host, guest)).toBe(measurement(reference, other));
  });

  it('is refused without correction when COUNT is above 64, and clears reserved bytes of entries', () => {
    const page = GOOD_CPUID.slice();
    writeU32(page, 0, 65);
    expect(checkCpuidPage(page)).toBe('malformed');
    const reserved = GOOD_CPUID.slice();
    reserved[0x10 + 47] = 1;
    expect(checkCpuidPage(reserved)).toEqual(GOOD_CPUID);
    expect(CpuidPage.decodeLoose(GOOD_CPUID).count).toBeLessThanOrEqual(64);
  });
});
