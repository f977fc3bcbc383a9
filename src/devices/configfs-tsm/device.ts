// SPDX-License-Identifier: Apache-2.0
/**
 * The kernel's tsm module: report entries, their generations, and when a new report is made.
 *
 * The attributes that only a kernel above VMPL0 shows (service_*, manifestblob) are not here: the guests of
 * softsnp run their kernel at VMPL0.
 *
 * Source   [DEVICES] "configfs-tsm"; [LINUX] drivers/virt/coco/tsm.c
 */
import { Errno } from '../../abi/errno.ts';
import { type Eventually, isRefusal, type Refusal, refuse } from '../fuse/filesystem.ts';
import { kstrtouint } from './kstrto.ts';

/** Largest inblob. */
export const TSM_INBLOB_MAX = 64;
/** Least privileged level an entry can ask for. */
const TSM_PRIVLEVEL_MAX = 3;

/** What a report is to be made of. */
export interface TsmDescription {
  readonly privlevel: number;
  /** 1 to TSM_INBLOB_MAX bytes. */
  readonly inblob: Uint8Array;
}

/** What came of it. */
export interface TsmBlobs {
  /** Null: the provider says it succeeded and gives nothing. The entry reads as empty and is not cached. */
  readonly outblob: Uint8Array | null;
  /** Empty: there is none. */
  readonly auxblob: Uint8Array;
}

/** What an entry was told, without the report it may have: that is made anew when it is read. */
export interface KeptReport {
  readonly privlevel: number;
  /** 0 to TSM_INBLOB_MAX bytes. */
  readonly inblob: Uint8Array;
  /** Stores so far, 64 bits. */
  readonly generation: bigint;
}

/** What makes reports: the driver of one kind of trusted guest. */
export interface TsmProvider {
  readonly name: string;
  readonly privlevelFloor: number;
  newReport(description: TsmDescription): Promise<TsmBlobs | Refusal>;
}

const EMPTY = new Uint8Array(0);
const UNTOLD: KeptReport = { privlevel: 0, inblob: EMPTY, generation: 0n };
const NO_BLOBS: TsmBlobs = { outblob: null, auxblob: EMPTY };
const U64_MASK = 0xffff_ffff_ffff_ffffn;

/**
 * The write generation after one more store.
 *
 * Returns  null, EBUSY to the writer, when that would make an old report look like the one of this
 *          generation: after 2^64 - 1 stores without a read
 */
export function nextGeneration(written: bigint, read: bigint): bigint | null {
  return written === ((read - 1n) & U64_MASK) ? null : (written + 1n) & U64_MASK;
}

/** The module: one provider at most, and the lock every attribute takes. */
export class Tsm {
  /** Null while no driver is loaded that makes reports. */
  provider: TsmProvider | null;
  #lock: Promise<unknown> | null = null;

  constructor(provider: TsmProvider | null) {
    this.provider = provider;
  }

  /** Runs `action` when nobody makes a report, at once if that is now. In the order of the calls. */
  locked<T>(action: () => Eventually<T>): Eventually<T> {
    const result = this.#lock === null ? action() : this.#lock.then(action);
    if (result instanceof Promise) {
      const unlock = (): void => {
        if (this.#lock === lock) {
          this.#lock = null;
        }
      };
      const lock: Promise<void> = result.then(unlock, unlock);
      this.#lock = lock;
    }
    return result;
  }
}

/** One entry: the state behind the files of a folder. */
export class TsmReport {
  readonly #tsm: Tsm;
  #privlevel: number;
  #inblob: Uint8Array;
  #writeGeneration: bigint;
  #readGeneration: bigint;
  #blobs = NO_BLOBS;

  constructor(tsm: Tsm, { privlevel, inblob, generation }: KeptReport = UNTOLD) {
    this.#tsm = tsm;
    this.#privlevel = privlevel;
    this.#inblob = inblob;
    this.#writeGeneration = generation;
    this.#readGeneration = generation;
  }

