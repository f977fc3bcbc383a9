// SPDX-License-Identifier: Apache-2.0
/**
 * For tests of devices: a caller's memory, files without a kernel between, and a guest whose driver is the
 * real one while its hypervisor and firmware do as the test says.
 */
import { Errno, errnoName } from '../abi/errno.ts';
import { GhcbExit, SnpGuestVmmErr, snpGuestErr } from '../abi/ghcb.ts';
import {
  GuestMessageHeader,
  guestMessageAad,
  guestMessageNonce,
  MSG_REPORT_RSP_SIZE,
  MsgKeyRsp,
  MsgReportReq,
  MsgReportRsp,
  SnpMsg,
} from '../abi/guest-message.ts';
import { GhcbPage } from '../guest/ghcb.ts';
import { SevGuest, type SevGuestCall, type SevGuestReply } from '../guest/sev-guest.ts';
import { type PageExit, ScriptedHost } from '../guest/testing.ts';
import { gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { concat } from '../lib/bytes.ts';
import { EnvironmentError, invariant } from '../lib/errors.ts';
import type { OpenDevice } from '../os/device-file.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import type { CallerMemory, MemoryFault } from '../os/process-memory.ts';
import type { FileHandle, FileNode, IoctlAnswer, Refusal } from './fuse/filesystem.ts';
import { isRefusal } from './fuse/filesystem.ts';

const EFAULT: MemoryFault = { errno: Errno.EFAULT };

interface Mapping {
  readonly start: bigint;
  readonly bytes: Uint8Array;
  readonly writable: boolean;
}

/** A process's memory: what was mapped is there, all else faults. */
export class TestMemory implements CallerMemory {
  /** "read 0x1000+96", "write ...", in order; those that faulted too. */
  readonly log: string[] = [];
  readonly #mappings: Mapping[] = [];
  #next = 0x10_0000n;

  /** Maps a copy of the bytes, with unmapped pages around it; its address. */
  map(bytes: Uint8Array, writable = true): bigint {
    const start = this.#next;
    this.#next += BigInt(Math.ceil(bytes.length / PAGE_SIZE) + 1) * BigInt(PAGE_SIZE);
    this.#mappings.push({ start, bytes: bytes.slice(), writable });
    return start;
  }

  /** The bytes at an address that `map` gave, live. */
  at(start: bigint): Uint8Array {
    const mapping = this.#mappings.find((other) => other.start === start);
    invariant(mapping !== undefined, 'nothing was mapped there');
    return mapping.bytes;
  }

  read(address: bigint, length: number): Uint8Array | MemoryFault {
    this.log.push(`read 0x${address.toString(16)}+${length}`);
    return this.#view(address, length)?.bytes.slice() ?? EFAULT;
  }

  write(address: bigint, bytes: Uint8Array): null | MemoryFault {
    this.log.push(`write 0x${address.toString(16)}+${bytes.length}`);
    const view = this.#view(address, bytes.length);
    if (view === null || !view.writable) {
      return EFAULT;
    }
    view.bytes.set(bytes);
    return null;
  }

  #view(address: bigint, length: number): { bytes: Uint8Array; writable: boolean } | null {
    for (const { start, bytes, writable } of this.#mappings) {
      const offset = Number(address - start);
      if (offset >= 0 && offset + length <= bytes.length) {
        return { bytes: bytes.subarray(offset, offset + length), writable };
      }
    }
    return null;
  }
}

const CALLER = { uid: 0, gid: 0, pid: 1 };

/** One open file, driven as the kernel drives it. */
export class TestFile {
  readonly handle: FileHandle;
  #position = 0;

  private constructor(handle: FileHandle) {
    this.handle = handle;
  }

  /** open(2): the file, or the errno. */
  static async open(node: FileNode, flags: number): Promise<TestFile | number> {
    const handle = await node.open(flags, CALLER);
    return isRefusal(handle) ? handle.errno : new TestFile(handle);
  }

