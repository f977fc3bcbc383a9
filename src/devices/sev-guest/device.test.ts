// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { SnpExtReportReq, SnpGuestIoctl, SnpGuestRequestIoctl } from '../../abi/dev-sev-guest.ts';
import { Errno } from '../../abi/errno.ts';
import { GhcbExit } from '../../abi/ghcb.ts';
import { GuestMessageHeader } from '../../abi/guest-message.ts';
import { readU32, readU64, writeU64 } from '../../lib/bytes.ts';
import { TestFile, TestGuest, TestMemory } from '../testing.ts';
import { type SevGuestAnswer, sevGuestIoctl } from './device.ts';
import { sevGuestFile } from './files.ts';

const { SNP_GET_REPORT, SNP_GET_DERIVED_KEY, SNP_GET_EXT_REPORT } = SnpGuestIoctl;
const { SVM_VMGEXIT_GUEST_REQUEST: PLAIN, SVM_VMGEXIT_EXT_GUEST_REQUEST: EXTENDED } = GhcbExit;
const NOT_SENT = 0xffn;
const NO_FW_CALL = 0xffff_ffff_ffff_ffffn;
const INVALID_LEN = 0x1_0000_0000n;
const BUSY = 0x2_0000_0000n;
/** What the caller has in exitinfo2 before the call, and what padding it leaves in the structure. */
const CALLERS_OWN = 0x1122_3344_5566_7788n;
const ALL = [SNP_GET_REPORT, SNP_GET_DERIVED_KEY, SNP_GET_EXT_REPORT];

const RESPONSE_SIZES: Record<number, number> = {
  [SNP_GET_REPORT]: 4000,
  [SNP_GET_DERIVED_KEY]: 64,
  [SNP_GET_EXT_REPORT]: 4000,
};

/** A caller with a request and room for the response. */
class Caller {
  readonly guest = new TestGuest();
  readonly memory = new TestMemory();
  readonly response = this.memory.map(new Uint8Array(4000).fill(0xee));

  request(cmd: number, certsAddress = 0n, certsLen = 0, writable = true): bigint {
    const sizes: Record<number, number> = { [SNP_GET_REPORT]: 96, [SNP_GET_DERIVED_KEY]: 32 };
    const size = sizes[cmd] ?? 112;
    const bytes = new Uint8Array(size).fill(0x5a);
    if (size === 112) {
      SnpExtReportReq.set(bytes, 'certs_address', certsAddress);
      SnpExtReportReq.set(bytes, 'certs_len', certsLen);
    }
    return this.memory.map(bytes, writable);
  }

  argument(given: Partial<SnpGuestRequestIoctl>): Uint8Array {
    const bytes = new Uint8Array(32).fill(0xcc);
    bytes.set(SnpGuestRequestIoctl.encode({ msg_version: 1, ...given }).subarray(0, 1));
    writeU64(bytes, 8, given.req_data ?? 0n);
    writeU64(bytes, 16, given.resp_data ?? this.response);
    writeU64(bytes, 24, CALLERS_OWN);
    return bytes;
  }

  ioctl(cmd: number, given: Partial<SnpGuestRequestIoctl> = {}): Promise<SevGuestAnswer> {
    const argument = this.argument({ req_data: this.request(cmd), ...given });
    this.memory.log.length = 0;
    return sevGuestIoctl(this.guest.driver, this.memory, cmd, argument);
  }

  ext(certsAddress: bigint, certsLen: number): Promise<SevGuestAnswer> {
    return this.ioctl(SNP_GET_EXT_REPORT, {
      req_data: this.request(SNP_GET_EXT_REPORT, certsAddress, certsLen),
    });
  }

  get disabled(): boolean {
    return this.guest.sevGuest.disabled;
  }
}

const exitinfo2 = ({ argument }: SevGuestAnswer): bigint | null =>
  argument === null ? null : readU64(argument, 24);

