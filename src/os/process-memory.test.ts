// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { Errno } from '../abi/errno.ts';
import { ffiAvailable } from './libc.ts';
import { callerMemory } from './process-memory.ts';

// A process that does nothing while its memory is read and written.
const idle = spawn('sleep', ['60'], { stdio: 'ignore' });
const pid = idle.pid!;
afterAll(() => {
  idle.kill('SIGKILL');
});

/** First address of its first mapping that has these permissions and whose line ends so. */
function mapping(permissions: string, end: string): bigint {
  const line = readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .find((text) => text.includes(` ${permissions} `) && text.endsWith(end));
  return BigInt(`0x${line!.split('-')[0]}`);
}

const filtered = { read: () => -Errno.EPERM, write: () => -Errno.ENOSYS };
const ELF = [0x7f, 0x45, 0x4c, 0x46];

describe.skipIf(!ffiAvailable())('callerMemory', () => {
  const self = (denied: [number, number][] = []) =>
    [
      ['process_vm_readv and process_vm_writev', callerMemory(pid)],
      ['/proc/TID/mem where those are filtered', callerMemory(pid, (...args) => denied.push(args), filtered)],
    ] as const;

  it.each(self())('copies through %s', (_, memory) => {
    expect(memory.read(mapping('r-xp', '[vdso]'), 4)).toEqual(Uint8Array.from(ELF));
    const data = mapping('rw-p', '');
    const bytes = (memory.read(data, 64) as Uint8Array).map((byte) => ~byte & 0xff);
    expect(memory.write(data, bytes)).toBeNull();
    expect(memory.read(data, 64)).toEqual(bytes);
  });

  it.each(self())('answers EFAULT for a copy across the end of a mapping through %s', (_, memory) => {
    const end = mapping('r-xp', '[vdso]');
    expect(memory.read(end - 4n, 8)).toEqual({ errno: Errno.EFAULT });
    expect(memory.write(8n, new Uint8Array(4))).toEqual({ errno: Errno.EFAULT });
  });

  it('answers EFAULT for a kernel address, one that wraps, and a length no device asks for', () => {
    const memory = callerMemory(pid);
    for (const address of [0xffff_8000_0000_0000n, 0xffff_ffff_ffff_fffcn, 1n << 57n]) {
      expect(memory.read(address, 8)).toEqual({ errno: Errno.EFAULT });
    }
    expect(memory.read(mapping('r-xp', '[vdso]'), 0xffff_ffff)).toEqual({ errno: Errno.EFAULT });
  });

  it('copies nothing from anywhere when the length is 0', () => {
    expect(callerMemory(pid).read(8n, 0)).toEqual(new Uint8Array(0));
  });

  it('answers EIO for a caller outside our pid namespace', () => {
    expect(callerMemory(0).read(4096n, 8)).toEqual({ errno: Errno.EIO });
  });

  it('tells of a process that neither way reaches', () => {
    const denied: [number, number][] = [];
    const memory = callerMemory(0x3fff_ffff, (...args) => denied.push(args), filtered);
    expect(memory.read(4096n, 8)).toEqual({ errno: Errno.EFAULT });
    expect(memory.write(4096n, new Uint8Array(8))).toEqual({ errno: Errno.EFAULT });
    expect(denied).toEqual([
      [0x3fff_ffff, Errno.EPERM],
      [0x3fff_ffff, Errno.ENOSYS],
    ]);
  });
});
