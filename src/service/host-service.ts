// SPDX-License-Identifier: Apache-2.0
/**
 * A host that goes on running: several guests with an identity, a blob and devices each, and one rule.
 *
 * The rule: whatever changes the key that signs reports happens under the exclusive locks of all blobs,
 * together with the new contents of the blobs. Between two reports a guest may therefore meet another key,
 * but never a report and certificates that do not belong together.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import { formatTcb, type TcbParts } from '../abi/tcb-version.ts';
import type { Eventually, FileNode } from '../devices/fuse/filesystem.ts';
import { KvmDevice } from '../devices/kvm/device.ts';
import { kvmPlaces } from '../devices/kvm/files.ts';
import { SevDevice } from '../devices/sev/device.ts';
import { sevPlaces } from '../devices/sev/files.ts';
import type { EndorsementKind } from '../keys/index.ts';
import { EnvironmentError, InputError, invariant } from '../lib/errors.ts';
import type { Host, HostState } from '../machine/index.ts';
import { replaceBlob, tryLockBlobs } from '../os/blob-file.ts';
import { errnoCode } from '../os/errno.ts';
import { type PreparedFile, prepareFile } from '../os/state-dir.ts';
import type { Places } from './device-tree.ts';
import type { EventLog } from './event-log.ts';
import { guardedSevFile } from './guarded-sev.ts';
import { GuestDoor } from './guest-door.ts';
import { blobFor, blobsOf, signingKeyOf } from './host-blobs.ts';
import {
  driverStateOf,
  GUEST_NAME,
  type GuestSpec,
  type KeptGuest,
  keptGuest,
  type ServeAnswer,
  type ServedGuest,
  type ServeOptions,
  serveGuest,
} from './served-guest.ts';
import {
  type HostSnapshot,
  type RestoreRefusal,
  type StagedMachine,
  stageMachine,
} from './staged-machine.ts';
import { Turns } from './turns.ts';

export interface HostServiceOptions {
  readonly host: Host;
  /** Starts another machine of the same chip, for a snapshot. */
  readonly machine: (state: HostState) => Host;
  readonly events: EventLog;
  /** Folder of this service alone, for the blobs. */
  readonly blobFolder: string;
  /** Stores what a restart must find again; returns when it is safe. */
  readonly save: (state: HostState) => void;
  /** Makes time pass for guests; with 0, lets the event loop go round. */
  readonly sleep: (ms: number) => Promise<void>;
}

/** How long a change waits for readers of the blobs. They hold their locks for a report at a time. */
const LOCK_TIMEOUT_MS = 5000;
/** How long a snapshot waits for requests that are under way. */
const IDLE_TIMEOUT_MS = 5000;
const RETRY_MS = 10;
/** Doors of guests that are gone, for programs that still have one of their files. */
const DOORS_KEPT = 1024;

export class HostService {
  readonly events: EventLog;
  /** What the host itself shows: /dev/sev and what goes with it. */
  readonly hostPlaces: Places;
  /** What it shows besides where programs are to take the emulated processor for the real one. */
  readonly processorPlaces: Places;
  readonly #options: HostServiceOptions;
  /** Of whatever changes the host or the set of its guests. */
  readonly #turns = new Turns();
  readonly #doors = new Map<string, GuestDoor>();
  #host: Host;
  #sevFile: FileNode;
  #kvm: KvmDevice;
  #guests: Map<string, ServedGuest> = new Map();

  /**
   * Errors   STATE_UNWRITABLE
   */
  constructor(options: HostServiceOptions) {
    this.#options = options;
    this.#host = options.host;
    this.events = options.events;
    // Blobs of an earlier run, killed perhaps in the middle of a change, are nobody's.
    rmSync(options.blobFolder, { recursive: true, force: true });
    mkdirSync(options.blobFolder, { mode: 0o700 });
    const places = placesOf(options.host);
    this.#sevFile = places['/dev/sev'];
    this.hostPlaces = {
      ...places,
      '/dev/sev': guardedSevFile(
        () => this.#sevFile,
        (command, work) => this.change(command, work),
        (work) => this.#keep(work),
      ),
    };
    this.#kvm = kvmOf(options.host);
    this.processorPlaces = kvmPlaces(() => this.#kvm);
  }

  /** The machine: another one after a snapshot is restored. */
  get host(): Host {
    return this.#host;
  }

  get guests(): ReadonlyMap<string, ServedGuest> {
    return this.#guests;
  }

  get reportedTcb(): TcbParts {
    return this.host.reportedTcb;
  }

  /** The key that signs a report whose client does not choose. */
  get signingKey(): EndorsementKind {
    return signingKeyOf(this.host);
  }

  /**
   * Launches a guest and waits until its system is up.
   *
   * Returns  the guest, or the call that was refused
   * Errors   OPTION_INVALID for a name that is taken or cannot be one
   */
  addGuest(spec: GuestSpec): Promise<ServeAnswer> {
    return this.#turns.take(async () => {
      this.#checkName(spec.name);
      const answer = await serveGuest(spec, this.#serving(this.host, spec.name));
      if (!answer.ok) {
        return answer;
      }
      const { served } = answer;
      if (spec.certs === null) {
        const written = replaceBlob(served.blob.name, () => blobFor(this.host, spec.key));
        invariant(written, 'nobody else knows the blob yet');
      }
      this.#guests.set(spec.name, served);
      served.door.leadTo(served.queue, new Map());
      this.events.emit({ type: 'guest', guest: spec.name, what: 'added' });
      return answer;
    });
  }

