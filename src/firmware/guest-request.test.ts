// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { crypto, sealMessage, type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { CpuidEntry } from '../abi/cpuid-page.ts';
import {
  GuestMessageHeader,
  MsgCpuidReq,
  MsgCpuidRsp,
  MsgKeyReqV1,
  MsgKeyReqV2,
  MsgReportReq,
  MsgTscInfoRsp,
  MsgVmrkRsp,
  SnpMsg,
} from '../abi/guest-message.ts';
import { PageType } from '../abi/page-info.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import { SevDataSnpGuestRequest, SevDataSnpLaunchStart } from '../abi/snp-commands.ts';
import { asid, spaOf } from '../lib/addresses.ts';
import { concat, fromHex, toHex } from '../lib/bytes.ts';
import type { Random } from '../lib/crypto.ts';
import { seededRandom } from '../os/node-crypto.ts';
import { snpGuestRequest } from './commands/snp-guest-request.ts';
import { newGuestContext } from './guest-context.ts';
import { Platform } from './platform.ts';

const KEY_0 = Uint8Array.from({ length: 32 }, (_, i) => i);

/** Randomness that makes VMPCK0 the key of the published vectors. */
function vectorRandom(): Random {
  const stream = seededRandom(5);
  let calls = 0;
  // The calls: the processor's own key, the guest's memory key, then VMPCK0.
  return { bytes: (length) => (++calls === 3 ? KEY_0.slice() : stream.bytes(length)) };
}

describe('guest message seal', () => {
  const reportRequest = concat(
    Uint8Array.from({ length: 64 }, (_, i) => i),
    new Uint8Array(32),
  );

  it('is that of the published vectors', () => {
    const report = sealMessage(KEY_0, SnpMsg.SNP_MSG_REPORT_REQ, reportRequest, 1n);
    expect(toHex(crypto.sha256(report))).toBe(
      '37986d2e2816e933c1e342b05eac83a78b121d632b6090da8dff837967ad24aa',
    );
    const key = sealMessage(
      KEY_0,
      SnpMsg.SNP_MSG_KEY_REQ,
      fromHex(`${'00'.repeat(8)}08${'00'.repeat(23)}`),
      3n,
    );
    expect(toHex(crypto.sha256(key))).toBe(
      'f7f0679e57a0a0704892e2641e360d1994afeac9513404ea2893383b726cd8e6',
    );
  });

  it('opens those vectors', () => {
    const host = TestHost.up('Milan', {}, vectorRandom());
    const guest = host.running();
    expect(toHex(guest.vmpcks[0]!)).toBe(toHex(KEY_0));
    const { status, header, payload } = host.request(guest, SnpMsg.SNP_MSG_REPORT_REQ, reportRequest);
    expect(status).toBe(0);
    expect(header).toMatchObject({
      msg_seqno: 2n,
      msg_type: SnpMsg.SNP_MSG_REPORT_RSP,
      msg_version: 1,
      msg_size: 0x4c0,
      msg_vmpck: 0,
    });
    expect(toHex(payload!.subarray(0x70, 0xb0))).toBe(toHex(reportRequest.subarray(0, 64)));
    const derived = host.key(guest, { guest_field_select: { ...NO_FIELDS, measurement: 1 } });
    expect(derived.header).toMatchObject({ msg_seqno: 4n, msg_type: SnpMsg.SNP_MSG_KEY_RSP, msg_size: 64 });
  });
});

const NO_FIELDS = {
  guest_policy: 0,
  image_id: 0,
  family_id: 0,
  measurement: 0,
  guest_svn: 0,
  tcb_version: 0,
};

