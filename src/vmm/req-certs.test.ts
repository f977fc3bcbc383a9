// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { VCEK_GUID } from '../abi/cert-table.ts';
import { Errno } from '../abi/errno.ts';
import { type BlobSource, encodeCertificateTable, MemoryBlob } from '../certs/index.ts';
import { concat } from '../lib/bytes.ts';
import { VirtualClock } from '../lib/clock.ts';
import { type TraceEvent, Tracer } from '../lib/trace.ts';
import { CertificateService, type CertificateServiceOptions } from './req-certs.ts';

const UNKNOWN_GUID = '00112233-4455-6677-8899-aabbccddeeff';

/** A valid table of so many bytes. */
const tableOf = (size: number, fill = 1): Uint8Array =>
  encodeCertificateTable([{ guid: UNKNOWN_GUID, data: new Uint8Array(size - 48).fill(fill) }]);

function world(blob: BlobSource, options: Partial<CertificateServiceOptions> = {}) {
  const clock = new VirtualClock(0);
  const trace: TraceEvent[] = [];
  const log: string[] = [];
  const writes: { gpa: bigint; data: Uint8Array }[] = [];
  const service = new CertificateService({
    blob,
    writeShared: (gpa, data) => {
      writes.push({ gpa, data: data.slice() });
      return null;
    },
    clock,
    tracer: new Tracer('g', (event) => trace.push(event)),
    onLog: (line) => log.push(line),
    ...options,
  });
  return { service, clock, trace, log, writes };
}

const GPA = 0x4000n;

