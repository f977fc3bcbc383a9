// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { crypto, flags, SECRET, type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { AttestationReportV3 } from '../abi/attestation-report.ts';
import { SevUserDataStatus } from '../abi/dev-sev.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import {
  SevDataDownloadFirmware,
  SevDataGetId,
  SevDataInit,
  SevDataRange,
  SevDataRangeList,
  SevDataSnpActivate,
  SevDataSnpAddr,
  SevDataSnpCommit,
  SevDataSnpConfig,
  SevDataSnpDownloadFirmwareEx,
  SevDataSnpFeatureInfo,
  SevDataSnpInitEx,
  SevDataSnpPlatformStatus,
  SevDataSnpShutdownEx,
  SevDataSnpVerifyMitigation,
  SevDataSnpVlekLoad,
  SevUserDataSnpStatus,
  SnpFeatureInfoOut,
  SnpVerifyMitigationOut,
} from '../abi/snp-commands.ts';
import { encodeTcb, type TcbParts } from '../abi/tcb-version.ts';
import { chipWrappingKey, descend, endorsementKey, topStick, wrapHashstick } from '../keys/index.ts';
import { asid, type Pfn, pfn, spaOf } from '../lib/addresses.ts';
import { concat, reversed } from '../lib/bytes.ts';
import { seededRandom } from '../os/node-crypto.ts';
import { buildFirmwareImage, type FirmwareImageContents } from './firmware-image.ts';

const BASE: TcbParts = { fmc: 0, boot_loader: 4, tee: 0, snp: 24, microcode: 219 };
const OLDER: TcbParts = { ...BASE, microcode: 213 };
const NEWER: TcbParts = { ...BASE, snp: 25 };
const word = (tcb: TcbParts): bigint => encodeTcb(tcb, 'Milan');

function status(host: TestHost): SevUserDataSnpStatus {
  return SevUserDataSnpStatus.decode(
    host.output(32, (status_paddr) =>
      host.issue('SEV_CMD_SNP_PLATFORM_STATUS', SevDataSnpPlatformStatus.encode({ status_paddr })),
    ),
  );
}

const config = (host: TestHost, tcb: bigint, mask = { mask_chip_id: 0, mask_chip_key: 0 }): string =>
  sevRetName(host.issue('SEV_CMD_SNP_CONFIG', SevDataSnpConfig.encode({ reported_tcb: tcb, flags: mask })));

const commit = (host: TestHost): void =>
  host.done('SEV_CMD_SNP_COMMIT', SevDataSnpCommit.encode({ length: 4 }));

function stored(host: TestHost, bytes: Uint8Array): bigint {
  const page = host.alloc();
  host.hw.memory.write(spaOf(page), bytes, asid(0));
  return spaOf(page);
}

function image(more: Partial<FirmwareImageContents> = {}): Uint8Array {
  return buildFirmwareImage(crypto, {
    product: 'Milan',
    tcb: NEWER,
    version: { major: 1, minor: 55, build: 40 },
    ...more,
  });
}

function download(host: TestHost, bytes: Uint8Array, commitToo = 0): string {
  return sevRetName(
    host.issue(
      'SEV_CMD_SNP_DOWNLOAD_FIRMWARE_EX',
      SevDataSnpDownloadFirmwareEx.encode({
        length: SevDataSnpDownloadFirmwareEx.size,
        fw_paddr: stored(host, bytes),
        fw_len: bytes.length,
        flags: { commit: commitToo },
      }),
    ),
  );
}

function loadVlek(host: TestHost, tcb: TcbParts, change?: (wrapped: Uint8Array) => void): string {
  const stick = descend(crypto, topStick(crypto, new Uint8Array(48).fill(7), 'Milan'), tcb)!;
  const wrapped = wrapHashstick(crypto, seededRandom(1), chipWrappingKey(crypto, SECRET), stick);
  change?.(wrapped);
  return sevRetName(
    host.issue(
      'SEV_CMD_SNP_VLEK_LOAD',
      SevDataSnpVlekLoad.encode({ length: 16, vlek_wrapped_paddr: stored(host, wrapped) }),
    ),
  );
}

