// SPDX-License-Identifier: Apache-2.0
/**
 * The ccp driver: the kernel's side of the secure processor's mailbox.
 *
 * Source   [LINUX] drivers/crypto/ccp/sev-dev.c
 */
import { Errno } from '../abi/errno.ts';
import { SEV_RET_NO_FW_CALL, SevRet } from '../abi/sev-status.ts';
import {
  SevCmd,
  SevDataInit,
  SevDataSnpDownloadFirmwareEx,
  SevDataSnpFeatureInfo,
  SevDataSnpInitEx,
  SevDataSnpPageReclaim,
  SevDataSnpPlatformStatus,
  SevDataSnpShutdownEx,
  SevUserDataSnpStatus,
  SnpFeatureInfoOut,
} from '../abi/snp-commands.ts';
import { PAGE_SIZE, PAGES_PER_2M, type Pfn, pfn, type Spa, spaOf } from '../lib/addresses.ts';
import { invariant } from '../lib/errors.ts';
import type { HostFrames } from './host-frames.ts';

/** What the driver needs of a secure processor; a test's may also never answer. */
export interface PspMailbox {
  command(id: number, bufferAt: Spa): number | 'timeout';
}

/** `errno` is 0 or negative; `status` is what the driver stores as psp_ret, null where it stores nothing. */
export interface PspResult {
  readonly errno: number;
  readonly status: number | null;
}

/** A structure the firmware wrote; null when the command failed. */
export interface PspStructure {
  readonly result: PspResult;
  readonly bytes: Uint8Array | null;
}

const SUCCESS: PspResult = { errno: 0, status: SevRet.SEV_RET_SUCCESS };

/** The driver refused before it gave the command. */
const driverError = (errno: number): PspResult => ({ errno: -errno, status: null });

/** Oldest SNP API the driver initialises: 1.51. */
const MIN_API = 0x0133;

/** Trusted memory region of SEV-ES: 2 MiB, aligned to that. */
const TMR_PAGES = PAGES_PER_2M;

const INIT_WITH_RMP = {
  flags: { init_rmp: 1, list_paddr_en: 0, rapl_dis: 0, ciphertext_hiding_en: 0, tio_en: 0 },
} as const;

export class Ccp {
  readonly #mailbox: PspMailbox | null;
  readonly #frames: HostFrames;
  /** The second serves commands given while the first is in use. */
  readonly #commandPages: readonly Pfn[];
  #commandsUnderWay = 0;
  #dead = false;
  #snpInitialized = false;
  #sevInitialized = false;
  #tmr: Pfn | null = null;
  #snpStatus: SevUserDataSnpStatus | null = null;
  #featureInfo: SnpFeatureInfoOut | null = null;

  constructor(mailbox: PspMailbox | null, frames: HostFrames) {
    this.#mailbox = mailbox;
    this.#frames = frames;
    const first = frames.alloc(2);
    invariant(first !== null, 'no frames for the command buffers');
    this.#commandPages = [first, pfn(first + 1)];
  }

  get present(): boolean {
    return this.#mailbox !== null;
  }

  get snpInitialized(): boolean {
    return this.#snpInitialized;
  }

  /** Legacy SEV is past INIT. */
  get sevInitialized(): boolean {
    return this.#sevInitialized;
  }

  /** SNP API version as (major << 8) | minor; 0 when the firmware has not told. */
  get apiVersion(): number {
    return this.#snpStatus === null ? 0 : (this.#snpStatus.api_major << 8) | this.#snpStatus.api_minor;
  }

  /** CPUID Fn8000_0024 as the firmware reports it; null where it has no such command. */
  get featureInfo(): SnpFeatureInfoOut | null {
    return this.#featureInfo;
  }

  /**
   * Runs one command. `buffer` goes to the command page and comes back from it, whatever the firmware says.
   *
   * Returns  -ENODEV without a secure processor; -ETIMEDOUT when it does not answer, -EBUSY ever after;
   *          -EIO with the status the firmware gave
   */
  issue(cmd: number, buffer: Uint8Array | null = null): PspResult {
    if (this.#mailbox === null) {
      return driverError(Errno.ENODEV);
    }
    const page = this.#commandPages[this.#commandsUnderWay];
    if (this.#dead || page === undefined) {
      return driverError(Errno.EBUSY);
    }
    this.#commandsUnderWay += 1;
    const result = this.#run(this.#mailbox, cmd, page, buffer);
    this.#commandsUnderWay -= 1;
    return result;
  }

