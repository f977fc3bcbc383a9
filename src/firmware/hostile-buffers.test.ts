// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type TestGuest, TestHost } from '../../test/firmware/test-host.ts';
import { GUEST_BUFFERS, platformBuffer } from '../../test/firmware/valid-buffers.ts';
import { SEV_RET_TABLE } from '../abi/sev-status.ts';
import { SevCmd, type SevCmdName } from '../abi/snp-commands.ts';
import { asid, type Spa, spaOf } from '../lib/addresses.ts';
import { readU32, writeU64 } from '../lib/bytes.ts';
import { GUEST_TRANSITIONS, type GuestCmdName, STATUSES_NEVER_RETURNED } from './states.ts';

const RETURNED = new Set<number>(
  SEV_RET_TABLE.filter((row) => !(row.name in STATUSES_NEVER_RETURNED)).map((row) => row.value),
);
const COMMANDS = Object.keys(SevCmd) as SevCmdName[];
const NUM_RUNS = Number(process.env['FC_NUM_RUNS'] ?? 60);

/** A host in some state, with the addresses and guests that a command could name. */
interface World {
  readonly host: TestHost;
  readonly addresses: readonly bigint[];
  readonly guests: readonly TestGuest[];
}

const WORLDS: Record<string, () => World> = {
  'platform UNINIT': () => {
    const host = new TestHost('Turin');
    return { host, addresses: [spaOf(host.alloc()), 0n], guests: [] };
  },
  'legacy SEV INIT': () => {
    const host = TestHost.up('Turin');
    host.issue('SEV_CMD_INIT', new Uint8Array(20));
    return { host, addresses: [spaOf(host.alloc()), spaOf(host.firmwarePage())], guests: [] };
  },
  'guests in every state': () => {
    const host = TestHost.up('Turin');
    const launching = host.launching(0xb0000n);
    const running = host.running({ policy: 0xb0000n });
    return {
      host,
      guests: [launching, running],
      addresses: [
        host.gctx(),
        launching.gctx,
        running.gctx,
        spaOf(running.request),
        spaOf(running.response),
        spaOf(host.preGuest(launching, 0n)),
        spaOf(host.preGuest(launching, 0x20_0000n, undefined, 1)),
        spaOf(host.firmwarePage()),
        spaOf(host.makeFirmware(host.alloc(512), 1)) | 1n,
        0xffff_ffff_ffff_f000n,
      ],
    };
  },
};

describe.each(Object.entries(WORLDS))('with %s', (_, world) => {
  it.each(COMMANDS)('%s answers any buffer with a status of the table', (command) => {
    let { host, addresses, guests } = world();
    const valid = (choice: number): Uint8Array => {
      const guest = guests[choice % Math.max(guests.length, 1)];
      if (command in GUEST_TRANSITIONS) {
        return guest === undefined ? new Uint8Array(64) : GUEST_BUFFERS[command as GuestCmdName](host, guest);
      }
      return platformBuffer(host, command, guests.length === 0 ? 'UNINIT' : 'INIT');
    };
    const buffer = fc.uint8Array({ minLength: 64, maxLength: 64 });
    // Addresses at the places where most buffers have them, and the rest random or zero.
    const shaped = fc
      .record({
        base: fc.oneof(fc.constant(new Uint8Array(64)), buffer),
        length: fc.constantFrom(0, 4, 8, 16, 24, 32, 64),
        places: fc.array(fc.tuple(fc.constantFrom(0, 8, 16, 24, 32), fc.nat()), { maxLength: 4 }),
        flip: fc.option(fc.tuple(fc.nat(63), fc.nat(7))),
      })
      .map(({ base, length, places, flip }) => (candidates: readonly bigint[]) => {
        const out = base.slice();
        out[0] = length;
        for (const [at, choice] of places) {
          writeU64(out, at, candidates[choice % candidates.length]!);
        }
        if (flip !== null) {
          out[flip[0]]! ^= 1 << flip[1];
        }
        return out;
      });
    const mutated = fc
      .tuple(fc.nat(), fc.array(fc.tuple(fc.nat(), fc.nat(7)), { maxLength: 3 }))
      .map(([choice, flips]) => () => {
        const out = valid(choice).slice();
        for (const [at, bit] of flips) {
          out[at % out.length]! ^= 1 << bit;
        }
        return out;
      });
    fc.assert(
      fc.property(
        fc.oneof(
          buffer.map((b) => () => b),
          shaped,
          mutated,
        ),
        (make) => {
          const bytes = make(addresses);
          const status = host.issue(command, bytes);
          if (!RETURNED.has(status)) {
            expect.fail(`${command} answered ${status}`);
          }
          // A command that went through may have ended the world.
          if (status === 0) {
            ({ host, addresses, guests } = world());
          }
        },
      ),
      { numRuns: NUM_RUNS },
    );
  });

  it('every command answers for a buffer anywhere in the 64-bit space', () => {
    const { host } = world();
    for (const command of COMMANDS) {
      for (const at of [0xffff_ffff_ffff_fff8n, 0x8000_0000_0000_0000n, -8n, (1n << 42n) - 4n, 1n << 64n]) {
        expect(RETURNED.has(host.psp.command(SevCmd[command], at as Spa)), command).toBe(true);
      }
    }
  });
});