/** Which of these TCBs' VCEKs signs reports now. */
function signingTcb(host: TestHost, guest: TestGuest): TcbParts | undefined {
  const bytes = host.report(guest, { keySel: 1 }).payload!.slice(0x20);
  const signature = {
    r: reversed(bytes.subarray(0x2a0, 0x2d0)),
    s: reversed(bytes.subarray(0x2e8, 0x318)),
  };
  return [OLDER, BASE, NEWER].find((tcb) => {
    const stick = descend(crypto, topStick(crypto, SECRET, 'Milan'), tcb)!;
    const { publicPoint } = endorsementKey(crypto, stick, 'VCEK');
    return crypto.p384Verify(publicPoint, bytes.subarray(0, 0x2a0), signature);
  });
}

describe('SNP_CONFIG', () => {
  it('lowers ReportedTcb, and the VCEK of that TCB signs from then on; zero goes back to CommittedTcb', () => {
    const host = TestHost.up();
    const guest = host.running();
    expect(signingTcb(host, guest)).toEqual(BASE);
    expect(config(host, word(OLDER))).toBe('SEV_RET_SUCCESS');
    expect(status(host)).toMatchObject({ current_tcb: word(BASE), reported_tcb: word(OLDER) });
    expect(signingTcb(host, guest)).toEqual(OLDER);
    expect(config(host, 0n)).toBe('SEV_RET_SUCCESS');
    expect(signingTcb(host, guest)).toEqual(BASE);
  });

  it('refuses a component above CommittedTcb even when others are below, and a reserved byte; nothing changes', () => {
    const host = TestHost.up();
    config(host, word(OLDER), { mask_chip_id: 1, mask_chip_key: 0 });
    const mixed = word({ ...OLDER, snp: 25 });
    expect(config(host, mixed)).toBe('SEV_RET_INVALID_PARAM');
    expect(config(host, word(BASE) | (1n << 16n))).toBe('SEV_RET_INVALID_PARAM');
    expect(status(host)).toMatchObject({
      reported_tcb: word(OLDER),
      features: { mask_chip_id: 1 },
    });
  });

  it('drops the VLEK when ReportedTcb changes, and keeps it otherwise', () => {
    const host = TestHost.up();
    expect(loadVlek(host, BASE)).toBe('SEV_RET_SUCCESS');
    config(host, word(BASE), { mask_chip_id: 1, mask_chip_key: 0 });
    expect(status(host).features.vlek_en).toBe(1);
    config(host, word(OLDER));
    expect(status(host).features.vlek_en).toBe(0);
    config(host, 0n);
    expect(status(host).features.vlek_en).toBe(0);
  });
});

