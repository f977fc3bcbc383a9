// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { VirtualClock } from '../lib/clock.ts';
import { type Runnable, runUntil, runUntilAsync } from './scheduler.ts';
import type { VmEnd } from './stop.ts';
import { TestHost } from './testing.ts';
import type { StepOutcome } from './vmm.ts';

const RAN: StepOutcome = { kind: 'ran', ret: 0, exit: null };
const END: VmEnd = { stop: { kind: 'shutdown' }, vcpu: 1 };

/** vCPUs that behave as a function says; every step is noted. */
function machine(vcpuCount: number, behave: (id: number, step: number) => StepOutcome) {
  const steps: number[] = [];
  const runnable: Runnable & { end: VmEnd | null } = {
    vcpuCount,
    end: null,
    step(id) {
      steps.push(id);
      const outcome = behave(id, steps.length);
      runnable.end = outcome.kind === 'stopped' ? outcome.end : null;
      return outcome;
    },
  };
  return { runnable, steps };
}

function virtual() {
  const clock = new VirtualClock(0);
  const slept: number[] = [];
  const sleep = (ms: number): void => {
    slept.push(ms);
    clock.advance(ms);
  };
  return { clock, sleep, slept };
}

describe('runUntil', () => {
  it('gives every vCPU its turn although each could run for ever', () => {
    const { runnable, steps } = machine(64, () => RAN);
    expect(runUntil(runnable, () => steps.length > 64 * 300, virtual())).toEqual({ kind: 'done' });
    expect(new Set(steps).size).toBe(64);
  });

  it('sleeps until the first vCPU wakes when all of them sleep', () => {
    const time = virtual();
    const { runnable } = machine(3, (id) => ({
      kind: 'blocked',
      wakeAtMs: [null, 500, 300][id]!,
    }));
    runUntil(runnable, () => time.clock.monotonicMs() >= 300, time);
    expect(time.slept).toEqual([300]);
  });

  it('does not sleep while a vCPU has only come to the end of its time slice', () => {
    const time = virtual();
    const { runnable, steps } = machine(1, () => ({ kind: 'blocked', wakeAtMs: 0 }));
    runUntil(runnable, () => steps.length >= 5, time);
    expect(time.slept).toEqual([]);
  });

  it('says idle when nothing will wake a vCPU, stopped when the guest is at its end', () => {
    const asleep = machine(2, () => ({ kind: 'blocked', wakeAtMs: null }));
    expect(runUntil(asleep.runnable, () => false, virtual())).toEqual({ kind: 'idle' });
    const ended = machine(3, (id) => (id === 1 ? { kind: 'stopped', end: END } : RAN));
    expect(runUntil(ended.runnable, () => false, virtual())).toEqual({ kind: 'stopped', end: END });
    expect(ended.steps).not.toContain(2);
  });

  it('stops within a turn as soon as the condition holds', () => {
    const { runnable, steps } = machine(2, () => RAN);
    runUntil(runnable, () => steps.length === 3, virtual());
    expect(steps).toEqual([0, 0, 0]);
  });
});

describe('runUntilAsync', () => {
  it('lets several guests run side by side', async () => {
    const host = new TestHost();
    const guests = [host.guest(), host.guest({ vcpus: 4 }), host.guest()];
    let awaited = 0;
    const sleep = async (ms: number): Promise<void> => {
      awaited += 1;
      host.clock.advance(ms);
    };
    const ends = await Promise.all(
      guests.map(({ vmm, kernel }) =>
        runUntilAsync(vmm, () => kernel.system !== null, { clock: host.clock, sleep }),
      ),
    );
    expect(ends.map(({ kind }) => kind)).toEqual(['done', 'done', 'done']);
    expect(awaited).toBeGreaterThan(0);
    expect(guests[1]!.kernel.online.size).toBe(4);
  });
});
