// SPDX-License-Identifier: Apache-2.0
/**
 * A host that goes on running: several guests with an identity, a blob and devices each, and one rule.
 *
 * The rule: whatever changes the key that signs reports happens under the exclusive locks of all blobs,
 * together with the new contents of the blobs. Between two reports a guest may therefore meet another key,
 * but never a report and certificates that do not belong together.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { formatTcb, type TcbParts } from '../abi/tcb-version.ts';
import { SVM_SEV_FEAT_SNP_ACTIVE } from '../abi/vmsa.ts';
import type { BlobSource } from '../certs/blob.ts';
import { Tsm } from '../devices/configfs-tsm/device.ts';
import { tsmPlaces } from '../devices/configfs-tsm/files.ts';
import { sevGuestProvider } from '../devices/configfs-tsm/provider.ts';
import type { Eventually, FileNode } from '../devices/fuse/filesystem.ts';
import { guestMsrs, hostMsrs } from '../devices/msr/device.ts';
import { msrPlaces } from '../devices/msr/files.ts';
import { SevDevice } from '../devices/sev/device.ts';
import { sevPlaces } from '../devices/sev/files.ts';
import { sevGuestPlaces } from '../devices/sev-guest/files.ts';
import type { EndorsementKind } from '../keys/index.ts';
import { launchDigest } from '../launch/digest.ts';
import { InputError, invariant } from '../lib/errors.ts';
import {
  certificateBlob,
  type Guest,
  type Host,
  type HostState,
  type LaunchAnswer,
} from '../machine/index.ts';
import { BlobFile, replaceBlob, tryLockBlobs } from '../os/blob-file.ts';
import type { KvmRefusal } from '../vmm/kvm-fd.ts';
import type { LaunchSettings } from '../vmm/launch-vm.ts';
import type { RunEnd } from '../vmm/scheduler.ts';
import { formatStop } from '../vmm/stop.ts';
import { BlobFaults } from './blob-faults.ts';
import type { Places } from './device-tree.ts';
import type { EventLog } from './event-log.ts';
import { guardedSevFile } from './guarded-sev.ts';
import { GuestQueue } from './guest-driver.ts';

/** Which key a guest's certificates are for: of whatever signs unless a client asks otherwise, or always one. */
export type GuestKey = 'auto' | 'vcek' | 'vlek';

export interface GuestSpec {
  readonly name: string;
  readonly settings: LaunchSettings;
  readonly key: GuestKey;
  /** A blob somebody else keeps; null: the host makes one and keeps it in step. */
  readonly certs: string | null;
}

export interface HostServiceOptions {
  readonly host: Host;
  readonly events: EventLog;
  /** Folder of this service alone, for the blobs. */
  readonly blobFolder: string;
  /** Stores what a restart must find again; returns when it is safe. */
  readonly save: (state: HostState) => void;
  /** Makes time pass for guests; with 0, lets the event loop go round. */
  readonly sleep: (ms: number) => Promise<void>;
}

/** A guest that runs and what belongs to it. */
export interface ServedGuest {
  readonly spec: GuestSpec;
  readonly guest: Guest;
  readonly queue: GuestQueue;
  readonly measurement: Uint8Array;
  readonly blob: BlobFile;
  readonly faults: BlobFaults;
  /** What it shows inside: /dev/sev-guest and what goes with it. */
  readonly places: Places;
  /** Why it runs no further; null while it does. */
  ended: string | null;
}

/** Guests' names are names of files and parts of URLs. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;
/** How long a change waits for readers of the blobs. They hold their locks for a report at a time. */
const LOCK_TIMEOUT_MS = 5000;
const LOCK_RETRY_MS = 10;
/** Physical memory of the machine that /dev/cpu/0/msr shows. */
const HOST_MEMORY_BYTES = 256n << 30n;