describe('SNP_DOWNLOAD_FIRMWARE_EX and SNP_COMMIT', () => {
  it('raise CurrentTcb alone, then everything; reports and keys follow, LAUNCH_TCB stays', () => {
    const host = TestHost.up();
    const guest = host.running();
    expect(download(host, image())).toBe('SEV_RET_SUCCESS');
    expect(status(host)).toMatchObject({ build_id: 40, current_tcb: word(NEWER), reported_tcb: word(BASE) });
    expect(signingTcb(host, guest)).toEqual(BASE);
    expect(config(host, word(NEWER))).toBe('SEV_RET_INVALID_PARAM');
    const provisional = AttestationReportV3.decode(host.report(guest).payload!.slice(0x20));
    expect(provisional).toMatchObject({
      current_tcb: word(NEWER),
      committed_tcb: word(BASE),
      reported_tcb: word(BASE),
      launch_tcb: word(BASE),
      current_build: 40,
      committed_build: 29,
    });
    loadVlek(host, BASE);
    commit(host);
    expect(status(host)).toMatchObject({ reported_tcb: word(NEWER), features: { vlek_en: 0 } });
    expect(signingTcb(host, guest)).toEqual(NEWER);
    expect(AttestationReportV3.decode(host.report(guest).payload!.slice(0x20))).toMatchObject({
      committed_tcb: word(NEWER),
      launch_tcb: word(BASE),
      committed_build: 40,
    });
  });

  it('with COMMIT do both at once', () => {
    const host = TestHost.up();
    expect(download(host, image(), 1)).toBe('SEV_RET_SUCCESS');
    expect(host.psp.tcb).toEqual({ current: NEWER, committed: NEWER, reported: NEWER });
  });

  it('let provisional firmware be rolled back, and committed firmware not', () => {
    const host = TestHost.up();
    const first = image({ tcb: BASE, version: { major: 1, minor: 55, build: 29 } });
    download(host, image());
    expect(download(host, first)).toBe('SEV_RET_SUCCESS');
    expect(host.psp.tcb.current).toEqual(BASE);
    download(host, image(), 1);
    expect(download(host, first)).toBe('SEV_RET_BAD_VERSION');
    expect(download(host, image({ tcb: BASE }))).toBe('SEV_RET_BAD_SVN');
    expect(host.psp.tcb.current).toEqual(NEWER);
  });

  it('COMMIT without new firmware sets ReportedTcb back to CurrentTcb', () => {
    const host = TestHost.up();
    config(host, word(OLDER));
    commit(host);
    expect(host.psp.tcb.reported).toEqual(BASE);
  });

  it.each<[string, Uint8Array]>([
    ['SEV_RET_BAD_SIGNATURE', image().map((byte, i) => (i === 0x17 ? byte ^ 1 : byte))],
    ['SEV_RET_BAD_SIGNATURE', image().map((byte, i) => (i === 0x6f ? byte ^ 1 : byte))],
    ['SEV_RET_BAD_SIGNATURE', new Uint8Array(image().length)],
    ['SEV_RET_INVALID_PARAM', image().subarray(1)],
    ['SEV_RET_INVALID_PARAM', concat(image(), new Uint8Array(1))],
    ['SEV_RET_BAD_VERSION', image({ product: 'Genoa' })],
    ['SEV_RET_BAD_VERSION', image({ version: { major: 1, minor: 54, build: 99 } })],
    ['SEV_RET_BAD_SVN', image({ tcb: { ...NEWER, microcode: 218 } })],
    ['SEV_RET_SHUTDOWN_REQUIRED', image({ shutdownRequired: true })],
  ])('answer %s for a bad image and change nothing', (expected, bytes) => {
    const host = TestHost.up();
    const before = host.psp.exportState();
    expect(download(host, bytes, 1)).toBe(expected);
    expect(host.psp.exportState()).toEqual(before);
  });

  it('take an image that needs a shutdown once SNP is down, also by legacy DOWNLOAD_FIRMWARE', () => {
    const host = new TestHost();
    expect(download(host, image({ shutdownRequired: true }))).toBe('SEV_RET_SUCCESS');
    const bytes = image({ tcb: { ...NEWER, snp: 26 } });
    const legacy = (address: bigint): string =>
      sevRetName(
        host.issue(
          'SEV_CMD_DOWNLOAD_FIRMWARE',
          SevDataDownloadFirmware.encode({ address, len: bytes.length }),
        ),
      );
    expect(legacy(stored(host, bytes))).toBe('SEV_RET_SUCCESS');
    expect(host.psp.tcb.current.snp).toBe(26);
    expect(legacy(16n)).toBe('SEV_RET_INVALID_ADDRESS');
    host.init();
    expect(legacy(stored(host, bytes))).toBe('SEV_RET_INVALID_PLATFORM_STATE');
  });

  it('leave nothing but another download after an image that does not run', () => {
    const host = TestHost.up();
    expect(download(host, image({ restoreRequired: true }))).toBe('SEV_RET_RESTORE_REQUIRED');
    expect(config(host, 0n)).toBe('SEV_RET_RESTORE_REQUIRED');
    expect(host.issue('SEV_CMD_SNP_SHUTDOWN')).toBe(SevRet.SEV_RET_RESTORE_REQUIRED);
    expect(status(host).state).toBe(1);
    expect(download(host, image({ tcb: BASE, version: host.chip.firmwareVersion }))).toBe('SEV_RET_SUCCESS');
    expect(config(host, 0n)).toBe('SEV_RET_SUCCESS');
  });

  it('are refused while legacy SEV is up', () => {
    const host = TestHost.up();
    host.done('SEV_CMD_INIT', SevDataInit.encode({}));
    expect(download(host, image())).toBe('SEV_RET_INVALID_PLATFORM_STATE');
    host.done('SEV_CMD_SHUTDOWN');
    expect(download(host, image())).toBe('SEV_RET_SUCCESS');
  });
});