  /** read(2) at the file position: the bytes, or the errno. */
  async read(size: number): Promise<Uint8Array | number> {
    const bytes = await (this.handle.read?.(this.#position, size, CALLER) ?? refusal(Errno.EINVAL));
    if (isRefusal(bytes)) {
      return bytes.errno;
    }
    this.#position += bytes.length;
    return bytes;
  }

  /** write(2) at the file position: the count, or -errno. */
  async write(data: Uint8Array): Promise<number> {
    const count = await (this.handle.write?.(this.#position, data, CALLER) ?? refusal(Errno.EINVAL));
    if (isRefusal(count)) {
      return -count.errno;
    }
    this.#position += count;
    return count;
  }

  async ioctl(cmd: number, input: Uint8Array, memory: CallerMemory, arg = 0n): Promise<IoctlAnswer> {
    const outputSize = cmd >>> 31 === 1 ? (cmd >>> 16) & 0x3fff : 0;
    invariant(this.handle.ioctl !== undefined, 'the file has no ioctl');
    return this.handle.ioctl({ cmd, arg, input, outputSize, caller: CALLER, memory });
  }

  /** close(2) of the last descriptor. */
  async close(): Promise<void> {
    await this.handle.flush?.(CALLER);
    this.handle.release?.();
  }
}

/** Opens a node as programs open a device, with memory of their own. */
export function testOpen(node: FileNode): OpenDevice {
  return async (path, access) => {
    const file = await TestFile.open(node, access === 'read' ? 0 : 2);
    if (typeof file === 'number') {
      throw new EnvironmentError('DEVICE_UNAVAILABLE', errnoName(file), { where: path });
    }
    const memory = new TestMemory();
    return {
      pin(content) {
        const address = memory.map(content);
        return { address, bytes: memory.at(address) };
      },
      async ioctl(request, { address, bytes }) {
        const { result, output } = await file.ioctl(request, bytes.slice(), memory, address);
        bytes.set(output ?? new Uint8Array(0));
        return result;
      },
      close: () => file.close(),
    };
  };
}

const refusal = (errno: number): Refusal => ({ errno });

const SECRETS = gpa(0x80d000n);
const REQUEST = gpa(0x2000n);
const RESPONSE = gpa(0x3000n);
const CERTS = gpa(0x4000n);
const VMPCK = new Uint8Array(32).fill(0xa0);

/** A guest with the real sev-guest driver. */
export class TestGuest {
  readonly host = new ScriptedHost();
  /** What the driver was asked. */
  readonly calls: SevGuestCall[] = [];
  /** Exit codes of the requests that reached the hypervisor. */
  readonly exits: number[] = [];
  /** Headers of the messages that reached the firmware. */
  readonly messages: GuestMessageHeader[] = [];
  /** What the host hands out: as many bytes as the certificates take. */
  certs: Uint8Array = new Uint8Array(0);
  /** SW_EXITINFO2 of the next exits; when used up, the firmware answers. */
  refusals: bigint[] = [];
  /** Changes the GHCB after an exit. */
  onExit: PageExit = () => undefined;
  /** Changes the response page before the guest sees it. */
  tamper: (message: Uint8Array) => void = () => undefined;
  /** Status in the responses. */
  status = 0;
  reportSize = 0x4a0;
  /** Runs before a call is taken up. */
  before: () => Promise<void> = () => Promise.resolve();
  readonly sevGuest: SevGuest;
  readonly #crypto = nodeCrypto({ deterministic: true });

  constructor() {
    this.host.private.write(SECRETS + 0x20n, VMPCK);
    const sevGuest = this.host.run(
      SevGuest.probe({
        ...{ ghcb: new GhcbPage(gpa(0x1000n), 2), secretsGpa: SECRETS, vmpckId: 0 },
        ...{ request: REQUEST, response: RESPONSE, certs: CERTS },
        ...{ crypto: this.#crypto, clock: this.host.clock },
      }),
    );
    invariant(sevGuest instanceof SevGuest, 'the driver loads');
    this.sevGuest = sevGuest;
    this.host.onExit = (exit) => {
      this.#exit(exit);
      this.onExit(exit);
    };
  }

  readonly driver = async (call: SevGuestCall): Promise<SevGuestReply> => {
    this.calls.push(call);
    await this.before();
    const reply = this.host.run(this.sevGuest.ioctl(call));
    invariant(reply !== null, 'the driver answers');
    return reply;
  };

  #exit({ code, get, put }: Parameters<PageExit>[0]): void {
    this.exits.push(code);
    const refused = this.refusals.shift();
    const needed = Math.ceil(this.certs.length / PAGE_SIZE);
    if (refused !== undefined) {
      put('sw_exit_info_2', refused);
    } else if (code === GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST && get('rbx') < BigInt(needed)) {
      put('rbx', BigInt(needed));
      put('sw_exit_info_2', snpGuestErr(SnpGuestVmmErr.SNP_GUEST_VMM_ERR_INVALID_LEN, 0));
    } else {
      if (code === GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST) {
        this.host.shared.write(get('rax'), this.certs);
      }
      this.#answer(this.host.shared.read(REQUEST, PAGE_SIZE));
    }
  }

  #answer(message: Uint8Array): void {
    const header = GuestMessageHeader.decodeLoose(message.subarray(0, GuestMessageHeader.size));
    this.messages.push(header);
    const end = GuestMessageHeader.size + header.msg_size;
    const request = this.#crypto.gcmOpen(
      VMPCK,
      guestMessageNonce(header.msg_seqno),
      guestMessageAad(message),
      message.subarray(GuestMessageHeader.size, end),
      message.subarray(0, 16),
    );
    invariant(request !== null, 'the request authenticates');
    const payload =
      header.msg_type === SnpMsg.SNP_MSG_REPORT_REQ ? this.#report(request) : this.#key(request);
    const out = new Uint8Array(PAGE_SIZE);
    out.set(
      GuestMessageHeader.encode({
        ...header,
        authtag: new Uint8Array(32),
        msg_seqno: header.msg_seqno + 1n,
        msg_type: header.msg_type + 1,
        msg_size: payload.length,
      }),
    );
    const nonce = guestMessageNonce(header.msg_seqno + 1n);
    const sealed = this.#crypto.gcmSeal(VMPCK, nonce, guestMessageAad(out), payload);
    out.set(sealed.tag);
    out.set(sealed.ciphertext, GuestMessageHeader.size);
    this.tamper(out);
    this.host.shared.write(RESPONSE, out);
  }

  /** A version 2 report of the request's REPORT_DATA and VMPL, with no signature. */
  #report(request: Uint8Array): Uint8Array {
    const { report_data, vmpl } = MsgReportReq.decodeLoose(request);
    const head = MsgReportRsp.encode({ status: this.status, report_size: this.reportSize });
    const payload = concat(head, new Uint8Array(MSG_REPORT_RSP_SIZE - head.length));
    payload[head.length] = 2;
    payload[head.length + 0x30] = vmpl;
    payload.set(report_data, head.length + 0x50);
    return payload;
  }

  /** A key that is the request. */
  #key(request: Uint8Array): Uint8Array {
    return MsgKeyRsp.encode({ status: this.status, derived_key: request.slice(0, 32) });
  }
}
