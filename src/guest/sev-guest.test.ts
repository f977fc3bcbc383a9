// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { SnpExtReportReq, SnpGuestIoctl } from '../abi/dev-sev-guest.ts';
import { Errno } from '../abi/errno.ts';
import { GhcbExit } from '../abi/ghcb.ts';
import { GuestMessageHeader, guestMessageAad, guestMessageNonce } from '../abi/guest-message.ts';
import { gpa } from '../lib/addresses.ts';
import { concat, readU32, toHex, writeU32, writeU64 } from '../lib/bytes.ts';
import { type TraceEvent, Tracer } from '../lib/trace.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import type { Guest } from './cpu.ts';
import { GhcbPage } from './ghcb.ts';
import { SevGuest, type SevGuestCall, type SevGuestReply } from './sev-guest.ts';
import { type PageExit, ScriptedHost } from './testing.ts';

const { SNP_GET_REPORT, SNP_GET_DERIVED_KEY, SNP_GET_EXT_REPORT } = SnpGuestIoctl;
const { SVM_VMGEXIT_GUEST_REQUEST: PLAIN, SVM_VMGEXIT_EXT_GUEST_REQUEST: EXTENDED } = GhcbExit;
const crypto = nodeCrypto({ deterministic: true });
const SECRETS = gpa(0x80d000n);
const REQUEST = gpa(0x2000n);
const RESPONSE = gpa(0x3000n);
const CERTS = gpa(0x4000n);
const BUSY = 0x2_0000_0000n;
const INVALID_LEN = 0x1_0000_0000n;
const NOT_SENT = 0xffn;
const NO_FW_CALL = 0xffff_ffff_ffff_ffffn;

const keyOf = (id: number): Uint8Array => new Uint8Array(32).fill(0xa0 + id);

interface Exit {
  readonly code: number;
  readonly page: string;
  readonly seqno: bigint;
  readonly certsGpa: bigint;
  readonly npages: bigint;
}

/** A host with secrets, a loaded driver and a firmware that knows the key. */
class World {
  readonly host = new ScriptedHost();
  readonly log: string[] = [];
  readonly trace: TraceEvent[] = [];
  readonly exits: Exit[] = [];
  readonly driver: SevGuest;
  /** Changes the response page before the guest sees it. */
  tamper: (message: Uint8Array) => void = () => {};
  payload: Uint8Array = new Uint8Array(0x20 + 0x4a0).fill(7);
  /** Answers exits; null: the firmware answers. One for each exit, the last for all that follow. */
  answers: (bigint | null)[] = [null];
  npagesNeeded = 3n;

  constructor(vmpckId = 0) {
    for (let id = 0; id < 4; id++) {
      this.host.private.write(SECRETS + 0x20n + BigInt(32 * id), keyOf(id));
    }
    const driver = this.host.run(
      SevGuest.probe({
        ghcb: new GhcbPage(gpa(0x1000n), 2),
        secretsGpa: SECRETS,
        request: REQUEST,
        response: RESPONSE,
        certs: CERTS,
        vmpckId,
        crypto,
        clock: this.host.clock,
        tracer: new Tracer('g', (event) => this.trace.push(event)),
        onLog: (line) => this.log.push(line),
      }),
    );
    if (!(driver instanceof SevGuest)) {
      throw new TypeError(`probe answered ${driver}`);
    }
    this.driver = driver;
    this.host.onExit = this.#onExit;
  }

  call(call: Partial<SevGuestCall> & { cmd: number }): SevGuestReply {
    const sizes: Record<number, number> = { [SNP_GET_DERIVED_KEY]: 32, [SNP_GET_EXT_REPORT]: 112 };
    return this.host.run(
      this.driver.ioctl({
        msg_version: 1,
        req_data: new Uint8Array(sizes[call.cmd] ?? 96).fill(0x11),
        resp_data: true,
        ...call,
      }),
    )!;
  }

  ext(certsAddress: bigint, certsLen: number, more: Partial<SevGuestCall> = {}): SevGuestReply {
    return this.call({ cmd: SNP_GET_EXT_REPORT, req_data: extRequest(certsAddress, certsLen), ...more });
  }

  get seqno(): number {
    return readU32(this.host.private.read(SECRETS + 0xa0n, 4), 0);
  }

