// SPDX-License-Identifier: Apache-2.0
/** A bare host for firmware tests: memory, pages in the states commands want, the mailbox, one guest. */
import {
  GUEST_MESSAGE_HEADER_SIZE,
  GuestMessageHeader,
  guestMessageAad,
  guestMessageNonce,
  MsgKeyReqV1,
  MsgReportReq,
  SnpMsg,
} from '../../src/abi/guest-message.ts';
import { PageType } from '../../src/abi/page-info.ts';
import type { ProductLine } from '../../src/abi/product.ts';
import { SECRETS_VMPCK_OFFSET } from '../../src/abi/secrets-page.ts';
import { SevRet, type SevStatus, sevRetName } from '../../src/abi/sev-status.ts';
import {
  SevCmd,
  type SevCmdName,
  SevDataSnpActivate,
  SevDataSnpAddr,
  SevDataSnpGuestRequest,
  SevDataSnpInitEx,
  SevDataSnpLaunchFinish,
  SevDataSnpLaunchStart,
  SevDataSnpLaunchUpdate,
} from '../../src/abi/snp-commands.ts';
import {
  type ChipConfig,
  defaultChip,
  type GuestRequestDetail,
  SecureProcessor,
} from '../../src/firmware/secure-processor.ts';
import { Hardware } from '../../src/hw/hardware.ts';
import { asid, gfn, PAGE_SIZE, type Pfn, pfn, type Spa, spaOf } from '../../src/lib/addresses.ts';
import type { MachineCrypto, Random } from '../../src/lib/crypto.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';

export const crypto: MachineCrypto = nodeCrypto({ deterministic: false });
export const SECRET = Uint8Array.from({ length: 48 }, (_, i) => i + 1);
export const SECRETS_GPA = 0x80d000n;

export interface TestGuest {
  readonly gctx: bigint;
  readonly asid: number;
  readonly request: Pfn;
  readonly response: Pfn;
  /** Next sequence number under each VMPCK. */
  readonly next: bigint[];
  vmpcks: readonly Uint8Array[];
}

export interface Reply {
  readonly status: SevStatus;
  /** Null when the firmware refused the request. */
  readonly payload: Uint8Array | null;
  readonly header: GuestMessageHeader | null;
}

export interface RequestOptions {
  readonly vmpck?: number;
  readonly version?: number;
  readonly seqno?: bigint;
  /** Changes the sealed message before it is sent. */
  readonly tamper?: (message: Uint8Array) => void;
  /** Changes the header before sealing, so that the seal is good. */
  readonly header?: (message: Uint8Array) => void;
}

export class TestHost {
  readonly hw: Hardware;
  readonly psp: SecureProcessor;
  readonly chip: ChipConfig;
  readonly requests: GuestRequestDetail[] = [];
  readonly commandPage: Pfn;
  #nextPfn = 0x1000;
  #nextAsid = 1;

  constructor(product: ProductLine = 'Milan', overrides: Partial<ChipConfig> = {}, random?: Random) {
    this.hw = new Hardware(crypto);
    this.chip = defaultChip(crypto, product, SECRET, overrides);
    this.psp = new SecureProcessor({
      hw: this.hw,
      crypto,
      random: random ?? seededRandom(1),
      chip: this.chip,
      onGuestRequest: (detail) => this.requests.push(detail),
    });
    this.commandPage = this.alloc();
  }

  /** A host whose SNP is up and flushed. */
  static up(product: ProductLine = 'Milan', overrides: Partial<ChipConfig> = {}, random?: Random): TestHost {
    const host = new TestHost(product, overrides, random);
    host.init();
    return host;
  }

