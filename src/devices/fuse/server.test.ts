// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { FUSE_ROOT_ID, FuseInHeader, FuseOpcode, FuseOutHeader } from '../../abi/fuse.ts';
import { concat } from '../../lib/bytes.ts';
import { type FuseChannel, FuseServer } from './server.ts';
import { testTree } from './testing.ts';

/** /dev/fuse in memory: what the kernel would hand out, one item a read; a number is an errno. */
class FakeKernel implements FuseChannel {
  readonly replies: Uint8Array[] = [];
  readonly queue: (Uint8Array | number)[] = [];
  readAfterClose = false;
  writeResult: number | null = null;
  #callback: (() => void) | null = null;

  read(into: Uint8Array): number {
    this.readAfterClose ||= this.#callback === null;
    const item = this.queue.shift();
    if (item === undefined) {
      return -Errno.EAGAIN;
    }
    if (typeof item === 'number') {
      return -item;
    }
    into.set(item);
    return item.length;
  }

  write(reply: Uint8Array): number {
    this.replies.push(reply);
    return this.writeResult ?? reply.length;
  }

  watch(onReadable: () => void): { close(): void } {
    this.#callback = onReadable;
    return {
      close: () => {
        this.#callback = null;
      },
    };
  }

  wake(): void {
    this.#callback?.();
  }

  /** Wakes the server until it wants nothing more, as a level-triggered poll does. */
  deliver(...items: (Uint8Array | number)[]): void {
    this.queue.push(...items);
    while (this.queue.length > 0 && this.#callback !== null) {
      this.wake();
    }
  }
}

function getattr(unique: bigint): Uint8Array {
  const header = FuseInHeader.encode({
    len: FuseInHeader.size + 16,
    opcode: FuseOpcode.FUSE_GETATTR,
    unique,
    nodeid: BigInt(FUSE_ROOT_ID),
  });
  return concat(header, new Uint8Array(16));
}

function serve() {
  const kernel = new FakeKernel();
  const faults: unknown[] = [];
  const server = new FuseServer(kernel, { root: testTree(), onFault: (error) => faults.push(error) });
  const answered = () => kernel.replies.map((reply) => FuseOutHeader.get(reply, 'unique'));
  return { kernel, server, faults, answered };
}

describe('the loop that serves a FUSE connection', () => {
  it('goes on after EINTR and after a request that is gone', () => {
    const { kernel, answered } = serve();
    kernel.deliver(getattr(2n), Errno.EINTR, getattr(4n), Errno.ENOENT, getattr(6n));
    expect(answered()).toEqual([2n, 4n, 6n]);
  });

  it.each([
    ['unmounted', Errno.ENODEV],
    ['aborted', Errno.ECONNABORTED],
  ])('ends in order when the connection is %s', async (_, errno) => {
    const { kernel, server } = serve();
    kernel.deliver(getattr(2n), errno, getattr(4n));
    await server.ended;
    expect(kernel.replies.length).toBe(1);
    expect(kernel.readAfterClose).toBe(false);
  });

  it('fails with FUSE_UNAVAILABLE on any other error, naming it', async () => {
    const { kernel, server } = serve();
    kernel.deliver(Errno.EINVAL);
    await expect(server.ended).rejects.toMatchObject({
      code: 'FUSE_UNAVAILABLE',
      message: expect.stringContaining('EINVAL'),
    });
  });

  it('takes nothing more once it was stopped', async () => {
    const { kernel, server } = serve();
    server.stop();
    kernel.deliver(getattr(2n));
    await server.ended;
    expect(kernel.replies).toEqual([]);
  });

  it('says nothing of a reply that nobody waits for, and reports one the kernel refuses', () => {
    const { kernel, faults } = serve();
    kernel.writeResult = -Errno.ENOENT;
    kernel.deliver(getattr(2n));
    kernel.writeResult = -Errno.ENODEV;
    kernel.deliver(getattr(4n));
    expect(faults).toEqual([]);
    kernel.writeResult = -Errno.EINVAL;
    kernel.deliver(getattr(6n));
    expect(faults).toEqual([expect.objectContaining({ code: 'FUSE_REPLY_REFUSED' })]);
  });

  it('lets other events in between when requests never stop', () => {
    const { kernel } = serve();
    const many = 20_000;
    kernel.queue.push(...Array.from({ length: many }, (_, i) => getattr(BigInt(2 * i + 2))));
    let turns = 0;
    while (kernel.queue.length > 0) {
      kernel.wake();
      turns += 1;
    }
    expect(turns).toBeGreaterThan(1);
    expect(kernel.replies.length).toBe(many);
  });

  it('survives anything that could come out of /dev/fuse', async () => {
    const item = fc.oneof(
      fc.uint8Array({ maxLength: 200 }).filter((bytes) => bytes.length > 0),
      fc
        .tuple(fc.nat(60), fc.bigInt(0n, 5n), fc.uint8Array({ maxLength: 120 }))
        .map(([opcode, nodeid, body]) =>
          concat(
            FuseInHeader.encode({ len: FuseInHeader.size + body.length, opcode, unique: 2n, nodeid }),
            body,
          ),
        ),
      fc.constantFrom(Errno.EINTR, Errno.ENOENT),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(item, { maxLength: 300 }), async (items) => {
        const { kernel, server } = serve();
        kernel.deliver(...items, Errno.ENODEV);
        await server.ended;
        await server.session.idle();
        for (const reply of kernel.replies) {
          expect(FuseOutHeader.get(reply, 'len')).toBe(reply.length);
        }
      }),
      { numRuns: 100 },
    );
  });
});