describe('SNP_VLEK_LOAD', () => {
  it('takes a hash stick of the reported TCB and no other', () => {
    const host = TestHost.up();
    expect(loadVlek(host, OLDER)).toBe('SEV_RET_INVALID_PARAM');
    expect(loadVlek(host, BASE)).toBe('SEV_RET_SUCCESS');
    config(host, word(OLDER));
    expect(loadVlek(host, OLDER)).toBe('SEV_RET_SUCCESS');
  });

  it('answers BAD_MEASUREMENT for a stick that was altered or wrapped for another chip', () => {
    const host = TestHost.up();
    for (const at of [0x000, 0x010, 0x18f, 0x190, 0x1af]) {
      expect(
        loadVlek(host, BASE, (wrapped) => {
          wrapped[at]! ^= 1;
        }),
      ).toBe('SEV_RET_BAD_MEASUREMENT');
    }
    const elsewhere = TestHost.up('Milan', { secret: new Uint8Array(48).fill(9) });
    expect(loadVlek(elsewhere, BASE)).toBe('SEV_RET_BAD_MEASUREMENT');
  });

  it('answers INVALID_PARAM for reserved bytes, length and version, INVALID_ADDRESS outside memory', () => {
    const host = TestHost.up();
    expect(
      loadVlek(host, BASE, (wrapped) => {
        wrapped[0x00c] = 1;
      }),
    ).toBe('SEV_RET_INVALID_PARAM');
    const load = (more: Partial<SevDataSnpVlekLoad>): string =>
      sevRetName(host.issue('SEV_CMD_SNP_VLEK_LOAD', SevDataSnpVlekLoad.encode({ length: 16, ...more })));
    expect(load({ length: 15 })).toBe('SEV_RET_INVALID_PARAM');
    expect(load({ vlek_wrapped_version: 1 })).toBe('SEV_RET_INVALID_PARAM');
    expect(load({ vlek_wrapped_paddr: 1n << 50n })).toBe('SEV_RET_INVALID_ADDRESS');
  });
});

