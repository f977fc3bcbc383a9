// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type BlobLock, type ExclusiveBlobLock, MemoryBlob } from './blob.ts';

const shared = (blob: MemoryBlob): BlobLock => (blob.tryLockShared() as { lock: BlobLock }).lock;
const exclusive = (blob: MemoryBlob): ExclusiveBlobLock =>
  (blob.tryLockExclusive() as { lock: ExclusiveBlobLock }).lock;

describe('a blob in memory', () => {
  it('is read by any number of holders of the shared lock, and written by none meanwhile', () => {
    const blob = new MemoryBlob('blob', Uint8Array.of(1, 2));
    const [a, b] = [shared(blob), shared(blob)];
    expect(blob.sharedHolders).toBe(2);
    expect(a.read(10)).toEqual({ bytes: Uint8Array.of(1, 2) });
    expect(blob.tryLockExclusive()).toEqual({ busy: true });
    a.release();
    a.release();
    expect(blob.tryLockExclusive()).toEqual({ busy: true });
    b.release();
    expect(blob.sharedHolders).toBe(0);
    expect(blob.tryLockExclusive()).toHaveProperty('lock');
  });

  it('is busy for readers while the exclusive lock is held', () => {
    const blob = new MemoryBlob('blob', Uint8Array.of(1));
    const lock = exclusive(blob);
    expect(blob.tryLockShared()).toEqual({ busy: true });
    expect(blob.tryLockExclusive()).toEqual({ busy: true });
    lock.write(Uint8Array.of(2));
    lock.release();
    lock.release();
    expect(shared(blob).read(1)).toEqual({ bytes: Uint8Array.of(2) });
  });

  it('is not read in part, nor when it does not exist', () => {
    const blob = new MemoryBlob('blob', Uint8Array.of(1, 2, 3));
    expect(shared(blob).read(2)).toEqual({ error: 'blob: 3 bytes, at most 2 are taken' });
    expect(new MemoryBlob('none', null).tryLockShared()).toEqual({ error: 'none: no such blob' });
  });

  it('keeps its bytes to itself', () => {
    const bytes = Uint8Array.of(1, 2);
    const blob = new MemoryBlob('blob', bytes);
    bytes.fill(9);
    const first = shared(blob).read(9) as { bytes: Uint8Array };
    first.bytes.fill(8);
    expect(shared(blob).read(9)).toEqual({ bytes: Uint8Array.of(1, 2) });
  });

  it('makes a read or a write after the release a defect', () => {
    const blob = new MemoryBlob('blob', Uint8Array.of(1));
    const reader = shared(blob);
    reader.release();
    expect(() => reader.read(1)).toThrow('after its lock was released');
    const writer = exclusive(blob);
    writer.release();
    expect(() => writer.write(null)).toThrow('after its lock was released');
  });
});
