// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import {
  FUSE_ROOT_ID,
  FuseAttrOut,
  FuseBatchForgetIn,
  FuseDirent,
  FuseEntryOut,
  FuseFlushIn,
  FuseForgetIn,
  FuseForgetOne,
  FuseInHeader,
  FuseInitIn,
  FuseInitOut,
  FuseIoctlFlag,
  FuseIoctlIn,
  FuseIoctlOut,
  FuseMkdirIn,
  FuseOpcode,
  FuseOpenIn,
  FuseOpenOut,
  FuseOutHeader,
  FuseReadIn,
  FuseReleaseIn,
  FuseSetattrIn,
  FuseSetattrValid,
  FuseWriteIn,
  FuseWriteOut,
} from '../../abi/fuse.ts';
import { concat, readU32, utf8, writeU32 } from '../../lib/bytes.ts';
import type { CallerMemory } from '../../os/process-memory.ts';
import { type FileHandle, fixedDirectory, refuse, renderedFile } from './filesystem.ts';
import { FuseSession } from './session.ts';
import { TEST_FAIL_WITH_DATA, TEST_POSITIVE, TEST_SLOW, type TestCounts, testTree } from './testing.ts';

const ROOT = BigInt(FUSE_ROOT_ID);
const noMemory: CallerMemory = {
  read: () => ({ errno: Errno.EFAULT }),
  write: () => ({ errno: Errno.EFAULT }),
};

interface Answer {
  readonly errno: number;
  readonly unique: bigint;
  readonly body: Uint8Array;
}

/** The kernel's side of the wire, without a kernel. */
function connect(root = testTree()) {
  const answers: Answer[] = [];
  const faults: unknown[] = [];
  const session = new FuseSession({
    root,
    owner: { uid: 0, gid: 0 },
    nowMs: () => 1_700_000_000_123,
    memoryOf: () => noMemory,
    onFault: (error) => faults.push(error),
    send: (reply) => {
      const header = FuseOutHeader.decode(reply.subarray(0, FuseOutHeader.size));
      expect(header.len).toBe(reply.length);
      const errno = header.error === 0 ? 0 : 2 ** 32 - header.error;
      expect(errno === 0 || (errno >= 1 && errno <= 511 && reply.length === FuseOutHeader.size)).toBe(true);
      answers.push({ errno, unique: header.unique, body: reply.slice(FuseOutHeader.size) });
    },
  });
  let unique = 0n;
  const post = (opcode: number, nodeid: bigint, ...parts: Uint8Array[]): bigint => {
    unique += 2n;
    const body = concat(...parts);
    const header = FuseInHeader.encode({
      len: FuseInHeader.size + body.length,
      opcode,
      unique,
      nodeid,
      pid: 4711,
    });
    session.handle(concat(header, body));
    return unique;
  };
  /** Sends a request that is answered at once. */
  const ask = (opcode: number, nodeid: bigint, ...parts: Uint8Array[]): Answer => {
    const id = post(opcode, nodeid, ...parts);
    const answer = answers.pop();
    expect(answer?.unique).toBe(id);
    return answer!;
  };
  const lookup = (parent: bigint, name: string): bigint =>
    FuseEntryOut.decode(ask(FuseOpcode.FUSE_LOOKUP, parent, cstring(name)).body).nodeid;
  const open = (nodeid: bigint, flags = 0): bigint =>
    FuseOpenOut.decode(ask(FuseOpcode.FUSE_OPEN, nodeid, FuseOpenIn.encode({ flags })).body).fh;
  return { session, answers, faults, post, ask, lookup, open };
}

const cstring = (text: string): Uint8Array => utf8(`${text}\0`);
const getattr = new Uint8Array(16);

const ioctlIn = (fh: bigint, cmd: number, input: Uint8Array, outSize: number, flags = 0): Uint8Array =>
  concat(FuseIoctlIn.encode({ fh, cmd, flags, in_size: input.length, out_size: outSize }), input);