  setSeqno(value: number): void {
    const raw = new Uint8Array(4);
    writeU32(raw, 0, value);
    this.host.private.write(SECRETS + 0xa0n, raw);
  }

  readonly #onExit: PageExit = ({ code, get, put }) => {
    const message = this.host.shared.read(REQUEST, 4096);
    this.exits.push({
      code,
      page: toHex(message),
      seqno: GuestMessageHeader.get(message, 'msg_seqno'),
      certsGpa: get('rax'),
      npages: get('rbx'),
    });
    const answer = this.answers.length > 1 ? this.answers.shift()! : this.answers[0]!;
    if (answer === null) {
      this.#firmware(message);
    } else {
      put('sw_exit_info_2', answer);
      put('rbx', this.npagesNeeded);
    }
  };

  #firmware(message: Uint8Array): void {
    const vmpck = GuestMessageHeader.get(message, 'msg_vmpck');
    const seqno = GuestMessageHeader.get(message, 'msg_seqno');
    const size = GuestMessageHeader.get(message, 'msg_size');
    const request = crypto.gcmOpen(
      keyOf(vmpck),
      guestMessageNonce(seqno),
      guestMessageAad(message),
      message.subarray(0x60, 0x60 + size),
      message.subarray(0, 16),
    );
    expect(request).not.toBeNull();
    const out = new Uint8Array(4096);
    out.set(message.subarray(0x30, 0x60), 0x30);
    GuestMessageHeader.set(out, 'msg_seqno', seqno + 1n);
    GuestMessageHeader.set(out, 'msg_type', GuestMessageHeader.get(message, 'msg_type') + 1);
    GuestMessageHeader.set(out, 'msg_size', this.payload.length);
    const sealed = crypto.gcmSeal(
      keyOf(vmpck),
      guestMessageNonce(seqno + 1n),
      guestMessageAad(out),
      this.payload,
    );
    out.set(sealed.tag, 0);
    out.set(sealed.ciphertext, 0x60);
    this.tamper(out);
    this.host.shared.write(RESPONSE, out);
  }
}

function extRequest(certsAddress: bigint, certsLen: number): Uint8Array {
  const request = new Uint8Array(112).fill(0x22, 0, 96);
  writeU64(request, 96, certsAddress);
  writeU32(request, 104, certsLen);
  return request;
}

const nothing = { response: null, certs: null, req_data: null };

describe('probe', () => {
  it('answers EINVAL for a vmpck_id outside 0 to 3 and for an empty key', () => {
    for (const vmpckId of [-1, 4, 1.5]) {
      expect(() => new World(vmpckId)).toThrow('probe answered -22');
    }
    const host = new ScriptedHost();
    const options = { secretsGpa: SECRETS, vmpckId: 0, crypto, clock: host.clock };
    const pages = { request: REQUEST, response: RESPONSE, certs: CERTS, ghcb: new GhcbPage(gpa(0n), 2) };
    expect(host.run(SevGuest.probe({ ...options, ...pages }))).toBe(-Errno.EINVAL);
  });

  it('uses the key and the counter vmpck_id names', () => {
    const world = new World(2);
    expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(0);
    expect(GuestMessageHeader.get(world.host.shared.read(REQUEST, 4096), 'msg_vmpck')).toBe(2);
    expect(readU32(world.host.private.read(SECRETS + 0xa8n, 4), 0)).toBe(2);
    expect(world.seqno).toBe(0);
  });
});