describe('the order inside the driver', () => {
  it('answers EINVAL for msg_version 0, asks nobody, reads and writes nothing', async () => {
    const caller = new Caller();
    for (const cmd of [...ALL, 0xc0205377]) {
      expect(await caller.ioctl(cmd, { msg_version: 0 })).toEqual({ ret: -Errno.EINVAL, argument: null });
      expect(caller.memory.log).toEqual([]);
    }
    expect(caller.guest.calls).toEqual([]);
  });

  it('takes byte 0 alone for msg_version', async () => {
    const caller = new Caller();
    const argument = caller.argument({ req_data: caller.request(SNP_GET_REPORT) });
    expect(argument[1]).toBe(0xcc);
    const { ret } = await sevGuestIoctl(caller.guest.driver, caller.memory, SNP_GET_REPORT, argument);
    expect([ret, caller.guest.calls[0]?.msg_version]).toEqual([0, 1]);
  });

  it('answers ENOTTY and writes nothing back once the VMPCK is disabled, whatever the command', async () => {
    const caller = new Caller();
    caller.guest.refusals = [0x16n];
    await caller.ioctl(SNP_GET_REPORT);
    expect(caller.disabled).toBe(true);
    for (const cmd of [...ALL, 0xc0205377]) {
      expect(await caller.ioctl(cmd)).toEqual({ ret: -Errno.ENOTTY, argument: null });
    }
  });

  it('answers ENOTTY with exitinfo2 0xff for an unknown command', async () => {
    const caller = new Caller();
    const answer = await caller.ioctl(0xc0205303);
    expect([answer.ret, exitinfo2(answer)]).toEqual([-Errno.ENOTTY, NOT_SENT]);
    expect(caller.guest.exits).toEqual([]);
  });

  it('copies the whole structure back when exitinfo2 is not 0, padding included', async () => {
    const caller = new Caller();
    const { argument } = await caller.ioctl(SNP_GET_REPORT, { req_data: 0n });
    const expected = caller.argument({ req_data: 0n });
    writeU64(expected, 24, NOT_SENT);
    expect(argument).toEqual(expected);
  });

  it('copies nothing back on full success', async () => {
    const caller = new Caller();
    for (const cmd of ALL) {
      expect(await caller.ioctl(cmd)).toEqual({ ret: 0, argument: null });
    }
  });

  it('answers a positive number for a refusal at the level of the GHCB', async () => {
    const caller = new Caller();
    caller.guest.onExit = ({ put }) => put('sw_exit_info_1', 2n);
    const answer = await caller.ioctl(SNP_GET_REPORT);
    expect(answer.ret).toBeGreaterThan(0);
    expect(exitinfo2(answer)).toBe(NO_FW_CALL);
    expect(caller.disabled).toBe(true);
  });
});

describe('before anything is sent', () => {
  it.each(ALL)('0x%x: req_data == 0 or resp_data == 0 is EINVAL', async (cmd) => {
    const caller = new Caller();
    for (const given of [{ req_data: 0n }, { resp_data: 0n }]) {
      const answer = await caller.ioctl(cmd, given);
      expect([answer.ret, exitinfo2(answer)]).toEqual([-Errno.EINVAL, NOT_SENT]);
    }
    expect([caller.guest.exits, caller.disabled]).toEqual([[], false]);
  });

  it.each(ALL)('0x%x: a request structure that cannot be read is EFAULT', async (cmd) => {
    const caller = new Caller();
    const short = caller.memory.map(new Uint8Array(31));
    for (const req_data of [8n, short, 0xffff_ffff_ffff_fff0n]) {
      const answer = await caller.ioctl(cmd, { req_data });
      expect([answer.ret, exitinfo2(answer)]).toEqual([-Errno.EFAULT, NOT_SENT]);
    }
    expect([caller.guest.exits, caller.disabled]).toEqual([[], false]);
  });

  it.each([
    [2, 40, 40],
    [2, 32, 32],
    [1, 40, 32],
    [255, 48, 40],
  ])('a key request of version %d with %d bytes is sent with %d', async (msg_version, given, sent) => {
    const caller = new Caller();
    const req_data = caller.memory.map(new Uint8Array(given));
    const { ret } = await caller.ioctl(SNP_GET_DERIVED_KEY, { msg_version, req_data });
    expect(ret).toBe(0);
    expect(caller.guest.messages.map(({ msg_size }) => msg_size)).toEqual([sent]);
  });

  it.each([
    ['certs_len 0x5000', 0x1000n, 0x5000, Errno.EINVAL],
    ['certs_len 0xffffffff', 0x1000n, 0xffff_ffff, Errno.EINVAL],
    ['certs_len 1', 0x1000n, 1, Errno.EINVAL],
    ['certs_len 0x1001', 0x1000n, 0x1001, Errno.EINVAL],
    ['certs_address at the end of user addresses', 0x7fff_ffff_f000n, 0x1000, Errno.EFAULT],
    ['certs_address at the end of all addresses', 0xffff_ffff_ffff_f000n, 0x1000, Errno.EFAULT],
  ])('%s is refused', async (_, address, length, errno) => {
    const caller = new Caller();
    const answer = await caller.ext(address, length);
    expect([answer.ret, exitinfo2(answer)]).toEqual([-errno, NOT_SENT]);
    expect([caller.guest.exits, caller.disabled]).toEqual([[], false]);
  });

  it('an odd certs_len does not matter while certs_address is 0', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0);
    expect((await caller.ext(0n, 0x5001)).ret).toBe(0);
  });

  it('an exhausted sequence counter is EIO and leaves the VMPCK alone', async () => {
    const caller = new Caller();
    caller.guest.host.private.write(0x80d0a0n, Uint8Array.of(0xfe, 0xff, 0xff, 0xff));
    const answer = await caller.ioctl(SNP_GET_REPORT);
    expect([answer.ret, exitinfo2(answer)]).toEqual([-Errno.EIO, NOT_SENT]);
    expect(caller.disabled).toBe(false);
  });

  it('a caller whose memory is out of reach gets EIO and nobody is asked', async () => {
    const caller = new Caller();
    const memory = { read: () => ({ errno: Errno.EIO }), write: () => ({ errno: Errno.EIO }) };
    const argument = caller.argument({ req_data: 0x1000n });
    const answer = await sevGuestIoctl(caller.guest.driver, memory, SNP_GET_REPORT, argument);
    expect(answer).toEqual({ ret: -Errno.EIO, argument: null });
    expect(caller.guest.calls).toEqual([]);
  });
});

