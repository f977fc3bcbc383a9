// SPDX-License-Identifier: Apache-2.0
/**
 * One FUSE connection as a function from request bytes to reply bytes: no descriptor, no timer, no mount.
 *
 * The kernel is trusted to be the kernel, yet nothing here depends on it: every length and number of a
 * request is checked, and a request that makes no sense is answered with an errno.
 */
import { Errno } from '../../abi/errno.ts';
import {
  errorWord,
  FileType,
  FUSE_KERNEL_MINOR_VERSION,
  FUSE_KERNEL_VERSION,
  FUSE_OLDEST_MINOR_VERSION,
  FuseAttrOut,
  FuseBatchForgetIn,
  FuseDirent,
  FuseEntryOut,
  FuseFlushIn,
  FuseForgetIn,
  FuseForgetOne,
  FuseInHeader,
  FuseInitFlag,
  FuseInitIn,
  FuseInitOut,
  FuseIoctlFlag,
  FuseIoctlIn,
  FuseIoctlOut,
  FuseMkdirIn,
  FuseOpcode,
  FuseOpenFlag,
  FuseOpenIn,
  FuseOpenOut,
  FuseOutHeader,
  FuseReadIn,
  FuseReleaseIn,
  FuseSetattrIn,
  FuseSetattrValid,
  FuseStatfsOut,
  FuseWriteIn,
  FuseWriteOut,
  fuseOpcodeName,
} from '../../abi/fuse.ts';
import { PAGE_SIZE } from '../../lib/addresses.ts';
import { concat, utf8 } from '../../lib/bytes.ts';
import { BugError, invariant } from '../../lib/errors.ts';
import type { DecodedFields, FieldTable, Layout } from '../../lib/struct.ts';
import type { CallerMemory } from '../../os/process-memory.ts';
import {
  type Caller,
  type DirectoryNode,
  type Eventually,
  type FileHandle,
  type FsNode,
  isRefusal,
  type Refusal,
  refuse,
} from './filesystem.ts';
import { type FuseTime, NodeTable, type Owner } from './node-table.ts';

/** Largest WRITE: 32 pages, the kernel's own default for one request. */
export const FUSE_MAX_WRITE = 32 * PAGE_SIZE;
/** Room for the largest request: a WRITE and the heads before its data. */
export const FUSE_REQUEST_BUFFER_SIZE = FUSE_MAX_WRITE + PAGE_SIZE;

const NAME_MAX = 255;
const MAX_OPEN_FILES = 65_536;
/** More than FUSE_MAX_WRITE, as a reader may ask for what a writer may not send. */
const MAX_READ = 1 << 20;

const { FUSE_ATOMIC_O_TRUNC, FUSE_DO_READDIRPLUS, FUSE_READDIRPLUS_AUTO } = FuseInitFlag;
const WANTED_FLAGS =
  FUSE_ATOMIC_O_TRUNC |
  FUSE_DO_READDIRPLUS |
  FUSE_READDIRPLUS_AUTO |
  FuseInitFlag.FUSE_PARALLEL_DIROPS |
  FuseInitFlag.FUSE_ABORT_ERROR;

const COMPAT_FLAGS =
  FuseIoctlFlag.FUSE_IOCTL_COMPAT | FuseIoctlFlag.FUSE_IOCTL_32BIT | FuseIoctlFlag.FUSE_IOCTL_COMPAT_X32;

export interface FuseSessionOptions {
  readonly root: DirectoryNode;
  /** Who owns the nodes until somebody changes it. */
  readonly owner: Owner;
  readonly nowMs: () => number;
  readonly memoryOf: (pid: number) => CallerMemory;
  /** Hands one reply to the kernel. */
  readonly send: (reply: Uint8Array) => void;
  /** A handler threw, or answered what it may not: the client gets EIO. */
  readonly onFault: (error: unknown, request: string) => void;
}

interface Request {
  readonly opcode: number;
  readonly unique: bigint;
  readonly nodeid: bigint;
  readonly caller: Caller;
  readonly body: Uint8Array;
}

interface OpenFile {
  readonly kind: 'file';
  readonly handle: FileHandle;
}

interface OpenDirectory {
  readonly kind: 'directory';
  readonly node: DirectoryNode;
  /** What READDIR walks over; taken anew when a reader starts at 0. */
  listing: readonly (readonly [name: string, node: FsNode])[];
}

