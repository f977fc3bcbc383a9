// SPDX-License-Identifier: Apache-2.0
/** Another machine as a snapshot has it, made ready beside the one that runs and seen by nobody yet. */
import { InputError } from '../lib/errors.ts';
import type { Host } from '../machine/index.ts';
import type { KvmRefusal } from '../vmm/kvm-fd.ts';
import {
  type BootFailure,
  type KeptGuest,
  type ServedGuest,
  type ServeOptions,
  serveGuest,
} from './served-guest.ts';

/** All that programs can see of a host and its guests. */
export interface HostSnapshot {
  /** What SecureProcessor.exportState gave. */
  readonly platform: unknown;
  /** Loaded hash stick, wrapped; null when there is none. */
  readonly vlek: Uint8Array | null;
  /** Legacy SEV is up. */
  readonly legacySev: boolean;
  readonly guests: readonly KeptGuest[];
}

/** What the machine said against a snapshot, of the host or of one guest. */
export interface RestoreRefusal {
  readonly ok: false;
  readonly guest: string | null;
  readonly refusal: KvmRefusal | BootFailure;
}

/** A machine that is to take the place of the one that runs. */
export interface StagedMachine {
  readonly ok: true;
  readonly host: Host;
  readonly guests: readonly { readonly served: ServedGuest; readonly kept: KeptGuest }[];
}

export interface StageOptions {
  /** Starts a machine of the same chip on what SecureProcessor.exportState gave. */
  readonly machineOn: (platform: unknown) => Host;
  readonly serving: (host: Host, name: string) => ServeOptions;
}

/**
 * Starts the machine and its guests, and waits until they are up. What is refused leaves nothing behind.
 *
 * Errors   SNAPSHOT_INVALID, SNAPSHOT_MISMATCH
 */
export async function stageMachine(
  { platform, vlek, legacySev, guests }: HostSnapshot,
  { machineOn, serving }: StageOptions,
): Promise<StagedMachine | RestoreRefusal> {
  const host = await blaming('platform', () => machineOn(platform));
  const loaded = vlek === null ? null : host.management.vlekLoad(vlek);
  if (loaded?.ok === false) {
    const { errno, fwStatus } = loaded;
    return { ok: false, guest: null, refusal: { ok: false, step: 'SNP_VLEK_LOAD', errno, fwStatus } };
  }
  const staged: { served: ServedGuest; kept: KeptGuest }[] = [];
  for (const kept of guests) {
    const { name } = kept.spec;
    const options = { ...serving(host, name), as: kept };
    const answer = await blaming(`guest ${name}`, () => serveGuest(kept.spec, options));
    if (!answer.ok) {
      return { ok: false, guest: name, refusal: answer };
    }
    staged.push({ served: answer.served, kept });
  }
  if (!legacySev) {
    // Each VM has brought it up.
    host.kernel.shutdownLegacySev();
  }
  return { ok: true, host, guests: staged };
}

/** What no machine can be made of is the snapshot's fault. */
async function blaming<T>(where: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw cause instanceof InputError && cause.code !== 'SNAPSHOT_MISMATCH'
      ? new InputError('SNAPSHOT_INVALID', cause.message, { where, cause })
      : cause;
  }
}
