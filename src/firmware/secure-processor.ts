// SPDX-License-Identifier: Apache-2.0
/** The secure processor: the mailbox and everything behind it. */

import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import { SevCmd, type SevCmdName } from '../abi/snp-commands.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import type { Pfn, Spa } from '../lib/addresses.ts';
import { EnvironmentError, invariant } from '../lib/errors.ts';
import type { ChipConfig } from './chip.ts';
import { COMMANDS } from './commands/index.ts';
import type { GuestContext } from './guest-context.ts';
import { type GuestLife, type LaunchFacts, launchFactsOf, lifeOf, resumeLife } from './guest-facts.ts';
import { exportState, importState, type PersistentState } from './persistent-state.ts';
import { Platform, type PlatformOptions } from './platform.ts';
import { LEGACY_TRANSITIONS, type LegacyCmdName, PLATFORM_TRANSITIONS, type SnpCmdName } from './states.ts';

export { type ChipConfig, defaultChip, type FirmwareVersion } from './chip.ts';
export { buildFirmwareImage, type FirmwareImageContents } from './firmware-image.ts';
export { type GuestLife, type LaunchFacts, launchDifference } from './guest-facts.ts';
export type { PersistentState } from './persistent-state.ts';
export type { GuestRequestDetail, PlatformOptions as SecureProcessorOptions } from './platform.ts';

const NAMES: ReadonlyMap<number, SevCmdName> = new Map(
  (Object.entries(SevCmd) as [SevCmdName, number][]).map(([name, id]) => [id, name]),
);

/** What still works on an image that does not run. */
const WITHOUT_FIRMWARE: ReadonlySet<SevCmdName> = new Set<SevCmdName>([
  'SEV_CMD_SNP_DOWNLOAD_FIRMWARE_EX',
  'SEV_CMD_DOWNLOAD_FIRMWARE',
  'SEV_CMD_SNP_PLATFORM_STATUS',
]);

const isSnp = (name: SevCmdName): name is SnpCmdName => name in PLATFORM_TRANSITIONS;

export class SecureProcessor {
  readonly #platform: Platform;

  constructor(options: PlatformOptions) {
    this.#platform = new Platform(options);
  }

  get chip(): ChipConfig {
    return this.#platform.chip;
  }

  /** The TCBs in force; a report is signed by the endorsement key of `reported`. */
  get tcb(): { readonly current: TcbParts; readonly committed: TcbParts; readonly reported: TcbParts } {
    const { currentTcb, committedTcb, reportedTcb } = this.#platform;
    return { current: currentTcb, committed: committedTcb, reported: reportedTcb };
  }

  /**
   * Runs one mailbox command on the buffer in physical memory.
   *
   * Returns  a status for every number, buffer and state; SEV_RET_INVALID_COMMAND for a number without a
   *          command, SEV_RET_HWSEV_RET_PLATFORM when the random source gives nothing
   */
  command(id: number, bufferAt: Spa): SevStatus {
    const name = NAMES.get(id);
    if (name === undefined) {
      return SevRet.SEV_RET_INVALID_COMMAND;
    }
    const platform = this.#platform;
    if (platform.restoreRequired && !WITHOUT_FIRMWARE.has(name)) {
      return SevRet.SEV_RET_RESTORE_REQUIRED;
    }
    const next = isSnp(name)
      ? PLATFORM_TRANSITIONS[name][platform.state]
      : LEGACY_TRANSITIONS[name as LegacyCmdName][platform.legacyState];
    if (typeof next === 'number') {
      return next;
    }
    const status = this.#run(name, bufferAt);
    if (status === SevRet.SEV_RET_SUCCESS) {
      if (isSnp(name)) {
        platform.state = next;
      } else {
        platform.legacyState = next;
      }
    }
    return status;
  }

  #run(name: SevCmdName, bufferAt: Spa): SevStatus {
    try {
      return COMMANDS[name](this.#platform, bufferAt);
    } catch (error) {
      // Commands draw random bytes before they change anything.
      if (error instanceof EnvironmentError && error.code === 'ENTROPY_UNAVAILABLE') {
        return SevRet.SEV_RET_HWSEV_RET_PLATFORM;
      }
      throw error;
    }
  }

  /** Platform settings for the state folder; plain JSON. */
  exportState(): PersistentState {
    return exportState(this.#platform);
  }

  /**
   * Takes settings back, before SNP_INIT.
   *
   * Errors   STATE_INVALID
   */
  importState(state: unknown): void {
    importState(this.#platform, state);
  }

  /** The hash stick that is loaded, wrapped as SNP_VLEK_LOAD got it; null when there is none. */
  get wrappedVlek(): Uint8Array | null {
    return this.#platform.vlek?.wrapped ?? null;
  }

  /** What it knows of the guest with this context page, for a snapshot. */
  guestFacts(context: Pfn): { readonly launch: LaunchFacts; readonly life: GuestLife } {
    const guest = this.#guest(context);
    return { launch: launchFactsOf(guest), life: lifeOf(guest) };
  }

  /** Gives a guest that was launched anew the life of the one it stands for. Its message keys stay its own. */
  resumeGuest(context: Pfn, life: GuestLife): void {
    resumeLife(this.#guest(context), life);
  }

  #guest(context: Pfn): GuestContext {
    const guest = this.#platform.contexts.get(context);
    invariant(guest !== undefined, 'the page is a guest context');
    return guest;
  }
}
