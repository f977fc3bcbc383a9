// SPDX-License-Identifier: Apache-2.0
/** State of the platform and the ways commands reach memory, guests and keys. */
import { PlatformInfo, type ReportVersion } from '../abi/attestation-report.ts';
import { GUEST_MESSAGE_HEADER_SIZE } from '../abi/guest-message.ts';
import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import { encodeTcb, type TcbParts } from '../abi/tcb-version.ts';
import type { Hardware } from '../hw/hardware.ts';
import { SECURE_PROCESSOR_SLOT } from '../hw/memory.ts';
import { descend, type EndorsementKind, endorsementScalar, type Stick, topStick } from '../keys/index.ts';
import { type Asid, PAGE_SIZE, type Pfn, pfnOf, type Spa } from '../lib/addresses.ts';
import type { MachineCrypto, Random, SigningKey } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';
import type { DecodedFields, FieldTable, Layout } from '../lib/struct.ts';
import type { ChipConfig, FirmwareVersion } from './chip.ts';
import type { GuestContext } from './guest-context.ts';
import { checkFirmwarePage, isAligned, setFirmwarePage } from './page-state.ts';
import { newIdentity, type SevIdentity } from './sev-identity.ts';
import { GUEST_TRANSITIONS, type GuestCmdName, type GuestStateAfter, type PlatformState } from './states.ts';

const HOST = 0 as Asid;

/** Sticks of older TCBs are quick to reach but a public key is not: keep those in use, of each kind. */
const SIGNERS_KEPT = 16;

/** A buffer of the caller's for something whose length the caller may not know. */
export interface SizedOutput {
  readonly address: bigint;
  /** Bytes the caller has there. */
  readonly room: number;
  readonly bytes: Uint8Array;
}

/** An endorsement key made ready: `root` is the private scalar, which derived keys come from. */
export interface Signer {
  readonly kind: EndorsementKind;
  readonly key: SigningKey;
  readonly root: Uint8Array;
}

/** What one SNP_GUEST_REQUEST decided: step 5 of an attestation request. */
export interface GuestRequestDetail {
  readonly status: SevStatus;
  readonly msg_type: number;
  readonly vmpck: number;
  readonly seqno: bigint;
  /** STATUS of the response payload; null when there is no response. */
  readonly payload_status: number | null;
  /** Key that signed the report; null when no report was made. */
  readonly key: EndorsementKind | 'none' | null;
  readonly reported_tcb: bigint;
  /** True when a sequence number came a second time with another message: the guest reused a nonce. */
  readonly iv_reuse: boolean;
}

/** A cloud provider's hash stick. */
export interface LoadedVlek {
  readonly stick: Stick;
  /** As SNP_VLEK_LOAD got it: 432 bytes that only this chip can open. */
  readonly wrapped: Uint8Array;
}

export interface PlatformOptions {
  readonly hw: Hardware;
  readonly crypto: MachineCrypto;
  readonly random: Random;
  readonly chip: ChipConfig;
  readonly onGuestRequest?: (detail: GuestRequestDetail) => void;
}

export class Platform {
  readonly hw: Hardware;
  readonly crypto: MachineCrypto;
  readonly random: Random;
  readonly chip: ChipConfig;
  readonly onGuestRequest: ((detail: GuestRequestDetail) => void) | undefined;

  state: PlatformState = 'UNINIT';
  legacyState: PlatformState = 'UNINIT';
  legacyEs = false;
  rmpInitialized = false;
  raplDisabled: boolean;
  ciphertextHiding = false;
  /** Highest ASID an SNP guest may have in this session. */
  maxSnpAsid: number;
  firmwareVersion: FirmwareVersion;
  committedVersion: FirmwareVersion;
  maskChipId = false;
  maskChipKey = false;
  mitigationsSupported: bigint;
  mitigationsVerified: bigint;
  /** An image was installed that does not run: nothing but another download works. */
  restoreRequired = false;
  vlek: LoadedVlek | null = null;

  #sevIdentity: SevIdentity | null = null;

  /** The guest message at hand: the request as it was copied in, then the response before it is written out. */
  readonly message = new Uint8Array(PAGE_SIZE);
  readonly messageHeader = this.message.subarray(0, GUEST_MESSAGE_HEADER_SIZE);

  readonly contexts = new Map<Pfn, GuestContext>();
  readonly asidOwners = new Map<Asid, GuestContext>();

