// SPDX-License-Identifier: Apache-2.0
/** Clients that send anything: every call ends with an errno or a result of the table, never an exception. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SEV_ISSUE_CMD, SevIssueCmd, SevUserCmd } from '../../src/abi/dev-sev.ts';
import { SnpGuestIoctl } from '../../src/abi/dev-sev-guest.ts';
import { Errno } from '../../src/abi/errno.ts';
import { Tsm } from '../../src/devices/configfs-tsm/device.ts';
import { configfsTree, ReportGroup } from '../../src/devices/configfs-tsm/files.ts';
import { sevGuestProvider } from '../../src/devices/configfs-tsm/provider.ts';
import { type DirectoryNode, type FileNode, isRefusal } from '../../src/devices/fuse/filesystem.ts';
import { SevDevice } from '../../src/devices/sev/device.ts';
import { sevFile } from '../../src/devices/sev/files.ts';
import { sevGuestFile } from '../../src/devices/sev-guest/files.ts';
import { TestFile, TestGuest, TestMemory } from '../../src/devices/testing.ts';
import { TestHost } from '../../src/kvm/testing.ts';
import { writeU64 } from '../../src/lib/bytes.ts';

const runs = { numRuns: Number(process.env['FC_NUM_RUNS'] ?? 300) };
const ERRNOS = new Set<number>(Object.values(Errno));
const CALLER = { uid: 1000, gid: 1000, pid: 1 };

/** Anything, and often one of the values that mean something. */
const word = fc.oneof(
  fc.constantFrom(0n, 1n, 8n, 0x7fff_ffff_f000n, 0xffff_8880_0000_0000n, 2n ** 64n - 1n),
  fc.bigInt(0n, 2n ** 64n - 1n),
);
const someBytes = (size: number) => fc.uint8Array({ minLength: size, maxLength: size });

/** A structure whose words are pointers now and then: null, wild, or to memory that is there. */
const pointing = (size: number, offsets: readonly number[]) =>
  fc.tuple(
    someBytes(size),
    fc.tuple(...offsets.map(() => fc.oneof(word, fc.constantFrom('data' as const, 'read-only' as const)))),
  );

function filled(
  memory: TestMemory,
  bytes: Uint8Array,
  offsets: readonly number[],
  words: readonly (bigint | 'data' | 'read-only')[],
): Uint8Array {
  const out = bytes.slice();
  for (const [i, offset] of offsets.entries()) {
    const given = words[i]!;
    const address =
      typeof given === 'bigint' ? given : memory.map(new Uint8Array(0x4100).fill(offset), given === 'data');
    writeU64(out, offset, address);
  }
  return out;
}

function expectAnswer(result: number, positive: number): void {
  expect(result <= 0 ? result === 0 || ERRNOS.has(-result) : result <= positive).toBe(true);
}

describe('a hostile client', () => {
  it('of /dev/sev-guest gets an errno', async () => {
    const guest = new TestGuest();
    guest.certs = new Uint8Array(0x1800);
    const file = (await TestFile.open(sevGuestFile(guest.driver), 2)) as TestFile;
    const numbers = fc.oneof(
      fc.constantFrom(...Object.values(SnpGuestIoctl)),
      fc.integer({ min: 0, max: 0xffff_ffff }),
    );
    const offsets = [8, 16];
    const property = fc.asyncProperty(
      numbers,
      pointing(32, offsets),
      pointing(112, [96]),
      async (cmd, [bytes, words], [request, [certs]]) => {
        const memory = new TestMemory();
        const argument = filled(memory, bytes, offsets, words);
        if (words[0] === 'data') {
          writeU64(argument, 8, memory.map(filled(memory, request, [96], [certs!])));
        }
        const size = (cmd >>> 30) & 1 ? (cmd >>> 16) & 0x3fff : 0;
        const input = new Uint8Array(size);
        input.set(argument.subarray(0, Math.min(size, 32)));
        const { result, output } = await file.ioctl(cmd, input, memory, memory.map(argument));
        expectAnswer(result, 5);
        expect(output === undefined || output.length === 32).toBe(true);
        // Nothing a caller says makes the driver give its key up.
        expect(guest.sevGuest.disabled).toBe(false);
      },
    );
    await fc.assert(property, runs);
  });

  it('of /dev/sev gets an errno', async () => {
    const device = new SevDevice({ process: new TestHost().kernel.spawn('clients') });
    const commands = fc.oneof(fc.constantFrom(...Object.values(SevUserCmd)), fc.nat(0xffff_ffff));
    const offsets = [0, 8, 12];
    const property = fc.asyncProperty(
      fc.constantFrom(0, 1, 2),
      commands,
      fc.oneof(word, fc.constantFrom('data' as const)),
      pointing(128, offsets),
      fc.nat(0xffff_ffff),
      async (flags, cmd, data, [bytes, words], nr) => {
        const memory = new TestMemory();
        const file = (await TestFile.open(sevFile(device), flags)) as TestFile;
        const address = data === 'data' ? memory.map(filled(memory, bytes, offsets, words)) : data;
        const input = SevIssueCmd.encode({ cmd, data: address, error: 7 });
        const { result, output } = await file.ioctl(SEV_ISSUE_CMD, input, memory);
        expectAnswer(result, 0);
        expect(output?.length ?? 16).toBe(16);
        expect((await file.ioctl(nr === SEV_ISSUE_CMD ? 0 : nr, input, memory)).result).toBe(-Errno.EINVAL);
        await file.close();
      },
    );
    await fc.assert(property, runs);
  });

  it('of configfs-tsm gets an errno, and generations only grow', async () => {
    const guest = new TestGuest();
    const root = configfsTree(new ReportGroup(new Tsm(sevGuestProvider(guest.driver))));
    const group = (root.lookup('tsm') as DirectoryNode).lookup('report') as DirectoryNode;
    const step = fc.record({
      name: fc.constantFrom('inblob', 'privlevel', 'outblob', 'auxblob', 'generation', 'provider'),
      flags: fc.constantFrom(0, 1, 2, 0o1001),
      offset: fc.constantFrom(0, 1, 63, 64, 2 ** 40),
      data: fc.oneof(someBytes(64), fc.uint8Array({ maxLength: 5000 }), fc.constant(Uint8Array.of(0x31))),
      status: fc.constantFrom(0, 0, 0x16, 0xffff_ffff),
    });
    const property = fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const entry = (await group.mkdir!('entry', CALLER)) as DirectoryNode;
      let last = 0n;
      for (const { name, flags, offset, data, status } of steps) {
        guest.status = status;
        const handle = await (entry.lookup(name) as FileNode).open(flags, CALLER);
        if (isRefusal(handle)) {
          expect(handle.errno).toBe(Errno.EACCES);
          continue;
        }
        for (const answer of [
          await handle.write?.(offset, data, CALLER),
          await handle.read?.(offset, 512, CALLER),
        ]) {
          expect(!isRefusal(answer) || ERRNOS.has(answer.errno)).toBe(true);
        }
        await handle.flush?.(CALLER);
        handle.release?.();
        const generation = (await TestFile.open(entry.lookup('generation') as FileNode, 0)) as TestFile;
        const now = BigInt(new TextDecoder().decode((await generation.read(100)) as Uint8Array));
        expect(now === last || now === last + 1n).toBe(true);
        last = now;
      }
      await group.rmdir!('entry', CALLER);
    });
    await fc.assert(property, runs);
  });
});