/** Names of READDIR records, and what precedes each in READDIRPLUS. */
function records(body: Uint8Array, plus: boolean): { name: string; off: bigint; nodeid: bigint }[] {
  const out: { name: string; off: bigint; nodeid: bigint }[] = [];
  let at = 0;
  while (at < body.length) {
    const nodeid = plus ? FuseEntryOut.get(body, 'nodeid', at) : 0n;
    at += plus ? FuseEntryOut.size : 0;
    const length = FuseDirent.get(body, 'namelen', at);
    const name = new TextDecoder().decode(body.subarray(at + FuseDirent.size, at + FuseDirent.size + length));
    out.push({ name, off: FuseDirent.get(body, 'off', at), nodeid });
    at += (FuseDirent.size + length + 7) & ~7;
  }
  expect(at).toBe(body.length);
  return out;
}

describe('FUSE_INIT', () => {
  const init = (major: number, minor: number, flags = 0xffffffff): Answer =>
    connect().ask(
      FuseOpcode.FUSE_INIT,
      0n,
      FuseInitIn.encode({ major, minor, flags, max_readahead: 131072 }),
      new Uint8Array(48),
    );

  it('answers version 7.31 to a newer minor version, with 64 bytes', () => {
    const { major, minor, max_write } = FuseInitOut.decode(init(7, 45).body);
    expect([major, minor, max_write]).toEqual([7, 31, 131072]);
  });

  it('answers the minor version of an older kernel', () => {
    expect(FuseInitOut.decode(init(7, 28).body).minor).toBe(28);
  });

  it('asks only for flags that the kernel offered', () => {
    expect(FuseInitOut.decode(init(7, 45, 0x8).body).flags).toBe(0x8);
    expect(FuseInitOut.decode(init(7, 45, 0).body).flags).toBe(0);
    expect(FuseInitOut.decode(init(7, 45).body).flags).toBe(0x246008);
  });

  it('answers 7 alone to major version 8, and EPROTO to what is too old', () => {
    expect(FuseInitOut.decode(init(8, 0).body).major).toBe(7);
    expect(init(6, 99).errno).toBe(Errno.EPROTO);
    expect(init(7, 22).errno).toBe(Errno.EPROTO);
  });

  it('takes the 16-byte request of protocol 7.35', () => {
    const { ask } = connect();
    expect(ask(FuseOpcode.FUSE_INIT, 0n, FuseInitIn.encode({ major: 7, minor: 35 })).errno).toBe(0);
  });
});

describe('requests without an operation behind them', () => {
  const op = FuseOpcode;
  it.each([
    ['FUSE_POLL', op.FUSE_POLL],
    ['FUSE_GETXATTR', op.FUSE_GETXATTR],
    ['FUSE_LISTXATTR', op.FUSE_LISTXATTR],
    ['FUSE_SETXATTR', op.FUSE_SETXATTR],
    ['FUSE_ACCESS', op.FUSE_ACCESS],
    ['FUSE_STATX', op.FUSE_STATX],
    ['FUSE_SETLK', op.FUSE_SETLK],
    ['FUSE_LSEEK', op.FUSE_LSEEK],
    ['FUSE_FSYNC', op.FUSE_FSYNC],
    ['opcode 4711', 4711],
  ])('%s is answered ENOSYS', (_, opcode) => {
    expect(connect().ask(opcode, ROOT, new Uint8Array(64)).errno).toBe(Errno.ENOSYS);
  });

  it.each([
    ['FUSE_CREATE', op.FUSE_CREATE, Errno.EACCES],
    ['FUSE_MKNOD', op.FUSE_MKNOD, Errno.EPERM],
    ['FUSE_UNLINK', op.FUSE_UNLINK, Errno.EPERM],
    ['FUSE_RENAME2', op.FUSE_RENAME2, Errno.EPERM],
    ['FUSE_SYMLINK', op.FUSE_SYMLINK, Errno.EPERM],
  ])('%s is refused as by a file system without it', (_, opcode, errno) => {
    expect(connect().ask(opcode, ROOT, new Uint8Array(64)).errno).toBe(errno);
  });

  it('leaves FORGET, BATCH_FORGET and INTERRUPT unanswered', () => {
    const { post, answers } = connect();
    post(op.FUSE_FORGET, 2n, FuseForgetIn.encode({ nlookup: 1n }));
    post(op.FUSE_BATCH_FORGET, 0n, FuseBatchForgetIn.encode({ count: 0 }));
    post(op.FUSE_INTERRUPT, 0n, new Uint8Array(8));
    expect(answers).toEqual([]);
  });

  it('answers STATFS with 80 bytes and DESTROY with none', () => {
    const { ask } = connect();
    expect(ask(op.FUSE_STATFS, ROOT).body.length).toBe(80);
    expect(ask(op.FUSE_DESTROY, 0n).body.length).toBe(0);
  });
});