describe('before anything is sent', () => {
  const rows: [string, Partial<SevGuestCall> & { cmd: number }, number][] = [
    ['req_data null', { cmd: SNP_GET_REPORT, req_data: 'null' }, Errno.EINVAL],
    ['resp_data null', { cmd: SNP_GET_REPORT, resp_data: false }, Errno.EINVAL],
    ['req_data null for a key', { cmd: SNP_GET_DERIVED_KEY, req_data: 'null' }, Errno.EINVAL],
    ['resp_data null for certificates', { cmd: SNP_GET_EXT_REPORT, resp_data: false }, Errno.EINVAL],
    ['request unreadable', { cmd: SNP_GET_EXT_REPORT, req_data: 'fault' }, Errno.EFAULT],
    [
      'certs_len above 0x4000',
      { cmd: SNP_GET_EXT_REPORT, req_data: extRequest(0x1000n, 0x5000) },
      Errno.EINVAL,
    ],
    [
      'certs_len not whole pages',
      { cmd: SNP_GET_EXT_REPORT, req_data: extRequest(0x1000n, 0x1001) },
      Errno.EINVAL,
    ],
    [
      'certs_address + certs_len not a user address range',
      { cmd: SNP_GET_EXT_REPORT, req_data: extRequest(0x7fff_ffff_f000n, 0x1000) },
      Errno.EFAULT,
    ],
    [
      'certs_address + certs_len wrapping',
      { cmd: SNP_GET_EXT_REPORT, req_data: extRequest(0xffff_ffff_ffff_ffffn, 0x1000) },
      Errno.EFAULT,
    ],
    ['unknown command', { cmd: 0xc020_5303 }, Errno.ENOTTY],
  ];
  for (const [what, call, errno] of rows) {
    it(`${what}: result -${errno}, exitinfo2 0xff written back, nothing sent`, () => {
      const world = new World();
      expect(world.call(call)).toEqual({ ret: -errno, exitinfo2: NOT_SENT, writeBack: true, ...nothing });
      expect(world.exits).toEqual([]);
      expect(world.driver.disabled).toBe(false);
    });
  }

  it('msg_version 0: EINVAL and nothing written back', () => {
    const reply = new World().call({ cmd: SNP_GET_REPORT, msg_version: 0x100 });
    expect(reply).toMatchObject({ ret: -Errno.EINVAL, writeBack: false });
  });

  it('takes certs_address of a caller inside the kernel without judging it', () => {
    expect(new World().ext(0xffff_8880_0000_0000n, 0x1000, { inKernel: true }).ret).toBe(0);
  });

  it('VMPCK disabled: ENOTTY and nothing written back, also for an unknown command', () => {
    const world = new World();
    world.answers = [0x16n];
    world.call({ cmd: SNP_GET_REPORT });
    for (const cmd of [SNP_GET_REPORT, SNP_GET_EXT_REPORT, SNP_GET_DERIVED_KEY, 0]) {
      expect(world.call({ cmd })).toMatchObject({ ret: -Errno.ENOTTY, writeBack: false });
    }
    expect(world.exits).toHaveLength(1);
  });

  it('sequence numbers exhausted: EIO, exitinfo2 0xff, key kept', () => {
    for (const stored of [0xffff_fffe, 0xffff_ffff]) {
      const world = new World();
      world.setSeqno(stored);
      expect(world.call({ cmd: SNP_GET_REPORT })).toMatchObject({ ret: -Errno.EIO, exitinfo2: NOT_SENT });
      expect(world.driver.disabled).toBe(false);
      expect(world.exits).toEqual([]);
      expect(world.seqno).toBe(stored);
    }
  });

  it('uses sequence number 0xFFFFFFFE last', () => {
    const world = new World();
    world.setSeqno(0xffff_fffd);
    expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(0);
    expect(world.exits[0]!.seqno).toBe(0xffff_fffen);
    expect(world.seqno).toBe(0xffff_ffff);
  });
});