  #currentTcb: TcbParts;
  #committedTcb: TcbParts;
  #reportedTcb: TcbParts;
  #currentTcbWord: bigint;
  #committedTcbWord: bigint;
  #reportedTcbWord: bigint;
  #epoch = 0;
  /** By kind and reported TCB. */
  readonly #signers = { VCEK: new Map<bigint, Signer>(), VLEK: new Map<bigint, Signer>() };

  /** ASIDs whose data may still sit in caches or the data fabric. */
  readonly #staleAsids = new Set<Asid>();
  #allAsidsStale = false;
  /** Cache flushes the hardware had seen when memory was last used under a guest key. */
  #flushesAtLastUse = -1;
  #fabricFlushed = true;

  constructor(options: PlatformOptions) {
    this.hw = options.hw;
    this.crypto = options.crypto;
    this.random = options.random;
    this.chip = options.chip;
    this.onGuestRequest = options.onGuestRequest;
    const { chip } = options;
    this.raplDisabled = chip.raplDisabled;
    this.maxSnpAsid = chip.maxAsid;
    this.firmwareVersion = chip.firmwareVersion;
    this.committedVersion = chip.committedVersion;
    this.mitigationsSupported = chip.mitigations.supported;
    this.mitigationsVerified = chip.mitigations.verified;
    this.#currentTcb = chip.currentTcb;
    this.#committedTcb = chip.committedTcb;
    this.#reportedTcb = chip.reportedTcb;
    this.#currentTcbWord = encodeTcb(chip.currentTcb, chip.product);
    this.#committedTcbWord = encodeTcb(chip.committedTcb, chip.product);
    this.#reportedTcbWord = encodeTcb(chip.reportedTcb, chip.product);
    this.hw.memory.setKey(SECURE_PROCESSOR_SLOT, this.random.bytes(32));
  }

  get currentTcb(): TcbParts {
    return this.#currentTcb;
  }

  get committedTcb(): TcbParts {
    return this.#committedTcb;
  }

  get reportedTcb(): TcbParts {
    return this.#reportedTcb;
  }

  get currentTcbWord(): bigint {
    return this.#currentTcbWord;
  }

  get committedTcbWord(): bigint {
    return this.#committedTcbWord;
  }

  get reportedTcbWord(): bigint {
    return this.#reportedTcbWord;
  }

  get reportVersion(): ReportVersion {
    return this.chip.reportVersion;
  }

  /** Changes whenever something a report shows about the platform may have changed. */
  get epoch(): number {
    return this.#epoch;
  }

  /**
   * Who the platform is to legacy SEV. INIT makes it on hardware; here the first command that shows it does,
   * which nobody can tell from outside, and a host that never asks needs no keys.
   */
  get sevIdentity(): SevIdentity {
    this.#sevIdentity ??= newIdentity(this);
    return this.#sevIdentity;
  }

  set sevIdentity(identity: SevIdentity) {
    this.#sevIdentity = identity;
  }

  /** What the state folder keeps of it; null when nobody has asked yet. */
  get keptSevIdentity(): SevIdentity | null {
    return this.#sevIdentity;
  }

  forgetSevIdentity(): void {
    this.#sevIdentity = null;
  }

  /** To be called after every change to a setting that reports show. */
  changed(): void {
    this.#epoch += 1;
  }

  setCurrentTcb(tcb: TcbParts): void {
    this.#currentTcb = tcb;
    this.#currentTcbWord = encodeTcb(tcb, this.chip.product);
    this.changed();
  }

  setCommittedTcb(tcb: TcbParts): void {
    this.#committedTcb = tcb;
    this.#committedTcbWord = encodeTcb(tcb, this.chip.product);
    this.changed();
  }

  /** A change takes the VLEK along: a hash stick is for one reported TCB. */
  setReportedTcb(tcb: TcbParts): void {
    const word = encodeTcb(tcb, this.chip.product);
    if (word !== this.#reportedTcbWord) {
      this.vlek = null;
    }
    this.#reportedTcb = tcb;
    this.#reportedTcbWord = word;
    this.changed();
  }

