// SPDX-License-Identifier: Apache-2.0
/**
 * How the VMM reaches a guest's certificate blob, and the same thing in memory.
 *
 * The kernel's contract for KVM_EXIT_SNP_REQ_CERTS is a file lock: the VMM holds a shared lock from before
 * it reads the blob until KVM_RUN has come back after the report was made; whoever changes the endorsement
 * key or the blob holds an exclusive one. `os/` keeps that contract on a real file (F_OFD_SETLK);
 * `MemoryBlob` keeps it for simulations.
 */
import { copyOf } from '../lib/bytes.ts';
import { invariant } from '../lib/errors.ts';

/** A held lock on a blob. */
export interface BlobLock {
  /**
   * Reads the whole blob while locked.
   *
   * Returns  {error} when it is missing, unreadable or longer than maxBytes; never a part of it. The bytes
   *          are good until the release
   */
  read(maxBytes: number): { readonly bytes: Uint8Array } | { readonly error: string };
  /** Gives the lock back; a second call changes nothing. */
  release(): void;
}

export interface BlobSource {
  /** Path or name, for messages. */
  readonly name: string;
  /**
   * Tries for a shared lock without waiting.
   *
   * Returns  {busy} when an exclusive lock is held elsewhere; {error} when the blob cannot be locked at all
   */
  tryLockShared(): { readonly lock: BlobLock } | { readonly busy: true } | { readonly error: string };
}

/** A held exclusive lock on a MemoryBlob: readers are told to come back until it is released. */
export interface ExclusiveBlobLock {
  /** Replaces the contents; null takes the blob away. */
  write(bytes: Uint8Array | null): void;
  release(): void;
}

/** A blob in memory with the locking of an open file description. */
export class MemoryBlob implements BlobSource {
  readonly name: string;
  #bytes: Uint8Array | null;
  #shared = 0;
  #exclusive = false;

  /** `bytes` null: the blob does not exist. */
  constructor(name: string, bytes: Uint8Array | null) {
    this.name = name;
    this.#bytes = bytes === null ? null : copyOf(bytes);
  }

  /** Shared locks held at this moment. */
  get sharedHolders(): number {
    return this.#shared;
  }

  tryLockShared(): { lock: BlobLock } | { busy: true } | { error: string } {
    if (this.#exclusive) {
      return { busy: true };
    }
    const bytes = this.#bytes;
    if (bytes === null) {
      return { error: `${this.name}: no such blob` };
    }
    this.#shared += 1;
    let held = true;
    const read = (maxBytes: number): { bytes: Uint8Array } | { error: string } => {
      invariant(held, `${this.name} is read after its lock was released`);
      return bytes.length > maxBytes
        ? { error: `${this.name}: ${bytes.length} bytes, at most ${maxBytes} are taken` }
        : { bytes: copyOf(bytes) };
    };
    const release = (): void => {
      this.#shared -= held ? 1 : 0;
      held = false;
    };
    return { lock: { read, release } };
  }

  /** Tries for the exclusive lock an updater needs, without waiting. */
  tryLockExclusive(): { lock: ExclusiveBlobLock } | { busy: true } {
    if (this.#exclusive || this.#shared > 0) {
      return { busy: true };
    }
    this.#exclusive = true;
    let held = true;
    const write = (bytes: Uint8Array | null): void => {
      invariant(held, `${this.name} is written after its lock was released`);
      this.#bytes = bytes === null ? null : copyOf(bytes);
    };
    const release = (): void => {
      this.#exclusive = held ? false : this.#exclusive;
      held = false;
    };
    return { lock: { write, release } };
  }
}
