// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { PageType } from '../abi/page-info.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import {
  SevDataSnpAddr,
  SevDataSnpDbg,
  SevDataSnpGuestStatus,
  SevDataSnpPageReclaim,
  SevDataSnpPageUnsmash,
  SevDataSnpPlatformStatus,
} from '../abi/snp-commands.ts';
import { asid, gfn, type Pfn, pfn, spaOf } from '../lib/addresses.ts';
import { PAGE_STATES, type PageState, pageStateOf, RECLAIM_TRANSITIONS } from './page-state.ts';

const state = (host: TestHost, page: Pfn): PageState => pageStateOf(host.hw.rmp.lookup(page));

const reclaim = (host: TestHost, page: Pfn, size = 0n): string =>
  sevRetName(
    host.issue('SEV_CMD_SNP_PAGE_RECLAIM', SevDataSnpPageReclaim.encode({ paddr: spaOf(page) | size })),
  );

/** A page in each state of the table; the ones only firmware without page swapping cannot make are put there. */
const MAKE: Record<PageState, (host: TestHost, guest: TestGuest) => Pfn> = {
  Hypervisor: (host) => host.alloc(),
  'HV-Fixed': (host) => {
    const page = host.alloc();
    host.hw.rmp.fix(page, 1);
    return page;
  },
  Firmware: (host) => host.firmwarePage(),
  Reclaim: (host) => {
    const page = host.firmwarePage();
    host.done('SEV_CMD_SNP_PLATFORM_STATUS', SevDataSnpPlatformStatus.encode({ status_paddr: spaOf(page) }));
    return page;
  },
  Context: (host) => pfn(Number(host.gctx() >> 12n)),
  Metadata: (host) => {
    const page = host.firmwarePage();
    host.hw.rmp.store(page, { ...host.hw.rmp.lookup(page), gfn: gfn(1) });
    return page;
  },
  'Pre-Guest': (host, guest) => host.preGuest(guest, 0n),
  'Guest-Invalid': (host, guest) => {
    const page = host.alloc();
    host.update(page, { assigned: true, asid: guest.asid, gfn: 7 });
    return page;
  },
  'Pre-Swap': (host, guest) => {
    const page = host.preGuest(guest, 0n);
    host.hw.rmp.store(page, { ...host.hw.rmp.lookup(page), validated: true });
    return page;
  },
  'Guest-Valid': (host, guest) => {
    const page = host.preGuest(guest, 0n);
    host.launchUpdate(guest, page, PageType.ZERO);
    return page;
  },
};

describe('page states', () => {
  it.each(PAGE_STATES)(
    '%s is recognised, and SNP_PAGE_RECLAIM leads from it where the table says',
    (from) => {
      const host = TestHost.up();
      const guest = host.launching();
      const page = MAKE[from](host, guest);
      expect(state(host, page)).toBe(from);
      const next = RECLAIM_TRANSITIONS[from];
      expect(reclaim(host, page)).toBe(next === undefined ? 'SEV_RET_INVALID_PAGE_STATE' : 'SEV_RET_SUCCESS');
      expect(state(host, page)).toBe(next ?? from);
    },
  );

  it('follow RMPUPDATE: Hypervisor to Firmware, Pre-Guest, Guest-Invalid; Reclaim to Hypervisor', () => {
    const host = TestHost.up();
    const page = host.alloc();
    host.update(page, { assigned: true, immutable: true });
    expect(state(host, page)).toBe('Firmware');
    expect(() => host.update(page, { assigned: false })).toThrow('RMPUPDATE: 2');
    reclaim(host, page);
    host.update(page, { assigned: false });
    expect(state(host, page)).toBe('Hypervisor');
    host.update(page, { assigned: true, asid: 3, gfn: 9 });
    expect(state(host, page)).toBe('Guest-Invalid');
    host.update(page, { assigned: false });
    host.update(page, { assigned: true, asid: 3, gfn: 9, immutable: true });
    expect(state(host, page)).toBe('Pre-Guest');
  });

  it('follow PVALIDATE: Guest-Invalid to Guest-Valid and back', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const page = MAKE['Guest-Invalid'](host, guest);
    const operands = { pfn: page, gfn: gfn(7), asid: asid(guest.asid), vmpl: 0 as const, size: 0 as const };
    host.hw.pvalidate({ ...operands, validate: true });
    expect(state(host, page)).toBe('Guest-Valid');
    host.hw.pvalidate({ ...operands, validate: false });
    expect(state(host, page)).toBe('Guest-Invalid');
  });

  it('of a context page: Firmware, Context by GCTX_CREATE, Firmware by DECOMMISSION; the host reads ciphertext', () => {
    const host = TestHost.up();
    const page = host.firmwarePage();
    const address = SevDataSnpAddr.encode({ address: spaOf(page) });
    host.done('SEV_CMD_SNP_GCTX_CREATE', address);
    expect(state(host, page)).toBe('Context');
    expect(host.hw.hostRead(spaOf(page), 16)).not.toEqual(new Uint8Array(16));
    expect(host.issue('SEV_CMD_SNP_GCTX_CREATE', address)).toBe(SevRet.SEV_RET_INVALID_PAGE_STATE);
    host.done('SEV_CMD_SNP_DECOMMISSION', address);
    expect(state(host, page)).toBe('Firmware');
  });
});