describe('SNP_INIT_EX', () => {
  const initEx = (
    host: TestHost,
    more: Partial<SevDataSnpInitEx> = {},
    set = flags({ init_rmp: 1 }),
  ): string =>
    sevRetName(host.issue('SEV_CMD_SNP_INIT_EX', SevDataSnpInitEx.encode({ flags: set, ...more })));

  it('wants the RMP set up once; it survives a shutdown', () => {
    const host = new TestHost();
    expect(initEx(host, {}, flags({}))).toBe('SEV_RET_RMP_INIT_REQUIRED');
    expect(initEx(host)).toBe('SEV_RET_SUCCESS');
    host.flush();
    const page = host.firmwarePage();
    host.done('SEV_CMD_SNP_SHUTDOWN');
    expect(initEx(host, {}, flags({}))).toBe('SEV_RET_SUCCESS');
    expect(host.hw.rmp.isAssigned(page)).toBe(true);
    host.flush();
    host.done('SEV_CMD_SNP_SHUTDOWN');
    expect(initEx(host)).toBe('SEV_RET_SUCCESS');
    expect(host.hw.rmp.isAssigned(page)).toBe(false);
  });

  it('refuses options the platform has not, and reserved bits', () => {
    const host = new TestHost('Milan');
    expect(initEx(host, {}, flags({ init_rmp: 1, ciphertext_hiding_en: 1 }))).toBe('SEV_RET_INVALID_PARAM');
    expect(initEx(host, {}, flags({ init_rmp: 1, tio_en: 1 }))).toBe('SEV_RET_INVALID_PARAM');
    const turin = new TestHost('Turin');
    const hiding = flags({ init_rmp: 1, ciphertext_hiding_en: 1 });
    expect(initEx(turin, { max_snp_asid: 0 }, hiding)).toBe('SEV_RET_INVALID_PARAM');
    expect(initEx(turin, { max_snp_asid: 0xffff }, hiding)).toBe('SEV_RET_INVALID_PARAM');
    for (const at of [0, 3, 4, 0x12, 0x3f]) {
      const bytes = SevDataSnpInitEx.encode({ flags: flags({ init_rmp: 1 }) });
      bytes[at]! |= 0x80;
      expect(sevRetName(turin.issue('SEV_CMD_SNP_INIT_EX', bytes)), `byte ${at}`).toBe(
        'SEV_RET_INVALID_PARAM',
      );
    }
  });

  const list = (...ranges: (readonly [base: bigint, page_count: number])[]): Uint8Array =>
    concat(
      SevDataRangeList.encode({ num_elements: ranges.length }),
      ...ranges.map(([base, page_count]) => SevDataRange.encode({ base, page_count })),
    );
  const withList = (host: TestHost, bytes: Uint8Array, init_rmp = 1): string =>
    initEx(host, { list_paddr: stored(host, bytes) }, flags({ init_rmp, list_paddr_en: 1 }));

  it('makes listed ranges HV-Fixed, whatever their shape, for good', () => {
    const host = new TestHost();
    const ranges = list([0x60_0000n, 512], [0x90_1000n, 700], [0x60_0000n, 3], [0x1000_0000n, 1]);
    expect(withList(host, ranges)).toBe('SEV_RET_SUCCESS');
    const fixed = (page: number): boolean => {
      const entry = host.hw.rmp.lookup(pfn(page));
      return entry.immutable && !entry.assigned;
    };
    expect([0x5ff, 0x600, 0x7ff, 0x800, 0x900, 0x901, 0xbbc, 0xbbd, 0x10000, 0x10001].map(fixed)).toEqual([
      false,
      true,
      true,
      false,
      false,
      true,
      true,
      false,
      true,
      false,
    ]);
    expect(() => host.update(pfn(0x600), { assigned: true, asid: 1 })).toThrow('RMPUPDATE: 2');
  });

  it('is quick for a list of ranges as large as memory', () => {
    const host = new TestHost();
    const all = Array.from({ length: 253 }, () => [0n, 2 ** 30] as const);
    expect(withList(host, list(...all))).toBe('SEV_RET_SUCCESS');
  });

  it('refuses bad lists', () => {
    const host = new TestHost();
    expect(withList(host, SevDataRangeList.encode({ num_elements: 256 }))).toBe('SEV_RET_INVALID_PARAM');
    expect(withList(host, SevDataRangeList.encode({ num_elements: 0xffff_ffff }))).toBe(
      'SEV_RET_INVALID_PARAM',
    );
    expect(withList(host, list([0x1234n, 1]))).toBe('SEV_RET_INVALID_ADDRESS');
    expect(withList(host, list([1n << 41n, 0xffff_ffff]))).toBe('SEV_RET_INVALID_ADDRESS');
    const reserved = list([0x1000n, 1]);
    reserved[8 + 12] = 1;
    expect(withList(host, reserved)).toBe('SEV_RET_INVALID_PARAM');
    expect(initEx(host, { list_paddr: 1n << 60n }, flags({ init_rmp: 1, list_paddr_en: 1 }))).toBe(
      'SEV_RET_INVALID_ADDRESS',
    );
  });

  it('refuses to fix pages in use when it keeps the RMP', () => {
    const host = TestHost.up();
    const page = host.firmwarePage();
    host.done('SEV_CMD_SNP_SHUTDOWN');
    expect(withList(host, list([spaOf(page) - 0x200000n, 1024]), 0)).toBe('SEV_RET_INVALID_PAGE_STATE');
    expect(withList(host, list([0x8000_0000n, 4096]), 0)).toBe('SEV_RET_SUCCESS');
  });
});

