// SPDX-License-Identifier: Apache-2.0
/**
 * A host that goes on running: several guests with an identity, a blob and devices each, and one rule.
 *
 * The rule: whatever changes the key that signs reports happens under the exclusive locks of all blobs,
 * together with the new contents of the blobs. Between two reports a guest may therefore meet another key,
 * but never a report and certificates that do not belong together.
 */
import { mkdirSync, rmSync } from 'node:fs';
import type { TcbParts } from '../abi/tcb-version.ts';
import type { Eventually, FileNode } from '../devices/fuse/filesystem.ts';
import { KvmDevice } from '../devices/kvm/device.ts';
import { kvmPlaces } from '../devices/kvm/files.ts';
import { SevDevice } from '../devices/sev/device.ts';
import { sevPlaces } from '../devices/sev/files.ts';
import type { EndorsementKind } from '../keys/index.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { type Host, type HostState, pointOf } from '../machine/index.ts';
import { tryLockBlobs } from '../os/blob-file.ts';
import { orUnwritable, type PreparedFile } from '../os/state-dir.ts';
import type { KvmRefusal } from '../vmm/kvm-fd.ts';
import { Changes } from './changes.ts';
import type { Places } from './device-tree.ts';
import type { EventLog } from './event-log.ts';
import { guardedSevFile } from './guarded-sev.ts';
import { GuestDoor } from './guest-door.ts';
import { provideVlek, signingKeyOf } from './host-blobs.ts';
import { KeptFiles } from './kept-files.ts';
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
  /** Writes aside what a restart must find again; it is safe when it is in its place. The first state is there. */
  readonly prepareSave: (state: HostState) => PreparedFile;
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
  readonly #files: KeptFiles;
  readonly #changes: Changes;

  /**
   * Errors   STATE_UNWRITABLE
   */
  constructor(options: HostServiceOptions) {
    this.#options = options;
    this.#host = options.host;
    this.events = options.events;
    this.#files = new KeptFiles(options);
    this.#changes = new Changes({
      ...{ files: this.#files, events: this.events },
      host: () => this.#host,
      guests: () => this.#guests.values(),
    });
    // Blobs of an earlier run, killed perhaps in the middle of a change, are nobody's.
    orUnwritable(options.blobFolder, 'cannot be made anew', () => {
      rmSync(options.blobFolder, { recursive: true, force: true });
      mkdirSync(options.blobFolder, { mode: 0o700 });
    });
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

  /** Why what is on the disk is not all in step with the machine; null when it is. */
  get failure(): string | null {
    return this.#changes.failure;
  }

  /** Whether a restart finds the platform as it is. */
  get isSaved(): boolean {
    return this.#files.isSaved(this.host);
  }

  /** Whether a guest's certificates are of the key that signs; null when somebody else keeps them. */
  isInStep({ spec, blob }: ServedGuest): boolean | null {
    return spec.certs === null ? this.#files.isInStep(this.host, spec, blob) : null;
  }

  /** The key that signs a report whose client does not choose. */
  get signingKey(): EndorsementKind {
    return signingKeyOf(this.host);
  }

  /**
   * Launches a guest and waits until its system is up.
   *
   * A guest that is to have the VLEK's certificates brings the VLEK with it.
   *
   * Returns  the guest, or the call that was refused
   * Errors   OPTION_INVALID for a name that is taken or cannot be one; LOCK_FAILED, FILE_UNREADABLE,
   *          STATE_UNWRITABLE when its certificates cannot be served; BLOB_BUSY, CHANGE_INCOMPLETE when the
   *          VLEK cannot be loaded; nothing of it is left then
   */
  addGuest(spec: GuestSpec): Promise<ServeAnswer> {
    return this.#turns.take(async () => {
      this.#checkName(spec.name);
      const answer = await serveGuest(spec, this.#serving(this.host, spec.name));
      if (!answer.ok) {
        return answer;
      }
      const { served } = answer;
      try {
        const refused = await this.#loadVlekFor(spec);
        if (refused !== null) {
          this.#end(this.host, served);
          return refused;
        }
        this.#files.settle(this.host, [served]);
      } catch (error) {
        this.#end(this.host, served);
        throw error;
      }
      this.#guests.set(spec.name, served);
      served.door.leadTo(served.queue, new Map());
      this.events.emit({ type: 'guest', guest: spec.name, what: 'added' });
      return answer;
    });
  }

  async #loadVlekFor({ key }: GuestSpec): Promise<KvmRefusal | null> {
    if (key !== 'vlek' || this.signingKey === 'VLEK') {
      return null;
    }
    const loaded = await this.#change('SNP_VLEK_LOAD', (host) => host.loadVlek());
    if (loaded === null) {
      throw new EnvironmentError('BLOB_BUSY', 'a certificate blob stayed locked; no VLEK was loaded');
    }
    return loaded.ok ? null : { ...loaded, step: 'SNP_VLEK_LOAD' };
  }

  #serving(host: Host, name: string): ServeOptions {
    const { blobFolder, sleep } = this.#options;
    return {
      ...{ host, blobFolder, sleep },
      door: this.#doorOf(name),
      mayServe: (spec, blob) => {
        const isInStep = (): boolean => this.#files.isInStep(host, spec, blob);
        if (!isInStep()) {
          this.#changes.catchUp();
        }
        return isInStep();
      },
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
      try {
        rmSync(served.blob.name, { force: true });
      } catch {
        // Nobody reads it any more, and the next start removes it.
      }
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
   * and writes the blobs anew. What cannot be written is taken back. Where there is no way back a guest whose
   * certificates are not of the key that signs gets none, until a later change or its own next try writes them.
   *
   * A VLEK goes with the reported TCB that it was wrapped for. When guests have its certificates, the one for the
   * new TCB is loaded in the same change, as the provider's tool would do.
   *
   * Returns  null, with nothing done, when somebody keeps a blob locked for longer than a report takes
   * Errors   STATE_UNWRITABLE with nothing changed; CHANGE_INCOMPLETE
   */
  change<T>(command: string, work: (host: Host) => Eventually<T>): Promise<T | null> {
    return this.#turns.take(() => this.#change(command, work));
  }

  /** The same in the turn of somebody who has it. */
  async #change<T>(command: string, work: (host: Host) => Eventually<T>): Promise<T | null> {
    const update = await this.#lockBlobs();
    if (update === null) {
      return null;
    }
    try {
      this.#changes.begin(command);
      const before = pointOf(this.host);
      try {
        const answer = await work(this.host);
        provideVlek(this.host, this.#guests.values());
        return answer;
      } finally {
        this.#changes.complete(command, before);
      }
    } finally {
      update.release();
    }
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
   * Errors   SNAPSHOT_INVALID, SNAPSHOT_MISMATCH, BLOB_BUSY, STATE_UNWRITABLE; CHANGE_INCOMPLETE when it is
   *          restored but for certificates of its guests
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
      provideVlek(
        staged.host,
        staged.guests.map(({ served }) => served),
      );
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

  /** All that can fail for want of space comes first, then the state, which decides what a restart finds. */
  #swap({ host, guests }: StagedMachine): void {
    const step = this.#files.prepare(
      host,
      guests.map(({ served }) => served),
    );
    step.saveState();
    const before = this.#guests;
    for (const served of before.values()) {
      this.#end(this.#host, served);
    }
    this.#host = host;
    this.#sevFile = placesOf(host)['/dev/sev'];
    this.#kvm = kvmOf(host);
    this.#guests = new Map(guests.map(({ served }) => [served.spec.name, served]));
    let failure: unknown = null;
    try {
      step.writeBlobs();
    } catch (error) {
      failure = error;
    }
    for (const { served, kept } of guests) {
      served.door.leadTo(served.queue, kept.reports);
    }
    this.#tellRestored(before);
    this.#changes.recovered();
    if (failure !== null) {
      throw this.#changes.incomplete('snapshot restore', 'done', failure);
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
    this.#changes.tellPlatform('snapshot restore');
    this.events.emit({ type: 'snapshot', what: 'restored', guests: [...this.#guests.keys()] });
  }

  /**
   * Does something that no report and no certificate of a guest shows, and saves what it leaves.
   *
   * Errors   CHANGE_INCOMPLETE
   */
  #keep<T>(work: () => Eventually<T>): Promise<T> {
    return this.#turns.take(async () => {
      const answer = await work();
      try {
        this.#files.settle(this.#host, []);
      } catch (error) {
        throw this.#changes.incomplete('a command of legacy SEV', 'done', error);
      }
      this.#changes.recovered();
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