describe('message sequence numbers', () => {
  it.each<[string, bigint]>([
    ['0', 0n],
    ['N replayed', 3n],
    ['N - 1', 4n],
    ['N + 2', 7n],
    ['2^32 - 1', 0xffff_ffffn],
    ['2^64 - 1', 0xffff_ffff_ffff_ffffn],
  ])('%s is refused and consumes nothing', (_, seqno) => {
    const host = TestHost.up();
    const guest = host.running();
    host.report(guest);
    host.report(guest);
    expect(host.report(guest, {}, { seqno }).status).toBe(SevRet.SEV_RET_INVALID_PARAM);
    expect(host.report(guest).header?.msg_seqno).toBe(6n);
  });

  it('count under each VMPCK by itself', () => {
    const host = TestHost.up();
    const guest = host.running();
    for (const vmpck of [0, 1, 2, 3]) {
      expect(host.report(guest, {}, { vmpck }).header).toMatchObject({ msg_seqno: 2n, msg_vmpck: vmpck });
    }
    expect(host.report(guest, {}, { vmpck: 2 }).header?.msg_seqno).toBe(4n);
  });

  it('records the reuse of a nonce: a used number again with another message, not the same message again', () => {
    const host = TestHost.up();
    const guest = host.running();
    host.report(guest, { reportData: new Uint8Array(64).fill(1) });
    host.report(guest, { reportData: new Uint8Array(64).fill(1) }, { seqno: 1n });
    expect(host.requests.at(-1)).toMatchObject({ status: SevRet.SEV_RET_INVALID_PARAM, iv_reuse: false });
    host.report(guest, { reportData: new Uint8Array(64).fill(2) }, { seqno: 1n });
    expect(host.requests.at(-1)).toMatchObject({ status: SevRet.SEV_RET_INVALID_PARAM, iv_reuse: true });
    expect(host.report(guest).status).toBe(0);
    expect(host.requests.at(-1)).toMatchObject({ status: 0, seqno: 3n, iv_reuse: false });
  });

  it('end with AEAD_OFLOW where a response would have none', () => {
    const host = TestHost.up();
    const guest = host.running();
    const platform = new Platform({ hw: host.hw, crypto, random: seededRandom(3), chip: host.chip });
    platform.state = 'INIT';
    const context = newGuestContext(Number(guest.gctx >> 12n) as never, seededRandom(4));
    context.state = 'GSTATE_RUNNING';
    context.vmpcks = guest.vmpcks;
    platform.contexts.set(context.pfn, context);
    const last = 0xffff_ffff_ffff_fffcn;
    const send = (count: bigint, seqno: bigint): string => {
      context.msgCounts[0] = count;
      const message = sealMessage(
        guest.vmpcks[0]!,
        SnpMsg.SNP_MSG_REPORT_REQ,
        MsgReportReq.encode({}),
        seqno,
      );
      host.hw.memory.write(spaOf(guest.request), message, asid(0));
      host.hw.memory.write(
        spaOf(host.commandPage),
        SevDataSnpGuestRequest.encode({
          gctx_paddr: guest.gctx,
          req_paddr: spaOf(guest.request),
          rsp_paddr: spaOf(guest.response),
        }),
        asid(0),
      );
      return sevRetName(snpGuestRequest(platform, spaOf(host.commandPage)));
    };
    expect(send(last, last + 1n)).toBe('SEV_RET_SUCCESS');
    expect(context.msgCounts[0]).toBe(last + 2n);
    expect(send(last + 2n, last + 3n)).toBe('SEV_RET_AEAD_OFLOW');
  });
});