export class HostService {
  readonly host: Host;
  readonly events: EventLog;
  /** What the host itself shows: /dev/sev and what goes with it. */
  readonly hostPlaces: Places;
  readonly #options: HostServiceOptions;
  readonly #guests = new Map<string, ServedGuest>();
  /** Names of guests that are not up yet. */
  readonly #launching = new Set<string>();

  /**
   * Errors   STATE_UNWRITABLE
   */
  constructor(options: HostServiceOptions) {
    this.#options = options;
    this.host = options.host;
    this.events = options.events;
    // Blobs of an earlier run, killed perhaps in the middle of a change, are nobody's.
    rmSync(options.blobFolder, { recursive: true, force: true });
    mkdirSync(options.blobFolder, { mode: 0o700 });
    const device = new SevDevice({ process: this.host.kernel.spawn('devices') });
    const places = sevPlaces(device);
    this.hostPlaces = {
      ...places,
      '/dev/sev': guardedSevFile(places['/dev/sev'] as FileNode, (command, work) =>
        this.change(command, work),
      ),
    };
  }

  get guests(): ReadonlyMap<string, ServedGuest> {
    return this.#guests;
  }

  get reportedTcb(): TcbParts {
    return this.host.reportedTcb;
  }

  /** The key that signs a report whose client does not choose. */
  get signingKey(): EndorsementKind {
    return this.host.management.platformStatus().features.vlek_en === 1 ? 'VLEK' : 'VCEK';
  }

