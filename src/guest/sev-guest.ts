// SPDX-License-Identifier: Apache-2.0
/**
 * The sev-guest driver: what /dev/sev-guest does with an ioctl once its argument is in the kernel, in the
 * order and with the answers of Linux 6.12.
 *
 * A message key must never seal two different messages under one sequence number. That one rule explains
 * the rest: an identical page is sent again when the host is busy, a refused extended request is used up as
 * a plain one, and after any doubt the key is wiped.
 */
import { CERT_TABLE_ENTRY_SIZE, SEV_FW_BLOB_MAX_SIZE } from '../abi/cert-table.ts';
import {
  SNP_REPORT_RESP_SIZE,
  SnpDerivedKeyReq,
  SnpDerivedKeyReqV2,
  SnpDerivedKeyResp,
  SnpExtReportReq,
  SnpGuestIoctl,
  SnpReportReq,
} from '../abi/dev-sev-guest.ts';
import { Errno, errnoName } from '../abi/errno.ts';
import { GhcbExit, SnpGuestVmmErr, snpGuestErr, snpGuestVmmErr } from '../abi/ghcb.ts';
import {
  AUTHTAG_SIZE,
  GUEST_MESSAGE_HDR_VERSION,
  GUEST_MESSAGE_HEADER_SIZE,
  GuestMessageHeader,
  guestMessageAad,
  guestMessageNonce,
  SNP_AEAD_AES_256_GCM,
  SnpMsg,
  VMPCK_SIZE,
} from '../abi/guest-message.ts';
import type { GuestOp } from '../abi/guest-ops.ts';
import { SECRETS_SEQNO_OFFSET, SECRETS_VMPCK_OFFSET } from '../abi/secrets-page.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { type Gpa, gpa, PAGE_SIZE } from '../lib/addresses.ts';
import { isZero, readU16, readU32, readU64, writeU16, writeU32, writeU64 } from '../lib/bytes.ts';
import type { Clock } from '../lib/clock.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import type { Tracer } from '../lib/trace.ts';
import { type Guest, readPrivate, readShared, sleepMs, writePrivate } from './cpu.ts';
import { EsResult, type GhcbPage } from './ghcb.ts';

/** One ioctl as the front end read it from the caller. All of it is the caller's to choose. */
export interface SevGuestCall {
  /** SnpGuestIoctl, or any other number. */
  readonly cmd: number;
  readonly msg_version: number;
  /** What req_data points at, as many bytes as the command takes; or why there is nothing. */
  readonly req_data: Uint8Array | 'null' | 'fault';
  /** False when the pointer is null. */
  readonly resp_data: boolean;
  /** From inside the kernel (configfs-tsm): certs_address is not judged as a user address. */
  readonly inKernel?: boolean;
}

/**
 * What the front end does with the caller's memory, in this order: write `req_data`, `certs`, `response`
 * where they are given, then with `writeBack` the whole argument with `exitinfo2`, also after a failure.
 * A write that faults makes the result -EFAULT; one of the first three does not stop the write-back.
 */
export interface SevGuestReply {
  /** 0, -errno, or a positive EsResult. */
  readonly ret: number;
  readonly exitinfo2: bigint;
  readonly writeBack: boolean;
  /** 4000 bytes of report response or 64 of key response; null unless the request succeeded. */
  readonly response: Uint8Array | null;
  /** Exactly certs_len bytes for certs_address. */
  readonly certs: Uint8Array | null;
  /** The extended request again, with the certs_len the host needs. */
  readonly req_data: Uint8Array | null;
}

/** How far a driver has come: what another guest's driver needs to stand for it. */
export interface DriverState {
  /** Message counts of the four keys in the secrets page. */
  readonly msgSeqnos: readonly number[];
  /** A failure has wiped the key. */
  readonly vmpckDisabled: boolean;
}

/** Pages the driver shares with the hypervisor, and where its key lives. */
export interface SevGuestOptions {
  readonly ghcb: GhcbPage;
  readonly secretsGpa: Gpa;
  readonly request: Gpa;
  readonly response: Gpa;
  /** SEV_FW_BLOB_MAX_SIZE bytes. */
  readonly certs: Gpa;
  /** Module parameter vmpck_id: 0 to 3. */
  readonly vmpckId: number;
  readonly crypto: MachineCrypto;
  readonly clock: Clock;
  readonly tracer?: Tracer | undefined;
  readonly onLog?: ((line: string) => void) | undefined;
}