describe('lookup counts', () => {
  const forget = (nlookup: bigint): Uint8Array => FuseForgetIn.encode({ nlookup });

  it('keep a node until FORGET has taken back every LOOKUP', () => {
    const { ask, post, lookup, session } = connect();
    const id = lookup(ROOT, 'cell');
    expect([lookup(ROOT, 'cell'), lookup(ROOT, 'cell')]).toEqual([id, id]);
    post(FuseOpcode.FUSE_FORGET, id, forget(2n));
    expect(ask(FuseOpcode.FUSE_GETATTR, id, getattr).errno).toBe(0);
    post(FuseOpcode.FUSE_FORGET, id, forget(1n));
    expect(ask(FuseOpcode.FUSE_GETATTR, id, getattr).errno).toBe(Errno.ENOENT);
    expect(session.nodeCount).toBe(0);
  });

  it('give a node the same number again after it was forgotten', () => {
    const { post, lookup } = connect();
    const id = lookup(ROOT, 'cell');
    post(FuseOpcode.FUSE_FORGET, id, forget(1n));
    expect(lookup(ROOT, 'text')).not.toBe(id);
    expect(lookup(ROOT, 'cell')).toBe(id);
  });

  it('survive a FORGET of more than there is, of 2^64-1 and of an unknown node', () => {
    const { ask, post, lookup, session } = connect();
    const id = lookup(ROOT, 'cell');
    post(FuseOpcode.FUSE_FORGET, id, forget(0xffffffffffffffffn));
    post(FuseOpcode.FUSE_FORGET, 999n, forget(1n));
    post(FuseOpcode.FUSE_FORGET, ROOT, forget(5n));
    expect(session.nodeCount).toBe(0);
    expect(ask(FuseOpcode.FUSE_GETATTR, ROOT, getattr).errno).toBe(0);
  });

  it('are taken back by BATCH_FORGET, whose count may lie', () => {
    const { post, lookup, session } = connect();
    const [a, b] = [lookup(ROOT, 'cell'), lookup(ROOT, 'text')];
    const one = (nodeid: bigint): Uint8Array => FuseForgetOne.encode({ nodeid, nlookup: 1n });
    post(FuseOpcode.FUSE_BATCH_FORGET, 0n, FuseBatchForgetIn.encode({ count: 0xffffffff }), one(a), one(b));
    expect(session.nodeCount).toBe(0);
  });

  it('count each entry of READDIRPLUS but neither dot', () => {
    const { ask, session } = connect();
    const { fh } = FuseOpenOut.decode(ask(FuseOpcode.FUSE_OPENDIR, ROOT, FuseOpenIn.encode({})).body);
    const page = ask(FuseOpcode.FUSE_READDIRPLUS, ROOT, FuseReadIn.encode({ fh, size: 4096 }));
    const names = records(page.body, true);
    expect(names.map(({ name }) => name)).toEqual(['.', '..', 'device', 'cell', 'text', 'fixed', 'folders']);
    expect(names.map(({ nodeid }) => nodeid !== 0n)).toEqual([false, false, true, true, true, true, true]);
    expect(session.nodeCount).toBe(5);
  });
});