describe('success', () => {
  it('SNP_GET_REPORT: 4000 zero-padded bytes, exitinfo2 0 and no write-back', () => {
    const world = new World();
    const reply = world.call({ cmd: SNP_GET_REPORT });
    expect(reply).toMatchObject({ ret: 0, exitinfo2: 0n, writeBack: false, certs: null, req_data: null });
    expect(toHex(reply.response!)).toBe(
      toHex(concat(world.payload, new Uint8Array(4000 - world.payload.length))),
    );
    expect(world.exits.map(({ code }) => code)).toEqual([PLAIN]);
  });

  it('SNP_GET_DERIVED_KEY: 64 bytes', () => {
    const world = new World();
    world.payload = new Uint8Array(64).fill(9);
    expect(world.call({ cmd: SNP_GET_DERIVED_KEY }).response).toEqual(world.payload);
  });

  it('counts two sequence numbers for each request', () => {
    const world = new World();
    for (const seqno of [1n, 3n, 5n]) {
      expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(0);
      expect(world.exits.at(-1)!.seqno).toBe(seqno);
    }
    expect(world.seqno).toBe(6);
  });

  it('SNP_GET_EXT_REPORT: exactly certs_len bytes, zero-filled where the host wrote nothing', () => {
    const world = new World();
    world.host.shared.write(CERTS, new Uint8Array(0x4000).fill(0xee));
    const reply = world.ext(0x10000n, 0x2000);
    expect(reply).toMatchObject({ ret: 0, writeBack: false, req_data: null });
    expect(reply.certs).toEqual(new Uint8Array(0x2000));
    expect(world.host.shared.read(CERTS + 0x2000n, 1)[0]).toBe(0xee);
    expect(world.exits[0]).toMatchObject({ code: EXTENDED, certsGpa: CERTS, npages: 2n });
  });

  it('certs_len 0 or certs_address 0: an extended request that offers no pages', () => {
    const world = new World();
    for (const [address, length] of [
      [0x10000n, 0],
      [0n, 0x4000],
      [0xffff_ffff_ffff_ffffn, 0],
    ] as const) {
      expect(world.ext(address, length)).toMatchObject({ ret: 0, certs: null });
      expect(world.exits.at(-1)).toMatchObject({ code: EXTENDED, npages: 0n });
    }
  });

  it('reports a payload status of 0x16 as success: it is no ioctl error', () => {
    const world = new World();
    world.payload = new Uint8Array(0x20);
    world.payload[0] = 0x16;
    const reply = world.call({ cmd: SNP_GET_REPORT });
    expect(reply.ret).toBe(0);
    expect(readU32(reply.response!, 0)).toBe(0x16);
    expect(world.trace.at(-1)!.decided).toBe('the firmware refused: SEV_RET_INVALID_PARAM');
  });
});