  /** SNP_COMMIT: the running firmware and TCB become the floor, and what reports advertise. */
  commit(): void {
    this.setCommittedTcb(this.#currentTcb);
    this.committedVersion = this.firmwareVersion;
    this.setReportedTcb(this.#currentTcb);
  }

  /** PLATFORM_INFO word of reports. */
  get platformInfo(): bigint {
    const { chip } = this;
    return PlatformInfo.toWord({
      smt_en: Number(chip.smt),
      tsme_en: Number(chip.tsme),
      ecc_en: Number(chip.ecc),
      rapl_dis: Number(this.raplDisabled),
      ciphertext_hiding_dram_en: Number(this.ciphertextHiding),
      alias_check_complete: Number(chip.aliasCheckComplete),
      bit_6: 0,
      tio_en: 0,
    });
  }

  /** The endorsement key of the reported TCB; null for a VLEK that is not loaded. */
  signer(kind: EndorsementKind): Signer | null {
    const { vlek } = this;
    if (kind === 'VLEK' && vlek === null) {
      return null;
    }
    const signers = this.#signers[kind];
    const kept = signers.get(this.#reportedTcbWord);
    if (kept !== undefined) {
      return kept;
    }
    const stick = kind === 'VLEK' ? vlek!.stick : this.#chipStick();
    const root = endorsementScalar(this.crypto, stick, kind);
    const signer = { kind, key: this.crypto.p384Key(root), root };
    if (signers.size >= SIGNERS_KEPT) {
      signers.clear();
    }
    signers.set(this.#reportedTcbWord, signer);
    return signer;
  }

  /** Replaces the loaded VLEK hash stick. */
  loadVlek(vlek: LoadedVlek): void {
    this.vlek = vlek;
    this.#signers.VLEK.delete(this.#reportedTcbWord);
    this.changed();
  }

  #chipStick(): Stick {
    const { product, secret } = this.chip;
    const running = descend(this.crypto, topStick(this.crypto, secret, product), this.#currentTcb);
    const reported = running === null ? null : descend(this.crypto, running, this.#reportedTcb);
    invariant(reported !== null, 'ReportedTcb is above CurrentTcb');
    return reported;
  }

  /** Reads and decodes a command buffer: SEV_RET_INVALID_ADDRESS or SEV_RET_INVALID_PARAM when it is bad. */
  readBuffer<F extends FieldTable>(at: bigint, layout: Layout<F>): DecodedFields<F> | SevStatus {
    const bytes = this.readBytes(at, layout.size);
    if (bytes === null) {
      return SevRet.SEV_RET_INVALID_ADDRESS;
    }
    return layout.tryDecode(bytes) ?? SevRet.SEV_RET_INVALID_PARAM;
  }

  /** Bytes as they are in memory; null outside it. */
  readBytes(at: bigint, length: number): Uint8Array | null {
    return this.hw.memory.contains(at, length) ? this.hw.memory.read(at as Spa, length, HOST) : null;
  }

  /** True when the address is that of a whole page of memory. */
  isPage(address: bigint): boolean {
    return isAligned(address) && this.hw.memory.contains(address, PAGE_SIZE);
  }

  /**
   * Whether firmware may write an output there; before SNP_INIT any page nobody owns will do.
   *
   * Returns  SEV_RET_SUCCESS, SEV_RET_INVALID_ADDRESS, SEV_RET_INVALID_PAGE_STATE or SEV_RET_INVALID_PAGE_SIZE
   */
  checkOutput(at: bigint, length: number): SevStatus {
    if (!this.hw.memory.contains(at, length) || Number(at & 0xfffn) + length > PAGE_SIZE) {
      return SevRet.SEV_RET_INVALID_ADDRESS;
    }
    const pfn = pfnOf(at as Spa);
    if (this.state === 'UNINIT') {
      return this.hw.rmp.isAssigned(pfn) ? SevRet.SEV_RET_INVALID_PAGE_STATE : SevRet.SEV_RET_SUCCESS;
    }
    return checkFirmwarePage(this.hw.rmp, pfn);
  }

  /** Writes an output that `checkOutput` allowed; once SNP is up its page is left in Reclaim state. */
  deliver(at: bigint, data: Uint8Array): void {
    this.hw.memory.write(at as Spa, data, HOST);
    if (this.state === 'INIT') {
      setFirmwarePage(this.hw.rmp, pfnOf(at as Spa), 0, 'Reclaim');
    }
  }

  /**
   * Answers a command whose outputs the caller may have measured wrongly: the command buffer, which says the
   * lengths, always, the outputs when every one of them fits.
   *
   * Returns  SEV_RET_INVALID_LEN when one does not; otherwise as checkOutput, with nothing written
   */
  answerSized(bufferAt: bigint, answer: Uint8Array, outputs: readonly SizedOutput[]): SevStatus {
    const fits = outputs.every(({ address, room, bytes }) => address !== 0n && room >= bytes.length);
    const pages = [{ address: bufferAt, bytes: answer }, ...(fits ? outputs : [])].flatMap(pagesOf);
    for (const { at, bytes } of pages) {
      const refused = this.checkOutput(at, bytes.length);
      if (refused !== SevRet.SEV_RET_SUCCESS) {
        return refused;
      }
    }
    for (const { at, bytes } of pages) {
      this.deliver(at, bytes);
    }
    return fits ? SevRet.SEV_RET_SUCCESS : SevRet.SEV_RET_INVALID_LEN;
  }

  /** The guest of a context page, if its state lets it take the command. */
  guestFor(gctxPaddr: bigint, command: GuestCmdName): GuestContext | SevStatus {
    if (!this.isPage(gctxPaddr)) {
      return SevRet.SEV_RET_INVALID_ADDRESS;
    }
    const guest = this.contexts.get(pfnOf(gctxPaddr as Spa));
    if (guest === undefined) {
      return SevRet.SEV_RET_INVALID_GUEST;
    }
    const next: GuestStateAfter | SevStatus = GUEST_TRANSITIONS[command][guest.state];
    return typeof next === 'number' ? next : guest;
  }

  /** Moves a guest to the state its successful command leads to. */
  advance(guest: GuestContext, command: GuestCmdName): void {
    const next: GuestStateAfter | SevStatus = GUEST_TRANSITIONS[command][guest.state];
    invariant(typeof next === 'string', `${command} done in ${guest.state}`);
    if (next !== 'GONE') {
      guest.state = next;
      return;
    }
    this.contexts.delete(guest.pfn);
    if (guest.asid !== 0) {
      this.asidOwners.delete(guest.asid);
      this.hw.memory.setKey(guest.asid, null);
      this.markUsed(guest.asid);
    }
    setFirmwarePage(this.hw.rmp, guest.pfn, 0, 'Firmware');
  }

  /** Binds an ASID to the guest and loads its key. */
  bind(guest: GuestContext, asid: Asid): void {
    guest.asid = asid;
    this.asidOwners.set(asid, guest);
    this.hw.memory.setKey(asid, guest.vek);
    this.#fabricFlushed = false;
    this.#flushesAtLastUse = this.hw.cacheFlushes;
  }

  /** Data under this ASID's key (null: any) may be in flight: DF_FLUSH before the ASID is used again. */
  markUsed(asid: Asid | null): void {
    if (asid === null) {
      this.#allAsidsStale = true;
    } else {
      this.#staleAsids.add(asid);
    }
    this.#fabricFlushed = false;
    this.#flushesAtLastUse = this.hw.cacheFlushes;
  }

  /** Whether the ASID may be bound: SEV_RET_SUCCESS, SEV_RET_WBINVD_REQUIRED or SEV_RET_DFFLUSH_REQUIRED. */
  checkFlushed(asid: Asid): SevStatus {
    if (!this.#allAsidsStale && !this.#staleAsids.has(asid)) {
      return SevRet.SEV_RET_SUCCESS;
    }
    return this.#cachesFlushed() ? SevRet.SEV_RET_DFFLUSH_REQUIRED : SevRet.SEV_RET_WBINVD_REQUIRED;
  }

  /** DF_FLUSH. */
  flushFabric(): SevStatus {
    if (!this.#fabricFlushed && !this.#cachesFlushed()) {
      return SevRet.SEV_RET_WBINVD_REQUIRED;
    }
    this.#staleAsids.clear();
    this.#allAsidsStale = false;
    this.#fabricFlushed = true;
    return SevRet.SEV_RET_SUCCESS;
  }

  /** Whether nothing is in flight, as shutdown wants it. */
  get fabricFlushed(): boolean {
    return this.#fabricFlushed;
  }

  #cachesFlushed(): boolean {
    return this.hw.cacheFlushes > this.#flushesAtLastUse;
  }
}

/** An output cut where pages end. */
function pagesOf({
  address,
  bytes,
}: Pick<SizedOutput, 'address' | 'bytes'>): { at: bigint; bytes: Uint8Array }[] {
  const pages = [];
  for (let from = 0; from < bytes.length; ) {
    const at = address + BigInt(from);
    const to = Math.min(bytes.length, from + PAGE_SIZE - Number(at & 0xfffn));
    pages.push({ at, bytes: bytes.subarray(from, to) });
    from = to;
  }
  return pages;
}