  kept(): KeptReport {
    return { privlevel: this.#privlevel, inblob: this.#inblob, generation: this.#writeGeneration };
  }

  showGeneration(): Eventually<string> {
    return this.#tsm.locked(() => `${this.#writeGeneration}\n`);
  }

  /**
   * Name of the provider.
   *
   * Returns  ENXIO without one
   */
  showProvider(): Eventually<string | Refusal> {
    return this.#tsm.locked(() => this.#withProvider(({ name }) => `${name}\n`));
  }

  /**
   * Most privileged level the provider gives reports for.
   *
   * Returns  ENXIO without a provider
   */
  showPrivlevelFloor(): Eventually<string | Refusal> {
    return this.#tsm.locked(() => this.#withProvider(({ privlevelFloor }) => `${privlevelFloor}\n`));
  }

  /**
   * Chooses the level reports are for, the floor not being applied to an entry that never chose.
   *
   * Returns  in this order: EINVAL or ERANGE for what is no number, ENXIO without a provider, EINVAL for a
   *          level below the floor or above 3, EBUSY; then nothing is stored
   */
  storePrivlevel(text: Uint8Array): Eventually<null | Refusal> {
    const value = kstrtouint(text);
    if (isRefusal(value)) {
      return value;
    }
    return this.#tsm.locked(() =>
      this.#withProvider(({ privlevelFloor }) => {
        if (value < privlevelFloor || value > TSM_PRIVLEVEL_MAX) {
          return refuse(Errno.EINVAL);
        }
        const refused = this.#advance();
        if (refused === null) {
          this.#privlevel = value;
        }
        return refused;
      }),
    );
  }

  /**
   * Stores an inblob, which may be empty: then there is none.
   *
   * `replacing` is the generation of an earlier part of the same store. While it is the last one and no
   * report was made of it, the whole takes its place without counting as another store.
   *
   * Returns  the generation of the store; EBUSY
   */
  storeInblob(bytes: Uint8Array, replacing: bigint | null): Eventually<bigint | Refusal> {
    return this.#tsm.locked(() => {
      const sameStore = replacing === this.#writeGeneration && this.#readGeneration !== this.#writeGeneration;
      const refused = sameStore ? null : this.#advance();
      if (refused !== null) {
        return refused;
      }
      this.#inblob = bytes.slice();
      return this.#writeGeneration;
    });
  }

  /**
   * One of the blobs of the present generation, made anew if it has none.
   *
   * Returns  ENXIO without a provider, EINVAL without an inblob, else what the provider refuses with; the
   *          next reader then tries again
   */
  readBlob(which: keyof TsmBlobs): Eventually<Uint8Array | Refusal> {
    return this.#tsm.locked(() => {
      const cached = this.#blobs.outblob !== null && this.#readGeneration === this.#writeGeneration;
      if (this.#inblob.length === 0) {
        return refuse(Errno.EINVAL);
      }
      return cached ? (this.#blobs[which] ?? EMPTY) : this.#makeReport(which);
    });
  }

  #makeReport(which: keyof TsmBlobs): Eventually<Uint8Array | Refusal> {
    return this.#withProvider(async (provider) => {
      this.#blobs = NO_BLOBS;
      const made = await provider.newReport({ privlevel: this.#privlevel, inblob: this.#inblob });
      if (isRefusal(made)) {
        return made;
      }
      this.#blobs = made;
      this.#readGeneration = this.#writeGeneration;
      return made[which] ?? EMPTY;
    });
  }

  #withProvider<T>(then: (provider: TsmProvider) => T): T | Refusal {
    const { provider } = this.#tsm;
    return provider === null ? refuse(Errno.ENXIO) : then(provider);
  }

  #advance(): null | Refusal {
    const next = nextGeneration(this.#writeGeneration, this.#readGeneration);
    if (next === null) {
      return refuse(Errno.EBUSY);
    }
    this.#writeGeneration = next;
    return null;
  }
}