describe('the certificate service', () => {
  it('writes the table under a shared lock and keeps the lock until it is told that the report is made', () => {
    const blob = new MemoryBlob('blob', tableOf(5000));
    const { service, writes, trace, clock } = world(blob);
    const answer = service.serve(GPA, 4n);
    expect(answer).toMatchObject({ ret: 0, npages: 4n });
    expect(writes).toEqual([{ gpa: GPA, data: tableOf(5000) }]);
    expect(blob.sharedHolders).toBe(1);
    expect(blob.tryLockExclusive()).toEqual({ busy: true });
    clock.advance(7);
    answer.held!.release('-EINTR');
    answer.held!.release('-EINTR');
    expect(blob.sharedHolders).toBe(0);
    expect(trace.map(({ n, step }) => [n, step])).toEqual([
      [3, 'req-certs'],
      [6, 'lock-scope'],
    ]);
    expect(trace[0]!.detail).toMatchObject({ lock: 'shared', blob_bytes: 5000, npages_needed: 2, ret: '0' });
    expect(trace[1]!.detail).toEqual({ held_ms: 7, because: '-EINTR' });
  });

  it('lets two guests hold the shared lock at once', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const first = world(blob).service.serve(GPA, 1n);
    const second = world(blob).service.serve(GPA, 1n);
    expect([first.ret, second.ret, blob.sharedHolders]).toEqual([0, 0, 2]);
  });

  it('answers EAGAIN while the exclusive lock is held elsewhere, and serves the new blob afterwards', () => {
    const blob = new MemoryBlob('blob', tableOf(100, 1));
    const { service, writes, trace, log } = world(blob);
    const exclusive = blob.tryLockExclusive();
    expect(service.serve(GPA, 4n)).toEqual({ ret: Errno.EAGAIN, npages: 4n, held: null });
    expect(trace[0]!.detail['ret']).toBe('EAGAIN');
    expect(log).toEqual([]);
    if ('lock' in exclusive) {
      exclusive.lock.write(tableOf(100, 2));
      exclusive.lock.release();
    }
    expect(service.serve(GPA, 4n).ret).toBe(0);
    expect(writes).toEqual([{ gpa: GPA, data: tableOf(100, 2) }]);
  });

  it('answers ENOSPC with the pages needed, writes nothing and drops the lock', () => {
    for (const [size, offered, needed] of [
      [4096, 0n, 1n],
      [4097, 1n, 2n],
      [0x4000, 3n, 4n],
    ] as const) {
      const blob = new MemoryBlob('blob', tableOf(size));
      const { service, writes } = world(blob);
      expect(service.serve(GPA, offered)).toEqual({ ret: Errno.ENOSPC, npages: needed, held: null });
      expect(writes).toEqual([]);
      expect(blob.sharedHolders).toBe(0);
    }
  });

  it('asks for pages also where the address is nonsense: nothing is to be written there', () => {
    expect(world(new MemoryBlob('blob', tableOf(100))).service.serve(0xffff_ffff_ffff_f000n, 0n).ret).toBe(
      Errno.ENOSPC,
    );
  });

  it('takes an empty table: 24 zero bytes', () => {
    const { service, writes } = world(new MemoryBlob('blob', new Uint8Array(24)));
    expect(service.serve(GPA, 1n).ret).toBe(0);
    expect(writes[0]!.data).toEqual(new Uint8Array(24));
  });

  it('ignores padding behind the table when it counts pages', () => {
    const { service, writes } = world(new MemoryBlob('blob', concat(tableOf(100), new Uint8Array(8000))));
    expect(service.serve(GPA, 1n).ret).toBe(0);
    expect(writes[0]!.data).toEqual(tableOf(100));
  });

  const unlockable: BlobSource = {
    name: 'blob',
    tryLockShared: () => ({ error: 'blob: no OFD locks here' }),
  };
  const brokenVcek = encodeCertificateTable([{ guid: VCEK_GUID, data: new Uint8Array(500).fill(0x30) }]);
  const eio: [string, BlobSource, bigint, bigint, RegExp][] = [
    ['the blob is missing', new MemoryBlob('blob', null), GPA, 4n, /no such blob/],
    ['it cannot be locked', unlockable, GPA, 4n, /no OFD locks/],
    ['it is empty', new MemoryBlob('blob', new Uint8Array(0)), GPA, 4n, /TABLE_UNTERMINATED/],
    ['it is no table', new MemoryBlob('blob', new Uint8Array(4096).fill(0xff)), GPA, 4n, /TABLE_/],
    ['a certificate in it is cut short', new MemoryBlob('blob', brokenVcek), GPA, 4n, /VCEK/],
    ['it is larger than four pages', new MemoryBlob('blob', tableOf(0x4001)), GPA, 5n, /at most 16384/],
    ['the offered range wraps', new MemoryBlob('blob', tableOf(100)), 0xffff_ffff_ffff_f000n, 2n, /wraps/],
    ['the guest offers 2^52 pages', new MemoryBlob('blob', tableOf(100)), GPA, 1n << 52n, /wraps/],
    ['the guest offers 2^64 - 1 pages', new MemoryBlob('blob', tableOf(100)), 0n, (1n << 64n) - 1n, /wraps/],
  ];
  for (const [what, blob, gpa, npages, cause] of eio) {
    it(`answers EIO, logs the cause and drops the lock when ${what}`, () => {
      const { service, writes, log } = world(blob);
      expect(service.serve(gpa, npages)).toEqual({ ret: Errno.EIO, npages, held: null });
      expect(log).toHaveLength(1);
      expect(log[0]).toMatch(cause);
      expect(writes).toEqual([]);
      expect(blob instanceof MemoryBlob ? blob.sharedHolders : 0).toBe(0);
    });
  }

  it('answers EIO and drops the lock when the buffer is not shared guest memory', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const { service, log } = world(blob, { writeShared: () => 'page 0x4000 is private' });
    expect(service.serve(GPA, 1n).ret).toBe(Errno.EIO);
    expect(log[0]).toBe(
      'no certificates for the guest: cannot write the table to guest address 0x4000: page 0x4000 is private',
    );
    expect(blob.sharedHolders).toBe(0);
  });

  it('reads larger blobs when told so', () => {
    const { service } = world(new MemoryBlob('blob', tableOf(0x5000)), { maxBlobBytes: 0x8000 });
    expect(service.serve(GPA, 4n)).toMatchObject({ ret: Errno.ENOSPC, npages: 5n });
    expect(service.serve(GPA, 5n).ret).toBe(0);
  });

  it('reads the blob anew for every request', () => {
    const blob = new MemoryBlob('blob', tableOf(100, 1));
    const { service, writes } = world(blob);
    service.serve(GPA, 4n).held!.release('-EINTR');
    const exclusive = blob.tryLockExclusive();
    if ('lock' in exclusive) {
      exclusive.lock.write(new Uint8Array(5).fill(1));
      exclusive.lock.release();
    }
    expect(service.serve(GPA, 4n).ret).toBe(Errno.EIO);
    expect(writes).toHaveLength(1);
  });

  it('does not keep the lock when reading it breaks', () => {
    let released = 0;
    const blob: BlobSource = {
      name: 'blob',
      tryLockShared: () => ({
        lock: {
          read: () => {
            throw new TypeError('defect');
          },
          release: () => {
            released += 1;
          },
        },
      }),
    };
    expect(() => world(blob).service.serve(GPA, 4n)).toThrow('defect');
    expect(released).toBe(1);
  });
});