  #run(mailbox: PspMailbox, cmd: number, page: Pfn, buffer: Uint8Array | null): PspResult {
    // Once SNP is up, the firmware writes nowhere but to its own pages, legacy command buffers included.
    const handOver = this.#snpInitialized && cmd < SevCmd.SEV_CMD_SNP_INIT && buffer !== null;
    if (buffer !== null) {
      this.#frames.write(page, 0, buffer);
    }
    if (handOver && !this.#frames.makeFirmware(page)) {
      return driverError(Errno.EFAULT);
    }
    const status = mailbox.command(cmd, spaOf(page));
    if (status === 'timeout') {
      this.#dead = true;
      return { errno: -Errno.ETIMEDOUT, status: SevRet.SEV_RET_SUCCESS };
    }
    if (handOver && !this.reclaim(page)) {
      return driverError(Errno.EFAULT);
    }
    if (buffer !== null) {
      this.#frames.readInto(buffer, 0, page, 0, buffer.length);
    }
    return status === SevRet.SEV_RET_SUCCESS ? SUCCESS : { errno: -Errno.EIO, status };
  }

  /** Frames the firmware may write to; null when there are none. */
  allocFirmwarePages(count: number, align = 1): Pfn | null {
    const first = this.#frames.alloc(count, align);
    if (first === null) {
      return null;
    }
    for (let i = 0; i < count; i++) {
      if (!this.#frames.makeFirmware(pfn(first + i))) {
        return null;
      }
    }
    return first;
  }

  /** Makes a page the firmware had a hypervisor page again; false: it is lost to the host. */
  reclaim(page: Pfn): boolean {
    if (this.#frames.hw.rmp.isImmutable(page)) {
      const command = SevDataSnpPageReclaim.encode({ paddr: spaOf(page) });
      if (this.issue(SevCmd.SEV_CMD_SNP_PAGE_RECLAIM, command).errno !== 0) {
        return false;
      }
    }
    return this.#frames.makeShared(page);
  }

  /** Reclaims and frees pages, leaking those that cannot be reclaimed; true when there was none of them. */
  freeFirmwarePages(first: Pfn, count: number): boolean {
    let all = true;
    for (let i = 0; i < count; i++) {
      const page = pfn(first + i);
      if (this.reclaim(page)) {
        this.#frames.free(page, 1);
      } else {
        all = false;
      }
    }
    return all;
  }

  /**
   * Initialises SNP, then legacy SEV where the firmware has it; does nothing when that is done.
   *
   * Returns  the first failure; status NO_FW_CALL when it came before any command
   */
  platformInit(): PspResult {
    if (this.#mailbox === null) {
      return { errno: -Errno.ENODEV, status: SEV_RET_NO_FW_CALL };
    }
    if (!this.#snpInitialized) {
      const result = this.#snpInit();
      if (result.errno !== 0) {
        return result;
      }
    }
    return this.#featureInfo?.ebx.sev_legacy === 0 ? SUCCESS : this.legacyInit();
  }

  /** Initialises legacy SEV alone, with SNP up or not; does nothing when that is done. */
  legacyInit(): PspResult {
    if (this.#sevInitialized) {
      return SUCCESS;
    }
    this.#tmr ??= this.allocOutputPages(TMR_PAGES, TMR_PAGES);
    const region = this.#tmr;
    const options =
      region === null
        ? {}
        : { flags: { sev_es: 1 }, tmr_address: spaOf(region), tmr_len: TMR_PAGES * PAGE_SIZE };
    const result = this.issue(SevCmd.SEV_CMD_INIT, SevDataInit.encode(options));
    this.#sevInitialized = result.errno === 0;
    return result;
  }

  #snpInit(): PspResult {
    this.#readPlatform();
    if (this.apiVersion < MIN_API) {
      return { errno: -Errno.EOPNOTSUPP, status: SEV_RET_NO_FW_CALL };
    }
    this.#frames.hw.wbinvd();
    const init = this.issue(SevCmd.SEV_CMD_SNP_INIT_EX, SevDataSnpInitEx.encode(INIT_WITH_RMP));
    if (init.errno !== 0) {
      return init;
    }
    this.#snpInitialized = true;
    const flush = this.dfFlush();
    if (flush.errno !== 0) {
      return flush;
    }
    this.#readPlatform();
    return SUCCESS;
  }

  /** What the firmware is and offers: policy bits and version checks go by it. */
  #readPlatform(): void {
    const status = this.platformStatus().bytes;
    this.#snpStatus = status === null ? null : SevUserDataSnpStatus.decodeLoose(status);
    this.#featureInfo = this.#snpStatus?.features.feature_info === 1 ? this.#readFeatureInfo() : null;
  }

  /** WBINVD everywhere, then SNP_DF_FLUSH. */
  dfFlush(): PspResult {
    this.#frames.hw.wbinvd();
    return this.issue(SevCmd.SEV_CMD_SNP_DF_FLUSH);
  }

  /** Legacy SHUTDOWN; the next user of legacy SEV initialises it again. */
  legacyShutdown(): PspResult {
    const result = this.issue(SevCmd.SEV_CMD_SHUTDOWN);
    if (result.errno === 0) {
      this.#sevInitialized = false;
    }
    return result;
  }

  #freeTmr(): void {
    if (this.#tmr !== null) {
      this.freeFirmwarePages(this.#tmr, TMR_PAGES);
      this.#tmr = null;
    }
  }

  /**
   * Ends what `legacyInit` began for the length of one command.
   *
   * Differs  Linux ends SNP, too, where it is up, with every guest (docs/limitations.md#legacy-sev)
   */
  endLegacyInit(): void {
    this.legacyShutdown();
    this.#freeTmr();
  }

  /** Legacy SHUTDOWN and SNP_SHUTDOWN_EX, as the driver does it when it is unloaded. */
  platformShutdown(): PspResult {
    const legacy = this.#sevInitialized ? this.legacyShutdown() : SUCCESS;
    if (legacy.errno !== 0) {
      return legacy;
    }
    if (!this.#snpInitialized) {
      return SUCCESS;
    }
    this.#freeTmr();
    this.#frames.hw.wbinvd();
    let result = this.#shutdownEx();
    if (result.status === SevRet.SEV_RET_DFFLUSH_REQUIRED) {
      const flush = this.dfFlush();
      result = flush.errno === 0 ? this.#shutdownEx() : flush;
    }
    if (result.errno === 0) {
      this.#snpInitialized = false;
    }
    return result;
  }

  /**
   * SNP_DOWNLOAD_FIRMWARE_EX with guests running. The firmware wants legacy SEV down for it.
   *
   * Differs  Linux offers no interface for this yet; the order is that of the hotload series posted for it
   */
  updateFirmware(image: Uint8Array): PspResult {
    const hadSev = this.#sevInitialized;
    const down = hadSev ? this.legacyShutdown() : SUCCESS;
    if (down.errno !== 0) {
      return down;
    }
    const result = this.#downloadFirmware(image);
    this.#readPlatform();
    const up = hadSev ? this.platformInit() : SUCCESS;
    return result.errno === 0 ? up : result;
  }

  #downloadFirmware(image: Uint8Array): PspResult {
    const pages = Math.ceil(image.length / PAGE_SIZE);
    const first = pages === 0 ? null : this.#frames.alloc(pages);
    if (first === null) {
      return driverError(Errno.ENOMEM);
    }
    this.#frames.write(first, 0, image);
    const result = this.issue(
      SevCmd.SEV_CMD_SNP_DOWNLOAD_FIRMWARE_EX,
      SevDataSnpDownloadFirmwareEx.encode({
        length: SevDataSnpDownloadFirmwareEx.size,
        fw_paddr: spaOf(first),
        fw_len: image.length,
      }),
    );
    this.#frames.free(first, pages);
    return result;
  }

  #shutdownEx(): PspResult {
    return this.issue(
      SevCmd.SEV_CMD_SNP_SHUTDOWN_EX,
      SevDataSnpShutdownEx.encode({ length: SevDataSnpShutdownEx.size }),
    );
  }

  /** SNP_PLATFORM_STATUS, allowed in every state of the platform. */
  platformStatus(): PspStructure {
    return this.#readStructure(SevUserDataSnpStatus.size, (paddr) =>
      this.issue(
        SevCmd.SEV_CMD_SNP_PLATFORM_STATUS,
        SevDataSnpPlatformStatus.encode({ status_paddr: paddr }),
      ),
    );
  }

  #readFeatureInfo(): SnpFeatureInfoOut | null {
    const { bytes } = this.#readStructure(SnpFeatureInfoOut.size, (paddr) =>
      this.issue(
        SevCmd.SEV_CMD_SNP_FEATURE_INFO,
        SevDataSnpFeatureInfo.encode({ length: SevDataSnpFeatureInfo.size, feature_info_paddr: paddr }),
      ),
    );
    return bytes === null ? null : SnpFeatureInfoOut.decodeLoose(bytes);
  }

  /** Pages for the output of a command: the firmware's own once SNP is up. Null when there are none. */
  allocOutputPages(count: number, align = 1): Pfn | null {
    return this.#snpInitialized ? this.allocFirmwarePages(count, align) : this.#frames.alloc(count, align);
  }

  /** What is in output pages, which are freed; null when they cannot be had back. */
  takeOutputPages(first: Pfn, count: number, size: number): Uint8Array | null {
    for (let i = 0; this.#snpInitialized && i < count; i++) {
      if (!this.reclaim(pfn(first + i))) {
        return null;
      }
    }
    const bytes = this.#frames.read(first, 0, size);
    this.#frames.free(first, count);
    return bytes;
  }

  #readStructure(size: number, command: (paddr: Spa) => PspResult): PspStructure {
    const page = this.allocOutputPages(1);
    if (page === null) {
      return { result: driverError(Errno.ENOMEM), bytes: null };
    }
    const result = command(spaOf(page));
    const bytes = this.takeOutputPages(page, 1, size);
    return { result, bytes: result.errno === 0 ? bytes : null };
  }
}