describe('READDIR', () => {
  it.each([false, true])(
    'gives every name once, whatever the size of the reader’s buffer (plus: %s)',
    (plus) => {
      const { ask, lookup } = connect();
      const folder = lookup(ROOT, 'fixed');
      const { fh } = FuseOpenOut.decode(ask(FuseOpcode.FUSE_OPENDIR, folder, FuseOpenIn.encode({})).body);
      const opcode = plus ? FuseOpcode.FUSE_READDIRPLUS : FuseOpcode.FUSE_READDIR;
      for (const size of [200, 300, 1000, 65536]) {
        const names: string[] = [];
        let offset = 0n;
        for (;;) {
          const page = records(ask(opcode, folder, FuseReadIn.encode({ fh, offset, size })).body, plus);
          if (page.length === 0) {
            break;
          }
          names.push(...page.map(({ name }) => name));
          offset = page.at(-1)!.off;
        }
        expect(names.length).toBe(102);
        expect(new Set(names).size).toBe(102);
      }
    },
  );

  it('shows a new entry to a reader that starts over', () => {
    const { ask, lookup } = connect();
    const folder = lookup(ROOT, 'folders');
    const { fh } = FuseOpenOut.decode(ask(FuseOpcode.FUSE_OPENDIR, folder, FuseOpenIn.encode({})).body);
    const list = (): string[] =>
      records(ask(FuseOpcode.FUSE_READDIR, folder, FuseReadIn.encode({ fh, size: 4096 })).body, false).map(
        ({ name }) => name,
      );
    expect(list()).toEqual(['.', '..']);
    ask(FuseOpcode.FUSE_MKDIR, folder, FuseMkdirIn.encode({ mode: 0o700 }), cstring('a'));
    expect(list()).toEqual(['.', '..', 'a']);
  });
});

describe('MKDIR and RMDIR', () => {
  it('make and remove a folder; a name that is there is EEXIST, one that is not ENOENT', () => {
    const { ask, lookup } = connect();
    const folder = lookup(ROOT, 'folders');
    const mkdir = (name: string): number =>
      ask(FuseOpcode.FUSE_MKDIR, folder, FuseMkdirIn.encode({}), cstring(name)).errno;
    const rmdir = (name: string): number => ask(FuseOpcode.FUSE_RMDIR, folder, cstring(name)).errno;
    expect([mkdir('a'), mkdir('a'), mkdir('forbidden')]).toEqual([0, Errno.EEXIST, Errno.EBUSY]);
    expect([rmdir('a'), rmdir('a')]).toEqual([0, Errno.ENOENT]);
  });

  it('are EPERM in a folder that does not offer them', () => {
    const { ask, lookup } = connect();
    expect(ask(FuseOpcode.FUSE_MKDIR, ROOT, FuseMkdirIn.encode({}), cstring('a')).errno).toBe(Errno.EPERM);
    expect(ask(FuseOpcode.FUSE_RMDIR, ROOT, cstring('folders')).errno).toBe(Errno.EPERM);
    expect(ask(FuseOpcode.FUSE_RMDIR, ROOT, cstring('cell')).errno).toBe(Errno.ENOTDIR);
    expect(ask(FuseOpcode.FUSE_LOOKUP, lookup(ROOT, 'cell'), cstring('x')).errno).toBe(Errno.ENOTDIR);
  });

  it.each([
    ['no NUL at the end', utf8('abc'), Errno.EINVAL],
    ['an empty name', cstring(''), Errno.EINVAL],
    ['bytes after the NUL', concat(cstring('a'), cstring('b')), Errno.EINVAL],
    ['a slash', cstring('a/b'), Errno.EINVAL],
    ['a dot', cstring('.'), Errno.EINVAL],
    ['two dots', cstring('..'), Errno.EINVAL],
    ['256 bytes', cstring('x'.repeat(256)), Errno.ENAMETOOLONG],
    ['bytes that are not UTF-8', Uint8Array.of(0xff, 0xfe, 0), Errno.EILSEQ],
  ])('refuse %s', (_, name, errno) => {
    const { ask, lookup } = connect();
    expect(ask(FuseOpcode.FUSE_MKDIR, lookup(ROOT, 'folders'), FuseMkdirIn.encode({}), name).errno).toBe(
      errno,
    );
  });
});