const NO_REPLY = Symbol('no reply');
const EMPTY = new Uint8Array(0);
/** What a request is answered with: the bytes after the reply header, a refusal, or nothing at all. */
type Reply = Uint8Array | Refusal | typeof NO_REPLY;
type Handler = (request: Request) => Eventually<Reply>;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export class FuseSession {
  readonly #options: FuseSessionOptions;
  readonly #nodes: NodeTable;
  readonly #open = new Map<number, OpenFile | OpenDirectory>();
  readonly #handlers: ReadonlyMap<number, Handler>;
  #nextFh = 1;
  #inFlight = 0;
  #whenIdle: (() => void)[] = [];

  constructor(options: FuseSessionOptions) {
    this.#options = options;
    this.#nodes = new NodeTable(options.root, options.owner, () => this.#now());
    this.#handlers = this.#table();
  }

  /** Open files and directories. */
  get openCount(): number {
    return this.#open.size;
  }

  /** Nodes the kernel refers to, the root aside. */
  get nodeCount(): number {
    return this.#nodes.size;
  }

  /** Requests whose answer is still being made. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Resolves when no request waits for its answer. */
  idle(): Promise<void> {
    return this.#inFlight === 0
      ? Promise.resolve()
      : new Promise((resolve) => {
          this.#whenIdle.push(resolve);
        });
  }

  /** Releases every handle: the connection is gone and no RELEASE will come. */
  releaseAll(): void {
    const handles = [...this.#open.values()];
    this.#open.clear();
    for (const open of handles) {
      if (open.kind === 'file') {
        this.#guard('end of the connection', () => {
          open.handle.release?.();
          return EMPTY;
        });
      }
    }
  }

  /**
   * Answers one request, now or later.
   *
   * Bytes too short to hold a `unique` cannot be answered and are dropped. The session keeps views of
   * `bytes`: give it a copy.
   */
  handle(bytes: Uint8Array): void {
    if (bytes.length < FuseInHeader.size) {
      return;
    }
    const header = FuseInHeader.decodeLoose(bytes.subarray(0, FuseInHeader.size));
    const request: Request = {
      opcode: header.opcode,
      unique: header.unique,
      nodeid: header.nodeid,
      caller: { uid: header.uid, gid: header.gid, pid: header.pid },
      body: bytes.subarray(FuseInHeader.size),
    };
    const name = fuseOpcodeName(request.opcode);
    const reply = this.#guard(name, () => {
      if (header.len !== bytes.length) {
        return refuse(Errno.EIO);
      }
      const handler = this.#handlers.get(request.opcode);
      return handler === undefined ? refuse(Errno.ENOSYS) : handler(request);
    });
    if (reply instanceof Promise) {
      this.#inFlight += 1;
      void reply.then((settled) => {
        this.#answer(request.unique, settled);
        this.#inFlight -= 1;
        if (this.#inFlight === 0) {
          for (const resolve of this.#whenIdle.splice(0)) {
            resolve();
          }
        }
      });
    } else {
      this.#answer(request.unique, reply);
    }
  }

  /** Runs a handler so that whatever it throws becomes EIO for one client. */
  #guard(name: string, run: () => Eventually<Reply>): Eventually<Reply> {
    const failed = (error: unknown): Reply => {
      this.#options.onFault(error, name);
      return refuse(Errno.EIO);
    };
    const checked = (reply: Reply): Reply =>
      isRefusal(reply) && !validErrno(reply.errno)
        ? failed(new BugError(`errno ${reply.errno} cannot be told to the kernel`))
        : reply;
    try {
      const reply = run();
      return reply instanceof Promise ? reply.then(checked).catch(failed) : checked(reply);
    } catch (error) {
      return failed(error);
    }
  }

  #answer(unique: bigint, reply: Reply): void {
    if (reply === NO_REPLY) {
      return;
    }
    const body = isRefusal(reply) ? EMPTY : reply;
    const bytes = new Uint8Array(FuseOutHeader.size + body.length);
    FuseOutHeader.set(bytes, 'len', bytes.length);
    FuseOutHeader.set(bytes, 'error', isRefusal(reply) ? errorWord(-reply.errno) : 0);
    FuseOutHeader.set(bytes, 'unique', unique);
    bytes.set(body, FuseOutHeader.size);
    this.#options.send(bytes);
  }

  #now(): FuseTime {
    const ms = this.#options.nowMs();
    return { seconds: BigInt(Math.floor(ms / 1000)), nanoseconds: Math.floor(ms % 1000) * 1_000_000 };
  }

  /**
   * Every request this server knows. What is missing is answered ENOSYS, after which the kernel stops
   * asking (POLL, ACCESS, GETXATTR, LISTXATTR, FSYNC, LSEEK, STATX) or falls back (SETLK: local locks).
   * The operations refused here are those of a file system without the inode operation.
   */
  #table(): ReadonlyMap<number, Handler> {
    const op = FuseOpcode;
    const always =
      (errno: number): Handler =>
      () =>
        refuse(errno);
    return new Map<number, Handler>([
      [op.FUSE_INIT, (r) => this.#init(r)],
      [op.FUSE_DESTROY, () => EMPTY],
      [op.FUSE_INTERRUPT, () => NO_REPLY],
      [op.FUSE_LOOKUP, (r) => this.#lookup(r)],
      [op.FUSE_FORGET, (r) => this.#forget(r)],
      [op.FUSE_BATCH_FORGET, (r) => this.#batchForget(r)],
      [op.FUSE_GETATTR, (r) => this.#withNode(r, (node) => this.#attrOut(node))],
      [op.FUSE_SETATTR, (r) => this.#setattr(r)],
      [op.FUSE_OPEN, (r) => this.#openFile(r)],
      [op.FUSE_READ, (r) => this.#read(r)],
      [op.FUSE_WRITE, (r) => this.#write(r)],
      [op.FUSE_IOCTL, (r) => this.#ioctl(r)],
      [op.FUSE_FLUSH, (r) => this.#flush(r)],
      [op.FUSE_RELEASE, (r) => this.#release(r, 'file')],
      [op.FUSE_OPENDIR, (r) => this.#openDirectory(r)],
      [op.FUSE_READDIR, (r) => this.#readdir(r, false)],
      [op.FUSE_READDIRPLUS, (r) => this.#readdir(r, true)],
      [op.FUSE_RELEASEDIR, (r) => this.#release(r, 'directory')],
      [op.FUSE_MKDIR, (r) => this.#mkdir(r)],
      [op.FUSE_RMDIR, (r) => this.#rmdir(r)],
      [op.FUSE_STATFS, () => STATFS],
      [op.FUSE_CREATE, always(Errno.EACCES)],
      [op.FUSE_MKNOD, always(Errno.EPERM)],
      [op.FUSE_SYMLINK, always(Errno.EPERM)],
      [op.FUSE_LINK, always(Errno.EPERM)],
      [op.FUSE_UNLINK, always(Errno.EPERM)],
      [op.FUSE_RENAME, always(Errno.EPERM)],
      [op.FUSE_RENAME2, always(Errno.EPERM)],
      [op.FUSE_READLINK, always(Errno.EINVAL)],
    ]);
  }

  // --- connection

  #init(request: Request): Reply {
    const init = head(FuseInitIn, request.body);
    if (init === null) {
      return refuse(Errno.EIO);
    }
    if (init.major > FUSE_KERNEL_VERSION) {
      // The kernel steps down to our major version and sends a second INIT.
      return FuseInitOut.encode({ major: FUSE_KERNEL_VERSION, minor: FUSE_KERNEL_MINOR_VERSION });
    }
    if (init.major < FUSE_KERNEL_VERSION || init.minor < FUSE_OLDEST_MINOR_VERSION) {
      return refuse(Errno.EPROTO);
    }
    return FuseInitOut.encode({
      major: FUSE_KERNEL_VERSION,
      minor: Math.min(init.minor, FUSE_KERNEL_MINOR_VERSION),
      max_readahead: init.max_readahead,
      flags: (init.flags & WANTED_FLAGS) >>> 0,
      max_write: FUSE_MAX_WRITE,
      time_gran: 1,
    });
  }

  // --- nodes

  #withNode(request: Request, then: (node: FsNode) => Eventually<Reply>): Eventually<Reply> {
    const node = this.#nodes.get(request.nodeid);
    return node === null ? refuse(Errno.ENOENT) : then(node);
  }

  #withDirectory(request: Request, then: (node: DirectoryNode) => Eventually<Reply>): Eventually<Reply> {
    return this.#withNode(request, (node) =>
      node.kind === 'directory' ? then(node) : refuse(Errno.ENOTDIR),
    );
  }

  #attrOut(node: FsNode): Uint8Array {
    // Valid for no time at all: what a device shows may change between any two system calls.
    return FuseAttrOut.encode({ attr: this.#nodes.attr(node) });
  }

  /** Tells the kernel of a node, which counts as a reference. */
  #entryOut(node: FsNode): Uint8Array {
    this.#nodes.reference(node);
    return FuseEntryOut.encode({ nodeid: BigInt(this.#nodes.idOf(node)), attr: this.#nodes.attr(node) });
  }

  #lookup(request: Request): Eventually<Reply> {
    return this.#withDirectory(request, (directory) => {
      const name = nameIn(request.body);
      if (isRefusal(name)) {
        // A name that is not UTF-8 is a name nothing has.
        return name.errno === Errno.EILSEQ ? refuse(Errno.ENOENT) : name;
      }
      const node = directory.lookup(name.text);
      return node === null ? refuse(Errno.ENOENT) : this.#entryOut(node);
    });
  }

  #forget(request: Request): Reply {
    const forget = head(FuseForgetIn, request.body);
    if (forget !== null) {
      this.#nodes.forget(request.nodeid, forget.nlookup);
    }
    return NO_REPLY;
  }

  #batchForget(request: Request): Reply {
    const { body } = request;
    const batch = head(FuseBatchForgetIn, body);
    if (batch !== null) {
      let at = FuseBatchForgetIn.size;
      for (let i = 0; i < batch.count && at + FuseForgetOne.size <= body.length; i++) {
        const one = FuseForgetOne.decodeLoose(body.subarray(at, at + FuseForgetOne.size));
        this.#nodes.forget(one.nodeid, one.nlookup);
        at += FuseForgetOne.size;
      }
    }
    return NO_REPLY;
  }

  #setattr(request: Request): Eventually<Reply> {
    return this.#withNode(request, (node) => {
      const change = head(FuseSetattrIn, request.body);
      if (change === null) {
        return refuse(Errno.EINVAL);
      }
      const { valid } = change;
      const V = FuseSetattrValid;
      if ((valid & V.FATTR_SIZE) !== 0) {
        const refused = truncate(node, change.size);
        if (refused !== null) {
          return refused;
        }
      }
      const attributes = this.#nodes.attributes(node);
      if ((valid & V.FATTR_MODE) !== 0) {
        attributes.mode = change.mode & 0o7777;
      }
      if ((valid & V.FATTR_UID) !== 0) {
        attributes.uid = change.uid;
      }
      if ((valid & V.FATTR_GID) !== 0) {
        attributes.gid = change.gid;
      }
      if ((valid & V.FATTR_ATIME) !== 0) {
        const given = { seconds: change.atime, nanoseconds: change.atimensec };
        attributes.atime = (valid & V.FATTR_ATIME_NOW) === 0 ? given : this.#now();
      }
      if ((valid & V.FATTR_MTIME) !== 0) {
        const given = { seconds: change.mtime, nanoseconds: change.mtimensec };
        attributes.mtime = (valid & V.FATTR_MTIME_NOW) === 0 ? given : this.#now();
      }
      attributes.ctime = this.#now();
      return this.#attrOut(node);
    });
  }

  #mkdir(request: Request): Eventually<Reply> {
    return this.#withDirectory(request, (parent) => {
      if (head(FuseMkdirIn, request.body) === null) {
        return refuse(Errno.EINVAL);
      }
      const name = nameIn(request.body.subarray(FuseMkdirIn.size));
      if (isRefusal(name)) {
        return name;
      }
      if (parent.lookup(name.text) !== null) {
        return refuse(Errno.EEXIST);
      }
      return after(parent.mkdir?.(name.text, request.caller) ?? refuse(Errno.EPERM), (made) =>
        isRefusal(made) ? made : this.#entryOut(made),
      );
    });
  }

  #rmdir(request: Request): Eventually<Reply> {
    return this.#withDirectory(request, (parent) => {
      const name = nameIn(request.body);
      if (isRefusal(name)) {
        return name;
      }
      const node = parent.lookup(name.text);
      if (node?.kind !== 'directory') {
        return refuse(node === null ? Errno.ENOENT : Errno.ENOTDIR);
      }
      if (parent.rmdir === undefined) {
        return refuse(Errno.EPERM);
      }
      return after(parent.rmdir(name.text, request.caller), (refused) => refused ?? EMPTY);
    });
  }

  // --- open files

  #register(open: OpenFile | OpenDirectory, openFlags: number): Reply {
    const fh = this.#nextFh;
    this.#nextFh += 1;
    this.#open.set(fh, open);
    return FuseOpenOut.encode({ fh: BigInt(fh), open_flags: openFlags });
  }

  /** Decodes what a request on an open file begins with and finds the file. */
  #onFile<F extends FieldTable & { fh: unknown }>(
    request: Request,
    layout: Layout<F>,
    then: (handle: FileHandle, fields: DecodedFields<F>, rest: Uint8Array) => Eventually<Reply>,
  ): Eventually<Reply> {
    const fields = head(layout, request.body);
    if (fields === null) {
      return refuse(Errno.EINVAL);
    }
    const open = this.#open.get(Number(fields.fh));
    return open?.kind === 'file'
      ? then(open.handle, fields, request.body.subarray(layout.size))
      : refuse(Errno.EBADF);
  }

  #openFile(request: Request): Eventually<Reply> {
    return this.#withNode(request, (node) => {
      const open = head(FuseOpenIn, request.body);
      if (open === null) {
        return refuse(Errno.EINVAL);
      }
      if (node.kind !== 'file') {
        return refuse(Errno.EISDIR);
      }
      if (this.#open.size >= MAX_OPEN_FILES) {
        return refuse(Errno.ENFILE);
      }
      return after(node.open(open.flags, request.caller), (handle) =>
        isRefusal(handle) ? handle : this.#register({ kind: 'file', handle }, FuseOpenFlag.FOPEN_DIRECT_IO),
      );
    });
  }

  #release(request: Request, kind: 'file' | 'directory'): Reply {
    const release = head(FuseReleaseIn, request.body);
    if (release === null) {
      return refuse(Errno.EINVAL);
    }
    const open = this.#open.get(Number(release.fh));
    if (open?.kind !== kind) {
      return refuse(Errno.EBADF);
    }
    this.#open.delete(Number(release.fh));
    if (open.kind === 'file') {
      open.handle.release?.();
    }
    return EMPTY;
  }

  #flush(request: Request): Eventually<Reply> {
    return this.#onFile(request, FuseFlushIn, (handle) =>
      after(handle.flush?.(request.caller) ?? null, (refused) => refused ?? EMPTY),
    );
  }

  #read(request: Request): Eventually<Reply> {
    return this.#onFile(request, FuseReadIn, (handle, { offset, size }) => {
      const at = Number(offset);
      if (handle.read === undefined || !Number.isSafeInteger(at) || size > MAX_READ) {
        return refuse(Errno.EINVAL);
      }
      return after(handle.read(at, size, request.caller), (data) => {
        invariant(isRefusal(data) || data.length <= size, 'a read handler gave more than was asked for');
        return data;
      });
    });
  }

  #write(request: Request): Eventually<Reply> {
    return this.#onFile(request, FuseWriteIn, (handle, { offset, size }, data) => {
      const at = Number(offset);
      if (handle.write === undefined || !Number.isSafeInteger(at) || data.length !== size) {
        return refuse(Errno.EINVAL);
      }
      return after(handle.write(at, data, request.caller), (count) => {
        if (isRefusal(count)) {
          return count;
        }
        invariant(count >= 0 && count <= size, 'a write handler took more than it was given');
        return FuseWriteOut.encode({ size: count });
      });
    });
  }

  #ioctl(request: Request): Eventually<Reply> {
    return this.#onFile(request, FuseIoctlIn, (handle, { cmd, arg, flags, in_size, out_size }, input) => {
      if (input.length !== in_size) {
        return refuse(Errno.EINVAL);
      }
      if (handle.ioctl === undefined || (flags & COMPAT_FLAGS) !== 0) {
        return refuse(Errno.ENOTTY);
      }
      const memory = this.#options.memoryOf(request.caller.pid);
      const answer = handle.ioctl({ cmd, arg, input, outputSize: out_size, caller: request.caller, memory });
      return after(answer, ({ result, output = EMPTY }) => {
        invariant(output.length <= out_size, 'an ioctl handler gave more than its number copies out');
        return concat(FuseIoctlOut.encode({ result: errorWord(result) }), output);
      });
    });
  }

  // --- directories

  #openDirectory(request: Request): Eventually<Reply> {
    return this.#withDirectory(request, (node) =>
      this.#open.size >= MAX_OPEN_FILES
        ? refuse(Errno.ENFILE)
        : this.#register({ kind: 'directory', node, listing: [...node.entries()] }, 0),
    );
  }

  /** Records from the cookie on, as many as fit; READDIRPLUS puts the entry of LOOKUP before each. */
  #readdir(request: Request, plus: boolean): Reply {
    const read = head(FuseReadIn, request.body);
    const open = read === null ? undefined : this.#open.get(Number(read.fh));
    if (read === null || open?.kind !== 'directory') {
      return refuse(Errno.EBADF);
    }
    if (read.size > MAX_READ) {
      return refuse(Errno.EINVAL);
    }
    if (read.offset === 0n) {
      open.listing = [...open.node.entries()];
    }
    const dots = ['.', '..'].map((name) => [name, open.node] as const);
    const entries = [...dots, ...open.listing];
    const records: Uint8Array[] = [];
    let room = read.size;
    // A cookie is the index of the next entry.
    for (let at = Number(read.offset); at < entries.length; at++) {
      const [name, node] = entries[at]!;
      const record = this.#dirent(name, node, at + 1);
      const size = record.length + (plus ? FuseEntryOut.size : 0);
      if (size > room) {
        break;
      }
      room -= size;
      if (plus) {
        // The dots are no references: nodeid 0 says that nothing is known about them.
        records.push(at < dots.length ? FuseEntryOut.encode({}) : this.#entryOut(node));
      }
      records.push(record);
    }
    return concat(...records);
  }

  #dirent(name: string, node: FsNode, off: number): Uint8Array {
    const text = utf8(name);
    const record = new Uint8Array((FuseDirent.size + text.length + 7) & ~7);
    FuseDirent.set(record, 'ino', BigInt(this.#nodes.idOf(node)));
    FuseDirent.set(record, 'off', BigInt(off));
    FuseDirent.set(record, 'namelen', text.length);
    FuseDirent.set(record, 'type', node.kind === 'file' ? FileType.DT_REG : FileType.DT_DIR);
    record.set(text, FuseDirent.size);
    return record;
  }
}