describe('shutdown and flushing', () => {
  it('follow the order of Linux: SHUTDOWN_EX, DFFLUSH_REQUIRED, DF_FLUSH, SHUTDOWN_EX', () => {
    const host = TestHost.up();
    host.running();
    const shutdown = (): string =>
      sevRetName(host.issue('SEV_CMD_SNP_SHUTDOWN_EX', SevDataSnpShutdownEx.encode({ length: 8 })));
    expect(shutdown()).toBe('SEV_RET_DFFLUSH_REQUIRED');
    expect(host.issue('SEV_CMD_SNP_DF_FLUSH')).toBe(SevRet.SEV_RET_WBINVD_REQUIRED);
    host.flush();
    expect(shutdown()).toBe('SEV_RET_SUCCESS');
    expect(shutdown()).toBe('SEV_RET_SUCCESS');
    host.done('SEV_CMD_SNP_INIT');
    expect(status(host)).toMatchObject({ state: 1, guest_count: 0 });
  });

  it('refuses X86_SNP_SHUTDOWN, which is not offered, and a wrong length', () => {
    const host = TestHost.up();
    const shutdown = (bytes: Uint8Array): number => host.issue('SEV_CMD_SNP_SHUTDOWN_EX', bytes);
    expect(
      shutdown(
        SevDataSnpShutdownEx.encode({ length: 8, flags: { iommu_snp_shutdown: 0, x86_snp_shutdown: 1 } }),
      ),
    ).toBe(SevRet.SEV_RET_INVALID_PARAM);
    expect(shutdown(SevDataSnpShutdownEx.encode({ length: 7 }))).toBe(SevRet.SEV_RET_INVALID_PARAM);
  });

  it('forgets what SNP_CONFIG set, the VLEK and all guests, whose context pages can be reclaimed', () => {
    const host = TestHost.up();
    config(host, word(OLDER), { mask_chip_id: 1, mask_chip_key: 1 });
    loadVlek(host, OLDER);
    const guest = host.running();
    host.flush();
    host.done('SEV_CMD_SNP_SHUTDOWN');
    host.done('SEV_CMD_SNP_INIT_EX', SevDataSnpInitEx.encode({ flags: flags({}) }));
    expect(status(host)).toMatchObject({
      reported_tcb: word(BASE),
      features: { mask_chip_id: 0, mask_chip_key: 0, vlek_en: 0 },
    });
    const gone = SevDataSnpAddr.encode({ address: guest.gctx });
    expect(host.issue('SEV_CMD_SNP_DECOMMISSION', gone)).toBe(SevRet.SEV_RET_INVALID_GUEST);
    expect(host.issue('SEV_CMD_SNP_PAGE_RECLAIM', gone)).toBe(0);
  });

  it('an ASID can be bound again only after WBINVD and DF_FLUSH', () => {
    const host = TestHost.up();
    const bind = (id: number): string => {
      const gctx = host.gctx();
      host.launchStart(gctx);
      return sevRetName(
        host.issue('SEV_CMD_SNP_ACTIVATE', SevDataSnpActivate.encode({ gctx_paddr: gctx, asid: id })),
      );
    };
    const guest = host.running();
    expect(bind(guest.asid)).toBe('SEV_RET_ASID_OWNED');
    host.done('SEV_CMD_SNP_DECOMMISSION', SevDataSnpAddr.encode({ address: guest.gctx }));
    expect(bind(guest.asid)).toBe('SEV_RET_WBINVD_REQUIRED');
    expect(bind(300)).toBe('SEV_RET_SUCCESS');
    host.hw.wbinvd();
    expect(bind(guest.asid)).toBe('SEV_RET_DFFLUSH_REQUIRED');
    host.done('SEV_CMD_SNP_DF_FLUSH');
    expect(bind(guest.asid)).toBe('SEV_RET_SUCCESS');
    expect(bind(0)).toBe('SEV_RET_INVALID_ASID');
    expect(bind(host.chip.maxAsid + 1)).toBe('SEV_RET_INVALID_ASID');
    expect(bind(host.chip.maxAsid)).toBe('SEV_RET_SUCCESS');
  });

  it('memory of a destroyed guest is noise to the next guest with the ASID', () => {
    const host = TestHost.up();
    const guest = host.launching();
    const data = new Uint8Array(4096).fill(0x5a);
    const page = host.preGuest(guest, 0n, data);
    host.launchUpdate(guest, page, 1);
    host.done('SEV_CMD_SNP_DECOMMISSION', SevDataSnpAddr.encode({ address: guest.gctx }));
    host.flush();
    const gctx = host.gctx();
    host.launchStart(gctx);
    expect(host.activate(gctx, guest.asid)).toBe(0);
    expect(host.hw.memory.read(spaOf(page), 4096, asid(guest.asid))).not.toEqual(data);
  });
});