describe('open files', () => {
  it('are opened with DIRECT_IO, flushed at each close and released once', () => {
    const counts: TestCounts = { opened: 0, flushed: 0, released: 0 };
    const { ask, lookup, session } = connect(testTree(counts));
    const device = lookup(ROOT, 'device');
    const opened = FuseOpenOut.decode(ask(FuseOpcode.FUSE_OPEN, device, FuseOpenIn.encode({})).body);
    expect(opened.open_flags).toBe(1);
    const { fh } = opened;
    ask(FuseOpcode.FUSE_FLUSH, device, FuseFlushIn.encode({ fh }));
    ask(FuseOpcode.FUSE_FLUSH, device, FuseFlushIn.encode({ fh }));
    expect(ask(FuseOpcode.FUSE_RELEASE, device, FuseReleaseIn.encode({ fh })).errno).toBe(0);
    expect(ask(FuseOpcode.FUSE_RELEASE, device, FuseReleaseIn.encode({ fh })).errno).toBe(Errno.EBADF);
    expect(counts).toEqual({ opened: 1, flushed: 2, released: 1 });
    expect(session.openCount).toBe(0);
  });

  it('are released when the connection ends without a RELEASE', () => {
    const counts: TestCounts = { opened: 0, flushed: 0, released: 0 };
    const { lookup, open, session } = connect(testTree(counts));
    open(lookup(ROOT, 'device'));
    session.releaseAll();
    expect(counts.released).toBe(1);
  });

  it('read and write where the client says', () => {
    const { ask, lookup, open } = connect();
    const cell = lookup(ROOT, 'cell');
    const fh = open(cell, 2);
    const write = (offset: bigint, text: string): number =>
      FuseWriteOut.decode(
        ask(FuseOpcode.FUSE_WRITE, cell, FuseWriteIn.encode({ fh, offset, size: text.length }), utf8(text))
          .body,
      ).size;
    expect([write(0n, 'abcd'), write(2n, 'xyz')]).toEqual([4, 3]);
    ask(FuseOpcode.FUSE_FLUSH, cell, FuseFlushIn.encode({ fh }));
    const read = ask(FuseOpcode.FUSE_READ, cell, FuseReadIn.encode({ fh, offset: 1n, size: 3 }));
    expect(new TextDecoder().decode(read.body)).toBe('bxy');
  });

  it('answer EINVAL where the device has no read or write, as a driver without them', () => {
    const { ask, lookup, open } = connect();
    const device = lookup(ROOT, 'device');
    const fh = open(device);
    expect(ask(FuseOpcode.FUSE_READ, device, FuseReadIn.encode({ fh, size: 8 })).errno).toBe(Errno.EINVAL);
    const write = FuseWriteIn.encode({ fh, size: 1 });
    expect(ask(FuseOpcode.FUSE_WRITE, device, write, utf8('x')).errno).toBe(Errno.EINVAL);
  });

  it('answer EINVAL for a WRITE whose size is not that of its data, and for an offset above 2^53', () => {
    const { ask, lookup, open } = connect();
    const cell = lookup(ROOT, 'cell');
    const fh = open(cell, 2);
    const write = (fields: { size: number; offset?: bigint }): number =>
      ask(FuseOpcode.FUSE_WRITE, cell, FuseWriteIn.encode({ fh, ...fields }), utf8('abc')).errno;
    expect(write({ size: 4 })).toBe(Errno.EINVAL);
    expect(write({ size: 2 })).toBe(Errno.EINVAL);
    expect(write({ size: 3, offset: 1n << 60n })).toBe(Errno.EINVAL);
  });

  it('keep what chmod, chown and utimes set', () => {
    const { ask, lookup } = connect();
    const cell = lookup(ROOT, 'cell');
    const V = FuseSetattrValid;
    const valid = V.FATTR_MODE | V.FATTR_UID | V.FATTR_MTIME;
    ask(FuseOpcode.FUSE_SETATTR, cell, FuseSetattrIn.encode({ valid, mode: 0o100640, uid: 7, mtime: 5n }));
    const { attr } = FuseAttrOut.decode(ask(FuseOpcode.FUSE_GETATTR, cell, getattr).body);
    expect([attr.mode, attr.uid, attr.gid, attr.mtime]).toEqual([0o100640, 7, 0, 5n]);
    expect([attr.atime, attr.atimensec]).toEqual([1_700_000_000n, 123_000_000]);
  });

  it('are truncated only where the device lets them', () => {
    const { ask, lookup } = connect();
    const truncate = FuseSetattrIn.encode({ valid: FuseSetattrValid.FATTR_SIZE });
    expect(ask(FuseOpcode.FUSE_SETATTR, lookup(ROOT, 'cell'), truncate).errno).toBe(0);
    expect(ask(FuseOpcode.FUSE_SETATTR, lookup(ROOT, 'device'), truncate).errno).toBe(Errno.EINVAL);
    expect(ask(FuseOpcode.FUSE_SETATTR, ROOT, truncate).errno).toBe(Errno.EISDIR);
  });
});