describe('the answer of the host', () => {
  it('any other exitinfo2: EIO, exitinfo2 written back, VMPCK wiped in the secrets page too', () => {
    for (const exitinfo2 of [0x16n, 0xffff_ffff_0000_0000n, 0x1_0000_0001n, 0x3_0000_0000n]) {
      const world = new World();
      world.answers = [exitinfo2];
      const reply = world.call({ cmd: SNP_GET_REPORT });
      expect(reply).toMatchObject({ ret: -Errno.EIO, exitinfo2, writeBack: true, response: null });
      expect(world.driver.disabled).toBe(true);
      expect(world.host.private.read(SECRETS + 0x20n, 64)).toEqual(concat(new Uint8Array(32), keyOf(1)));
    }
  });

  it('GHCB protocol error: positive es_result, exitinfo2 all ones, VMPCK disabled', () => {
    const rows: [info1: bigint, info2: bigint, result: number][] = [
      [2n, 4n, 2],
      [1n, 0x8000_030dn, 4],
      [1n, 0x8000_0306n, 4],
      [1n, 0x8000_030en, 2],
      [1n, 0x0000_030dn, 2],
      [3n, 0n, 2],
    ];
    for (const [info1, info2, result] of rows) {
      const world = new World();
      world.host.onExit = ({ put }) => {
        put('sw_exit_info_1', info1);
        put('sw_exit_info_2', info2);
      };
      const reply = world.ext(0x10000n, 0x1000);
      expect(reply).toEqual({ ret: result, exitinfo2: NO_FW_CALL, writeBack: true, ...nothing });
      expect(world.driver.disabled).toBe(true);
    }
  });

  it('BUSY: the identical page again every two seconds', () => {
    const world = new World();
    world.answers = [BUSY, BUSY, null];
    expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(0);
    expect(new Set(world.exits.map(({ page }) => page)).size).toBe(1);
    expect(world.exits).toHaveLength(3);
    expect(world.host.clock.monotonicMs()).toBe(2 * 2004);
    expect(world.seqno).toBe(2);
  });

  const busyUntil = (world: World, endMs: number): void => {
    const answer = world.host.onExit;
    world.host.onExit = (exit) => {
      world.answers = [world.host.clock.monotonicMs() < endMs ? BUSY : null];
      answer(exit);
    };
  };

  it('BUSY for 59 s: success', () => {
    const world = new World();
    busyUntil(world, 59_000);
    expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(0);
    expect(world.driver.disabled).toBe(false);
  });

  it('BUSY for 61 s: ETIMEDOUT, exitinfo2 0x2_00000000, VMPCK wiped', () => {
    const world = new World();
    busyUntil(world, 61_000);
    expect(world.call({ cmd: SNP_GET_REPORT })).toMatchObject({
      ret: -Errno.ETIMEDOUT,
      exitinfo2: BUSY,
      writeBack: true,
    });
    expect(world.driver.disabled).toBe(true);
  });

  it('sleeps on when something else wakes the vCPU', () => {
    const world = new World();
    world.answers = [BUSY, null];
    const program = world.driver.ioctl({
      cmd: SNP_GET_REPORT,
      msg_version: 1,
      req_data: new Uint8Array(96),
      resp_data: true,
    });
    const early = (function* (): Guest<SevGuestReply> {
      for (let step = program.next(); ; ) {
        if (step.done === true) {
          return step.value;
        }
        const op = step.value;
        const answer = yield op.op === 'hlt' ? { op: 'hlt' as const, wakeAfterMs: 500 } : op;
        step = program.next(answer);
      }
    })();
    expect(world.host.run(early)!.ret).toBe(0);
    expect(world.host.clock.monotonicMs()).toBe(2500);
  });

  describe('INVALID_LEN to an extended request', () => {
    it('burns the number with the same page as a plain request, then EIO and the length needed', () => {
      const world = new World();
      world.answers = [INVALID_LEN, null];
      const reply = world.ext(0x10000n, 0x1000);
      expect(reply).toMatchObject({ ret: -Errno.EIO, exitinfo2: INVALID_LEN, writeBack: true, certs: null });
      expect(reply.response).toBeNull();
      expect(SnpExtReportReq.decode(reply.req_data!)).toMatchObject({
        certs_len: 0x3000,
        certs_address: 0x10000n,
      });
      expect(world.exits.map(({ code }) => code)).toEqual([EXTENDED, PLAIN]);
      expect(world.exits[0]!.page).toBe(world.exits[1]!.page);
      expect(world.seqno).toBe(2);
      expect(world.driver.disabled).toBe(false);
    });

    it('keeps the key when the plain request fails with EIO, and still says INVALID_LEN', () => {
      for (const failure of [0x16n, INVALID_LEN, 0xffff_ffff_0000_0000n]) {
        const world = new World();
        world.answers = [INVALID_LEN, failure];
        expect(world.ext(0x10000n, 0x1000)).toMatchObject({ ret: -Errno.EIO, exitinfo2: INVALID_LEN });
        expect(world.driver.disabled).toBe(false);
        expect(world.seqno).toBe(2);
      }
    });

    it('disables the key when the plain request stays BUSY', () => {
      const world = new World();
      world.answers = [INVALID_LEN, BUSY];
      const reply = world.ext(0x10000n, 0x1000);
      expect(reply).toMatchObject({ ret: -Errno.ETIMEDOUT, exitinfo2: INVALID_LEN });
      expect(reply.req_data).not.toBeNull();
      expect(world.driver.disabled).toBe(true);
    });

    it('disables the key when the plain request ends in a positive es_result', () => {
      const world = new World();
      let exits = 0;
      world.host.onExit = ({ put }) => {
        put(exits === 0 ? 'sw_exit_info_2' : 'sw_exit_info_1', exits === 0 ? INVALID_LEN : 2n);
        exits += 1;
      };
      expect(world.ext(0x10000n, 0x1000)).toMatchObject({ ret: 2, exitinfo2: INVALID_LEN });
      expect(world.driver.disabled).toBe(true);
    });

    it('wraps an absurd page count as unsigned int does', () => {
      const world = new World();
      world.npagesNeeded = 0x1_0010_0002n;
      world.answers = [INVALID_LEN, null];
      expect(readU32(world.ext(0n, 0).req_data!, 104)).toBe(0x2000);
    });
  });

  it('INVALID_LEN to a plain request: EIO, key kept, number used up', () => {
    const world = new World();
    world.answers = [INVALID_LEN];
    const reply = world.call({ cmd: SNP_GET_REPORT });
    expect(reply).toEqual({ ret: -Errno.EIO, exitinfo2: INVALID_LEN, writeBack: true, ...nothing });
    expect(world.exits).toHaveLength(1);
    expect(world.driver.disabled).toBe(false);
    expect(world.seqno).toBe(2);
  });

  it('high word 1 with a firmware status: EIO, key wiped, yet certs_len is written back as in Linux', () => {
    const world = new World();
    world.answers = [0x1_0000_0016n];
    const reply = world.ext(0x10000n, 0x2000);
    expect(reply).toMatchObject({ ret: -Errno.EIO, exitinfo2: 0x1_0000_0016n });
    expect(readU32(reply.req_data!, 104)).toBe(0x2000);
    expect(world.driver.disabled).toBe(true);
  });
});