describe('after the call of the VMM', () => {
  it.each(ALL)('0x%x: a response that authenticates is 0, exitinfo2 untouched', async (cmd) => {
    const caller = new Caller();
    expect(await caller.ioctl(cmd)).toEqual({ ret: 0, argument: null });
    const response = caller.memory.at(caller.response);
    const size = RESPONSE_SIZES[cmd]!;
    expect(response.subarray(0, 4)).toEqual(new Uint8Array(4));
    // Exactly the structure: zeros to its end, the caller's bytes behind it.
    expect(response.subarray(size).every((byte) => byte === 0xee)).toBe(true);
    expect(response[size - 1]).toBe(cmd === SNP_GET_DERIVED_KEY ? 0x5a : 0);
    expect(caller.disabled).toBe(false);
  });

  it.each([
    ['a firmware status', 0x1bn],
    ['an unknown VMM code', 0x7_0000_0000n],
    ['both', 0x7_0000_001bn],
  ])('%s is EIO with that exitinfo2 and disables the VMPCK', async (_, value) => {
    const caller = new Caller();
    caller.guest.refusals = [value];
    const answer = await caller.ioctl(SNP_GET_REPORT);
    expect([answer.ret, exitinfo2(answer), caller.disabled]).toEqual([-Errno.EIO, value, true]);
    expect(caller.memory.log.some((line) => line.startsWith('write'))).toBe(false);
  });

  it('BUSY is retried and the caller learns nothing of it', async () => {
    const caller = new Caller();
    caller.guest.refusals = [BUSY, BUSY, BUSY];
    expect(await caller.ioctl(SNP_GET_REPORT)).toEqual({ ret: 0, argument: null });
    expect(caller.guest.exits.length).toBe(4);
  });

  it('BUSY for more than 60 s is ETIMEDOUT and disables the VMPCK', async () => {
    const caller = new Caller();
    caller.guest.refusals = new Array<bigint>(100).fill(BUSY);
    const answer = await caller.ioctl(SNP_GET_REPORT);
    expect([answer.ret, exitinfo2(answer), caller.disabled]).toEqual([-Errno.ETIMEDOUT, BUSY, true]);
  });

  it('INVALID_LEN burns the sequence number with a plain request and is EIO', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0x2001);
    const answer = await caller.ext(0n, 0);
    expect([answer.ret, exitinfo2(answer), caller.disabled]).toEqual([-Errno.EIO, INVALID_LEN, false]);
    expect(caller.guest.exits).toEqual([EXTENDED, PLAIN]);
  });

  it('INVALID_LEN on a command that is not extended is EIO and leaves the VMPCK alone', async () => {
    const caller = new Caller();
    caller.guest.refusals = [INVALID_LEN];
    const answer = await caller.ioctl(SNP_GET_DERIVED_KEY);
    expect([answer.ret, exitinfo2(answer), caller.disabled]).toEqual([-Errno.EIO, INVALID_LEN, false]);
  });

  it.each([
    ['sequence number', (m: Uint8Array) => GuestMessageHeader.set(m, 'msg_seqno', 7n)],
    ['type', (m: Uint8Array) => GuestMessageHeader.set(m, 'msg_type', 4)],
    ['version', (m: Uint8Array) => GuestMessageHeader.set(m, 'msg_version', 2)],
    ['size', (m: Uint8Array) => GuestMessageHeader.set(m, 'msg_size', 4001)],
    ['tag', (m: Uint8Array) => m.fill(0, 0, 16)],
  ])('a response with a wrong %s is EBADMSG without write-back and disables the VMPCK', async (_, tamper) => {
    const caller = new Caller();
    caller.guest.tamper = tamper;
    expect(await caller.ioctl(SNP_GET_REPORT)).toEqual({ ret: -Errno.EBADMSG, argument: null });
    expect(caller.disabled).toBe(true);
  });

  it.each(ALL)('0x%x: a response that cannot be copied is EFAULT and leaves the VMPCK alone', async (cmd) => {
    const caller = new Caller();
    for (const resp_data of [8n, caller.memory.map(new Uint8Array(4000), false)]) {
      expect(await caller.ioctl(cmd, { resp_data })).toEqual({ ret: -Errno.EFAULT, argument: null });
    }
    expect(caller.disabled).toBe(false);
  });

  it('refusals of the firmware itself are no errors: the status is in the response', async () => {
    for (const status of [0x16, 0x27]) {
      const caller = new Caller();
      caller.guest.status = status;
      expect(await caller.ioctl(SNP_GET_REPORT)).toEqual({ ret: 0, argument: null });
      expect(readU32(caller.memory.at(caller.response), 0)).toBe(status);
    }
  });
});