const SNP_REQ_MAX_RETRY_DURATION_MS = 60_000;
const SNP_REQ_RETRY_DELAY_MS = 2_000;
/** schedule_timeout sleeps the delay and the rest of the tick it began in (HZ=250). */
const JIFFY_MS = 4;

/** exitinfo2 until the driver gets as far as the GHCB. */
const EXITINFO2_NOT_SENT = 0xffn;
/** exitinfo2 from there until the hypervisor answers: SEV_RET_NO_FW_CALL, sign-extended. */
const EXITINFO2_NO_FW_CALL = 0xffff_ffff_ffff_ffffn;
const EXITINFO2_BUSY = snpGuestErr(SnpGuestVmmErr.SNP_GUEST_VMM_ERR_BUSY, 0);
const EXITINFO2_INVALID_LEN = snpGuestErr(SnpGuestVmmErr.SNP_GUEST_VMM_ERR_INVALID_LEN, 0);

/** End of user addresses with four-level paging (TASK_SIZE_MAX). */
const TASK_SIZE_MAX = 0x7fff_ffff_f000n;

const MSG_SEQNO = GuestMessageHeader.offsetOf('msg_seqno');
const MSG_TYPE = GuestMessageHeader.offsetOf('msg_type');
const MSG_VERSION = GuestMessageHeader.offsetOf('msg_version');
const MSG_SIZE = GuestMessageHeader.offsetOf('msg_size');

/** 0 to SEV_FW_BLOB_MAX_SIZE bytes of zeros, by pages. */
const ZERO_PAGES: readonly Uint8Array[] = Array.from(
  { length: SEV_FW_BLOB_MAX_SIZE / PAGE_SIZE + 1 },
  (_, npages) => new Uint8Array(npages * PAGE_SIZE),
);
const ZERO_KEY = new Uint8Array(VMPCK_SIZE);
/** VMPCK0 to VMPCK3. */
const VMPCKS = 4;

/** One guest message and how it is to travel. */
interface Request {
  readonly msgType: number;
  readonly msgVersion: number;
  readonly payload: Uint8Array;
  /** Most bytes the response payload may have. */
  readonly responseSize: number;
  readonly certsNpages: number;
  exitCode: number;
}

/** What one command of the driver comes to. */
interface Answer {
  readonly ret: number;
  readonly response?: Uint8Array;
  readonly certs?: Uint8Array;
  readonly req_data?: Uint8Array;
}

/** A message on its way, for the trace. */
interface Exchange {
  readonly msgType: number;
  readonly seqno: number;
  /** Null while no response has been looked at. */
  tagOk: boolean | null;
}

/** One guest's driver. Its requests run one after another: the guest kernel's job queue is its mutex. */
export class SevGuest {
  readonly #options: SevGuestOptions;
  /** The request page; what no request changes in the header is filled in once. */
  readonly #message = new Uint8Array(PAGE_SIZE);
  readonly #seqno = new Uint8Array(4);
  // What every request yields, made once and without helpers between.
  readonly #readSeqno: GuestOp;
  readonly #writeSeqno: GuestOp;
  readonly #clearResponse: GuestOp;
  readonly #writeRequest: GuestOp;
  readonly #readResponse: GuestOp;
  /** Null: empty or disabled. */
  #vmpck: Uint8Array | null;
  #exitinfo2 = 0n;
  #exchange: Exchange | null = null;
  /** RBX of the last extended request, as the hypervisor left it. */
  #certsNpages = 0;

