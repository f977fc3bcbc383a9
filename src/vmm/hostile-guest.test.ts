// SPDX-License-Identifier: Apache-2.0
/** Guests that do random things: whatever they do, their VMM ends up in a state it has a name for. */
import { describe, expect, it } from 'vitest';
import { GhcbExit, type GhcbQuad } from '../abi/ghcb.ts';
import { GuestException, type GuestOp } from '../abi/guest-ops.ts';
import { Msr } from '../abi/msrs.ts';
import { pscEntryAt, pscWriteEntry, pscWriteHeader } from '../abi/psc.ts';
import { MemoryBlob } from '../certs/index.ts';
import type { Guest } from '../guest/cpu.ts';
import type { RunningSystem } from '../guest/kernel.ts';
import { gpa, type Vmpl } from '../lib/addresses.ts';
import { readU32, readU64 } from '../lib/bytes.ts';
import type { Random } from '../lib/crypto.ts';
import { seededRandom } from '../os/node-crypto.ts';
import { TestHost } from './testing.ts';

const CODES = Object.values(GhcbExit);
const QUADS: readonly GhcbQuad[] = ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'sw_scratch', 'xcr0'];
const GUESTS = 60;
const ACTIONS = 100;

/** Random choices that are worth making. */
class Chaos {
  readonly random: Random;
  readonly #system: RunningSystem;

  constructor(random: Random, system: RunningSystem) {
    this.random = random;
    this.#system = system;
  }

  below(limit: number): number {
    return readU32(this.random.bytes(4), 0) % limit;
  }

  pick<T>(...choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  address(): bigint {
    const { ghcb, pages } = this.#system;
    const page = BigInt(this.below(0x4000)) << 12n;
    const places = [ghcb.gpa, ghcb.gpa + 0x800n, pages.request, pages.response, pages.certs];
    return this.pick(
      ...[...places, page, page, page + 8n, 0n, 0xffff_0000n, 0xe000_0000n],
      readU64(this.random.bytes(8), 0),
      (1n << 52n) - 4096n,
    );
  }

  op(): GuestOp {
    const at = gpa(this.address());
    const encrypted = this.below(2) === 1;
    const size = this.pick<0 | 1>(0, 1);
    return this.pick<GuestOp>(
      { op: 'read', gpa: at, length: this.below(9000), encrypted },
      { op: 'write', gpa: at, data: this.random.bytes(this.below(64)), encrypted },
      { op: 'pvalidate', gpa: at, size, validate: encrypted },
      {
        op: 'rmpadjust',
        ...{ gpa: at, size, vmsa: encrypted },
        vmpl: this.below(4) as Vmpl,
        permissions: this.below(16),
      },
      {
        op: 'wrmsr',
        msr: this.pick(Msr.MSR_AMD64_SEV_ES_GHCB, Msr.MSR_AMD64_SEV, this.below(2 ** 32)),
        value: at,
      },
      { op: 'rdmsr', msr: this.below(2 ** 32) },
      { op: 'vmgexit' },
    );
  }

  /** A page of random fields, some of which make sense. */
  fill(): void {
    const { ghcb } = this.#system;
    ghcb.image.set(this.random.bytes(0x400));
    if (this.below(2) === 0) {
      ghcb.invalidate();
    }
    for (const field of QUADS) {
      if (this.below(3) > 0) {
        ghcb.put(field, this.address());
      }
    }
    if (this.below(2) === 0) {
      pscWriteHeader(ghcb.image, 0x800, this.below(3), this.pick(this.below(8), 252, 253, 254, 65535));
      for (let i = 0; i < 8; i++) {
        pscWriteEntry(
          ghcb.image,
          pscEntryAt(0x800, i),
          this.below(0x5000),
          this.below(5),
          this.pick<0 | 1>(0, 1),
        );
      }
      ghcb.put('sw_scratch', ghcb.gpa + 0x800n);
    }
  }
}

/** Random instructions and exits; exceptions are survived. */
function chaos(random: Random) {
  return function* (system: RunningSystem): Guest<void> {
    const { ghcb } = system;
    const choose = new Chaos(random, system);
    for (let i = 0; i < ACTIONS; i++) {
      try {
        if (choose.below(3) === 0) {
          yield choose.op();
        } else {
          choose.fill();
          yield* ghcb.call(choose.pick(...CODES), choose.address(), choose.address());
        }
      } catch (error) {
        expect(error).toBeInstanceOf(GuestException);
      }
    }
  };
}

describe('a guest that does random things', () => {
  it('ends in a known way, leaves no lock and no harm to the next guest', () => {
    const host = new TestHost();
    const blob = new MemoryBlob('blob', new Uint8Array(24));
    const ends = new Map<string, number>();
    for (let seed = 0; seed < GUESTS; seed++) {
      const guest = host.guest({ blob, vcpus: 2 });
      guest.boot();
      const job = guest.kernel.submit(chaos(seededRandom(seed)));
      const end = guest.runUntil(() => job.done);
      const name = end.kind === 'stopped' ? end.end.stop.kind : end.kind;
      ends.set(name, (ends.get(name) ?? 0) + 1);
      guest.vmm.close();
      expect(blob.sharedHolders).toBe(0);
    }
    const known = ['done', 'idle', 'terminated', 'shutdown', 'fail-entry', 'run-failed', 'unhandled-exit'];
    expect([...ends.keys()].filter((name) => !known.includes(name))).toEqual([]);
    expect(ends.size).toBeGreaterThan(2);
    const next = host.guest({ blob });
    next.boot();
    expect(next.extReport().ret).toBe(0);
  });
});
