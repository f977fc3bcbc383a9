// SPDX-License-Identifier: Apache-2.0
/** How often one client may ask for one thing. */
import { InputError } from '../lib/errors.ts';

export interface Rate {
  readonly requests: number;
  readonly perMs: number;
}

/** What users report of AMD's service: one request for a VCEK per source address in ten seconds. */
export const AMD_RATE: Rate = Object.freeze({ requests: 1, perMs: 10_000 });

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };

/**
 * A rate such as 1/10s or 20/500ms; `amd` is AMD_RATE.
 *
 * Errors   OPTION_INVALID
 */
export function parseRate(text: string): Rate {
  if (text === 'amd') {
    return AMD_RATE;
  }
  const match = /^([0-9]{1,6})\/([0-9]{1,6})(ms|s|m)$/.exec(text);
  const requests = Number(match?.[1]);
  const perMs = Number(match?.[2]) * (UNITS[match?.[3] ?? ''] ?? 0);
  if (match === null || requests < 1 || perMs < 1) {
    throw new InputError(
      'OPTION_INVALID',
      `${JSON.stringify(text.slice(0, 40))} is not a rate such as 1/10s, 20/500ms or amd`,
      { where: 'rate' },
    );
  }
  return { requests, perMs };
}

/** Keys remembered. A flood of more than these frees the oldest ones early, which lets some clients ask again. */
const MAX_WINDOWS = 65_536;

interface Window {
  readonly startMs: number;
  used: number;
}

/** Counts requests per key in windows that begin with the first request. */
export class RateLimiter {
  readonly #rate: Rate;
  /** In the order in which the windows began. */
  readonly #windows = new Map<string, Window>();

  constructor(rate: Rate) {
    this.#rate = rate;
  }

  /**
   * Takes one request of the key into account.
   *
   * Returns  0 when it is within the rate, else the milliseconds until the next one is
   */
  take(key: string, nowMs: number): number {
    this.#forgetEnded(nowMs);
    const window = this.#windows.get(key);
    if (window === undefined) {
      if (this.#windows.size >= MAX_WINDOWS) {
        this.#windows.delete(this.#windows.keys().next().value!);
      }
      this.#windows.set(key, { startMs: nowMs, used: 1 });
      return 0;
    }
    if (window.used < this.#rate.requests) {
      window.used += 1;
      return 0;
    }
    return window.startMs + this.#rate.perMs - nowMs;
  }

  #forgetEnded(nowMs: number): void {
    for (const [key, { startMs }] of this.#windows) {
      if (nowMs - startMs < this.#rate.perMs) {
        return;
      }
      this.#windows.delete(key);
    }
  }
}
