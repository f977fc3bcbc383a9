// SPDX-License-Identifier: Apache-2.0
/** One guest of a running host: launched, booted, and where it stands for another one, told so. */
import { join } from 'node:path';
import type { BlobSource } from '../certs/blob.ts';
import type { KeptReport } from '../devices/configfs-tsm/device.ts';
import { type GuestLife, type LaunchFacts, launchDifference } from '../firmware/secure-processor.ts';
import type { DriverState } from '../guest/sev-guest.ts';
import { launchDigest } from '../launch/digest.ts';
import { InputError } from '../lib/errors.ts';
import type { Guest, Host } from '../machine/index.ts';
import { BlobFile } from '../os/blob-file.ts';
import type { KvmRefusal } from '../vmm/kvm-fd.ts';
import type { LaunchSettings } from '../vmm/launch-vm.ts';
import type { RunEnd } from '../vmm/scheduler.ts';
import { formatStop } from '../vmm/stop.ts';
import { type BlobFault, BlobFaults } from './blob-faults.ts';
import type { GuestDoor } from './guest-door.ts';
import { GuestQueue } from './guest-driver.ts';

/** Guests' names are names of files and parts of URLs. */
export const GUEST_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** Which key a guest's certificates are for: of whatever signs unless a client asks otherwise, or always one. */
export type GuestKey = 'auto' | 'vcek' | 'vlek';

export interface GuestSpec {
  readonly name: string;
  readonly settings: LaunchSettings;
  readonly key: GuestKey;
  /** A blob somebody else keeps; null: the host makes one and keeps it in step. */
  readonly certs: string | null;
  /** The words all of this was read from, none left to a default: they give it again anywhere, any time. */
  readonly words: Readonly<Record<string, string>>;
}

/** A guest that runs and what belongs to it. */
export interface ServedGuest {
  readonly spec: GuestSpec;
  readonly guest: Guest;
  readonly door: GuestDoor;
  readonly queue: GuestQueue;
  readonly measurement: Uint8Array;
  readonly blob: BlobFile;
  readonly faults: BlobFaults;
  /** Why it runs no further; null while it does. */
  ended: string | null;
}

/** A guest of another time, which a new one can stand for. */
export interface KeptGuest {
  readonly spec: GuestSpec;
  readonly launch: LaunchFacts;
  readonly life: GuestLife;
  /** Null when its driver did not load, or it had ended. */
  readonly driver: DriverState | null;
  readonly faults: readonly BlobFault[];
  readonly reports: ReadonlyMap<string, KeptReport>;
  readonly served: number;
  readonly ended: string | null;
}

/** A guest that was launched and did not come up. */
export interface BootFailure {
  readonly ok: false;
  readonly step: 'boot';
  readonly reason: string;
}

export type ServeAnswer = { readonly ok: true; readonly served: ServedGuest } | KvmRefusal | BootFailure;

export interface ServeOptions {
  readonly host: Host;
  readonly door: GuestDoor;
  /** Where the blobs are that the host keeps. */
  readonly blobFolder: string;
  readonly sleep: (ms: number) => Promise<void>;
  /** Whether what is in a blob may be given to its guest now. */
  readonly mayServe: (spec: GuestSpec, blob: BlobFile) => boolean;
  readonly onEnded: (served: ServedGuest) => void;
  /** The guest it stands for. */
  readonly as?: KeptGuest;
}

/**
 * Launches a guest and waits until its system is up. Its door does not lead to it yet.
 *
 * Returns  the guest, or the call that was refused; nothing of it is left then
 * Errors   SNAPSHOT_MISMATCH when it is not of the launch of the guest it stands for; LOCK_FAILED,
 *          FILE_UNREADABLE when certificates somebody else keeps cannot be served; nothing is left then, too
 */
export async function serveGuest(spec: GuestSpec, options: ServeOptions): Promise<ServeAnswer> {
  const { host, blobFolder, as, mayServe } = options;
  const blob = new BlobFile(spec.certs ?? join(blobFolder, `${spec.name}.blob`));
  if (spec.certs !== null) {
    blob.checkServable();
  }
  const faults = new BlobFaults(as?.faults);
  const source: BlobSource = {
    name: blob.name,
    tryLockShared: () => (mayServe(spec, blob) ? blob.tryLockShared() : { busy: true }),
  };
  const launched = host.launch({ ...spec.settings, name: spec.name, blob: faults.around(source) });
  if (!launched.ok) {
    return launched;
  }
  const { guest } = launched;
  try {
    const answer = await serveLaunched({ spec, guest, blob, faults }, options);
    if (!answer.ok) {
      host.remove(guest);
    }
    return answer;
  } catch (error) {
    host.remove(guest);
    throw error;
  }
}

async function serveLaunched(
  launched: Pick<ServedGuest, 'spec' | 'guest' | 'blob' | 'faults'>,
  { host, door, sleep, onEnded, as }: ServeOptions,
): Promise<ServeAnswer> {
  const { spec, guest } = launched;
  const end = await guest.runUntilAsync(() => guest.kernel.system !== null, sleep);
  if (end.kind !== 'done') {
    return { ok: false, step: 'boot', reason: whyEnded(end) };
  }
  const queue = new GuestQueue({
    ...{ guest, sleep, served: as?.served ?? 0 },
    onEnd: (why) => {
      served.ended = whyEnded(why);
      onEnded(served);
    },
  });
  const served: ServedGuest = {
    ...{ ...launched, door, queue },
    measurement: launchDigest(host.deps.crypto.sha384, spec.settings.plan),
    ended: as?.ended ?? null,
  };
  if (as !== undefined && !(await standFor(served, as))) {
    return { ok: false, step: 'boot', reason: served.ended ?? 'its driver does not go on' };
  }
  return { ok: true, served };
}

/** The firmware first, then the guest itself: both count its messages from the same numbers. False when it cannot. */
async function standFor({ guest, queue }: ServedGuest, kept: KeptGuest): Promise<boolean> {
  const difference = launchDifference(guest.facts().launch, kept.launch);
  if (difference !== null) {
    throw new InputError(
      'SNAPSHOT_MISMATCH',
      `its launch gives another ${difference} now: a file it is launched from has changed`,
      { where: `guest ${kept.spec.name}` },
    );
  }
  guest.resume(kept.life);
  const { driver, ended } = kept;
  if (driver !== null && (await queue.run((kernel) => kernel.resumeDriver(driver))) !== 0) {
    return false;
  }
  if (ended !== null) {
    queue.end();
  }
  return true;
}

/**
 * What another guest needs to stand for this one. No call may be under way.
 *
 * Returns  the driver's part: null when it did not load, or the guest has ended
 */
export async function driverStateOf({ queue }: ServedGuest): Promise<DriverState | null> {
  const state = await queue.run((kernel) => kernel.driverState());
  return typeof state === 'number' ? null : state;
}

export function keptGuest(served: ServedGuest, driver: DriverState | null): KeptGuest {
  const { spec, guest, door, queue, faults, ended } = served;
  return {
    ...{ spec, driver, ended },
    ...guest.facts(),
    faults: faults.list(),
    reports: door.reports,
    served: queue.served,
  };
}

function whyEnded(end: RunEnd): string {
  return end.kind === 'stopped' ? formatStop(end.end) : 'every vCPU sleeps and nothing will wake one';
}