  /**
   * Launches a guest and waits until its system is up.
   *
   * Returns  the guest, or the call that was refused
   * Errors   OPTION_INVALID for a name that is taken or cannot be one
   */
  async addGuest(
    spec: GuestSpec,
  ): Promise<{ readonly ok: true; readonly served: ServedGuest } | KvmRefusal | BootFailure> {
    this.#checkName(spec.name);
    const blob = new BlobFile(spec.certs ?? join(this.#options.blobFolder, `${spec.name}.blob`));
    const faults = new BlobFaults();
    this.#launching.add(spec.name);
    const booted = await this.#boot(spec, faults.around(blob)).finally(() => {
      this.#launching.delete(spec.name);
    });
    if (!booted.ok) {
      return booted;
    }
    const { guest } = booted;
    const { sleep } = this.#options;
    const queue = new GuestQueue({ guest, sleep, onEnd: (end) => this.#ended(spec.name, end) });
    const served: ServedGuest = {
      ...{ spec, guest, queue, blob, faults },
      measurement: launchDigest(this.host.deps.crypto.sha384, spec.settings.plan),
      places: guestPlaces(queue),
      ended: null,
    };
    // No earlier than here: a change of the key while the guest booted would not have found its blob.
    if (spec.certs === null) {
      const written = replaceBlob(blob.name, () => this.#blobFor(spec.key));
      invariant(written, 'nobody else knows the blob yet');
    }
    this.#guests.set(spec.name, served);
    this.events.emit({ type: 'guest', guest: spec.name, what: 'added' });
    return { ok: true, served };
  }

  async #boot(spec: GuestSpec, blob: BlobSource): Promise<LaunchAnswer | BootFailure> {
    const launched = this.host.launch({ ...spec.settings, name: spec.name, blob });
    if (!launched.ok) {
      return launched;
    }
    const { guest } = launched;
    const end = await guest.runUntilAsync(() => guest.kernel.system !== null, this.#options.sleep);
    if (end.kind === 'done') {
      return launched;
    }
    this.host.remove(guest);
    return { ok: false, step: 'boot', reason: whyEnded(end) };
  }

  /** Ends a guest; whoever still waits for it gets EIO. False when there is none of that name. */
  removeGuest(name: string): boolean {
    const served = this.#guests.get(name);
    if (served === undefined) {
      return false;
    }
    this.#guests.delete(name);
    this.host.remove(served.guest);
    served.blob.close();
    if (served.spec.certs === null) {
      rmSync(served.blob.name, { force: true });
    }
    this.events.emit({ type: 'guest', guest: name, what: 'removed' });
    return true;
  }

  /**
   * Does something that may change the key, with every blob the host keeps locked; then saves the state
   * and writes the blobs anew.
   *
   * Returns  null, with nothing done, when somebody keeps a blob locked for longer than a report takes
   */
  async change<T>(command: string, work: () => Eventually<T>): Promise<T | null> {
    const update = await this.#lockBlobs();
    if (update === null) {
      return null;
    }
    try {
      const before = this.#platform();
      const answer = await work();
      const after = this.#platform();
      if (after !== before) {
        this.#options.save(this.host.state);
        this.#rewrite(update.replace);
        this.events.emit({
          type: 'platform',
          command,
          reported_tcb: formatTcb(this.reportedTcb, this.host.chip.product),
          key: this.signingKey,
        });
      }
      return answer;
    } finally {
      update.release();
    }
  }

  async #lockBlobs() {
    const { clock } = this.host.deps;
    const deadline = clock.monotonicMs() + LOCK_TIMEOUT_MS;
    for (;;) {
      const update = tryLockBlobs(this.#kept().map(({ blob }) => blob.name));
      if (update !== null || clock.monotonicMs() >= deadline) {
        return update;
      }
      await this.#options.sleep(LOCK_RETRY_MS);
    }
  }

  /** Guests whose blobs the host keeps. */
  #kept(): ServedGuest[] {
    return [...this.#guests.values()].filter(({ spec }) => spec.certs === null);
  }

  #rewrite(replace: (path: string, bytes: Uint8Array) => void): void {
    const made = new Map<EndorsementKind, Uint8Array>();
    for (const { spec, blob } of this.#kept()) {
      const kind = this.#kindFor(spec.key);
      const bytes = made.get(kind) ?? this.#blobFor(spec.key);
      made.set(kind, bytes);
      replace(blob.name, bytes);
    }
  }

  #kindFor(key: GuestKey): EndorsementKind {
    return key === 'auto' ? this.signingKey : key === 'vcek' ? 'VCEK' : 'VLEK';
  }

  #blobFor(key: GuestKey): Uint8Array {
    return certificateBlob(this.host.chain(this.#kindFor(key)));
  }

  /** All that reports say of the platform, to see whether a command changed it. */
  #platform(): string {
    return JSON.stringify([this.host.state.platform, this.signingKey]);
  }

  #checkName(name: string): void {
    const problem = !NAME.test(name)
      ? 'letters, digits, dot, hyphen and underscore make a name, at most 63 of them'
      : this.#guests.has(name) || this.#launching.has(name)
        ? 'a guest of this name is running'
        : null;
    if (problem !== null) {
      throw new InputError('OPTION_INVALID', problem, { where: JSON.stringify(name.slice(0, 80)) });
    }
  }

  #ended(name: string, end: RunEnd): void {
    const served = this.#guests.get(name);
    if (served !== undefined) {
      served.ended = whyEnded(end);
      this.events.emit({ type: 'guest', guest: name, what: 'ended' });
    }
  }
}

/** A guest that was launched and did not come up. */
export interface BootFailure {
  readonly ok: false;
  readonly step: 'boot';
  readonly reason: string;
}

function guestPlaces({ driver }: GuestQueue): Places {
  return {
    ...sevGuestPlaces({ driver }),
    ...tsmPlaces(new Tsm(sevGuestProvider(driver))),
    // One file for both sides: programs on a laptop look for host and guest in the same place.
    ...msrPlaces(guestMsrs(SVM_SEV_FEAT_SNP_ACTIVE), hostMsrs(HOST_MEMORY_BYTES)),
  };
}

function whyEnded(end: RunEnd): string {
  return end.kind === 'stopped' ? formatStop(end.end) : 'every vCPU sleeps and nothing will wake one';
}
