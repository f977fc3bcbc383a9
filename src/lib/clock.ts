// SPDX-License-Identifier: Apache-2.0
/** Time as the deterministic core sees it: handed in, never read from the system. */
export interface Clock {
  /** Wall-clock time in milliseconds since 1970; dates in certificates come from here. */
  nowMs(): number;
  /** Milliseconds from an arbitrary start, never going back; time-outs are measured with it. */
  monotonicMs(): number;
}

/** A clock that moves only when told to. */
export class VirtualClock implements Clock {
  #wallMs: number;
  #elapsedMs = 0;

  constructor(startMs: number) {
    this.#wallMs = startMs;
  }

  nowMs(): number {
    return this.#wallMs;
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  /** Sets the wall clock, as an administrator or a time server does; no time passes. */
  setWall(ms: number): void {
    this.#wallMs = ms;
  }

  advance(byMs: number): void {
    this.#wallMs += byMs;
    this.#elapsedMs += byMs;
  }
}
