// SPDX-License-Identifier: Apache-2.0
/**
 * The FUSE protocol between the kernel and the server behind /dev/fuse. [LINUX-UAPI] linux/fuse.h.
 *
 * Request structures grow at the end with the protocol's minor version and have padding the kernel does
 * not promise to clear, hence `gaps: 'ignore'` throughout. Signed fields (`error`, `result`) are declared
 * as the u32 word they travel as: see `errorWord`.
 */
import { type LayoutSource, layout, u16le, u32le, u64le } from '../lib/struct.ts';

/** The version this server speaks. Newer kernels step down to it; what came later is not needed here. */
export const FUSE_KERNEL_VERSION = 7;
export const FUSE_KERNEL_MINOR_VERSION = 31;
/** The first minor version whose INIT reply has 64 bytes (Linux 3.15). */
export const FUSE_OLDEST_MINOR_VERSION = 23;

export const FUSE_ROOT_ID = 1;
export const FUSE_MIN_READ_BUFFER = 8192;
/** Longest name the kernel puts into a request. */
export const FUSE_NAME_MAX = 1024;

/** Request codes. */
export const FuseOpcode = Object.freeze({
  FUSE_LOOKUP: 1,
  FUSE_FORGET: 2,
  FUSE_GETATTR: 3,
  FUSE_SETATTR: 4,
  FUSE_READLINK: 5,
  FUSE_SYMLINK: 6,
  FUSE_MKNOD: 8,
  FUSE_MKDIR: 9,
  FUSE_UNLINK: 10,
  FUSE_RMDIR: 11,
  FUSE_RENAME: 12,
  FUSE_LINK: 13,
  FUSE_OPEN: 14,
  FUSE_READ: 15,
  FUSE_WRITE: 16,
  FUSE_STATFS: 17,
  FUSE_RELEASE: 18,
  FUSE_FSYNC: 20,
  FUSE_SETXATTR: 21,
  FUSE_GETXATTR: 22,
  FUSE_LISTXATTR: 23,
  FUSE_REMOVEXATTR: 24,
  FUSE_FLUSH: 25,
  FUSE_INIT: 26,
  FUSE_OPENDIR: 27,
  FUSE_READDIR: 28,
  FUSE_RELEASEDIR: 29,
  FUSE_FSYNCDIR: 30,
  FUSE_GETLK: 31,
  FUSE_SETLK: 32,
  FUSE_SETLKW: 33,
  FUSE_ACCESS: 34,
  FUSE_CREATE: 35,
  FUSE_INTERRUPT: 36,
  FUSE_BMAP: 37,
  FUSE_DESTROY: 38,
  FUSE_IOCTL: 39,
  FUSE_POLL: 40,
  FUSE_NOTIFY_REPLY: 41,
  FUSE_BATCH_FORGET: 42,
  FUSE_FALLOCATE: 43,
  FUSE_READDIRPLUS: 44,
  FUSE_RENAME2: 45,
  FUSE_LSEEK: 46,
  FUSE_COPY_FILE_RANGE: 47,
  FUSE_SETUPMAPPING: 48,
  FUSE_REMOVEMAPPING: 49,
  FUSE_SYNCFS: 50,
  FUSE_TMPFILE: 51,
  FUSE_STATX: 52,
} as const);

const OPCODE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(FuseOpcode).map(([name, value]) => [value, name]),
);

/** The symbol of a request code; "opcode 99" for a number without one. */
export function fuseOpcodeName(opcode: number): string {
  return OPCODE_NAMES.get(opcode) ?? `opcode ${opcode}`;
}

/** INIT flags this server asks for when the kernel offers them. */
export const FuseInitFlag = Object.freeze({
  /** O_TRUNC arrives inside OPEN instead of as a SETATTR of its own. */
  FUSE_ATOMIC_O_TRUNC: 1 << 3,
  FUSE_DO_READDIRPLUS: 1 << 13,
  FUSE_READDIRPLUS_AUTO: 1 << 14,
  /** Lookups in one directory need not wait for each other. */
  FUSE_PARALLEL_DIROPS: 1 << 18,
  /** An aborted connection reads as ECONNABORTED, an unmounted one as ENODEV. */
  FUSE_ABORT_ERROR: 1 << 21,
} as const);

/** Flags of an OPEN reply. */
export const FuseOpenFlag = Object.freeze({
  /** Every read and write of the client becomes a request, whatever st_size says. */
  FOPEN_DIRECT_IO: 1 << 0,
} as const);