describe('a message that was changed', () => {
  const host = TestHost.up();
  const guest = host.running();

  it.each(Array.from({ length: 16 }, (_, i) => i))('in byte %i of the tag is BAD_MEASUREMENT', (at) => {
    const { status } = host.report(
      guest,
      {},
      {
        tamper: (message) => {
          message[at]! ^= 0x80;
        },
      },
    );
    expect(status).toBe(SevRet.SEV_RET_BAD_MEASUREMENT);
  });

  it('in any other byte of header or payload is refused, and the key goes on working', () => {
    for (let at = 16; at < 0x60 + 96; at++) {
      const { status } = host.report(
        guest,
        {},
        {
          tamper: (message) => {
            message[at]! ^= 1;
          },
        },
      );
      const authenticatedOnly = at >= 0x60;
      expect(status, `byte ${at}`).toBe(
        authenticatedOnly || at === 0x3c ? SevRet.SEV_RET_BAD_MEASUREMENT : SevRet.SEV_RET_INVALID_PARAM,
      );
    }
    expect(host.report(guest).header?.msg_seqno).toBe(2n);
  });

  it.each([0, 1, 2, 3])('to name VMPCK%i while sealed under another is BAD_MEASUREMENT', (vmpck) => {
    const fresh = TestHost.up();
    const g = fresh.running();
    const { status } = fresh.report(
      g,
      {},
      {
        vmpck: (vmpck + 1) % 4,
        header: (message) => {
          message[0x3c] = vmpck;
        },
      },
    );
    expect(status).toBe(SevRet.SEV_RET_BAD_MEASUREMENT);
  });

  it.each<[string, number, number]>([
    ['algo 0', 0x30, 0],
    ['algo 2', 0x30, 2],
    ['hdr_version 0', 0x31, 0],
    ['hdr_version 2', 0x31, 2],
    ['hdr_size low byte 0', 0x32, 0],
    ['hdr_size 0xff60', 0x33, 0xff],
    ['msg_version 0', 0x35, 0],
    ['msg_version 2', 0x35, 2],
    ['msg_version 255', 0x35, 255],
    ['msg_size of another message', 0x36, 0x20],
    ['msg_size above the page', 0x37, 0xff],
    ['VMPCK4', 0x3c, 4],
    ['VMPCK255', 0x3c, 255],
    ['a reserved byte', 0x38, 1],
    ['the last reserved byte', 0x5f, 1],
    ['a reserved byte outside the authenticated part', 0x28, 1],
    ['bytes behind the tag', 0x10, 1],
  ])('with %s under a good seal is INVALID_PARAM', (_, at, value) => {
    const { status } = host.report(
      guest,
      {},
      {
        header: (message) => {
          message[at] = value;
        },
        tamper: (message) => {
          message[at] = value;
        },
      },
    );
    expect(status).toBe(SevRet.SEV_RET_INVALID_PARAM);
  });
});

