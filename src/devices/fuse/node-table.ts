// SPDX-License-Identifier: Apache-2.0
/** Which node the kernel means by a number, and what stat(2) says about it. */
import { FileType, FUSE_ROOT_ID, type FuseAttr } from '../../abi/fuse.ts';
import { PAGE_SIZE } from '../../lib/addresses.ts';
import { invariant } from '../../lib/errors.ts';
import type { DecodedOf } from '../../lib/struct.ts';
import type { DirectoryNode, FsNode } from './filesystem.ts';

/** Seconds and nanoseconds since 1970. */
export interface FuseTime {
  readonly seconds: bigint;
  readonly nanoseconds: number;
}

interface Attributes {
  mode: number;
  uid: number;
  gid: number;
  atime: FuseTime;
  mtime: FuseTime;
  ctime: FuseTime;
}

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * The numbers under which the kernel knows nodes.
 *
 * A node keeps its number for life, and no number is ever given to another node: that is what the
 * protocol's generation 0 promises. The kernel's references are counted, and at none the table lets go;
 * what remains of a node that the device itself dropped is then nothing.
 */
export class NodeTable {
  readonly #ids = new WeakMap<FsNode, number>();
  readonly #attributes = new WeakMap<FsNode, Attributes>();
  readonly #live = new Map<number, { readonly node: FsNode; lookups: bigint }>();
  readonly #root: DirectoryNode;
  readonly #owner: Owner;
  readonly #now: () => FuseTime;
  #next = FUSE_ROOT_ID + 1;

  constructor(root: DirectoryNode, owner: Owner, now: () => FuseTime) {
    this.#root = root;
    this.#owner = owner;
    this.#now = now;
    this.#ids.set(root, FUSE_ROOT_ID);
  }

  /** Nodes the kernel holds references to, the root aside. */
  get size(): number {
    return this.#live.size;
  }

  get(id: bigint): FsNode | null {
    return id === BigInt(FUSE_ROOT_ID) ? this.#root : (this.#live.get(Number(id))?.node ?? null);
  }

  idOf(node: FsNode): number {
    let id = this.#ids.get(node);
    if (id === undefined) {
      id = this.#next;
      this.#next += 1;
      this.#ids.set(node, id);
    }
    return id;
  }

  /** Counts one reference of the kernel: an entry it was just told about. */
  reference(node: FsNode): void {
    const id = this.idOf(node);
    invariant(id !== FUSE_ROOT_ID, 'the root directory is an entry of another directory');
    const entry = this.#live.get(id);
    if (entry === undefined) {
      this.#live.set(id, { node, lookups: 1n });
    } else {
      entry.lookups += 1n;
    }
  }

  /** Takes references back; more than there are, or of an unknown number, is no error of ours. */
  forget(id: bigint, lookups: bigint): void {
    const entry = this.#live.get(Number(id));
    if (entry !== undefined) {
      entry.lookups -= lookups;
      if (entry.lookups <= 0n) {
        this.#live.delete(Number(id));
      }
    }
  }

  attributes(node: FsNode): Attributes {
    let found = this.#attributes.get(node);
    if (found === undefined) {
      const now = this.#now();
      found = { mode: node.mode & 0o7777, ...this.#owner, atime: now, mtime: now, ctime: now };
      this.#attributes.set(node, found);
    }
    return found;
  }

  attr(node: FsNode): DecodedOf<typeof FuseAttr> {
    const { mode, uid, gid, atime, mtime, ctime } = this.attributes(node);
    const size = node.kind === 'file' ? (node.size ?? 0) : 0;
    return {
      ino: BigInt(this.idOf(node)),
      size: BigInt(size),
      blocks: 0n,
      atime: atime.seconds,
      mtime: mtime.seconds,
      ctime: ctime.seconds,
      atimensec: atime.nanoseconds,
      mtimensec: mtime.nanoseconds,
      ctimensec: ctime.nanoseconds,
      mode: mode | (node.kind === 'file' ? FileType.S_IFREG : FileType.S_IFDIR),
      nlink: node.kind === 'file' ? 1 : 2,
      uid,
      gid,
      rdev: 0,
      blksize: PAGE_SIZE,
      flags: 0,
    };
  }
}
