// SPDX-License-Identifier: Apache-2.0
/** Serves a tree of nodes on a FUSE connection, on the event loop of whoever made the tree. */
import { performance } from 'node:perf_hooks';
import { Errno, errnoName } from '../../abi/errno.ts';
import { EnvironmentError } from '../../lib/errors.ts';
import { FuseMount } from '../../os/fuse-mount.ts';
import { type CallerMemory, callerMemory } from '../../os/process-memory.ts';
import type { DirectoryNode } from './filesystem.ts';
import type { Owner } from './node-table.ts';
import { FUSE_REQUEST_BUFFER_SIZE, FuseSession } from './session.ts';

/** The server's end of a connection: /dev/fuse, or something that behaves like it. */
export interface FuseChannel {
  /** One request into `into`: its length, or -errno; -EAGAIN when there is none now. */
  read(into: Uint8Array): number;
  /** One whole reply: its length, or -errno. */
  write(reply: Uint8Array): number;
  /** Calls back when a request may be there, or the connection ended. */
  watch(onReadable: () => void): { close(): void };
}

export interface FuseServerOptions {
  readonly root: DirectoryNode;
  /** Owner of every node at first: root unless said otherwise. */
  readonly owner?: Owner;
  /** How pointers of clients are followed: their process memory unless said otherwise. */
  readonly memoryOf?: (pid: number) => CallerMemory;
  readonly nowMs?: () => number;
  /** A handler failed, a reply was refused, or a client's memory is out of reach: worth a line in the log. */
  readonly onFault: (error: unknown, request: string) => void;
}

/**
 * How long requests are taken from the kernel before other events of the process get their turn. A signed
 * report costs about this much, so clients share the loop with timers and sockets report by report.
 */
const TIME_SLICE_MS = 2;

/** Errors of read(2) that mean "this one is gone, go on". */
const PASSING: ReadonlySet<number> = new Set([-Errno.EINTR, -Errno.ENOENT]);
/** The ways in which a connection ends: unmounted, or aborted. */
const ENDED: ReadonlySet<number> = new Set([-Errno.ENODEV, -Errno.ECONNABORTED, -Errno.ENOTCONN]);

export class FuseServer {
  readonly session: FuseSession;
  /** Resolves when the connection is over, whoever ended it; rejects when it broke. */
  readonly ended: Promise<void>;
  readonly #channel: FuseChannel;
  readonly #watch: { close(): void };
  readonly #buffer = new Uint8Array(FUSE_REQUEST_BUFFER_SIZE);
  #settle!: { readonly resolve: () => void; readonly reject: (error: Error) => void };
  #serving = true;

  constructor(channel: FuseChannel, options: FuseServerOptions) {
    const { root, onFault, owner = { uid: 0, gid: 0 }, nowMs = Date.now } = options;
    const memoryOf =
      options.memoryOf ??
      ((pid) =>
        callerMemory(pid, (denied, errno) => {
          onFault(
            new EnvironmentError('CLIENT_MEMORY_DENIED', `the kernel answered ${errnoName(errno)}`, {
              where: `memory of process ${denied}`,
            }),
            'FUSE_IOCTL',
          );
        }));
    this.#channel = channel;
    this.session = new FuseSession({
      root,
      owner,
      nowMs,
      memoryOf,
      onFault,
      send: (reply) => {
        const count = channel.write(reply);
        // Nobody waits any more (ENOENT), or the connection has just ended: nothing is lost.
        if (count < 0 && !PASSING.has(count) && !ENDED.has(count)) {
          onFault(
            new EnvironmentError('FUSE_REPLY_REFUSED', `write(2) answered ${errnoName(count)}`),
            'reply',
          );
        }
      },
    });
    this.ended = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // A broken connection that nobody asks about is no reason to end the process.
    this.ended.catch(() => undefined);
    this.#watch = channel.watch(() => this.#drain());
  }

  /** Takes no more requests; those in hand are still answered. */
  stop(): void {
    this.#end(null);
  }

  #drain(): void {
    const until = performance.now() + TIME_SLICE_MS;
    while (this.#serving && performance.now() < until) {
      const count = this.#channel.read(this.#buffer);
      if (count > 0) {
        this.session.handle(this.#buffer.slice(0, count));
      } else if (count === -Errno.EAGAIN) {
        return;
      } else if (!PASSING.has(count)) {
        this.#end(ENDED.has(count) ? null : count);
      }
    }
  }

  #end(failure: number | null): void {
    if (!this.#serving) {
      return;
    }
    this.#serving = false;
    this.#watch.close();
    if (failure === null) {
      this.#settle.resolve();
    } else {
      this.#settle.reject(
        new EnvironmentError('FUSE_UNAVAILABLE', `read(2) answered ${errnoName(failure)}`, {
          where: '/dev/fuse',
        }),
      );
    }
  }
}

/** How long clients that are being answered may hold up an orderly end. */
const DRAIN_TIMEOUT_MS = 2000;

/** A mounted tree. */
export interface ServedTree {
  /** The folder it is mounted on, links resolved. */
  readonly target: string;
  readonly server: FuseServer;
  /** Shows one of its files or folders at an existing path of the same kind. */
  bind(inner: string, target: string): Promise<void>;
  /** Leaves every place at once, answers what is in hand, then ends the connection. Idempotent. */
  close(): Promise<void>;
}

/**
 * Mounts a tree on a folder and serves it until `close`, or until somebody unmounts it.
 *
 * Errors   FUSE_UNAVAILABLE, MOUNT_REFUSED, MOUNT_POINT_INVALID, FFI_UNAVAILABLE; then nothing is mounted
 */
export async function serveTree(folder: string, options: FuseServerOptions): Promise<ServedTree> {
  const mount = await FuseMount.mount(folder);
  const server = new FuseServer(mount, options);
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    await mount.detach();
    await Promise.race([
      server.session.idle(),
      new Promise<void>((resolve) => {
        setTimeout(resolve, DRAIN_TIMEOUT_MS).unref();
      }),
    ]);
    server.stop();
    mount.close();
    server.session.releaseAll();
  };
  const closeOnce = (): Promise<void> => {
    closing ??= close();
    return closing;
  };
  // Somebody may have unmounted it from outside: then the binds go too, and the handles.
  server.ended.then(closeOnce, closeOnce);
  return {
    target: mount.target,
    server,
    bind: (inner, target) => mount.bind(inner, target),
    close: closeOnce,
  };
}