describe('other platform commands', () => {
  it('SNP_PLATFORM_STATUS counts guests and shows state and version', () => {
    const host = new TestHost('Milan', { reportVersion: 3 });
    const page = host.alloc();
    const buffer = SevDataSnpPlatformStatus.encode({ status_paddr: spaOf(page) });
    expect(host.issue('SEV_CMD_SNP_PLATFORM_STATUS', buffer)).toBe(0);
    expect(SevUserDataSnpStatus.decode(host.hw.hostRead(spaOf(page), 32))).toMatchObject({
      state: 0,
      rmp: { is_rmp_init: 0 },
    });
    host.init();
    host.gctx();
    host.running();
    expect(status(host)).toEqual({
      api_major: 1,
      api_minor: 55,
      state: 1,
      rmp: { is_rmp_init: 1, alias_check_complete: 1, is_tio_en: 0 },
      build_id: 29,
      features: {
        mask_chip_id: 0,
        mask_chip_key: 0,
        vlek_en: 0,
        feature_info: 1,
        rapl_dis: 0,
        ciphertext_hiding_dram_cap: 0,
        ciphertext_hiding_dram_en: 0,
      },
      guest_count: 2,
      current_tcb: word(BASE),
      reported_tcb: word(BASE),
    });
  });

  it('SNP_FEATURE_INFO tells what the chip offers', () => {
    const info = (host: TestHost): SnpFeatureInfoOut =>
      SnpFeatureInfoOut.decode(
        host.output(16, (feature_info_paddr) =>
          host.issue(
            'SEV_CMD_SNP_FEATURE_INFO',
            SevDataSnpFeatureInfo.encode({ length: 16, feature_info_paddr }),
          ),
        ),
      );
    expect(info(TestHost.up('Milan')).ecx).toMatchObject({ mem_aes_256_xts: 0, verify_mitigation: 0 });
    expect(info(TestHost.up('Turin')).ecx).toMatchObject({
      ciphertext_hiding_dram: 1,
      mem_aes_256_xts: 1,
      verify_mitigation: 1,
    });
    const host = TestHost.up();
    const other = SevDataSnpFeatureInfo.encode({
      length: 16,
      ecx_in: 1,
      feature_info_paddr: spaOf(host.firmwarePage()),
    });
    expect(host.issue('SEV_CMD_SNP_FEATURE_INFO', other)).toBe(SevRet.SEV_RET_INVALID_PARAM);
  });

  it('SNP_VERIFY_MITIGATION verifies one supported bit at a time', () => {
    const host = TestHost.up('Turin', { mitigations: { supported: 0x6n, verified: 0n } });
    const mitigation = (more: Partial<SevDataSnpVerifyMitigation>): number =>
      host.issue('SEV_CMD_SNP_VERIFY_MITIGATION', SevDataSnpVerifyMitigation.encode({ length: 64, ...more }));
    const verified = (): bigint =>
      SnpVerifyMitigationOut.decode(
        host.output(20, (dst_paddr) =>
          mitigation({ flags: { dst_paddr_en: 1, src_paddr_en: 0 }, dst_paddr }),
        ),
      ).verified_vector;
    expect(verified()).toBe(0n);
    for (const vector of [0n, 1n, 6n, 8n]) {
      expect(mitigation({ subcommand: 1, vector })).toBe(SevRet.SEV_RET_INVALID_PARAM);
    }
    expect(mitigation({ subcommand: 2 })).toBe(SevRet.SEV_RET_INVALID_PARAM);
    expect(mitigation({ vector: 2n })).toBe(SevRet.SEV_RET_INVALID_PARAM);
    expect(mitigation({ subcommand: 1, vector: 2n })).toBe(0);
    expect(verified()).toBe(2n);
    const old = TestHost.up('Milan');
    expect(old.issue('SEV_CMD_SNP_VERIFY_MITIGATION', new Uint8Array(64))).toBe(
      SevRet.SEV_RET_INVALID_COMMAND,
    );
  });
});

