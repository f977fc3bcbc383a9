// SPDX-License-Identifier: Apache-2.0
import { createPublicKey, verify } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { crypto, flags, SECRET, type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { KeyInfo, PlatformInfo, type ReportVersion, reportLayout } from '../abi/attestation-report.ts';
import { MsgReportReq, MsgReportRsp, SnpMsg } from '../abi/guest-message.ts';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import {
  SevDataSnpConfig,
  SevDataSnpHvReportReq,
  SevDataSnpInitEx,
  SevDataSnpVerifyMitigation,
  SevDataSnpVlekLoad,
} from '../abi/snp-commands.ts';
import { encodeTcb, type TcbParts } from '../abi/tcb-version.ts';
import {
  chipWrappingKey,
  descend,
  endorsementKey,
  type Stick,
  topStick,
  wrapHashstick,
} from '../keys/index.ts';
import { asid, spaOf } from '../lib/addresses.ts';
import { concat, isZero, readU32, reversed, toHex } from '../lib/bytes.ts';
import { seededRandom } from '../os/node-crypto.ts';

const CSP_SECRET = new Uint8Array(48).fill(0x61);

function stick(secret: Uint8Array, product: ProductLine, tcb: TcbParts): Stick {
  return descend(crypto, topStick(crypto, secret, product), tcb)!;
}

function loadVlek(host: TestHost, tcb = host.psp.tcb.reported, secret = CSP_SECRET): number {
  const wrapped = wrapHashstick(
    crypto,
    seededRandom(2),
    chipWrappingKey(crypto, SECRET),
    stick(secret, host.chip.product, tcb),
  );
  const page = host.alloc();
  host.hw.memory.write(spaOf(page), wrapped, asid(0));
  return host.issue(
    'SEV_CMD_SNP_VLEK_LOAD',
    SevDataSnpVlekLoad.encode({ length: 16, vlek_wrapped_paddr: spaOf(page) }),
  );
}

/** The report of a response payload, and whether node:crypto verifies it under the point. */
function verifies(report: Uint8Array, point: Uint8Array): boolean {
  const spki = concat(
    Uint8Array.from(Buffer.from('3076301006072a8648ce3d020106052b81040022036200', 'hex')),
    point,
  );
  const signature = concat(
    reversed(report.subarray(0x2a0, 0x2a0 + 48)),
    reversed(report.subarray(0x2e8, 0x2e8 + 48)),
  );
  const key = createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' });
  return verify('sha384', report.subarray(0, 0x2a0), { key, dsaEncoding: 'ieee-p1363' }, signature);
}

const reportOf = (payload: Uint8Array | null): Uint8Array => payload!.slice(0x20);
const signingKeyOf = (report: Uint8Array): number =>
  KeyInfo.fromWord(BigInt(readU32(report, 0x48))).signing_key;

describe('attestation report', () => {
  const versions: readonly ReportVersion[] = [2, 3, 4, 5];
  const rows = PRODUCT_LINES.flatMap((product) => versions.map((version) => [product, version] as const));

  it.each(rows)(
    'of %s in version %i has every field and verifies under the derived keys',
    (product, version) => {
      const host = TestHost.up(product, { reportVersion: version });
      const hostData = new Uint8Array(32).fill(0x4d);
      const guest = host.running({ finish: { host_data: hostData } });
      const { payload } = host.report(guest, { vmpl: 2 }, { vmpck: 1 });
      expect(MsgReportRsp.decode(payload!.slice(0, 0x20))).toEqual({ status: 0, report_size: 0x4a0 });
      const bytes = reportOf(payload);
      const report = reportLayout(version).decode(bytes);
      const tcb = encodeTcb(host.chip.currentTcb, product);
      expect(report).toMatchObject({
        version,
        guest_svn: 0,
        policy: { smt: 1, debug: 0 },
        vmpl: 2,
        signature_algo: 1,
        current_tcb: tcb,
        reported_tcb: tcb,
        committed_tcb: tcb,
        launch_tcb: tcb,
        key_info: { author_key_en: 0, mask_chip_key: 0, signing_key: 0 },
        current_major: 1,
        current_minor: 55,
        current_build: host.chip.firmwareVersion.build,
        committed_build: host.chip.firmwareVersion.build,
        host_data: hostData,
        chip_id: host.chip.chipId,
        report_data: new Uint8Array(64).fill(0xd5),
        report_id_ma: new Uint8Array(32).fill(0xff),
      });
      expect(isZero(report.report_id)).toBe(false);
      const fms = [bytes[0x188], bytes[0x189], bytes[0x18a]];
      const { family, model, stepping } = host.chip.cpuid;
      expect(fms).toEqual(version === 2 ? [0, 0, 0] : [family, model, stepping]);
      expect(bytes[0x1f8]).toBe(version === 5 ? 0x0f : 0);
      expect(bytes[0x200]).toBe(version === 5 ? 0x0f : 0);
      const vcek = endorsementKey(crypto, stick(SECRET, product, host.chip.reportedTcb), 'VCEK');
      expect(verifies(bytes, vcek.publicPoint)).toBe(true);

      expect(loadVlek(host)).toBe(0);
      const other = reportOf(host.report(guest).payload);
      const vlek = endorsementKey(crypto, stick(CSP_SECRET, product, host.chip.reportedTcb), 'VLEK');
      expect(signingKeyOf(other)).toBe(1);
      expect(verifies(other, vlek.publicPoint)).toBe(true);
      expect(verifies(other, vcek.publicPoint)).toBe(false);
    },
  );

  it('has PLATFORM_INFO of the board', () => {
    const words = (overrides: Parameters<typeof TestHost.up>[1]): bigint => {
      const host = TestHost.up('Milan', overrides);
      const report = reportOf(host.report(host.running()).payload);
      return PlatformInfo.toWord(PlatformInfo.read(report, 0x40));
    };
    expect(words({})).toBe(0x27n);
    expect(words({ tsme: false })).toBe(0x25n);
    expect(words({ smt: false, tsme: false })).toBe(0x24n);
    expect(words({ reportVersion: 2, tsme: false, ecc: false })).toBe(0x01n);
    expect(words({ raplDisabled: true })).toBe(0x2fn);
  });

  it('shows ciphertext hiding and RAPL_DIS when SNP_INIT_EX turned them on, and guests may then demand them', () => {
    const host = new TestHost('Turin');
    host.done(
      'SEV_CMD_SNP_INIT_EX',
      SevDataSnpInitEx.encode({
        flags: flags({ init_rmp: 1, rapl_dis: 1, ciphertext_hiding_en: 1 }),
        max_snp_asid: 4,
      }),
    );
    host.flush();
    const guest = host.running({ policy: 0x30000n | (1n << 22n) | (1n << 23n) | (1n << 24n) });
    const report = reportOf(host.report(guest).payload);
    expect(PlatformInfo.read(report, 0x40)).toMatchObject({ rapl_dis: 1, ciphertext_hiding_dram_en: 1 });
    expect(host.activate(host.launching().gctx, 5)).toBe(SevRet.SEV_RET_INVALID_ASID);
  });

  it('shows a mitigation verified after launch as current and not as launched', () => {
    const host = TestHost.up('Turin', { mitigations: { supported: 0x7n, verified: 0x1n } });
    const guest = host.running();
    host.done(
      'SEV_CMD_SNP_VERIFY_MITIGATION',
      SevDataSnpVerifyMitigation.encode({ length: 64, subcommand: 1, vector: 4n }),
    );
    expect(reportLayout(5).decode(reportOf(host.report(guest).payload))).toMatchObject({
      launch_mit_vector: 0x1n,
      current_mit_vector: 0x5n,
    });
  });

  it('has no CHIP_ID while MASK_CHIP_ID is set', () => {
    const host = TestHost.up();
    const guest = host.running();
    const id = (): string => toHex(reportOf(host.report(guest).payload).subarray(0x1a0, 0x1e0));
    expect(id()).toBe(toHex(host.chip.chipId));
    const mask = (on: number): void =>
      host.done(
        'SEV_CMD_SNP_CONFIG',
        SevDataSnpConfig.encode({ flags: { mask_chip_id: on, mask_chip_key: 0 } }),
      );
    mask(1);
    expect(id()).toBe('00'.repeat(64));
    mask(0);
    expect(id()).toBe(toHex(host.chip.chipId));
  });

  it('differs between two guests in REPORT_ID', () => {
    const host = TestHost.up();
    const ids = [host.running(), host.running()].map((g) =>
      toHex(reportOf(host.report(g).payload).subarray(0x140, 0x160)),
    );
    expect(ids[0]).not.toBe(ids[1]);
  });
});

describe('key selection', () => {
  const IP = SevRet.SEV_RET_INVALID_PARAM;
  const IK = SevRet.SEV_RET_INVALID_KEY;
  type Outcome = 'VCEK' | 'VLEK' | 'none' | number;
  const rows: (readonly [
    keySel: number,
    vlek: boolean,
    mask: boolean,
    vcekDis: boolean,
    outcome: Outcome,
  ])[] = [];
  for (const vlek of [false, true]) {
    for (const mask of [false, true]) {
      for (const vcekDis of [false, true]) {
        const chip: Outcome = vcekDis ? IK : mask ? 'none' : 'VCEK';
        rows.push(
          [0, vlek, mask, vcekDis, vlek ? 'VLEK' : chip],
          [1, vlek, mask, vcekDis, chip],
          [2, vlek, mask, vcekDis, vlek ? 'VLEK' : IK],
          [3, vlek, mask, vcekDis, IP],
        );
      }
    }
  }

  it.each(rows)(
    'KEY_SEL %i, VLEK loaded %s, MASK_CHIP_KEY %s, VCEK_DIS %s: %s',
    (keySel, vlek, mask, vcekDis, outcome) => {
      const host = TestHost.up();
      const guest = host.running({
        finish: { flags: { id_block_en: 0, auth_key_en: 0, vcek_dis: Number(vcekDis) } },
      });
      if (mask) {
        host.done(
          'SEV_CMD_SNP_CONFIG',
          SevDataSnpConfig.encode({ flags: { mask_chip_id: 0, mask_chip_key: 1 } }),
        );
      }
      if (vlek) {
        expect(loadVlek(host)).toBe(0);
      }
      const { status, payload } = host.report(guest, { keySel });
      expect(status).toBe(0);
      const head = MsgReportRsp.decode(payload!.slice(0, 0x20));
      if (typeof outcome === 'number') {
        expect(sevRetName(head.status)).toBe(sevRetName(outcome));
        expect(isZero(payload!.subarray(4))).toBe(true);
        expect(host.requests.at(-1)).toMatchObject({ status: 0, payload_status: outcome, key: null });
        return;
      }
      const report = reportOf(payload);
      expect(host.requests.at(-1)).toMatchObject({ status: 0, payload_status: 0, key: outcome });
      expect(KeyInfo.fromWord(BigInt(readU32(report, 0x48)))).toMatchObject({
        mask_chip_key: Number(mask),
        signing_key: { VCEK: 0, VLEK: 1, none: 7 }[outcome],
      });
      expect(isZero(report.subarray(0x2a0))).toBe(outcome === 'none');
    },
  );
});

describe('MSG_REPORT_REQ', () => {
  it('is answered for the requester’s VMPL and less privileged ones only', () => {
    const host = TestHost.up();
    const guest = host.running();
    for (const vmpck of [0, 1, 2, 3]) {
      for (const vmpl of [0, 1, 2, 3, 4, 0xffff_ffff]) {
        const { payload } = host.report(guest, { vmpl }, { vmpck });
        const status = readU32(payload!, 0);
        expect(sevRetName(status), `VMPCK${vmpck} asks for VMPL ${vmpl}`).toBe(
          vmpl >= vmpck && vmpl <= 3 ? 'SEV_RET_SUCCESS' : 'SEV_RET_INVALID_PARAM',
        );
      }
    }
  });

  it('with any reserved bit set is STATUS INVALID_PARAM, and the number is used up', () => {
    const host = TestHost.up();
    const guest = host.running();
    const good = MsgReportReq.encode({});
    let seqno = 2n;
    for (const at of [0x44, 0x45, 0x47, 0x48, 0x5f]) {
      const bad = good.slice();
      bad[at] = at === 0x44 ? 4 : 1;
      const { header, payload } = host.request(guest, SnpMsg.SNP_MSG_REPORT_REQ, bad);
      expect(readU32(payload!, 0)).toBe(SevRet.SEV_RET_INVALID_PARAM);
      expect(header?.msg_seqno).toBe(seqno);
      seqno += 2n;
    }
  });
});

describe('SNP_HV_REPORT_REQ', () => {
  function hostReport(host: TestHost, guest: TestGuest, keySel = 0): Uint8Array {
    return host.output(0x4c0, (report_paddr) =>
      host.issue(
        'SEV_CMD_SNP_HV_REPORT_REQ',
        SevDataSnpHvReportReq.encode({
          length: 24,
          gctx_paddr: guest.gctx,
          report_paddr,
          flags: { key_sel: keySel },
        }),
      ),
    );
  }

  it('gives the host a signed report with VMPL all ones and no REPORT_DATA', () => {
    const host = TestHost.up();
    const guest = host.running();
    const report = reportOf(hostReport(host, guest));
    expect(reportLayout(3).decode(report)).toMatchObject({
      vmpl: 0xffff_ffff,
      report_data: new Uint8Array(64),
    });
    const vcek = endorsementKey(crypto, stick(SECRET, 'Milan', host.chip.reportedTcb), 'VCEK');
    expect(verifies(report, vcek.publicPoint)).toBe(true);
    expect(host.report(guest).header?.msg_seqno).toBe(2n);
  });

  it('says in STATUS when the key is not to be had', () => {
    const host = TestHost.up();
    expect(readU32(hostReport(host, host.running(), 2), 0)).toBe(SevRet.SEV_RET_INVALID_KEY);
  });
});