describe('the certificate buffer', () => {
  it('not wanted, when the host has none: 0 without certificates', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0);
    expect(await caller.ext(0n, 0)).toEqual({ ret: 0, argument: null });
  });

  it.each([
    ['certs_len 0', 0xffff_ffff_ffff_ffffn, 0],
    ['certs_address 0', 0n, 0x1000],
  ])('%s asks how much is needed: certs_len is written back', async (_, address, length) => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0x1800);
    const req_data = caller.request(SNP_GET_EXT_REPORT, address, length);
    const before = caller.memory.at(req_data).slice();
    const answer = await caller.ioctl(SNP_GET_EXT_REPORT, { req_data });
    expect([answer.ret, exitinfo2(answer)]).toEqual([-Errno.EIO, INVALID_LEN]);
    const after = caller.memory.at(req_data);
    expect(SnpExtReportReq.get(after, 'certs_len')).toBe(0x2000);
    expect(after.subarray(0, 104)).toEqual(before.subarray(0, 104));
    expect(caller.memory.log.at(-1)).toBe(`write 0x${req_data.toString(16)}+112`);
  });

  it('INVALID_LEN with a request that cannot be written back is EFAULT, with exitinfo2', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0x1800);
    const req_data = caller.request(SNP_GET_EXT_REPORT, 0n, 0, false);
    const answer = await caller.ioctl(SNP_GET_EXT_REPORT, { req_data });
    expect([answer.ret, exitinfo2(answer)]).toEqual([-Errno.EFAULT, INVALID_LEN]);
  });

  it('a fitting one gets exactly certs_len bytes, zeros behind the table, before the response', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0x1800).fill(0x77);
    const room = caller.memory.map(new Uint8Array(0x4000).fill(0xee));
    const req_data = caller.request(SNP_GET_EXT_REPORT, room, 0x3000);
    expect(await caller.ioctl(SNP_GET_EXT_REPORT, { req_data })).toEqual({ ret: 0, argument: null });
    const certs = caller.memory.at(room);
    expect(certs.subarray(0, 0x1800).every((byte) => byte === 0x77)).toBe(true);
    expect(certs.subarray(0x1800, 0x3000).every((byte) => byte === 0)).toBe(true);
    expect(certs.subarray(0x3000).every((byte) => byte === 0xee)).toBe(true);
    expect(caller.memory.log).toEqual([
      `read 0x${req_data.toString(16)}+112`,
      `write 0x${room.toString(16)}+12288`,
      `write 0x${caller.response.toString(16)}+4000`,
    ]);
  });

  it('one that cannot be written is EFAULT, and the response is not copied', async () => {
    const caller = new Caller();
    const room = caller.memory.map(new Uint8Array(0x1000), false);
    expect(await caller.ext(room, 0x1000)).toEqual({ ret: -Errno.EFAULT, argument: null });
    expect(caller.memory.at(caller.response)[0]).toBe(0xee);
    expect(caller.disabled).toBe(false);
  });

  it('goes where the request said when it was read', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0x1000).fill(0x77);
    const room = caller.memory.map(new Uint8Array(0x1000));
    const req_data = caller.request(SNP_GET_EXT_REPORT, room, 0x1000);
    caller.guest.before = async () => {
      SnpExtReportReq.set(caller.memory.at(req_data), 'certs_address', caller.response);
    };
    expect((await caller.ioctl(SNP_GET_EXT_REPORT, { req_data })).ret).toBe(0);
    expect(caller.memory.at(room)[0]).toBe(0x77);
  });

  it('too small once the blob has grown, and enough after another look', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0x1000).fill(1);
    const room = caller.memory.map(new Uint8Array(0x4000));
    expect((await caller.ext(room, 0x1000)).ret).toBe(0);
    caller.guest.certs = new Uint8Array(0x3000).fill(2);
    const req_data = caller.request(SNP_GET_EXT_REPORT, room, 0x1000);
    expect((await caller.ioctl(SNP_GET_EXT_REPORT, { req_data })).ret).toBe(-Errno.EIO);
    expect((await caller.ioctl(SNP_GET_EXT_REPORT, { req_data })).ret).toBe(0);
    expect(caller.memory.at(room)[0x2fff]).toBe(2);
  });

  it('of four pages is the most: a host that needs five is never satisfied', async () => {
    const caller = new Caller();
    caller.guest.certs = new Uint8Array(0x4001);
    const req_data = caller.request(SNP_GET_EXT_REPORT, 0x1000n, 0x4000);
    const answer = await caller.ioctl(SNP_GET_EXT_REPORT, { req_data });
    expect([answer.ret, exitinfo2(answer)]).toEqual([-Errno.EIO, INVALID_LEN]);
    const again = await caller.ioctl(SNP_GET_EXT_REPORT, { req_data });
    expect([again.ret, exitinfo2(again)]).toEqual([-Errno.EINVAL, NOT_SENT]);
  });
});