  #serving(host: Host, name: string): ServeOptions {
    const { blobFolder, sleep } = this.#options;
    return {
      ...{ host, blobFolder, sleep },
      door: this.#doorOf(name),
      onEnded: (served) => {
        if (this.#guests.get(name) === served) {
          this.events.emit({ type: 'guest', guest: name, what: 'ended' });
        }
      },
    };
  }

  #doorOf(name: string): GuestDoor {
    const door = this.#doors.get(name) ?? new GuestDoor();
    this.#doors.set(name, door);
    for (const other of this.#doors.keys()) {
      if (this.#doors.size > DOORS_KEPT && !this.#guests.has(other) && other !== name) {
        this.#doors.delete(other);
      }
    }
    return door;
  }

  /** Ends a guest; whoever still waits for it gets EIO. False when there is none of that name. */
  removeGuest(name: string): Promise<boolean> {
    return this.#turns.take(() => {
      const served = this.#guests.get(name);
      if (served !== undefined) {
        this.#guests.delete(name);
        this.#end(this.host, served);
        this.events.emit({ type: 'guest', guest: name, what: 'removed' });
      }
      return served !== undefined;
    });
  }

  #end(host: Host, served: ServedGuest): void {
    host.remove(served.guest);
    served.blob.close();
    if (served.spec.certs === null) {
      rmSync(served.blob.name, { force: true });
    }
  }

  /** Ends every guest, after what is under way. */
  async close(): Promise<void> {
    await this.#turns.take(() => {
      for (const served of this.#guests.values()) {
        this.#end(this.host, served);
      }
      this.#guests.clear();
    });
  }

  /**
   * Does something that may change the key, with every blob the host keeps locked; then saves the state
   * and writes the blobs anew.
   *
   * Returns  null, with nothing done, when somebody keeps a blob locked for longer than a report takes
   */
  change<T>(command: string, work: () => Eventually<T>): Promise<T | null> {
    return this.#turns.take(async () => {
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
          for (const [path, bytes] of blobsOf(this.host, this.#kept())) {
            update.replace(path, bytes);
          }
          this.#tellPlatform(command);
        }
        return answer;
      } finally {
        update.release();
      }
    });
  }

  /**
   * What is to be seen now, with no request half done: the next ones wait until it is taken.
   *
   * Errors   SNAPSHOT_UNAVAILABLE when a request is under way for longer than five seconds
   */
  capture(): Promise<HostSnapshot> {
    return this.#turns.take(async () => {
      const guests = [...this.#guests.values()];
      for (const { queue } of guests) {
        queue.hold();
      }
      try {
        await this.#awaitIdle(guests);
        const kept: KeptGuest[] = [];
        for (const served of guests) {
          kept.push(keptGuest(served, await driverStateOf(served)));
        }
        const { psp, management } = this.host;
        return {
          platform: psp.exportState(),
          vlek: psp.wrappedVlek,
          legacySev: management.legacyInitialized(),
          guests: kept,
        };
      } finally {
        for (const { queue } of guests) {
          queue.release();
        }
      }
    });
  }

  async #awaitIdle(guests: readonly ServedGuest[]): Promise<void> {
    const { clock } = this.host.deps;
    const deadline = clock.monotonicMs() + IDLE_TIMEOUT_MS;
    for (;;) {
      const busy = guests.find(({ queue }) => !queue.idle);
      if (busy === undefined) {
        return;
      }
      if (clock.monotonicMs() >= deadline) {
        throw new EnvironmentError(
          'SNAPSHOT_UNAVAILABLE',
          `a request has been under way for ${IDLE_TIMEOUT_MS / 1000} s`,
          { where: `guest ${busy.spec.name}` },
        );
      }
      await this.#options.sleep(RETRY_MS);
    }
  }

  /**
   * Starts another machine as the snapshot has it, beside the one that runs, and when all its guests are up
   * puts it in that one's place. Nothing is changed until then, and everything at once: whatever fails
   * before leaves the host as it is. Whoever waits for a guest of the old machine gets EIO; files of guests
   * stay open and lead to the new ones.
   *
   * Returns  null, or what the machine said against it
   * Errors   SNAPSHOT_INVALID, SNAPSHOT_MISMATCH, BLOB_BUSY, STATE_UNWRITABLE
   */
  restore(snapshot: HostSnapshot): Promise<RestoreRefusal | null> {
    return this.#turns.take(async () => {
      const staged = await stageMachine(snapshot, {
        machineOn: (platform) => this.#options.machine({ ...this.host.state, platform }),
        serving: (host, name) => this.#serving(host, name),
      });
      if (!staged.ok) {
        return staged;
      }
      const update = await this.#lockBlobs();
      if (update === null) {
        throw new EnvironmentError('BLOB_BUSY', 'a certificate blob stayed locked; nothing was restored');
      }
      try {
        this.#swap(staged);
      } finally {
        update.release();
      }
      return null;
    });
  }

  /** All that can fail comes first: writing the blobs aside, then the state, which decides what a restart finds. */
  #swap({ host, guests }: StagedMachine): void {
    const prepared: PreparedFile[] = [];
    try {
      const keeping = guests.map(({ served }) => served).filter(({ spec }) => spec.certs === null);
      for (const [path, bytes] of blobsOf(host, keeping)) {
        prepared.push(this.#prepareBlob(path, bytes));
      }
      this.#options.save(host.state);
    } catch (error) {
      for (const file of prepared) {
        file.discard();
      }
      throw error;
    }
    const before = this.#guests;
    for (const served of before.values()) {
      this.#end(this.#host, served);
    }
    this.#host = host;
    this.#sevFile = placesOf(host)['/dev/sev'];
    this.#kvm = kvmOf(host);
    this.#guests = new Map(guests.map(({ served }) => [served.spec.name, served]));
    for (const file of prepared) {
      file.place();
    }
    for (const { served, kept } of guests) {
      served.door.leadTo(served.queue, kept.reports);
    }
    this.#tellRestored(before);
  }

  #prepareBlob(path: string, bytes: Uint8Array): PreparedFile {
    try {
      return prepareFile(this.#options.blobFolder, basename(path), bytes);
    } catch (cause) {
      throw new EnvironmentError('STATE_UNWRITABLE', `cannot write: ${errnoCode(cause)}`, {
        where: path,
        cause,
      });
    }
  }

  #tellRestored(before: ReadonlyMap<string, ServedGuest>): void {
    for (const guest of before.keys()) {
      if (!this.#guests.has(guest)) {
        this.events.emit({ type: 'guest', guest, what: 'removed' });
      }
    }
    for (const guest of this.#guests.keys()) {
      this.events.emit({ type: 'guest', guest, what: before.has(guest) ? 'restored' : 'added' });
    }
    this.#tellPlatform('snapshot restore');
    this.events.emit({ type: 'snapshot', what: 'restored', guests: [...this.#guests.keys()] });
  }

  #tellPlatform(command: string): void {
    this.events.emit({
      type: 'platform',
      command,
      reported_tcb: formatTcb(this.reportedTcb, this.host.chip.product),
      key: this.signingKey,
    });
  }

  /** Does something that no report and no certificate of a guest shows; saves the state if it changed. */
  #keep<T>(work: () => Eventually<T>): Promise<T> {
    return this.#turns.take(async () => {
      const before = this.#platform();
      const answer = await work();
      if (this.#platform() !== before) {
        this.#options.save(this.host.state);
      }
      return answer;
    });
  }

  async #lockBlobs() {
    const { clock } = this.host.deps;
    const deadline = clock.monotonicMs() + LOCK_TIMEOUT_MS;
    for (;;) {
      const update = tryLockBlobs(this.#kept().map(({ blob }) => blob.name));
      if (update !== null || clock.monotonicMs() >= deadline) {
        return update;
      }
      await this.#options.sleep(RETRY_MS);
    }
  }

  /** Guests whose blobs the host keeps. */
  #kept(): ServedGuest[] {
    return [...this.#guests.values()].filter(({ spec }) => spec.certs === null);
  }

  /** All that reports say of the platform, to see whether a command changed it. */
  #platform(): string {
    return JSON.stringify([this.host.state.platform, this.signingKey]);
  }

  #checkName(name: string): void {
    const problem = !GUEST_NAME.test(name)
      ? 'letters, digits, dot, hyphen and underscore make a name, at most 63 of them'
      : this.#guests.has(name)
        ? 'a guest of this name is running'
        : null;
    if (problem !== null) {
      throw new InputError('OPTION_INVALID', problem, { where: JSON.stringify(name.slice(0, 80)) });
    }
  }
}

const kvmOf = (host: Host): KvmDevice => new KvmDevice({ process: host.kernel.spawn('kvm') });

function placesOf(host: Host): Places & { readonly '/dev/sev': FileNode } {
  const places = sevPlaces(new SevDevice({ process: host.kernel.spawn('devices') }));
  return { ...places, '/dev/sev': places['/dev/sev'] as FileNode };
}
