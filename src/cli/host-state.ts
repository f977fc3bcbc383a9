// SPDX-License-Identifier: Apache-2.0
/** Which host a verb works on: its state folder, its secrets, its clock and its randomness. */
import { rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ProductLine } from '../abi/product.ts';
import { equalBytes } from '../lib/bytes.ts';
import { type Clock, VirtualClock } from '../lib/clock.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';
import { decodeHostState, encodeHostState, type HostState, newHostState } from '../machine/index.ts';
import { ephemeralDirectory } from '../os/ephemeral-dir.ts';
import { nodeCrypto, seededRandom, systemRandom } from '../os/node-crypto.ts';
import { type PreparedFile, StateDirectory } from '../os/state-dir.ts';
import { systemClock } from '../os/system-clock.ts';

export const STATE_FILE = 'state.json';
export const BLOB_FILE = 'certs.blob';
export const CONTROL_SOCKET = 'control.sock';
/** What softsnp up has mounted outside of its state folder. */
export const MOUNT_RECORD = 'mounts.json';

/** Seeded runs begin at this moment: 2026-01-01 00:00 UTC. */
const SEEDED_START_MS = Date.UTC(2026, 0, 1);

export interface HostSelection {
  /** Null: the product the state folder holds, or Milan for a new one. */
  readonly product: ProductLine | null;
  readonly chipId: Uint8Array | null;
  readonly seed: number | null;
  /** Null: the default folder, or with a seed one that is gone afterwards. */
  readonly stateDir: string | null;
}

/** A state folder opened for writing, with what the machine is to be given. */
export interface OpenHostState {
  readonly directory: StateDirectory;
  readonly state: HostState;
  readonly crypto: MachineCrypto;
  readonly random: Random;
  readonly clock: Clock;
  /** Makes `ms` milliseconds pass. */
  sleep(ms: number): void;
  save(state: HostState): void;
  /** Does of `save` all that can fail for want of space. */
  prepareSave(state: HostState): PreparedFile;
  close(): void;
}

/** XDG_STATE_HOME/softsnp/milan, say. */
export function defaultStateDir(product: ProductLine): string {
  const base = process.env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state');
  return join(base, 'softsnp', product.toLowerCase());
}

/**
 * Opens the host's state, making a new chip where there is none.
 *
 * Errors   OPTION_INVALID when the options ask for another host than the folder holds; STATE_*
 */
export function openHostState(selection: HostSelection): OpenHostState {
  const { seed } = selection;
  const ephemeral = seed !== null && selection.stateDir === null;
  const path = ephemeral
    ? ephemeralDirectory()
    : resolve(selection.stateDir ?? defaultStateDir(selection.product ?? 'Milan'));
  const crypto = nodeCrypto({ deterministic: seed !== null });
  const random = seed === null ? systemRandom : seededRandom(seed);
  const directory = StateDirectory.open(path);
  const close = (): void => {
    directory.close();
    if (ephemeral) {
      rmSync(path, { recursive: true, force: true });
    }
  };
  try {
    const stored = directory.read(STATE_FILE);
    const state =
      stored === null
        ? newHostState(crypto, random, selection.product ?? 'Milan', {
            seed,
            ...(selection.chipId === null ? {} : { chipId: selection.chipId }),
          })
        : checkSelection(decodeHostState(crypto, stored, directory.fileOf(STATE_FILE)), selection, path);
    const save = (next: HostState): void => directory.write(STATE_FILE, encodeHostState(crypto, next));
    const prepareSave = (next: HostState): PreparedFile =>
      directory.prepare(STATE_FILE, encodeHostState(crypto, next));
    if (stored === null) {
      save(state);
    }
    return { directory, state, crypto, random, ...timeOf(seed), save, prepareSave, close };
  } catch (error) {
    close();
    throw error;
  }
}

function checkSelection(
  state: HostState,
  { product, chipId, seed }: HostSelection,
  where: string,
): HostState {
  const refuse = (option: string, has: string): never => {
    throw new InputError('OPTION_INVALID', `the state folder holds a host with ${has}; use another --state`, {
      where: `${option}, ${where}`,
      action: `Leave ${option} out to go on with that host, or name a new folder with --state.`,
    });
  };
  if (product !== null && product !== state.product) {
    refuse('--chip', `a ${state.product} chip`);
  }
  if (chipId !== null && !equalBytes(chipId, state.chipId)) {
    refuse('--chip-id', 'another chip id');
  }
  if (seed !== null && seed !== state.seed) {
    refuse('--seed', state.seed === null ? 'random secrets' : `secrets from seed ${state.seed}`);
  }
  return state;
}

/** A seeded run has its own clock; real time passes too, for locks that real programs hold. */
function timeOf(seed: number | null): Pick<OpenHostState, 'clock' | 'sleep'> {
  if (seed === null) {
    return { clock: systemClock, sleep: waitMs };
  }
  const clock = new VirtualClock(SEEDED_START_MS);
  const sleep = (ms: number): void => {
    waitMs(ms);
    clock.advance(ms);
  };
  return { clock, sleep };
}

function waitMs(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