describe('IOCTL', () => {
  const device = () => {
    const kernel = connect();
    const node = kernel.lookup(ROOT, 'device');
    return { ...kernel, node, fh: kernel.open(node) };
  };

  it('carries a negative result together with data', () => {
    const { ask, node, fh } = device();
    const input = Uint8Array.from({ length: 32 }, (_, i) => i);
    const answer = ask(FuseOpcode.FUSE_IOCTL, node, ioctlIn(fh, TEST_FAIL_WITH_DATA, input, 32));
    expect(answer.errno).toBe(0);
    expect(FuseIoctlOut.decode(answer.body.subarray(0, 16)).result).toBe((-Errno.EIO >>> 0) as number);
    expect([...answer.body.subarray(16, 19)]).toEqual([0xff, 0xfe, 0xfd]);
  });

  it('carries a positive result', () => {
    const { ask, node, fh } = device();
    const answer = ask(FuseOpcode.FUSE_IOCTL, node, ioctlIn(fh, TEST_POSITIVE, new Uint8Array(0), 0));
    expect(FuseIoctlOut.decode(answer.body).result).toBe(12);
  });

  it.each([
    ['FUSE_IOCTL_COMPAT', FuseIoctlFlag.FUSE_IOCTL_COMPAT | FuseIoctlFlag.FUSE_IOCTL_32BIT],
    ['FUSE_IOCTL_COMPAT_X32', FuseIoctlFlag.FUSE_IOCTL_COMPAT_X32],
  ])('is ENOTTY for a 32-bit caller (%s)', (_, flags) => {
    const { ask, node, fh } = device();
    const request = ioctlIn(fh, TEST_POSITIVE, new Uint8Array(0), 0, flags);
    expect(ask(FuseOpcode.FUSE_IOCTL, node, request).errno).toBe(Errno.ENOTTY);
  });

  it('is ENOTTY on a file that has none, EBADF on no file, EINVAL with a lying in_size', () => {
    const { ask, lookup, open, node, fh } = device();
    const text = lookup(ROOT, 'text');
    const none = new Uint8Array(0);
    expect(ask(FuseOpcode.FUSE_IOCTL, text, ioctlIn(open(text), 1, none, 0)).errno).toBe(Errno.ENOTTY);
    expect(ask(FuseOpcode.FUSE_IOCTL, node, ioctlIn(999n, 1, none, 0)).errno).toBe(Errno.EBADF);
    const lying = FuseIoctlIn.encode({ fh, cmd: TEST_POSITIVE, in_size: 32 });
    expect(ask(FuseOpcode.FUSE_IOCTL, node, lying).errno).toBe(Errno.EINVAL);
  });

  it('is answered in any order when several are in flight, INTERRUPT ignored', async () => {
    const { post, answers, session, node, fh } = device();
    const slow = (ms: number): bigint => {
      const input = new Uint8Array(8);
      writeU32(input, 0, ms);
      writeU32(input, 4, ms);
      return post(FuseOpcode.FUSE_IOCTL, node, ioctlIn(fh, TEST_SLOW, input, 8));
    };
    const sent = [slow(30), slow(2), slow(15)];
    answers.splice(0);
    expect(session.inFlight).toBe(3);
    const body = new Uint8Array(8);
    writeU32(body, 0, Number(sent[0]));
    post(FuseOpcode.FUSE_INTERRUPT, 0n, body);
    await session.idle();
    expect(answers.map(({ unique }) => unique)).toEqual([sent[1], sent[2], sent[0]]);
    expect(answers.map((answer) => ~readU32(answer.body, 20) >>> 0)).toEqual([2, 15, 30]);
    expect(session.inFlight).toBe(0);
  });
});