describe('message types', () => {
  const requests: readonly number[] = [1, 3, 5, 7, 9, 11, 13, 15, 17];

  it('that are no requests are INVALID_PARAM', () => {
    const host = TestHost.up('Turin');
    const guest = host.running();
    for (let type = 0; type < 256; type++) {
      if (!requests.includes(type)) {
        expect(host.request(guest, type, new Uint8Array(0x60)).status, `type ${type}`).toBe(
          SevRet.SEV_RET_INVALID_PARAM,
        );
      }
    }
  });

  it.each([
    ['EXPORT', SnpMsg.SNP_MSG_EXPORT_REQ],
    ['IMPORT', SnpMsg.SNP_MSG_IMPORT_REQ],
    ['ABSORB', SnpMsg.SNP_MSG_ABSORB_REQ],
    ['VMRK', SnpMsg.SNP_MSG_VMRK_REQ],
    ['ABSORB_NOMA', SnpMsg.SNP_MSG_ABSORB_NOMA_REQ],
  ] as const)('%s is answered with STATUS UNSUPPORTED and consumes its number', (_, type) => {
    const host = TestHost.up();
    const guest = host.running();
    const { header, payload } = host.request(guest, type, new Uint8Array(64));
    expect(header).toMatchObject({ msg_type: type + 1, msg_seqno: 2n });
    expect(MsgVmrkRsp.decode(payload!).status).toBe(SevRet.SEV_RET_UNSUPPORTED);
    expect(host.report(guest).header?.msg_seqno).toBe(4n);
  });

  it('TSC_INFO gives the scale of the wanted frequency, and STATUS INVALID_PARAM for reserved bytes', () => {
    const host = TestHost.up('Milan', { tscKhz: 2_000_000 });
    const plain = MsgTscInfoRsp.decode(
      host.request(host.running(), SnpMsg.SNP_MSG_TSC_INFO_REQ, new Uint8Array(128)).payload!,
    );
    expect(plain).toEqual({ status: 0, guest_tsc_scale: 1n << 32n, guest_tsc_offset: 0n, tsc_factor: 200 });

    const guest = secureTscGuest(host, 3_000_000);
    const scaled = host.request(guest, SnpMsg.SNP_MSG_TSC_INFO_REQ, new Uint8Array(128)).payload!;
    expect(MsgTscInfoRsp.decode(scaled).guest_tsc_scale).toBe((3n << 32n) / 2n);
    const bad = host.request(guest, SnpMsg.SNP_MSG_TSC_INFO_REQ, new Uint8Array(128).fill(1)).payload!;
    expect(MsgTscInfoRsp.decode(bad)).toEqual({
      status: SevRet.SEV_RET_INVALID_PARAM,
      guest_tsc_scale: 0n,
      guest_tsc_offset: 0n,
      tsc_factor: 0,
    });
  });

  it('CPUID gives the table back, corrected where it claims what no SNP guest may have', () => {
    const host = TestHost.up();
    const guest = host.running();
    const ask = (count: number, ...entries: Uint8Array[]): Uint8Array =>
      host.request(guest, SnpMsg.SNP_MSG_CPUID_REQ, concat(MsgCpuidReq.encode({ count }), ...entries))
        .payload!;
    const good = CpuidEntry.encode({ eax_in: 1, ecx: 0x8020_3203 });
    const wrong = CpuidEntry.encode({ eax_in: 1, ecx: 0x8120_3203 });
    expect(ask(1, good)).toEqual(concat(MsgCpuidRsp.encode({ count: 1 }), good));
    expect(ask(2, good, wrong)).toEqual(
      concat(MsgCpuidRsp.encode({ status: SevRet.SEV_RET_INVALID_PARAM, count: 2 }), good, good),
    );
    expect(ask(2, good)).toEqual(MsgCpuidRsp.encode({ status: SevRet.SEV_RET_INVALID_PARAM }));
    expect(host.request(guest, SnpMsg.SNP_MSG_CPUID_REQ, new Uint8Array(17)).status).toBe(
      SevRet.SEV_RET_INVALID_PARAM,
    );
    expect(host.request(guest, SnpMsg.SNP_MSG_CPUID_REQ, new Uint8Array(16 + 48 * 65)).status).toBe(
      SevRet.SEV_RET_INVALID_PARAM,
    );
  });

  it('KEY_REQ version 2 needs firmware of report version 5, and its 40 bytes', () => {
    const old = TestHost.up('Milan', { reportVersion: 4 });
    const oldGuest = old.running();
    const v2 = MsgKeyReqV2.encode({});
    expect(old.request(oldGuest, SnpMsg.SNP_MSG_KEY_REQ, v2, { version: 2 }).status).toBe(
      SevRet.SEV_RET_INVALID_PARAM,
    );
    const host = TestHost.up('Milan', { reportVersion: 5 });
    const guest = host.running();
    expect(host.request(guest, SnpMsg.SNP_MSG_KEY_REQ, v2, { version: 2 }).header?.msg_version).toBe(2);
    expect(host.request(guest, SnpMsg.SNP_MSG_KEY_REQ, v2, { version: 1 }).status).toBe(
      SevRet.SEV_RET_INVALID_PARAM,
    );
    const v1 = MsgKeyReqV1.encode({});
    expect(host.request(guest, SnpMsg.SNP_MSG_KEY_REQ, v1, { version: 2 }).status).toBe(
      SevRet.SEV_RET_INVALID_PARAM,
    );
  });
});

/** A running guest launched with Secure TSC. */
function secureTscGuest(host: TestHost, desiredKhz: number): TestGuest {
  const gctx = host.gctx();
  host.done(
    'SEV_CMD_SNP_LAUNCH_START',
    SevDataSnpLaunchStart.encode({ gctx_paddr: gctx, policy: 0x30000n, desired_tsc_khz: desiredKhz }),
  );
  host.activate(gctx, 200);
  const guest: TestGuest = {
    gctx,
    asid: 200,
    request: host.alloc(),
    response: host.firmwarePage(),
    next: [1n, 1n, 1n, 1n],
    vmpcks: [],
  };
  host.takeVmpcks(guest);
  host.launchFinish(guest);
  return guest;
}