/** Which members of a SETATTR request count. */
export const FuseSetattrValid = Object.freeze({
  FATTR_MODE: 1 << 0,
  FATTR_UID: 1 << 1,
  FATTR_GID: 1 << 2,
  FATTR_SIZE: 1 << 3,
  FATTR_ATIME: 1 << 4,
  FATTR_MTIME: 1 << 5,
  FATTR_FH: 1 << 6,
  FATTR_ATIME_NOW: 1 << 7,
  FATTR_MTIME_NOW: 1 << 8,
  FATTR_LOCKOWNER: 1 << 9,
  FATTR_CTIME: 1 << 10,
  FATTR_KILL_SUIDGID: 1 << 11,
} as const);

/** Flags of an IOCTL request. */
export const FuseIoctlFlag = Object.freeze({
  FUSE_IOCTL_COMPAT: 1 << 0,
  FUSE_IOCTL_UNRESTRICTED: 1 << 1,
  FUSE_IOCTL_RETRY: 1 << 2,
  FUSE_IOCTL_32BIT: 1 << 3,
  FUSE_IOCTL_DIR: 1 << 4,
  FUSE_IOCTL_COMPAT_X32: 1 << 5,
} as const);

/** File types: the bits of st_mode, and the type byte of a directory entry. */
export const FileType = Object.freeze({
  S_IFDIR: 0o040000,
  S_IFREG: 0o100000,
  DT_DIR: 4,
  DT_REG: 8,
} as const);

/** The u32 that carries `0` or `-errno` in a reply. */
export function errorWord(value: number): number {
  return value >>> 0;
}

type CNames = Readonly<Record<string, string | null>>;

const source = (struct: string, names?: CNames): LayoutSource => ({
  spec: 'LINUX-UAPI',
  at: `linux/fuse.h struct ${struct}`,
  gaps: 'ignore',
  c: { header: 'linux/fuse.h', struct, ...(names === undefined ? {} : { names }) },
});

/** Head of every request. `pid` is a thread id in the server's pid namespace, 0 when it is not visible there. */
export const FuseInHeader = layout('FuseInHeader', 40, source('fuse_in_header'), {
  len: [0, u32le, 'whole request'],
  opcode: [4, u32le],
  unique: [8, u64le, 'even for requests; INTERRUPT uses the odd number after it'],
  nodeid: [16, u64le],
  uid: [24, u32le],
  gid: [28, u32le],
  pid: [32, u32le],
});

/** Head of every reply. */
export const FuseOutHeader = layout('FuseOutHeader', 16, source('fuse_out_header'), {
  len: [0, u32le, 'whole reply'],
  error: [4, u32le, '0 or -errno, at least -511'],
  unique: [8, u64le],
});

/** INIT request, the part every kernel sends. */
export const FuseInitIn = layout(
  'FuseInitIn',
  16,
  {
    spec: 'LINUX-UAPI',
    at: 'linux/fuse.h struct fuse_init_in (16 bytes before protocol 7.36, 64 since)',
    gaps: 'ignore',
  },
  { major: [0, u32le], minor: [4, u32le], max_readahead: [8, u32le], flags: [12, u32le] },
);

export const FuseInitOut = layout('FuseInitOut', 64, source('fuse_init_out'), {
  major: [0, u32le],
  minor: [4, u32le],
  max_readahead: [8, u32le],
  flags: [12, u32le],
  max_background: [16, u16le],
  congestion_threshold: [18, u16le],
  max_write: [20, u32le],
  time_gran: [24, u32le],
  max_pages: [28, u16le],
  map_alignment: [30, u16le],
  flags2: [32, u32le],
});

export const FuseAttr = layout('FuseAttr', 88, source('fuse_attr'), {
  ino: [0, u64le],
  size: [8, u64le],
  blocks: [16, u64le],
  atime: [24, u64le],
  mtime: [32, u64le],
  ctime: [40, u64le],
  atimensec: [48, u32le],
  mtimensec: [52, u32le],
  ctimensec: [56, u32le],
  mode: [60, u32le, 'type and permissions'],
  nlink: [64, u32le],
  uid: [68, u32le],
  gid: [72, u32le],
  rdev: [76, u32le],
  blksize: [80, u32le],
  flags: [84, u32le],
});

export const FuseAttrOut = layout('FuseAttrOut', 104, source('fuse_attr_out'), {
  attr_valid: [0, u64le, 'seconds'],
  attr_valid_nsec: [8, u32le],
  attr: [16, FuseAttr.codec],
});

