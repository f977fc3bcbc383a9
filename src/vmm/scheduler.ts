// SPDX-License-Identifier: Apache-2.0
/** Gives a guest's vCPUs their turns, one after another, until something has happened. */
import type { Clock } from '../lib/clock.ts';
import type { VmEnd } from './stop.ts';
import type { StepOutcome } from './vmm.ts';

/** What is scheduled: a Vmm, or something that steps one. */
export interface Runnable {
  readonly vcpuCount: number;
  readonly end: VmEnd | null;
  step(vcpuId: number): StepOutcome;
}

/** How a run ended. */
export type RunEnd =
  /** The condition holds. */
  | { readonly kind: 'done' }
  /** The guest runs no further. */
  | { readonly kind: 'stopped'; readonly end: VmEnd }
  /** Every vCPU sleeps and nothing is left to wake one. */
  | { readonly kind: 'idle' };

/** Steps a vCPU gets before it is the next one's turn. */
const TURN_STEPS = 256;

/** Yields how long to sleep; 0: all vCPUs had a turn, others may have theirs. */
function* turns(vmm: Runnable, done: () => boolean, clock: Clock): Generator<number, RunEnd, void> {
  while (!done()) {
    let wakeAtMs = Number.POSITIVE_INFINITY;
    let runnable = false;
    for (let id = 0; id < vmm.vcpuCount; id++) {
      const left = turn(vmm, id, done);
      if (done()) {
        return { kind: 'done' };
      }
      if (left === 'stopped') {
        break;
      }
      if (left === 'runnable') {
        runnable = true;
      } else {
        wakeAtMs = Math.min(wakeAtMs, left);
      }
    }
    if (vmm.end !== null) {
      return { kind: 'stopped', end: vmm.end };
    }
    const sleepMs = runnable ? 0 : wakeAtMs - clock.monotonicMs();
    if (sleepMs === Number.POSITIVE_INFINITY) {
      return { kind: 'idle' };
    }
    yield Math.max(0, sleepMs);
  }
  return { kind: 'done' };
}

/** One vCPU's turn; how it left it: until when it sleeps, or that it could go on. */
function turn(vmm: Runnable, id: number, done: () => boolean): number | 'runnable' | 'stopped' {
  for (let steps = 0; steps < TURN_STEPS && !done(); steps++) {
    const outcome = vmm.step(id);
    if (outcome.kind === 'blocked') {
      return outcome.wakeAtMs ?? Number.POSITIVE_INFINITY;
    }
    if (outcome.kind === 'stopped') {
      return 'stopped';
    }
  }
  return 'runnable';
}

export interface Waiting {
  readonly clock: Clock;
  /** Makes time pass, at least so much: a virtual clock is moved, a real one waited for. */
  sleep(ms: number): void;
}

/** Runs the guest until `done` holds, in one go. */
export function runUntil(vmm: Runnable, done: () => boolean, { clock, sleep }: Waiting): RunEnd {
  const run = turns(vmm, done, clock);
  for (;;) {
    const next = run.next();
    if (next.done === true) {
      return next.value;
    }
    if (next.value > 0) {
      sleep(next.value);
    }
  }
}

export interface AsyncWaiting {
  readonly clock: Clock;
  /** Resolves after so long; with 0 after whatever else is due. */
  sleep(ms: number): Promise<void>;
}

/** Runs the guest until `done` holds, letting others in after each round of turns. */
export async function runUntilAsync(
  vmm: Runnable,
  done: () => boolean,
  { clock, sleep }: AsyncWaiting,
): Promise<RunEnd> {
  const run = turns(vmm, done, clock);
  for (;;) {
    const next = run.next();
    if (next.done === true) {
      return next.value;
    }
    await sleep(next.value);
  }
}