describe('the response', () => {
  const flip = (offset: number) => (message: Uint8Array) => {
    message[offset]! ^= 1;
  };
  const rows: Record<string, (message: Uint8Array) => void> = {
    'a flipped tag bit': flip(0),
    'a flipped ciphertext bit': flip(0x60),
    'a flipped bit of the authenticated header': flip(0x30),
    'another VMPCK in the header': flip(0x3c),
    'the sequence number of the request itself': flip(0x20),
    'a sequence number with a high bit': flip(0x27),
    'the type of the request': flip(0x34),
    'another message version': flip(0x35),
    'a size larger than the buffer': (message) => GuestMessageHeader.set(message, 'msg_size', 4001),
    'no response at all': (message) => message.fill(0),
  };
  for (const [what, tamper] of Object.entries(rows)) {
    it(`${what}: EBADMSG, exitinfo2 0, no write-back, VMPCK disabled, later calls ENOTTY`, () => {
      const world = new World();
      world.tamper = tamper;
      const reply = world.ext(0x10000n, 0x1000);
      expect(reply).toEqual({ ret: -Errno.EBADMSG, exitinfo2: 0n, writeBack: false, ...nothing });
      expect(world.driver.disabled).toBe(true);
      expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(-Errno.ENOTTY);
    });
  }

  it('a key response larger than 64 bytes: EBADMSG', () => {
    const world = new World();
    world.payload = new Uint8Array(65);
    expect(world.call({ cmd: SNP_GET_DERIVED_KEY }).ret).toBe(-Errno.EBADMSG);
  });

  it('is not mistaken for the one before: the response page is cleared first', () => {
    const world = new World();
    world.call({ cmd: SNP_GET_REPORT });
    world.answers = [0n];
    expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(-Errno.EBADMSG);
  });
});

describe('the trace', () => {
  it('has steps 1 and 7 under one id for each request', () => {
    const world = new World();
    world.ext(0x10000n, 0x4000);
    world.call({ cmd: SNP_GET_REPORT });
    expect(world.trace.map(({ n, trace_id }) => [n, trace_id])).toEqual([
      [1, 'g/1'],
      [7, 'g/1'],
      [1, 'g/2'],
      [7, 'g/2'],
    ]);
    expect(world.trace[0]!.detail).toMatchObject({
      msg_type: 5,
      msg_seqno: '0x1',
      msg_vmpck: 0,
      certs_npages: 4,
    });
    expect(world.trace[1]!.detail).toMatchObject({ ret: 0, tag_ok: true, msg_seqno: '0x2', table_bytes: 24 });
  });
});

describe('a driver that stands for another one', () => {
  it('goes on with its counts, those of keys it does not use among them', () => {
    const before = new World(1);
    before.call({ cmd: SNP_GET_REPORT });
    before.call({ cmd: SNP_GET_REPORT });
    const state = before.host.run(before.driver.state())!;
    expect(state).toEqual({ msgSeqnos: [0, 4, 0, 0], vmpckDisabled: false });
    const world = new World(1);
    const counts = { ...state, msgSeqnos: [7, 4, 0xffff_ffff, 0] };
    world.host.run(world.driver.resume(counts));
    expect(world.host.run(world.driver.state())).toEqual(counts);
    world.call({ cmd: SNP_GET_REPORT });
    expect(world.exits.at(-1)!.seqno).toBe(5n);
  });

  it('has its key wiped where the other one had', () => {
    const before = new World();
    before.answers = [BUSY | 7n];
    before.call({ cmd: SNP_GET_REPORT });
    const state = before.host.run(before.driver.state())!;
    expect(state.vmpckDisabled).toBe(true);
    const world = new World();
    world.host.run(world.driver.resume(state));
    expect(world.call({ cmd: SNP_GET_REPORT }).ret).toBe(-Errno.ENOTTY);
    expect(toHex(world.host.private.read(SECRETS + 0x20n, 64))).toBe(`${'00'.repeat(32)}${toHex(keyOf(1))}`);
    expect(world.host.run(world.driver.state())).toEqual(state);
  });
});