  alloc(count = 1): Pfn {
    const from = count >= 512 ? Math.ceil(this.#nextPfn / 512) * 512 : this.#nextPfn;
    this.#nextPfn = from + count;
    return pfn(from);
  }

  /** Issues a command with these bytes as its buffer. */
  issue(command: SevCmdName, buffer: Uint8Array = new Uint8Array(0)): SevStatus {
    const at = spaOf(this.commandPage);
    this.hw.memory.write(at, buffer, asid(0));
    return this.psp.command(SevCmd[command], at);
  }

  /** Issues a command that must succeed. */
  done(command: SevCmdName, buffer?: Uint8Array): void {
    const status = this.issue(command, buffer);
    if (status !== SevRet.SEV_RET_SUCCESS) {
      throw new Error(`${command}: ${sevRetName(status)}`);
    }
  }

  init(): void {
    this.done('SEV_CMD_SNP_INIT_EX', SevDataSnpInitEx.encode({ flags: flags({ init_rmp: 1 }) }));
    this.flush();
  }

  flush(): void {
    this.hw.wbinvd();
    this.done('SEV_CMD_SNP_DF_FLUSH');
  }

  makeFirmware(page: Pfn, pagesize: 0 | 1 = 0): Pfn {
    this.update(page, { assigned: true, immutable: true, pagesize });
    return page;
  }

  firmwarePage(): Pfn {
    return this.makeFirmware(this.alloc());
  }

  update(
    page: Pfn,
    state: { assigned: boolean; immutable?: boolean; pagesize?: 0 | 1; gfn?: number; asid?: number },
  ): void {
    const rc = this.hw.rmpupdate(page, {
      gfn: gfn(state.gfn ?? 0),
      asid: asid(state.asid ?? 0),
      assigned: state.assigned,
      immutable: state.immutable ?? false,
      pagesize: state.pagesize ?? 0,
    });
    if (rc !== 0) {
      throw new Error(`RMPUPDATE: ${rc}`);
    }
  }

  /** Gives an output page to the firmware, runs, and returns what the firmware wrote there. */
  output(length: number, run: (paddr: bigint) => SevStatus): Uint8Array {
    const page = this.firmwarePage();
    const status = run(spaOf(page));
    if (status !== SevRet.SEV_RET_SUCCESS) {
      throw new Error(sevRetName(status));
    }
    return this.hw.hostRead(spaOf(page), length);
  }

  gctx(): bigint {
    const page = this.firmwarePage();
    this.done('SEV_CMD_SNP_GCTX_CREATE', SevDataSnpAddr.encode({ address: spaOf(page) }));
    return spaOf(page);
  }

  launchStart(gctx: bigint, policy = 0x30000n): SevStatus {
    return this.issue('SEV_CMD_SNP_LAUNCH_START', SevDataSnpLaunchStart.encode({ gctx_paddr: gctx, policy }));
  }

  activate(gctx: bigint, id: number): SevStatus {
    return this.issue('SEV_CMD_SNP_ACTIVATE', SevDataSnpActivate.encode({ gctx_paddr: gctx, asid: id }));
  }

  /** A guest in GSTATE_LAUNCH, active. */
  launching(policy = 0x30000n): TestGuest {
    const gctx = this.gctx();
    const id = this.#nextAsid++;
    for (const status of [this.launchStart(gctx, policy), this.activate(gctx, id)]) {
      if (status !== SevRet.SEV_RET_SUCCESS) {
        throw new Error(sevRetName(status));
      }
    }
    return {
      gctx,
      asid: id,
      request: this.alloc(),
      response: this.firmwarePage(),
      next: [1n, 1n, 1n, 1n],
      vmpcks: [],
    };
  }

  /** Puts data into a page and makes it a Pre-Guest page of the guest. */
  preGuest(guest: TestGuest, gpa: bigint, data?: Uint8Array, pagesize: 0 | 1 = 0): Pfn {
    const page = this.alloc(pagesize === 1 ? 512 : 1);
    if (data !== undefined) {
      this.hw.memory.write(spaOf(page), data, asid(0));
    }
    this.update(page, {
      assigned: true,
      immutable: true,
      pagesize,
      gfn: Number(gpa >> 12n),
      asid: guest.asid,
    });
    return page;
  }

  launchUpdate(
    guest: TestGuest,
    page: Pfn,
    pageType: number,
    more: Partial<SevDataSnpLaunchUpdate> = {},
  ): SevStatus {
    const pagesize = this.hw.rmp.pagesizeOf(page);
    return this.issue(
      'SEV_CMD_SNP_LAUNCH_UPDATE',
      SevDataSnpLaunchUpdate.encode({
        gctx_paddr: guest.gctx,
        page_paddr: spaOf(page),
        flags: { page_size: pagesize, page_type: pageType, imi_page: 0 },
        ...more,
      }),
    );
  }

  launchFinish(guest: TestGuest, more: Partial<SevDataSnpLaunchFinish> = {}): SevStatus {
    return this.issue(
      'SEV_CMD_SNP_LAUNCH_FINISH',
      SevDataSnpLaunchFinish.encode({ gctx_paddr: guest.gctx, ...more }),
    );
  }

  /** Launches the secrets page and learns the message keys from it, as the guest would. */
  takeVmpcks(guest: TestGuest): void {
    const page = this.preGuest(guest, SECRETS_GPA);
    if (this.launchUpdate(guest, page, PageType.SECRETS) !== SevRet.SEV_RET_SUCCESS) {
      throw new Error('secrets page');
    }
    const secrets = this.hw.memory.read(spaOf(page), PAGE_SIZE, asid(guest.asid));
    guest.vmpcks = [0, 1, 2, 3].map((n) =>
      secrets.slice(SECRETS_VMPCK_OFFSET + 32 * n, SECRETS_VMPCK_OFFSET + 32 * (n + 1)),
    );
  }

  /** A guest in GSTATE_RUNNING. */
  running(options: { policy?: bigint; finish?: Partial<SevDataSnpLaunchFinish> } = {}): TestGuest {
    const guest = this.launching(options.policy);
    this.takeVmpcks(guest);
    const status = this.launchFinish(guest, options.finish);
    if (status !== SevRet.SEV_RET_SUCCESS) {
      throw new Error(sevRetName(status));
    }
    return guest;
  }

  /** Sends a guest message and opens the answer. */
  request(guest: TestGuest, msgType: number, payload: Uint8Array, options: RequestOptions = {}): Reply {
    const vmpck = options.vmpck ?? 0;
    const seqno = options.seqno ?? guest.next[vmpck]!;
    const message = sealMessage(guest.vmpcks[vmpck]!, msgType, payload, seqno, vmpck, options);
    options.tamper?.(message);
    this.hw.memory.write(spaOf(guest.request), message, asid(0));
    const status = this.issue(
      'SEV_CMD_SNP_GUEST_REQUEST',
      SevDataSnpGuestRequest.encode({
        gctx_paddr: guest.gctx,
        req_paddr: spaOf(guest.request),
        rsp_paddr: spaOf(guest.response),
      }),
    );
    if (status !== SevRet.SEV_RET_SUCCESS) {
      return { status, payload: null, header: null };
    }
    guest.next[vmpck] = seqno + 2n;
    const page = this.hw.hostRead(spaOf(guest.response), PAGE_SIZE);
    const header = GuestMessageHeader.decode(page.subarray(0, GUEST_MESSAGE_HEADER_SIZE));
    const opened = crypto.gcmOpen(
      guest.vmpcks[vmpck]!,
      guestMessageNonce(seqno + 1n),
      guestMessageAad(page),
      page.subarray(GUEST_MESSAGE_HEADER_SIZE, GUEST_MESSAGE_HEADER_SIZE + header.msg_size),
      header.authtag.subarray(0, 16),
    );
    if (opened === null) {
      throw new Error('the response does not authenticate');
    }
    return { status, payload: opened, header };
  }

  report(
    guest: TestGuest,
    more: { vmpl?: number; keySel?: number; reportData?: Uint8Array } = {},
    options: RequestOptions = {},
  ): Reply {
    const payload = MsgReportReq.encode({
      report_data: more.reportData ?? new Uint8Array(64).fill(0xd5),
      vmpl: more.vmpl ?? options.vmpck ?? 0,
      flags: { key_sel: more.keySel ?? 0 },
    });
    return this.request(guest, SnpMsg.SNP_MSG_REPORT_REQ, payload, options);
  }

  key(guest: TestGuest, request: Partial<MsgKeyReqV1>, options: RequestOptions = {}): Reply {
    return this.request(guest, SnpMsg.SNP_MSG_KEY_REQ, MsgKeyReqV1.encode(request), options);
  }
}

/** The sealed message: header and ciphertext. */
export function sealMessage(
  vmpck: Uint8Array,
  msgType: number,
  payload: Uint8Array,
  seqno: bigint,
  index = 0,
  options: RequestOptions = {},
): Uint8Array {
  const message = new Uint8Array(GUEST_MESSAGE_HEADER_SIZE + payload.length);
  message.set(
    GuestMessageHeader.encode({
      msg_seqno: seqno,
      algo: 1,
      hdr_version: 1,
      hdr_size: 0x60,
      msg_type: msgType,
      msg_version: options.version ?? 1,
      msg_size: payload.length,
      msg_vmpck: index,
    }),
  );
  options.header?.(message);
  const { ciphertext, tag } = crypto.gcmSeal(
    vmpck,
    guestMessageNonce(seqno),
    guestMessageAad(message),
    payload,
  );
  message.set(tag, 0);
  message.set(ciphertext, GUEST_MESSAGE_HEADER_SIZE);
  return message;
}

const NO_INIT_FLAGS = { init_rmp: 0, list_paddr_en: 0, rapl_dis: 0, ciphertext_hiding_en: 0, tio_en: 0 };

/** Flags of SNP_INIT_EX. */
export function flags(set: Partial<typeof NO_INIT_FLAGS>): typeof NO_INIT_FLAGS {
  return { ...NO_INIT_FLAGS, ...set };
}

export const at = (page: Pfn): Spa => spaOf(page);
