// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { utf8 } from '../lib/bytes.ts';
import { BlobFile, replaceBlob } from './blob-file.ts';
import { tryLock } from './ofd-lock.ts';

/** What happens between the opening of a file and its lock, and what the kernel answers then; null: what it does. */
const lock = vi.hoisted(() => ({
  before: (): void => undefined,
  errno: null as number | null,
  /** Code with which no file can be opened. */
  openFails: null as string | null,
}));
vi.mock('node:fs', async (original) => {
  const real = await original<typeof import('node:fs')>();
  const open = (path: string, flags: number | string, mode?: number): number => {
    if (lock.openFails !== null) {
      throw Object.assign(new TypeError('none left'), { code: lock.openFails });
    }
    return real.openSync(path, flags, mode);
  };
  return { ...real, openSync: open };
});
vi.mock('./libc.ts', async (original) => {
  const real = await original<typeof import('./libc.ts')>();
  return {
    ...real,
    fcntlLock: (fd: number, type: 'read' | 'write' | 'unlock') => {
      if (type !== 'unlock') {
        lock.before();
      }
      return lock.errno ?? real.fcntlLock(fd, type);
    },
  };
});

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-blob-'));
  path = join(folder, 'certs.blob');
  writeFileSync(path, 'first');
});

afterEach(() => {
  lock.before = () => undefined;
  lock.errno = null;
  rmSync(folder, { recursive: true, force: true });
});

/** Puts a new file over the blob, as a program does that does not take part in the locking. */
function rename(content: string): void {
  writeFileSync(`${path}.2`, content);
  renameSync(`${path}.2`, path);
}

function held(source: BlobFile) {
  const answer = source.tryLockShared();
  if (!('lock' in answer)) {
    throw new TypeError(`not locked: ${JSON.stringify(answer)}`);
  }
  return answer.lock;
}

describe('BlobFile', () => {
  it('lets two guests share the read lock and keeps a writer out until both have released it', () => {
    const one = held(new BlobFile(path));
    const two = held(new BlobFile(path));
    expect(replaceBlob(path, () => new Uint8Array([2]))).toBe(false);
    one.release();
    expect(replaceBlob(path, () => new Uint8Array([2]))).toBe(false);
    expect(two.read(100)).toEqual({ bytes: utf8('first') });
    two.release();
    expect(replaceBlob(path, () => new Uint8Array([2]))).toBe(true);
    expect(held(new BlobFile(path)).read(100)).toEqual({ bytes: new Uint8Array([2]) });
    expect(readdirSync(folder)).toEqual(['certs.blob']);
  });

  it('is busy while a writer holds the lock', () => {
    const fd = openSync(path, 'r+');
    expect(tryLock(fd, 'write')).toBe('locked');
    expect(new BlobFile(path).tryLockShared()).toEqual({ busy: true });
    closeSync(fd);
    held(new BlobFile(path)).release();
  });

  it('names the cause when the blob is missing, a folder, or larger than allowed', () => {
    expect(new BlobFile(join(folder, 'none')).tryLockShared()).toEqual({
      error: `cannot open ${join(folder, 'none')}: ENOENT`,
    });
    expect(held(new BlobFile(folder)).read(100)).toEqual({ error: `${folder} is not a regular file` });
    expect(held(new BlobFile(path)).read(4)).toEqual({ error: `${path} has 5 bytes, more than 4` });
  });

  it('never serves a file that was renamed away, though it keeps the descriptor of its last request', () => {
    const blob = new BlobFile(path);
    const lock = held(blob);
    rename('second');
    expect(lock.read(100)).toEqual({ bytes: utf8('first') });
    lock.release();
    const second = held(blob);
    expect(second.read(100)).toEqual({ bytes: utf8('second') });
    second.release();
    rename('third');
    expect(held(blob).read(100)).toEqual({ bytes: utf8('third') });
    blob.close();
  });

  it('looks again when the file is renamed away between its opening and its lock', () => {
    const open = readdirSync('/proc/self/fd').length;
    const blob = new BlobFile(path);
    for (const times of [1, 3]) {
      let left = times;
      lock.before = () => {
        if (left > 0) {
          left -= 1;
          rename(`${times} renames, ${left} to come`);
        }
      };
      const found = held(blob);
      expect(found.read(100)).toEqual({ bytes: utf8(`${times} renames, 0 to come`) });
      found.release();
    }
    blob.close();
    expect(readdirSync('/proc/self/fd').length).toBe(open);
  });

  it('is busy when somebody does nothing but rename new files over it', () => {
    const open = readdirSync('/proc/self/fd').length;
    lock.before = () => rename('another');
    expect(new BlobFile(path).tryLockShared()).toEqual({ busy: true });
    expect(readdirSync('/proc/self/fd').length).toBe(open);
  });

  it.each(['EMFILE', 'ENFILE', 'ENOMEM'])('is busy while opening it fails with %s', (code) => {
    const blob = new BlobFile(path);
    lock.openFails = code;
    expect(blob.tryLockShared()).toEqual({ busy: true });
    lock.openFails = null;
    held(blob).release();
    blob.close();
  });

  it('does not wait for whoever might write into a pipe', () => {
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    expect(held(new BlobFile(join(folder, 'pipe'))).read(100)).toEqual({
      error: `${join(folder, 'pipe')} is not a regular file`,
    });
  });

  it.each([
    [37, 'ENOLCK'],
    [95, 'EOPNOTSUPP'],
    [22, 'EINVAL'],
  ])('cannot be locked, nor replaced, where the file system answers errno %i', (errno, name) => {
    const error = `fcntl(F_OFD_SETLK) answered ${name}`;
    const open = readdirSync('/proc/self/fd').length;
    lock.errno = errno;
    expect(new BlobFile(path).tryLockShared()).toEqual({ error });
    expect(() => replaceBlob(path, () => new Uint8Array(1))).toThrow(
      expect.objectContaining({ code: 'LOCK_FAILED', message: `${path}: ${error}` }),
    );
    expect(() => new BlobFile(path).checkServable()).toThrow(
      expect.objectContaining({ code: 'LOCK_FAILED', message: `${path}: ${error}` }),
    );
    expect(readdirSync('/proc/self/fd').length).toBe(open);
    expect(readFileSync(path, 'utf8')).toBe('first');
  });

  it('can be told beforehand to be no file; one that is still to come, or locked now, is nothing amiss', () => {
    expect(() => new BlobFile(folder).checkServable()).toThrow(
      expect.objectContaining({ code: 'FILE_UNREADABLE', message: `${folder}: is not a regular file` }),
    );
    new BlobFile(join(folder, 'later')).checkServable();
    const fd = openSync(path, 'r+');
    expect(tryLock(fd, 'write')).toBe('locked');
    new BlobFile(path).checkServable();
    closeSync(fd);
  });

  it('keeps its contents when new ones cannot be written', () => {
    mkdirSync(join(folder, '.certs.blob.new'));
    expect(() => replaceBlob(path, () => new Uint8Array(1))).toThrow(
      expect.objectContaining({ code: 'STATE_UNWRITABLE', message: `${path}: cannot write: EISDIR` }),
    );
    expect(held(new BlobFile(path)).read(100)).toEqual({ bytes: utf8('first') });
  });
});
