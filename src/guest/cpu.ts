// SPDX-License-Identifier: Apache-2.0
/** Instructions of the modelled processor as guest code writes them: `const bytes = yield* readPrivate(...)`. */
import type { GuestAnswer, GuestOp, PvalidateResult } from '../abi/guest-ops.ts';
import type { Gpa, Vmpl } from '../lib/addresses.ts';

/** Guest code that computes a T. */
export type Guest<T> = Generator<GuestOp, T, GuestAnswer>;

/** Reads guest memory through a mapping with the C-bit: plaintext of the guest's own pages. */
export function* readPrivate(gpa: Gpa, length: number): Guest<Uint8Array> {
  return (yield { op: 'read', gpa, length, encrypted: true }) as Uint8Array;
}

/** Reads memory shared with the host. Whoever reads it twice may see two different things. */
export function* readShared(gpa: Gpa, length: number): Guest<Uint8Array> {
  return (yield { op: 'read', gpa, length, encrypted: false }) as Uint8Array;
}

/** Writes guest memory through a mapping with the C-bit. The bytes are taken before the next op. */
export function* writePrivate(gpa: Gpa, data: Uint8Array): Guest<void> {
  yield { op: 'write', gpa, data, encrypted: true };
}

/** Writes memory shared with the host. The bytes are taken before the next op. */
export function* writeShared(gpa: Gpa, data: Uint8Array): Guest<void> {
  yield { op: 'write', gpa, data, encrypted: false };
}

export function* rdmsr(msr: number): Guest<bigint> {
  return (yield { op: 'rdmsr', msr }) as bigint;
}

export function* wrmsr(msr: number, value: bigint): Guest<void> {
  yield { op: 'wrmsr', msr, value };
}

export function* vmgexit(): Guest<void> {
  yield { op: 'vmgexit' };
}

/**
 * PVALIDATE as Linux's wrapper answers it.
 *
 * Returns  0; 1 FAIL_INPUT; 6 FAIL_SIZEMISMATCH; 255 when the page already had the wanted state (CF)
 */
export function* pvalidate(gpa: Gpa, size: 0 | 1, validate: boolean): Guest<number> {
  const { rc, unchanged } = (yield { op: 'pvalidate', gpa, size, validate }) as PvalidateResult;
  return rc === 0 && unchanged ? PVALIDATE_FAIL_NOUPDATE : rc;
}

export const PVALIDATE_FAIL_SIZEMISMATCH = 6;
/** Software convention: the instruction set the carry flag, nothing changed. */
const PVALIDATE_FAIL_NOUPDATE = 255;

/**
 * RMPADJUST of a 4 KiB page.
 *
 * Returns  0; 1 FAIL_INPUT; 2 FAIL_PERMISSION; 6 FAIL_SIZEMISMATCH
 */
export function* rmpadjust(gpa: Gpa, vmpl: Vmpl, permissions: number, vmsa: boolean): Guest<number> {
  return (yield { op: 'rmpadjust', gpa, size: 0, vmpl, permissions, vmsa }) as number;
}

/** Sleeps until an event. */
export function* hlt(): Guest<void> {
  yield { op: 'hlt' };
}

/** Sleeps with a timer armed; 0 gives the other vCPUs a turn. */
export function* sleepMs(wakeAfterMs: number): Guest<void> {
  yield { op: 'hlt', wakeAfterMs };
}
