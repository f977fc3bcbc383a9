// SPDX-License-Identifier: Apache-2.0
/**
 * A folder of cached answers, shared by any number of processes. Entries are replaced whole and carry a
 * checksum over key and content; one that is torn, altered or of another key counts as missing. Nothing is
 * synced: what a crash takes from a cache is fetched again.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { concat, equalBytes, startsWith, utf8 } from '../lib/bytes.ts';
import { makeFolder } from './make-folder.ts';

const MAGIC = utf8('softsnp cache 1\n');
const CHECKSUM_SIZE = 32;
const HEADER_SIZE = MAGIC.length + CHECKSUM_SIZE;

/** Folders below the cache's own, by the first byte of the entry's name: room is made in one of them at a time. */
const SHARDS = 256;

/** A file written aside is moved within milliseconds; one that is older by this much is what a killed writer left. */
const LEFTOVER_MS = 60_000;

/** The key service's caches: $XDG_CACHE_HOME/softsnp/NAME. */
export function defaultCacheFolder(name: string, env: NodeJS.ProcessEnv = process.env): string {
  const root = env['XDG_CACHE_HOME'];
  return join(root === undefined || root === '' ? join(homedir(), '.cache') : root, 'softsnp', name);
}

export interface CacheDirectoryOptions {
  /** Entries kept, roughly; the least recently written go first. */
  readonly maxEntries?: number;
  readonly maxEntryBytes?: number;
  /** The folder cannot be written: worth one line in the log. */
  readonly onFault?: (error: unknown) => void;
}

export class CacheDirectory {
  readonly #path: string;
  readonly #maxPerShard: number;
  readonly #maxEntryBytes: number;
  readonly #onFault: (error: unknown) => void;
  #writes = 0;

  constructor(path: string, options: CacheDirectoryOptions = {}) {
    this.#path = path;
    this.#maxPerShard = Math.max(1, Math.ceil((options.maxEntries ?? 16_384) / SHARDS));
    this.#maxEntryBytes = options.maxEntryBytes ?? 1 << 20;
    this.#onFault = options.onFault ?? (() => {});
  }

  /** What was last put under the key; null when it is missing or damaged. */
  get(key: string): Uint8Array | null {
    let file: Uint8Array;
    try {
      const path = join(...this.#placeOf(key));
      if (statSync(path).size > HEADER_SIZE + this.#maxEntryBytes) {
        return null;
      }
      file = Uint8Array.from(readFileSync(path));
    } catch {
      return null;
    }
    const content = file.subarray(HEADER_SIZE);
    const isWhole =
      startsWith(file, MAGIC) && equalBytes(file.subarray(MAGIC.length, HEADER_SIZE), checksum(key, content));
    return isWhole ? content : null;
  }

  /** Keeps the content; failing to is told to onFault and changes nothing else. */
  put(key: string, content: Uint8Array): void {
    if (content.length > this.#maxEntryBytes) {
      return;
    }
    const [folder, name] = this.#placeOf(key);
    this.#writes += 1;
    // Its own name for every writer: two that share one would mix their bytes.
    const aside = join(folder, `.${process.pid}.${this.#writes}.${name}`);
    try {
      makeFolder(folder, 0o700);
      writeFileSync(aside, concat(MAGIC, checksum(key, content), content), { mode: 0o600, flag: 'wx' });
      renameSync(aside, join(folder, name));
      this.#makeRoom(folder, name);
    } catch (error) {
      this.#onFault(error);
      try {
        rmSync(aside, { force: true });
      } catch {
        // Where nothing can be removed nothing was written, or it is left to #makeRoom.
      }
    }
  }

  #placeOf(key: string): [folder: string, name: string] {
    const name = createHash('sha256').update(key).digest('hex');
    return [join(this.#path, name.slice(0, 2)), name];
  }

  /** Removes the oldest files of a folder that has too many, and what killed writers left there. */
  #makeRoom(folder: string, justWritten: string): void {
    const names = readdirSync(folder);
    if (names.length <= this.#maxPerShard) {
      return;
    }
    const writtenMs = (name: string): number =>
      statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
    // By the clock of the filesystem, which may not be ours.
    const nowMs = writtenMs(justWritten);
    const byAge = names
      .filter((name) => name !== justWritten)
      .map((name) => ({ name, writtenMs: writtenMs(name) }))
      // Another writer is about to move its file: taking it away would fail that one.
      .filter((file) => !file.name.startsWith('.') || nowMs - file.writtenMs > LEFTOVER_MS)
      .sort((a, b) => a.writtenMs - b.writtenMs);
    for (const { name } of byAge.slice(0, Math.max(0, byAge.length + 1 - this.#maxPerShard))) {
      rmSync(join(folder, name), { force: true });
    }
  }
}

function checksum(key: string, content: Uint8Array): Uint8Array {
  // The length keeps key and content apart.
  const prefix = utf8(`${key.length}\n${key}`);
  return Uint8Array.from(createHash('sha256').update(prefix).update(content).digest());
}