export const FuseEntryOut = layout('FuseEntryOut', 128, source('fuse_entry_out'), {
  nodeid: [0, u64le],
  generation: [8, u64le],
  entry_valid: [16, u64le, 'seconds'],
  attr_valid: [24, u64le, 'seconds'],
  entry_valid_nsec: [32, u32le],
  attr_valid_nsec: [36, u32le],
  attr: [40, FuseAttr.codec],
});

export const FuseForgetIn = layout('FuseForgetIn', 8, source('fuse_forget_in'), { nlookup: [0, u64le] });

export const FuseBatchForgetIn = layout('FuseBatchForgetIn', 8, source('fuse_batch_forget_in'), {
  count: [0, u32le],
});

export const FuseForgetOne = layout('FuseForgetOne', 16, source('fuse_forget_one'), {
  nodeid: [0, u64le],
  nlookup: [8, u64le],
});

export const FuseSetattrIn = layout('FuseSetattrIn', 88, source('fuse_setattr_in'), {
  valid: [0, u32le],
  fh: [8, u64le],
  size: [16, u64le],
  lock_owner: [24, u64le],
  atime: [32, u64le],
  mtime: [40, u64le],
  ctime: [48, u64le],
  atimensec: [56, u32le],
  mtimensec: [60, u32le],
  ctimensec: [64, u32le],
  mode: [68, u32le],
  uid: [76, u32le],
  gid: [80, u32le],
});

export const FuseMkdirIn = layout('FuseMkdirIn', 8, source('fuse_mkdir_in'), {
  mode: [0, u32le],
  umask: [4, u32le],
});

export const FuseOpenIn = layout('FuseOpenIn', 8, source('fuse_open_in'), {
  flags: [0, u32le, 'flags of open(2) without O_CREAT, O_EXCL, O_NOCTTY'],
  open_flags: [4, u32le],
});

export const FuseOpenOut = layout('FuseOpenOut', 16, source('fuse_open_out'), {
  fh: [0, u64le],
  open_flags: [8, u32le],
});

export const FuseReleaseIn = layout('FuseReleaseIn', 24, source('fuse_release_in'), {
  fh: [0, u64le],
  flags: [8, u32le],
  release_flags: [12, u32le],
  lock_owner: [16, u64le],
});

export const FuseFlushIn = layout('FuseFlushIn', 24, source('fuse_flush_in'), {
  fh: [0, u64le],
  lock_owner: [16, u64le],
});

/** READ, READDIR and READDIRPLUS requests. */
export const FuseReadIn = layout('FuseReadIn', 40, source('fuse_read_in'), {
  fh: [0, u64le],
  offset: [8, u64le],
  size: [16, u32le],
  read_flags: [20, u32le],
  lock_owner: [24, u64le],
  flags: [32, u32le],
});

export const FuseWriteIn = layout('FuseWriteIn', 40, source('fuse_write_in'), {
  fh: [0, u64le],
  offset: [8, u64le],
  size: [16, u32le],
  write_flags: [20, u32le],
  lock_owner: [24, u64le],
  flags: [32, u32le],
});

export const FuseWriteOut = layout('FuseWriteOut', 8, source('fuse_write_out'), { size: [0, u32le] });

export const FuseStatfsOut = layout('FuseStatfsOut', 80, source('fuse_kstatfs'), {
  blocks: [0, u64le],
  bfree: [8, u64le],
  bavail: [16, u64le],
  files: [24, u64le],
  ffree: [32, u64le],
  bsize: [40, u32le],
  namelen: [44, u32le],
  frsize: [48, u32le],
});

/** Head of one READDIR record; the name follows, and zeros up to a multiple of eight. */
export const FuseDirent = layout('FuseDirent', 24, source('fuse_dirent'), {
  ino: [0, u64le],
  off: [8, u64le, 'cookie of the entry after this one'],
  namelen: [16, u32le],
  type: [20, u32le],
});

export const FuseIoctlIn = layout('FuseIoctlIn', 32, source('fuse_ioctl_in'), {
  fh: [0, u64le],
  flags: [8, u32le],
  cmd: [12, u32le],
  arg: [16, u64le, 'third argument of ioctl(2), as the client gave it'],
  in_size: [24, u32le],
  out_size: [28, u32le],
});

export const FuseIoctlOut = layout('FuseIoctlOut', 16, source('fuse_ioctl_out'), {
  result: [0, u32le, 'return value of ioctl(2), or -errno; data is copied out in either case'],
  flags: [4, u32le],
  in_iovs: [8, u32le],
  out_iovs: [12, u32le],
});