describe('the file', () => {
  it('can be opened any way, has neither read nor write, and no mode but 0600', async () => {
    const node = sevGuestFile(new TestGuest().driver);
    expect(node.mode).toBe(0o600);
    for (const flags of [0, 1, 2]) {
      const file = (await TestFile.open(node, flags)) as TestFile;
      expect(await file.read(8)).toBe(Errno.EINVAL);
      expect(await file.write(Uint8Array.of(1))).toBe(-Errno.EINVAL);
    }
  });

  it('answers with the structure exactly when the driver copies it back', async () => {
    const caller = new Caller();
    const file = (await TestFile.open(sevGuestFile(caller.guest.driver), 0)) as TestFile;
    const good = caller.argument({ req_data: caller.request(SNP_GET_REPORT) });
    expect(await file.ioctl(SNP_GET_REPORT, good, caller.memory)).toEqual({ result: 0 });
    const bad = await file.ioctl(SNP_GET_REPORT, caller.argument({ req_data: 8n }), caller.memory);
    expect(bad.result).toBe(-Errno.EFAULT);
    expect(readU64(bad.output!, 24)).toBe(NOT_SENT);
  });

  it.each([
    ['_IO', 0x5303],
    ['_IOW of 8 bytes', 0x4008_5303],
    ['_IOR of 8 bytes', 0x8008_5303],
    ['_IOW of 32 bytes', 0x4020_5303],
  ])('moves 32 bytes at the argument of an unknown number that says otherwise: %s', async (_, cmd) => {
    const caller = new Caller();
    const file = (await TestFile.open(sevGuestFile(caller.guest.driver), 0)) as TestFile;
    const argument = caller.argument({});
    const at = caller.memory.map(argument);
    const input = (cmd >>> 30) & 1 ? argument.slice(0, (cmd >>> 16) & 0x3fff) : new Uint8Array(0);
    expect((await file.ioctl(cmd, input, caller.memory, at)).result).toBe(-Errno.ENOTTY);
    expect(readU64(caller.memory.at(at), 24)).toBe(NOT_SENT);
    const readOnly = caller.memory.map(argument, false);
    expect((await file.ioctl(cmd, input, caller.memory, readOnly)).result).toBe(-Errno.EFAULT);
    const short = input.subarray(0, 8);
    expect((await file.ioctl(0x5303, short, caller.memory, 8n)).result).toBe(-Errno.EFAULT);
  });

  it('takes the first 32 bytes of a longer structure', async () => {
    const caller = new Caller();
    const file = (await TestFile.open(sevGuestFile(caller.guest.driver), 0)) as TestFile;
    const input = new Uint8Array(64);
    input.set(caller.argument({}));
    const { result, output } = await file.ioctl(0xc040_5303, input, caller.memory);
    expect([result, output?.length]).toEqual([-Errno.ENOTTY, 32]);
  });
});
