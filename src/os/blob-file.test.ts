// SPDX-License-Identifier: Apache-2.0
import { closeSync, mkdtempSync, openSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BlobFile, replaceBlob } from './blob-file.ts';
import { tryLock } from './ofd-lock.ts';
import { StateDirectory } from './state-dir.ts';

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softsnp-blob-'));
  path = join(folder, 'certs.blob');
  writeFileSync(path, 'first');
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

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
    expect(two.read(100)).toEqual({ bytes: new TextEncoder().encode('first') });
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

  it('never serves a file that was renamed away', () => {
    const lock = held(new BlobFile(path));
    writeFileSync(`${path}.2`, 'second');
    renameSync(`${path}.2`, path);
    lock.release();
    expect(held(new BlobFile(path)).read(100)).toEqual({ bytes: new TextEncoder().encode('second') });
  });
});

describe('StateDirectory', () => {
  it('admits one writer, keeps mode 0700, and sweeps what a crash left half written', () => {
    const first = StateDirectory.open(join(folder, 'state'));
    first.write('a.json', new TextEncoder().encode('{}'));
    expect(() => StateDirectory.open(join(folder, 'state'))).toThrow('another softsnp');
    writeFileSync(join(folder, 'state', '.a.json.new'), '{"torn');
    first.close();
    const second = StateDirectory.open(join(folder, 'state'));
    expect(new TextDecoder().decode(second.read('a.json')!)).toBe('{}');
    expect(readdirSync(second.path).sort()).toEqual(['a.json', 'lock']);
    expect(second.read('b.json')).toBeNull();
    second.close();
  });
});
