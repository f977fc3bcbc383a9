// SPDX-License-Identifier: Apache-2.0
/**
 * A small file system for tests: an ioctl device that follows pointers, a folder in which folders are
 * made, a rendered file and a file that is written.
 */
import { Errno } from '../../abi/errno.ts';
import { concat, readU32, readU64, utf8, writeU32 } from '../../lib/bytes.ts';
import {
  type DirectoryNode,
  type FileHandle,
  type FileNode,
  type FsNode,
  fixedDirectory,
  type IoctlAnswer,
  type IoctlRequest,
  isRefusal,
  refuse,
  renderedFile,
} from './filesystem.ts';

/** _IOWR('S', nr, 32 bytes): {seed u32 @0, length u32 @4, source u64 @8, target u64 @16, out u64 @24}. */
export const TEST_XOR = 0xc020_53f0;
/** The same structure: answers -EIO and still copies the structure out. */
export const TEST_FAIL_WITH_DATA = 0xc020_53f1;
/** _IO: answers the number 12. */
export const TEST_POSITIVE = 0x53f2;
/** _IOWR, 8 bytes: answers after {ms u32 @0}, with {marker u32 @4} complemented. */
export const TEST_SLOW = 0xc008_53f3;

function xor({ input, memory }: IoctlRequest): IoctlAnswer {
  const source = memory.read(readU64(input, 8), readU32(input, 4));
  if (isRefusal(source)) {
    return { result: -source.errno };
  }
  const seed = input[0]!;
  const fault = memory.write(
    readU64(input, 16),
    source.map((byte) => byte ^ seed),
  );
  if (fault !== null) {
    return { result: -fault.errno };
  }
  return { result: 0, output: concat(input.subarray(0, 24), input.subarray(0, 8)) };
}

async function slow({ input }: IoctlRequest): Promise<IoctlAnswer> {
  await new Promise((resolve) => setTimeout(resolve, readU32(input, 0)));
  const output = input.slice();
  writeU32(output, 4, ~readU32(input, 4) >>> 0);
  return { result: 0, output };
}

/** What became of the handles of the tree. */
export interface TestCounts {
  opened: number;
  flushed: number;
  released: number;
}

function device(counts: TestCounts): FileNode {
  return {
    kind: 'file',
    mode: 0o600,
    open() {
      counts.opened += 1;
      const handle: FileHandle = {
        ioctl(request) {
          switch (request.cmd) {
            case TEST_XOR:
              return xor(request);
            case TEST_FAIL_WITH_DATA:
              return { result: -Errno.EIO, output: request.input.map((byte) => ~byte & 0xff) };
            case TEST_POSITIVE:
              return { result: 12 };
            case TEST_SLOW:
              return slow(request);
            default:
              return { result: -Errno.ENOTTY };
          }
        },
        flush() {
          counts.flushed += 1;
          return null;
        },
        release() {
          counts.released += 1;
        },
      };
      return handle;
    },
  };
}

/** A file that keeps what is written at the moment it is closed. */
function cell(): FileNode {
  let stored = utf8('empty\n');
  return {
    kind: 'file',
    mode: 0o644,
    truncate: () => null,
    open() {
      let pending: Uint8Array | null = null;
      return {
        read: (offset, size) => stored.slice(offset, offset + size),
        write(offset, data) {
          const grown = new Uint8Array(Math.max(pending?.length ?? 0, offset + data.length));
          grown.set(pending ?? []);
          grown.set(data, offset);
          pending = grown;
          return data.length;
        },
        flush() {
          stored = pending ?? stored;
          pending = null;
          return null;
        },
      };
    },
  };
}

function growing(): DirectoryNode {
  const children = new Map<string, FsNode>();
  return {
    kind: 'directory',
    mode: 0o755,
    lookup: (name) => children.get(name) ?? null,
    entries: () => children,
    mkdir(name) {
      if (name === 'forbidden') {
        return refuse(Errno.EBUSY);
      }
      const made = fixedDirectory({ name: renderedFile(() => utf8(`${name}\n`)), cell: cell() });
      children.set(name, made);
      return made;
    },
    rmdir(name) {
      children.delete(name);
      return null;
    },
  };
}

/** The tree: /device, /cell, /text, /fixed (with a hundred files), /folders. */
export function testTree(counts: TestCounts = { opened: 0, flushed: 0, released: 0 }): DirectoryNode {
  const many = Object.fromEntries(
    Array.from({ length: 100 }, (_, i) => [`file-${i}`, renderedFile(() => utf8(`${i}\n`))] as const),
  );
  return fixedDirectory({
    device: device(counts),
    cell: cell(),
    text: renderedFile(() => utf8('the quick brown fox\n'.repeat(1000))),
    fixed: fixedDirectory(many),
    folders: growing(),
  });
}