  private constructor(options: SevGuestOptions, vmpck: Uint8Array) {
    this.#options = options;
    this.#vmpck = vmpck;
    const { request, response } = options;
    const seqno = gpa(options.secretsGpa + BigInt(SECRETS_SEQNO_OFFSET + 4 * options.vmpckId));
    this.#readSeqno = { op: 'read', gpa: seqno, length: 4, encrypted: true, into: this.#seqno };
    this.#writeSeqno = { op: 'write', gpa: seqno, data: this.#seqno, encrypted: true };
    this.#clearResponse = { op: 'write', gpa: response, data: ZERO_PAGES[1]!, encrypted: false };
    this.#writeRequest = { op: 'write', gpa: request, data: this.#message, encrypted: false };
    this.#readResponse = {
      ...{ op: 'read', gpa: response, length: PAGE_SIZE, encrypted: false },
      into: new Uint8Array(PAGE_SIZE),
    };
    const header = GuestMessageHeader.encode({
      algo: SNP_AEAD_AES_256_GCM,
      hdr_version: GUEST_MESSAGE_HDR_VERSION,
      hdr_size: GUEST_MESSAGE_HEADER_SIZE,
      msg_vmpck: options.vmpckId,
    });
    this.#message.set(header);
  }

  /**
   * Loads the driver. The pages must be shared already.
   *
   * Returns  the driver, or -EINVAL for a key number that does not exist or a key that is all zero
   */
  static *probe(options: SevGuestOptions): Guest<SevGuest | number> {
    const { vmpckId, secretsGpa, onLog } = options;
    if (!Number.isInteger(vmpckId) || vmpckId < 0 || vmpckId > 3) {
      onLog?.(`sev-guest: Invalid VMPCK communication key ${vmpckId}`);
      return -Errno.EINVAL;
    }
    const vmpck = yield* readPrivate(vmpckGpa(secretsGpa, vmpckId), VMPCK_SIZE);
    if (isZero(vmpck)) {
      onLog?.(`sev-guest: Empty VMPCK${vmpckId} communication key`);
      return -Errno.EINVAL;
    }
    onLog?.(`sev-guest: Initialized SEV guest driver (using VMPCK${vmpckId} communication key)`);
    return new SevGuest(options, vmpck.slice());
  }

  /** True once a failure has wiped the key: nothing but another key brings the driver back. */
  get disabled(): boolean {
    return this.#vmpck === null;
  }

  *state(): Guest<DriverState> {
    const counts = yield* readPrivate(countsGpa(this.#options.secretsGpa), 4 * VMPCKS);
    return {
      msgSeqnos: Array.from({ length: VMPCKS }, (_, id) => readU32(counts, 4 * id)),
      vmpckDisabled: this.disabled,
    };
  }

  /**
   * Goes on where another driver was. The host must count messages from the same numbers.
   *
   * Differs  no kernel does this: a guest cannot know that it stands for another one (docs/limitations.md#snapshots)
   */
  *resume({ msgSeqnos, vmpckDisabled }: DriverState): Guest<void> {
    const counts = new Uint8Array(4 * VMPCKS);
    msgSeqnos.forEach((count, id) => {
      writeU32(counts, 4 * id, count);
    });
    yield* writePrivate(countsGpa(this.#options.secretsGpa), counts);
    if (vmpckDisabled) {
      yield* this.#disableVmpck('it was disabled when the guest was saved');
    }
  }

  /** One ioctl of /dev/sev-guest, from after the copy of its argument to before the copy back. */
  *ioctl(call: SevGuestCall): Guest<SevGuestReply> {
    const nothing = { exitinfo2: EXITINFO2_NOT_SENT, response: null, certs: null, req_data: null };
    if ((call.msg_version & 0xff) === 0) {
      return { ret: -Errno.EINVAL, writeBack: false, ...nothing };
    }
    if (this.#vmpck === null) {
      this.#options.onLog?.('sev-guest: VMPCK is disabled');
      return { ret: -Errno.ENOTTY, writeBack: false, ...nothing };
    }
    this.#options.tracer?.begin();
    this.#exitinfo2 = EXITINFO2_NOT_SENT;
    this.#exchange = null;
    const started = this.#dispatch(call);
    const answer = 'ret' in started ? started : yield* started;
    this.#traceAnswer(answer);
    const { ret, response = null, certs = null, req_data = null } = answer;
    const exitinfo2 = this.#exitinfo2;
    return { ret, exitinfo2, writeBack: exitinfo2 !== 0n, response, certs, req_data };
  }

  /** The answer, or what leads to it where something has to be sent. */
  #dispatch(call: SevGuestCall): Answer | Guest<Answer> {
    switch (call.cmd) {
      case SnpGuestIoctl.SNP_GET_REPORT:
        return this.#getReport(call);
      case SnpGuestIoctl.SNP_GET_DERIVED_KEY:
        return this.#getDerivedKey(call);
      case SnpGuestIoctl.SNP_GET_EXT_REPORT:
        return this.#getExtReport(call);
      default:
        return { ret: -Errno.ENOTTY };
    }
  }

  #getReport(call: SevGuestCall): Answer | Guest<Answer> {
    const payload = requestBytes(call, SnpReportReq.size);
    if (typeof payload === 'number') {
      return { ret: payload };
    }
    return this.#sendGuestRequest({
      msgType: SnpMsg.SNP_MSG_REPORT_REQ,
      msgVersion: call.msg_version & 0xff,
      payload,
      responseSize: SNP_REPORT_RESP_SIZE,
      certsNpages: 0,
      exitCode: GhcbExit.SVM_VMGEXIT_GUEST_REQUEST,
    });
  }

  /** Differs  passes on all of a version 2 request (docs/limitations.md#devices) */
  #getDerivedKey(call: SevGuestCall): Answer | Guest<Answer> {
    const given = call.req_data instanceof Uint8Array ? call.req_data.length : 0;
    const whole = (call.msg_version & 0xff) >= 2 && given >= SnpDerivedKeyReqV2.size;
    const payload = requestBytes(call, whole ? SnpDerivedKeyReqV2.size : SnpDerivedKeyReq.size);
    if (typeof payload === 'number') {
      return { ret: payload };
    }
    return this.#sendGuestRequest({
      msgType: SnpMsg.SNP_MSG_KEY_REQ,
      msgVersion: call.msg_version & 0xff,
      payload,
      responseSize: SnpDerivedKeyResp.size,
      certsNpages: 0,
      exitCode: GhcbExit.SVM_VMGEXIT_GUEST_REQUEST,
    });
  }

  *#getExtReport(call: SevGuestCall): Guest<Answer> {
    const request = requestBytes(call, SnpExtReportReq.size);
    if (typeof request === 'number') {
      return { ret: request };
    }
    const certsAddress = SnpExtReportReq.get(request, 'certs_address');
    let certsLen = SnpExtReportReq.get(request, 'certs_len');
    if (certsLen === 0 || certsAddress === 0n) {
      certsLen = 0;
    } else if (certsLen > SEV_FW_BLOB_MAX_SIZE || certsLen % PAGE_SIZE !== 0) {
      return { ret: -Errno.EINVAL };
    } else if (call.inKernel !== true && certsAddress + BigInt(certsLen) > TASK_SIZE_MAX) {
      return { ret: -Errno.EFAULT };
    } else {
      yield {
        op: 'write',
        gpa: this.#options.certs,
        data: ZERO_PAGES[certsLen / PAGE_SIZE]!,
        encrypted: false,
      };
    }
    const answer = yield* this.#sendGuestRequest({
      msgType: SnpMsg.SNP_MSG_REPORT_REQ,
      msgVersion: call.msg_version & 0xff,
      payload: request.subarray(0, SnpReportReq.size),
      responseSize: SNP_REPORT_RESP_SIZE,
      certsNpages: certsLen / PAGE_SIZE,
      exitCode: GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST,
    });
    if (snpGuestVmmErr(this.#exitinfo2) === SnpGuestVmmErr.SNP_GUEST_VMM_ERR_INVALID_LEN) {
      const needed = request.slice();
      // Both are unsigned int in Linux: an absurd page count wraps here as it does there.
      SnpExtReportReq.set(needed, 'certs_len', (this.#certsNpages * PAGE_SIZE) % 2 ** 32);
      return { ...answer, req_data: needed };
    }
    if (answer.ret !== 0 || certsLen === 0) {
      return answer;
    }
    const certs = yield* readShared(this.#options.certs, certsLen);
    return { ...answer, certs };
  }

  *#sendGuestRequest(request: Request): Guest<Answer> {
    const stored = readU32((yield this.#readSeqno) as Uint8Array, 0);
    const seqno = stored + 1;
    // The counter has 32 bits in the secrets page; the last value is never used.
    if (seqno >= 0xffff_ffff) {
      this.#options.onLog?.('sev-guest: request message sequence counter overflow');
      return { ret: -Errno.EIO };
    }
    yield this.#clearResponse;
    this.#seal(request, seqno);
    yield this.#writeRequest;

    const ret = yield* this.#handleGuestRequest(request, seqno);
    if (ret !== 0) {
      const used = ret === -Errno.EIO && this.#exitinfo2 === EXITINFO2_INVALID_LEN;
      if (!used) {
        yield* this.#disableVmpck(`request failed: ${ret}, exitinfo2 ${hex(this.#exitinfo2)}`);
      }
      return { ret };
    }
    const response = yield* this.#open(request, seqno);
    if (response === null) {
      yield* this.#disableVmpck('the response is not the answer to the request');
      return { ret: -Errno.EBADMSG };
    }
    return { ret: 0, response };
  }

  /** Sends the sealed page until it has been used up, one way or the other. */
  *#handleGuestRequest(request: Request, seqno: number): Guest<number> {
    const { clock, ghcb } = this.#options;
    const startMs = clock.monotonicMs();
    let refusedForLength = false;
    this.#certsNpages = request.certsNpages;
    let ret: number;
    for (;;) {
      this.#traceSend(request, seqno);
      this.#prepareExit(request);
      ret = this.#judge(
        request,
        yield* ghcb.call(request.exitCode, this.#options.request, this.#options.response),
      );
      if (ret === -Errno.ENOSPC) {
        // The same page once more as a plain request: the firmware counts it, the number is used up.
        refusedForLength = true;
        request.exitCode = GhcbExit.SVM_VMGEXIT_GUEST_REQUEST;
        continue;
      }
      if (ret !== -Errno.EAGAIN) {
        break;
      }
      if (clock.monotonicMs() - startMs > SNP_REQ_MAX_RETRY_DURATION_MS) {
        ret = -Errno.ETIMEDOUT;
        break;
      }
      yield* this.#sleepUntil(clock.monotonicMs() + SNP_REQ_RETRY_DELAY_MS + JIFFY_MS);
    }
    writeU32(this.#seqno, 0, seqno + 1);
    yield this.#writeSeqno;
    if (refusedForLength) {
      this.#exitinfo2 = EXITINFO2_INVALID_LEN;
      return ret === 0 ? -Errno.EIO : ret;
    }
    return ret;
  }

  /** Fills the GHCB for one VMGEXIT. */
  #prepareExit({ exitCode, certsNpages }: Request): void {
    const { ghcb, certs } = this.#options;
    this.#exitinfo2 = EXITINFO2_NO_FW_CALL;
    ghcb.invalidate();
    if (exitCode === GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST) {
      ghcb.put('rax', certs);
      ghcb.put('rbx', BigInt(certsNpages));
    }
  }

  /** What one VMGEXIT came to: 0, -errno or a positive EsResult. */
  #judge({ exitCode }: Request, result: EsResult): number {
    const { ghcb } = this.#options;
    if (result !== EsResult.ES_OK) {
      return result;
    }
    this.#exitinfo2 = ghcb.answer('sw_exit_info_2');
    switch (this.#exitinfo2) {
      case 0n:
        return 0;
      case EXITINFO2_BUSY:
        return -Errno.EAGAIN;
      case EXITINFO2_INVALID_LEN:
        if (exitCode === GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST) {
          this.#certsNpages = Number(BigInt.asUintN(32, ghcb.answer('rbx')));
          return -Errno.ENOSPC;
        }
        return -Errno.EIO;
      default:
        return -Errno.EIO;
    }
  }

  #seal({ msgType, msgVersion, payload }: Request, seqno: number): void {
    const message = this.#message;
    message.fill(0, GUEST_MESSAGE_HEADER_SIZE);
    message[MSG_TYPE] = msgType;
    message[MSG_VERSION] = msgVersion;
    writeU16(message, MSG_SIZE, payload.length);
    writeU64(message, MSG_SEQNO, BigInt(seqno));
    const { ciphertext, tag } = this.#options.crypto.gcmSeal(
      this.#vmpck!,
      guestMessageNonce(BigInt(seqno)),
      guestMessageAad(message),
      payload,
    );
    message.set(tag, 0);
    message.set(ciphertext, GUEST_MESSAGE_HEADER_SIZE);
  }

  /** The response payload, zero-padded to the size the caller gets; null when anything about it is wrong. */
  *#open({ msgType, msgVersion, responseSize }: Request, seqno: number): Guest<Uint8Array | null> {
    const message = (yield this.#readResponse) as Uint8Array;
    const answered = readU64(message, MSG_SEQNO);
    const size = readU16(message, MSG_SIZE);
    const fits =
      answered === BigInt(seqno) + 1n &&
      message[MSG_TYPE] === msgType + 1 &&
      message[MSG_VERSION] === msgVersion &&
      size <= responseSize;
    const payload = fits
      ? this.#options.crypto.gcmOpen(
          this.#vmpck!,
          guestMessageNonce(answered),
          guestMessageAad(message),
          message.subarray(GUEST_MESSAGE_HEADER_SIZE, GUEST_MESSAGE_HEADER_SIZE + size),
          message.subarray(0, AUTHTAG_SIZE),
        )
      : null;
    this.#exchange!.tagOk = payload !== null;
    if (payload === null) {
      return null;
    }
    const response = new Uint8Array(responseSize);
    response.set(payload);
    return response;
  }

  /** Wipes the key where it lies: no later kernel finds it either. */
  *#disableVmpck(why: string): Guest<void> {
    const { onLog, secretsGpa, vmpckId } = this.#options;
    onLog?.(`sev-guest: Disabling VMPCK${vmpckId} communication key to prevent IV reuse: ${why}`);
    this.#vmpck?.fill(0);
    this.#vmpck = null;
    yield* writePrivate(vmpckGpa(secretsGpa, vmpckId), ZERO_KEY);
  }

  /** Sleeps through whatever else wakes the vCPU. */
  *#sleepUntil(deadlineMs: number): Guest<void> {
    const { clock } = this.#options;
    for (let leftMs = deadlineMs - clock.monotonicMs(); leftMs > 0; ) {
      yield* sleepMs(leftMs);
      leftMs = deadlineMs - clock.monotonicMs();
    }
  }

  #traceSend({ msgType, msgVersion, exitCode, certsNpages }: Request, seqno: number): void {
    const again = this.#exchange !== null;
    this.#exchange = { msgType, seqno, tagOk: null };
    const { tracer, vmpckId, certs } = this.#options;
    if (tracer === undefined) {
      return;
    }
    const extended = exitCode === GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST;
    const how = extended ? `extended request, ${certsNpages} pages offered` : 'plain request';
    tracer.emit(
      'extended-report',
      again
        ? `sends message ${seqno} again, unchanged: ${how}`
        : `seals a message of type ${msgType} as number ${seqno} under VMPCK${vmpckId}: ${how}`,
      {
        sw_exit_code: hex(exitCode),
        msg_type: msgType,
        msg_version: msgVersion,
        msg_seqno: hex(seqno),
        msg_vmpck: vmpckId,
        certs_gpa: extended ? hex(certs) : null,
        certs_npages: extended ? certsNpages : null,
      },
    );
  }

  #traceAnswer({ ret, response, certs }: Answer): void {
    const { tracer } = this.#options;
    const exchange = this.#exchange;
    if (tracer === undefined || exchange === null) {
      return;
    }
    const report = exchange.msgType === SnpMsg.SNP_MSG_REPORT_REQ ? response : undefined;
    const status = response === undefined ? null : readU32(response, 0);
    tracer.emit('open-response', this.#decided(ret, status), {
      ret,
      exitinfo2: hex(this.#exitinfo2),
      tag_ok: exchange.tagOk,
      msg_seqno: exchange.tagOk === true ? hex(exchange.seqno + 1) : null,
      status,
      report_size: report === undefined ? null : readU32(report, 4),
      table_bytes: certs === undefined ? null : tableBytes(certs),
    });
  }

  #decided(ret: number, status: number | null): string {
    if (ret > 0) {
      return `the hypervisor answered outside the protocol (es_result ${ret}); VMPCK disabled`;
    }
    if (ret === 0 && status !== null) {
      return status === 0 ? 'the response authenticates' : `the firmware refused: ${sevRetName(status)}`;
    }
    const outcome = this.disabled ? 'VMPCK disabled' : `${this.#certsNpages} pages needed`;
    return `${errnoName(ret)}, exitinfo2 ${hex(this.#exitinfo2)}; ${outcome}`;
  }
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