describe('SNP_PAGE_RECLAIM', () => {
  it('takes 2 MiB pages by their size bit and no page by the other size', () => {
    const host = TestHost.up();
    const large = host.makeFirmware(host.alloc(512), 1);
    expect(reclaim(host, large)).toBe('SEV_RET_INVALID_PAGE_SIZE');
    expect(reclaim(host, pfn(large + 1))).toBe('SEV_RET_INVALID_PAGE_SIZE');
    expect(reclaim(host, pfn(large + 1), 1n)).toBe('SEV_RET_INVALID_ADDRESS');
    expect(reclaim(host, large, 2n)).toBe('SEV_RET_INVALID_PARAM');
    expect(reclaim(host, large, 1n)).toBe('SEV_RET_SUCCESS');
    expect(host.hw.rmp.lookup(large)).toMatchObject({ pagesize: 1, immutable: false, assigned: true });
    const small = host.makeFirmware(host.alloc(512), 0);
    expect(reclaim(host, small, 1n)).toBe('SEV_RET_INVALID_PAGE_SIZE');
    expect(reclaim(host, pfn(2 ** 40))).toBe('SEV_RET_INVALID_ADDRESS');
  });
});

describe('output pages', () => {
  const guestStatus = (host: TestHost, guest: TestGuest, status_paddr: bigint): string =>
    sevRetName(
      host.issue(
        'SEV_CMD_SNP_GUEST_STATUS',
        SevDataSnpGuestStatus.encode({ gctx_paddr: guest.gctx, status_paddr }),
      ),
    );

  it('have to be 4 KiB Firmware pages, and are in Reclaim state afterwards', () => {
    const host = TestHost.up();
    const guest = host.launching();
    for (const from of PAGE_STATES) {
      const page = MAKE[from](host, guest);
      const expected = from === 'Firmware' ? 'SEV_RET_SUCCESS' : 'SEV_RET_INVALID_PAGE_STATE';
      expect(guestStatus(host, guest, spaOf(page)), from).toBe(expected);
      expect(state(host, page), from).toBe(from === 'Firmware' ? 'Reclaim' : from);
    }
    const large = host.makeFirmware(host.alloc(512), 1);
    expect(guestStatus(host, guest, spaOf(large))).toBe('SEV_RET_INVALID_PAGE_SIZE');
  });

  it('stay Firmware pages when the command fails', () => {
    const host = TestHost.up();
    const page = host.firmwarePage();
    expect(guestStatus(host, { ...host.launching(), gctx: 0n }, spaOf(page))).toBe('SEV_RET_INVALID_GUEST');
    expect(state(host, page)).toBe('Firmware');
  });

  it('hold the output whole: it does not run into the next page', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const page = host.firmwarePage();
    expect(guestStatus(host, guest, spaOf(page) + 4090n)).toBe('SEV_RET_INVALID_ADDRESS');
    expect(guestStatus(host, guest, spaOf(page) + 64n)).toBe('SEV_RET_SUCCESS');
  });

  it('before SNP_INIT are pages nobody owns', () => {
    const host = new TestHost();
    const page = host.firmwarePage();
    const status = (paddr: bigint): string =>
      sevRetName(
        host.issue('SEV_CMD_SNP_PLATFORM_STATUS', SevDataSnpPlatformStatus.encode({ status_paddr: paddr })),
      );
    expect(status(spaOf(page))).toBe('SEV_RET_INVALID_PAGE_STATE');
    expect(status(spaOf(host.alloc()))).toBe('SEV_RET_SUCCESS');
  });
});