describe('legacy SEV', () => {
  it('INIT under SNP wants a 2 MiB region of Firmware pages for SEV-ES', () => {
    const host = TestHost.up();
    const init = (tmr_address: bigint, tmr_len: number): string =>
      sevRetName(
        host.issue('SEV_CMD_INIT', SevDataInit.encode({ flags: { sev_es: 1 }, tmr_address, tmr_len })),
      );
    const region = host.alloc(512);
    expect(init(spaOf(region), 0x10_0000)).toBe('SEV_RET_INVALID_LEN');
    expect(init(spaOf(region) + 0x1000n, 0x20_0000)).toBe('SEV_RET_INVALID_ADDRESS');
    expect(init(1n << 60n, 0x20_0000)).toBe('SEV_RET_INVALID_ADDRESS');
    expect(init(spaOf(region), 0x20_0000)).toBe('SEV_RET_INVALID_PAGE_STATE');
    host.makeFirmware(region, 1);
    expect(init(spaOf(region), 0x20_0000)).toBe('SEV_RET_SUCCESS');
  });

  it('PLATFORM_STATUS answers in its command buffer, which has to be a Firmware page under SNP', () => {
    const host = TestHost.up();
    expect(host.issue('SEV_CMD_PLATFORM_STATUS')).toBe(SevRet.SEV_RET_INVALID_PAGE_STATE);
    host.done('SEV_CMD_INIT', SevDataInit.encode({}));
    const page = host.firmwarePage();
    expect(host.psp.command(4, spaOf(page))).toBe(0);
    expect(SevUserDataStatus.decode(host.hw.hostRead(spaOf(page), 12))).toEqual({
      api_major: 1,
      api_minor: 55,
      state: 1,
      flags: 0,
      build: 29,
      guest_count: 0,
    });
    expect(host.hw.rmp.lookup(page)).toMatchObject({ assigned: true, immutable: false });
  });

  it('GET_ID gives the chip id of every socket, or the length it needs', () => {
    const ask = (host: TestHost, address: bigint, len: number) => {
      const page = host.alloc();
      host.hw.memory.write(spaOf(page), SevDataGetId.encode({ address, len }), asid(0));
      return {
        status: sevRetName(host.psp.command(0xc, spaOf(page))),
        len: SevDataGetId.decode(host.hw.hostRead(spaOf(page), 12)).len,
      };
    };
    const one = new TestHost();
    expect(ask(one, 0n, 0)).toEqual({ status: 'SEV_RET_INVALID_LEN', len: 64 });
    const room: Pfn = one.alloc();
    expect(ask(one, spaOf(room), 63)).toEqual({ status: 'SEV_RET_INVALID_LEN', len: 64 });
    expect(ask(one, spaOf(room), 64)).toEqual({ status: 'SEV_RET_SUCCESS', len: 64 });
    expect(one.hw.hostRead(spaOf(room), 64)).toEqual(one.chip.chipId);
    expect(ask(new TestHost('Milan', { sockets: 2 }), 0x5000n, 128)).toEqual({
      status: 'SEV_RET_SUCCESS',
      len: 128,
    });
  });
});

describe('persistent state', () => {
  it('takes TCBs, versions and masks from one processor to the next', () => {
    const host = TestHost.up();
    download(host, image());
    config(host, word(OLDER), { mask_chip_id: 1, mask_chip_key: 0 });
    const state = JSON.parse(JSON.stringify(host.psp.exportState()));
    const next = new TestHost();
    next.psp.importState(state);
    expect(next.psp.exportState()).toEqual(state);
    next.init();
    expect(next.psp.tcb).toEqual({ current: NEWER, committed: BASE, reported: OLDER });
    expect(signingTcb(next, next.running())).toEqual(OLDER);
    expect(status(next)).toMatchObject({ build_id: 40, features: { mask_chip_id: 1 } });
  });

  it('is refused when a value is missing, malformed or impossible, and nothing is changed', () => {
    const host = new TestHost();
    const good = host.psp.exportState();
    const bad: unknown[] = [
      null,
      [],
      'x',
      { ...good, product: 'Genoa' },
      { ...good, current_tcb: 5 },
      { ...good, current_tcb: '0x1ffffffffffffffff' },
      { ...good, committed_tcb: '0x00010000' },
      { ...good, committed_tcb: `0x${word(NEWER).toString(16)}` },
      { ...good, reported_tcb: `0x${word(NEWER).toString(16)}` },
      { ...good, firmware_version: '1.55' },
      { ...good, committed_version: '1.55.256' },
      { ...good, mask_chip_id: 1 },
      { ...good, mitigations_verified: undefined },
    ];
    for (const state of bad) {
      expect(() => host.psp.importState(state), JSON.stringify(state)).toThrow(
        expect.objectContaining({ code: 'STATE_INVALID' }),
      );
      expect(host.psp.exportState()).toEqual(good);
    }
  });
});