describe('a defect in a handler', () => {
  const faulty = (handle: FileHandle) => {
    const kernel = connect(
      fixedDirectory({
        file: { kind: 'file', mode: 0o600, open: () => handle },
        text: renderedFile(() => utf8('x')),
      }),
    );
    const node = kernel.lookup(ROOT, 'file');
    return { ...kernel, node, fh: kernel.open(node) };
  };

  it.each<[string, FileHandle]>([
    ['throws', { read: () => JSON.parse('{') }],
    ['refuses with an errno the kernel does not take', { read: () => refuse(524) }],
    ['gives more than was asked for', { read: () => new Uint8Array(9) }],
  ])('%s: EIO for the client, a report for us', (_, handle) => {
    const { ask, faults, node, fh } = faulty(handle);
    expect(ask(FuseOpcode.FUSE_READ, node, FuseReadIn.encode({ fh, size: 8 })).errno).toBe(Errno.EIO);
    expect(faults.length).toBe(1);
  });

  it('rejects a promise: EIO for the client, a report for us', async () => {
    const { post, answers, faults, session, node, fh } = faulty({
      ioctl: () => Promise.reject(new TypeError('defect')),
    });
    answers.splice(0);
    post(FuseOpcode.FUSE_IOCTL, node, ioctlIn(fh, 1, new Uint8Array(0), 0));
    await session.idle();
    expect(answers.map(({ errno }) => errno)).toEqual([Errno.EIO]);
    expect(faults.length).toBe(1);
  });
});

describe('malformed requests', () => {
  const silent: ReadonlySet<number> = new Set([
    FuseOpcode.FUSE_FORGET,
    FuseOpcode.FUSE_BATCH_FORGET,
    FuseOpcode.FUSE_INTERRUPT,
  ]);

  it('shorter than a header are dropped, with a wrong length answered EIO', () => {
    const { session, answers } = connect();
    for (let length = 0; length < FuseInHeader.size; length++) {
      session.handle(new Uint8Array(length));
    }
    expect(answers).toEqual([]);
    session.handle(
      FuseInHeader.encode({ len: 41, opcode: FuseOpcode.FUSE_GETATTR, unique: 2n, nodeid: ROOT }),
    );
    expect(answers.map(({ errno }) => errno)).toEqual([Errno.EIO]);
  });

  it('of every operation, cut at every length, are answered and change nothing', () => {
    for (const opcode of Object.values(FuseOpcode)) {
      const { post, answers, faults, session } = connect();
      for (let length = 0; length <= 96; length++) {
        post(opcode, ROOT, new Uint8Array(length));
      }
      expect(answers.length).toBe(silent.has(opcode) ? 0 : 97);
      expect(faults).toEqual([]);
      expect(session.nodeCount).toBe(0);
    }
  });

  it('are survived in any number and any form: no exception, one answer each, nothing kept', async () => {
    const opcode = fc.oneof(
      { weight: 9, arbitrary: fc.constantFrom(...Object.values(FuseOpcode)) },
      { weight: 1, arbitrary: fc.nat() },
    );
    const id = fc.oneof(fc.bigInt(0n, 12n), fc.bigInt(0n, 0xffffffffffffffffn));
    const name = fc.constantFrom('device', 'cell', 'text', 'fixed', 'folders', 'a', '.', '').map(cstring);
    const body = fc.oneof(
      fc.uint8Array({ maxLength: 128 }),
      name,
      name.map((text) => concat(new Uint8Array(8), text)),
      fc
        .tuple(id, fc.uint8Array({ maxLength: 80 }))
        .map(([fh, rest]) => concat(FuseForgetIn.encode({ nlookup: fh }), rest)),
      fc
        .record({
          fh: id,
          cmd: fc.constantFrom(TEST_FAIL_WITH_DATA, TEST_POSITIVE, 0),
          in_size: fc.nat(40),
          out_size: fc.nat(40),
        })
        .chain((fields) =>
          fc
            .uint8Array({ maxLength: 40 })
            .map((input) => concat(FuseIoctlIn.encode({ ...fields, in_size: input.length }), input)),
        ),
    );
    const requests = fc.array(fc.tuple(opcode, id, body), { minLength: 1, maxLength: 200 });
    await fc.assert(
      fc.asyncProperty(requests, async (sequence) => {
        const { post, answers, session } = connect();
        let expected = 0;
        for (const [code, nodeid, bytes] of sequence) {
          post(code, nodeid, bytes);
          expected += silent.has(code) ? 0 : 1;
        }
        await session.idle();
        expect(answers.length).toBe(expected);
        session.releaseAll();
        expect(session.openCount).toBe(0);
      }),
      { numRuns: 200 },
    );
  });
});