describe('a hostile guest', () => {
  it('gets a status for any message page, and no counter moves unless it was the right one', () => {
    const host = TestHost.up('Turin');
    const guest = host.running();
    const place = spaOf(guest.request);
    const header = fc.record({
      seqno: fc.constantFrom(0n, 1n, 2n, 3n, 0xffff_ffffn, 0xffff_ffff_ffff_ffffn),
      bytes: fc.uint8Array({ minLength: 12, maxLength: 12 }),
      body: fc.uint8Array({ minLength: 64, maxLength: 256 }),
      good: fc.boolean(),
    });
    fc.assert(
      fc.property(header, ({ seqno, bytes, body, good }) => {
        const message = new Uint8Array(4096);
        message.set(body, 0x60);
        writeU64(message, 0x20, seqno);
        message.set(good ? Uint8Array.of(1, 1, 0x60, 0, bytes[4]! % 20, 1, 0x60, 0) : bytes, 0x30);
        message[0x3c] = bytes[11]! % 5;
        host.hw.memory.write(place, message, asid(0));
        const buffer = new Uint8Array(24);
        writeU64(buffer, 0, guest.gctx);
        writeU64(buffer, 8, place);
        writeU64(buffer, 16, spaOf(guest.response));
        expect([0x16, 0x0b]).toContain(host.issue('SEV_CMD_SNP_GUEST_REQUEST', buffer));
      }),
      { numRuns: 10 * NUM_RUNS },
    );
    expect(host.report(guest).status).toBe(0);
  });

  it('that holds its keys gets a sealed answer to any payload of a message’s size', () => {
    const host = TestHost.up('Turin');
    const guest = host.running();
    const sizes: Readonly<Record<number, number>> = { 1: 16 + 48 * 2, 3: 0x20, 5: 0x60, 17: 128, 9: 40 };
    const request = fc.record({
      type: fc.constantFrom(...Object.keys(sizes).map(Number)),
      noise: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
      random: fc.option(fc.uint8Array({ minLength: 128, maxLength: 128 })),
      vmpck: fc.integer({ min: 0, max: 3 }),
    });
    fc.assert(
      fc.property(request, ({ type, noise, random, vmpck }) => {
        const payload = new Uint8Array(sizes[type]!);
        payload.set((random ?? new Uint8Array(128)).subarray(0, payload.length));
        for (const [at, value] of noise) {
          payload[at % payload.length] = value;
        }
        const { status, payload: answer } = host.request(guest, type, payload, { vmpck });
        expect(status).toBe(0);
        expect([0, 0x15, 0x16, 0x27]).toContain(readU32(answer!, 0));
      }),
      { numRuns: 5 * NUM_RUNS },
    );
  });
});
