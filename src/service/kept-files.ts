// SPDX-License-Identifier: Apache-2.0
/**
 * The files of a running host that must be in step with its machine: the state that a restart finds, and the
 * certificate blobs of guests. Which of them are is known at any time, so that no guest gets others.
 */
import { basename } from 'node:path';
import type { Host, HostState } from '../machine/index.ts';
import type { BlobFile } from '../os/blob-file.ts';
import { type PreparedFile, prepareStateFile } from '../os/state-dir.ts';
import { blobsOf, keyFor } from './host-blobs.ts';
import type { GuestSpec, ServedGuest } from './served-guest.ts';

export interface KeptFilesOptions {
  /** The machine whose state is saved already. */
  readonly host: Host;
  readonly blobFolder: string;
  /** Writes the state aside; its place is what a restart finds. */
  readonly prepareSave: (state: HostState) => PreparedFile;
}

/** All that is not in step, written aside. */
export interface PreparedStep {
  /**
   * First, since it decides what a restart finds.
   *
   * Errors   STATE_UNWRITABLE; then nothing is changed, and nothing lies aside any more
   */
  saveState(): void;
  /**
   * Every blob that can be; one that cannot stays out of step.
   *
   * Errors   STATE_UNWRITABLE, the first of them
   */
  writeBlobs(): void;
  discard(): void;
}

export class KeptFiles {
  readonly #options: KeptFilesOptions;
  #saved: string;
  /** By blob: the key its certificates are for. */
  readonly #written = new WeakMap<BlobFile, string>();

  constructor(options: KeptFilesOptions) {
    this.#options = options;
    this.#saved = platformOf(options.host);
  }

  /** Whether a restart finds the machine as it is. */
  isSaved(host: Host): boolean {
    return platformOf(host) === this.#saved;
  }

  /** Whether the blob has the certificates of the key that signs; one that somebody else keeps is their care. */
  isInStep(host: Host, { key, certs }: GuestSpec, blob: BlobFile): boolean {
    return certs !== null || this.#written.get(blob) === keyFor(host, key);
  }

  /** Of these guests, those whose blobs are not. */
  behind(host: Host, guests: Iterable<ServedGuest>): ServedGuest[] {
    return [...guests].filter(({ spec, blob }) => !this.isInStep(host, spec, blob));
  }

  /**
   * Writes what is not in step, with the exclusive locks of the blobs held.
   *
   * Errors   STATE_UNWRITABLE; `isSaved` and `behind` say what is left
   */
  settle(host: Host, guests: Iterable<ServedGuest>): void {
    const step = this.prepare(host, guests);
    step.saveState();
    step.writeBlobs();
  }

  /**
   * Does of `settle` all that can fail for want of space.
   *
   * Errors   STATE_UNWRITABLE; then nothing lies aside
   */
  prepare(host: Host, guests: Iterable<ServedGuest>): PreparedStep {
    return this.#prepare(host, this.behind(host, guests), !this.isSaved(host));
  }

  /**
   * Sees whether the disk takes what a change may have to write: what is there, once more.
   *
   * Errors   STATE_UNWRITABLE
   */
  rehearse(host: Host, guests: Iterable<ServedGuest>): void {
    this.#prepare(host, [...guests], true).discard();
  }

  #prepare(host: Host, guests: readonly ServedGuest[], withState: boolean): PreparedStep {
    const { blobFolder, prepareSave } = this.#options;
    const prepared: PreparedFile[] = [];
    const discard = (): void => {
      for (const file of prepared) {
        file.discard();
      }
    };
    const orDiscard = <T>(work: () => T): T => {
      try {
        return work();
      } catch (error) {
        discard();
        throw error;
      }
    };
    const add = (file: PreparedFile): PreparedFile => {
      prepared.push(file);
      return file;
    };
    const platform = platformOf(host);
    const [state, blobs] = orDiscard(() => [
      withState ? add(prepareSave(host.state)) : null,
      blobsOf(host, guests).map(([served, bytes]) => {
        const file = add(prepareStateFile(blobFolder, basename(served.blob.name), bytes));
        return { blob: served.blob, key: keyFor(host, served.spec.key), file };
      }),
    ]);
    return {
      discard,
      saveState: () =>
        orDiscard(() => {
          state?.place();
          this.#saved = platform;
        }),
      writeBlobs: () => {
        const failures = blobs.flatMap(({ blob, key, file }) => {
          try {
            file.place();
            this.#written.set(blob, key);
            return [];
          } catch (error) {
            return [error];
          }
        });
        if (failures.length > 0) {
          throw failures[0];
        }
      },
    };
  }
}

const platformOf = (host: Host): string => JSON.stringify(host.psp.exportState());