describe('SNP_GUEST_REQUEST pages', () => {
  it.each<[string, string, (host: TestHost, guest: TestGuest) => Partial<SevDataSnpGuestRequest>]>([
    ['an unaligned request', 'SEV_RET_INVALID_ADDRESS', (_, g) => ({ req_paddr: spaOf(g.request) + 16n })],
    ['an unaligned response', 'SEV_RET_INVALID_ADDRESS', (_, g) => ({ rsp_paddr: spaOf(g.response) + 16n })],
    ['a request outside memory', 'SEV_RET_INVALID_ADDRESS', () => ({ req_paddr: 1n << 60n })],
    ['one page for both', 'SEV_RET_INVALID_ADDRESS', (_, g) => ({ req_paddr: spaOf(g.response) })],
    [
      'a Hypervisor page for the response',
      'SEV_RET_INVALID_PAGE_STATE',
      (h) => ({ rsp_paddr: spaOf(h.alloc()) }),
    ],
    [
      'a guest page for the response',
      'SEV_RET_INVALID_PAGE_STATE',
      (h, g) => ({ rsp_paddr: spaOf(h.preGuest(g, 0n)) }),
    ],
    [
      'a 2 MiB Firmware page for the response',
      'SEV_RET_INVALID_PAGE_SIZE',
      (h) => ({ rsp_paddr: spaOf(h.makeFirmware(h.alloc(512), 1)) }),
    ],
  ])('with %s: %s', (_, status, change) => {
    const host = TestHost.up();
    const guest = host.running();
    const buffer = {
      gctx_paddr: guest.gctx,
      req_paddr: spaOf(guest.request),
      rsp_paddr: spaOf(guest.response),
      ...change(host, guest),
    };
    expect(sevRetName(host.issue('SEV_CMD_SNP_GUEST_REQUEST', SevDataSnpGuestRequest.encode(buffer)))).toBe(
      status,
    );
  });

  it('stay as they are: the response page is a Firmware page again and again', () => {
    const host = TestHost.up();
    const guest = host.running();
    for (let i = 0; i < 3; i++) {
      expect(host.report(guest).status).toBe(0);
      expect(host.hw.rmp.lookup(guest.response)).toMatchObject({ assigned: true, immutable: true, asid: 0 });
    }
  });

  it('are read once: a message sealed for another page or guest does not open', () => {
    const host = TestHost.up();
    const one = host.running();
    const two = host.running();
    expect(
      host.request({ ...one, vmpcks: two.vmpcks }, SnpMsg.SNP_MSG_REPORT_REQ, MsgReportReq.encode({})).status,
    ).toBe(SevRet.SEV_RET_BAD_MEASUREMENT);
  });

  it('leave the response page alone when the request is refused', () => {
    const host = TestHost.up();
    const guest = host.running();
    host.report(guest);
    const before = host.hw.hostRead(spaOf(guest.response), 4096);
    host.report(guest, {}, { seqno: 9n });
    expect(host.hw.hostRead(spaOf(guest.response), 4096)).toEqual(before);
    expect(GuestMessageHeader.decode(before.slice(0, 0x60)).msg_seqno).toBe(2n);
  });

  it('cannot be used before SNP_LAUNCH_FINISH, although the guest has its keys', () => {
    const host = TestHost.up();
    const guest = host.launching();
    host.takeVmpcks(guest);
    expect(host.report(guest).status).toBe(SevRet.SEV_RET_INVALID_GUEST_STATE);
    host.launchUpdate(guest, host.preGuest(guest, 0n), PageType.ZERO);
    host.launchFinish(guest);
    expect(host.report(guest).status).toBe(0);
  });
});