describe('SNP_PAGE_UNSMASH', () => {
  const unsmash = (host: TestHost, page: Pfn): string =>
    sevRetName(host.issue('SEV_CMD_SNP_PAGE_UNSMASH', SevDataSnpPageUnsmash.encode({ paddr: spaOf(page) })));

  function smashed(): { host: TestHost; page: Pfn; guest: TestGuest } {
    const host = TestHost.up();
    const guest = host.launching();
    const page = host.alloc(512);
    host.update(page, { assigned: true, asid: guest.asid, gfn: 512, pagesize: 1 });
    host.hw.psmash(page);
    return { host, page, guest };
  }

  it('undoes PSMASH', () => {
    const { host, page } = smashed();
    expect(unsmash(host, page)).toBe('SEV_RET_SUCCESS');
    expect(host.hw.rmp.lookup(page)).toMatchObject({ pagesize: 1, gfn: 512, validated: false });
    expect(host.hw.rmp.gfnOf(pfn(page + 5))).toBe(517);
    expect(unsmash(host, page)).toBe('SEV_RET_INVALID_PAGE_SIZE');
  });

  it('refuses entries that do not agree', () => {
    const { host, page, guest } = smashed();
    expect(unsmash(host, pfn(page + 1))).toBe('SEV_RET_INVALID_ADDRESS');
    expect(unsmash(host, host.alloc(512))).toBe('SEV_RET_INVALID_PAGE_STATE');
    const last = pfn(page + 511);
    host.hw.pvalidate({
      pfn: last,
      gfn: gfn(1023),
      asid: asid(guest.asid),
      vmpl: 0,
      size: 0,
      validate: true,
    });
    expect(unsmash(host, page)).toBe('SEV_RET_INVALID_PAGE_STATE');
    host.update(last, { assigned: true, asid: guest.asid, gfn: 1024 });
    expect(unsmash(host, page)).toBe('SEV_RET_INVALID_PAGE_STATE');
    host.update(last, { assigned: true, asid: guest.asid, gfn: 1023 });
    expect(unsmash(host, page)).toBe('SEV_RET_SUCCESS');
  });
});

describe('SNP_DBG_DECRYPT and SNP_DBG_ENCRYPT', () => {
  const dbg = (
    host: TestHost,
    command: 'SEV_CMD_SNP_DBG_DECRYPT' | 'SEV_CMD_SNP_DBG_ENCRYPT',
    guest: TestGuest,
    from: bigint,
    to: bigint,
  ): string =>
    sevRetName(
      host.issue(command, SevDataSnpDbg.encode({ gctx_paddr: guest.gctx, src_paddr: from, dst_paddr: to })),
    );

  it('read and write the pages of a guest whose policy allows debugging', () => {
    const host = TestHost.up();
    const guest = host.launching(0xb0000n);
    const data = new Uint8Array(4096).fill(0x3c);
    const page = host.preGuest(guest, 0n, data);
    host.launchUpdate(guest, page, PageType.NORMAL);
    const out = host.firmwarePage();
    expect(dbg(host, 'SEV_CMD_SNP_DBG_DECRYPT', guest, spaOf(page), spaOf(out))).toBe('SEV_RET_SUCCESS');
    expect(host.hw.hostRead(spaOf(out), 4096)).toEqual(data);
    expect(state(host, out)).toBe('Reclaim');
    const source = host.alloc();
    host.hw.hostWrite(spaOf(source), new Uint8Array(4096).fill(0x77));
    expect(dbg(host, 'SEV_CMD_SNP_DBG_ENCRYPT', guest, spaOf(source), spaOf(page))).toBe('SEV_RET_SUCCESS');
    expect(host.hw.memory.read(spaOf(page), 4096, asid(guest.asid))).toEqual(new Uint8Array(4096).fill(0x77));
  });

  it.each(['SEV_CMD_SNP_DBG_DECRYPT', 'SEV_CMD_SNP_DBG_ENCRYPT'] as const)(
    '%s refuses other policies, other guests’ pages, unaligned addresses and guests without ASID',
    (command) => {
      const host = TestHost.up();
      const closed = host.launching();
      const open = host.launching(0xb0000n);
      const foreign = spaOf(host.preGuest(closed, 0n));
      const out = spaOf(host.firmwarePage());
      const [from, to] = command === 'SEV_CMD_SNP_DBG_DECRYPT' ? [foreign, out] : [out, foreign];
      expect(dbg(host, command, closed, from, to)).toBe('SEV_RET_POLICY_FAILURE');
      expect(dbg(host, command, open, from, to)).toBe('SEV_RET_INVALID_PAGE_OWNER');
      expect(dbg(host, command, open, from + 16n, to)).toBe('SEV_RET_INVALID_ADDRESS');
      expect(dbg(host, command, open, from, 1n << 60n)).toBe('SEV_RET_INVALID_ADDRESS');
      const gctx = host.gctx();
      host.launchStart(gctx, 0xb0000n);
      expect(dbg(host, command, { ...open, gctx }, from, to)).toBe('SEV_RET_INACTIVE');
    },
  );
});