/** Numbers that say "as good as empty": nothing is stored here. */
const STATFS = FuseStatfsOut.encode({ bsize: PAGE_SIZE, frsize: PAGE_SIZE, namelen: NAME_MAX });

/** The structure a body begins with; null when the body is shorter. */
function head<F extends FieldTable>(layout: Layout<F>, body: Uint8Array): DecodedFields<F> | null {
  return body.length < layout.size ? null : layout.decodeLoose(body.subarray(0, layout.size));
}

/** `then` with the answer: at once when it is there, so that a device that need not wait costs no turn. */
function after<A, B>(answer: Eventually<A>, then: (answer: A) => B): Eventually<B> {
  return answer instanceof Promise ? answer.then(then) : then(answer);
}

function validErrno(errno: number): boolean {
  return Number.isInteger(errno) && errno >= 1 && errno <= 511;
}

/** The one name a body consists of: bytes up to a NUL that ends the body. Dots are resolved by the kernel. */
function nameIn(body: Uint8Array): { readonly text: string } | Refusal {
  const end = body.indexOf(0);
  if (end < 1 || end !== body.length - 1 || body.includes(0x2f)) {
    return refuse(Errno.EINVAL);
  }
  if (end > NAME_MAX) {
    return refuse(Errno.ENAMETOOLONG);
  }
  let text: string;
  try {
    text = decoder.decode(body.subarray(0, end));
  } catch {
    return refuse(Errno.EILSEQ);
  }
  return text === '.' || text === '..' ? refuse(Errno.EINVAL) : { text };
}

function truncate(node: FsNode, size: bigint): null | Refusal {
  if (node.kind === 'directory') {
    return refuse(Errno.EISDIR);
  }
  return node.truncate === undefined ? refuse(Errno.EINVAL) : node.truncate(size);
}