const vmpckGpa = (secretsGpa: Gpa, id: number): Gpa =>
  gpa(secretsGpa + BigInt(SECRETS_VMPCK_OFFSET + VMPCK_SIZE * id));

const countsGpa = (secretsGpa: Gpa): Gpa => gpa(secretsGpa + BigInt(SECRETS_SEQNO_OFFSET));

/** The bytes at req_data, or why the driver goes no further. */
function requestBytes({ req_data, resp_data }: SevGuestCall, size: number): Uint8Array | number {
  if (req_data === 'null' || !resp_data) {
    return -Errno.EINVAL;
  }
  return req_data === 'fault' || req_data.length < size ? -Errno.EFAULT : req_data.subarray(0, size);
}

/** Length of a certificate table: the end of its last certificate, as far as the entries make sense. */
function tableBytes(certs: Uint8Array): number {
  let end = 0;
  for (let at = 0; at + CERT_TABLE_ENTRY_SIZE <= certs.length; at += CERT_TABLE_ENTRY_SIZE) {
    end = Math.max(end, at + CERT_TABLE_ENTRY_SIZE);
    if (isZero(certs.subarray(at, at + CERT_TABLE_ENTRY_SIZE))) {
      return end;
    }
    end = Math.max(end, Math.min(certs.length, readU32(certs, at + 16) + readU32(certs, at + 20)));
  }
  return end;
}
