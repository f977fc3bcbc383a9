// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { fcntlLock, ffiAvailable, mount, processVmRead, processVmWrite, read, umount2 } from './libc.ts';

const EBADF = 9;
const EAGAIN = 11;
const EFAULT = 14;
const ENOENT = 2;
const ESRCH = 3;

const folder = mkdtempSync(join(tmpdir(), 'softsnp-libc-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe.skipIf(!ffiAvailable())('system calls through koffi', () => {
  it('answers a failing call with the negative errno', () => {
    expect(read(-1, new Uint8Array(8))).toBe(-EBADF);
  });

  it('reads into the bytes it is given', () => {
    const path = join(folder, 'read');
    writeFileSync(path, 'abc');
    const fd = openSync(path, 'r');
    const bytes = new Uint8Array(8);
    expect(read(fd, bytes)).toBe(3);
    expect([...bytes.subarray(0, 4)]).toEqual([97, 98, 99, 0]);
    closeSync(fd);
  });

  it('carries the errno of calls made on a pool thread', async () => {
    expect(await umount2(join(folder, 'nothing'), 0)).toBe(-ENOENT);
    expect(await mount('none', join(folder, 'nothing'), 'tmpfs', 0, null)).toBe(-ENOENT);
  });
});

describe.skipIf(!ffiAvailable())('fcntlLock', () => {
  const path = join(folder, 'lock');
  writeFileSync(path, 'x');

  it('lets two open file descriptions share a read lock and refuses a write lock with EAGAIN', () => {
    const [a, b] = [openSync(path, 'r+'), openSync(path, 'r+')];
    expect(fcntlLock(a, 'read')).toBe(0);
    expect(fcntlLock(b, 'read')).toBe(0);
    expect(fcntlLock(b, 'write')).toBe(EAGAIN);
    expect(fcntlLock(a, 'unlock')).toBe(0);
    expect(fcntlLock(b, 'write')).toBe(0);
    expect(fcntlLock(a, 'read')).toBe(EAGAIN);
    closeSync(b);
    expect(fcntlLock(a, 'read')).toBe(0);
    closeSync(a);
  });

  it('is seen by another program', () => {
    const fd = openSync(path, 'r+');
    expect(fcntlLock(fd, 'write')).toBe(0);
    const script =
      'import fcntl,sys,struct,errno\n' +
      'f=open(sys.argv[1],"r+")\n' +
      'try:\n fcntl.fcntl(f,37,struct.pack("hhqqi4x",0,0,0,0,0)); print("taken")\n' +
      'except OSError as e: print(errno.errorcode[e.errno])';
    const other = spawnSync('python3', ['-c', script, path], { encoding: 'utf8' });
    if (other.error === undefined) {
      expect(other.stdout.trim()).toBe('EAGAIN');
    }
    closeSync(fd);
  });

  it('answers EBADF for a write lock on a descriptor opened for reading', () => {
    const fd = openSync(path, 'r');
    expect(fcntlLock(fd, 'write')).toBe(EBADF);
    closeSync(fd);
  });
});

describe.skipIf(!ffiAvailable())('process_vm_readv and process_vm_writev', () => {
  it('answers ESRCH for a process that is gone and EFAULT for an unmapped address', () => {
    const bytes = new Uint8Array(8);
    expect(processVmRead(0x3fffffff, 0x1000n, bytes)).toBe(-ESRCH);
    expect(processVmRead(process.pid, 8n, bytes)).toBe(-EFAULT);
    expect(processVmWrite(process.pid, 8n, bytes)).toBe(-EFAULT);
  });
});
