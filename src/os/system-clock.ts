// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '../lib/clock.ts';

/** The operating system's clocks: the one that may be set, and the one that only goes forward. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
};
