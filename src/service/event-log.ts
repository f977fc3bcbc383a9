// SPDX-License-Identifier: Apache-2.0
/** What happens on a running host, for those who ask and for those who follow. */
import type { TraceEvent } from '../lib/trace.ts';

export type HostEvent =
  /** One of the eight steps of an attestation request. */
  | { readonly type: 'trace'; readonly step: TraceEvent }
  /** A line of the kernel, the VMM or a guest. */
  | { readonly type: 'log'; readonly line: string }
  /** The key that signs reports, or what reports say of the platform, was changed by a command. */
  | {
      readonly type: 'platform';
      readonly command: string;
      readonly reported_tcb: string;
      readonly key: string;
    }
  | {
      readonly type: 'guest';
      readonly guest: string;
      /** restored: another guest has taken the place of the one of this name. */
      readonly what: 'added' | 'removed' | 'ended' | 'restored';
    }
  /** What a command changed could not be written. */
  | {
      readonly type: 'failure';
      readonly command: string;
      /** What it has done to the platform all the same. */
      readonly outcome: 'taken back' | 'done' | 'without effect';
      readonly error: string;
      /** A restart finds the platform as it is. */
      readonly saved: boolean;
      /** Guests that get EAGAIN until their certificates are written. */
      readonly guests: readonly string[];
    }
  /** It is written now. */
  | { readonly type: 'recovery' }
  | { readonly type: 'snapshot'; readonly what: 'saved' | 'restored'; readonly guests: readonly string[] };

/** An event with its place in the order of all of them and its time, milliseconds since 1970. */
export type LoggedEvent = HostEvent & { readonly n: number; readonly time_ms: number };

/** Events kept for those who come late. */
const KEPT = 1024;

export class EventLog {
  readonly #nowMs: () => number;
  readonly #followers = new Set<(event: LoggedEvent) => void>();
  #kept: LoggedEvent[] = [];
  #count = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  emit(event: HostEvent): void {
    this.#count += 1;
    const logged = { n: this.#count, time_ms: this.#nowMs(), ...event };
    this.#kept.push(logged);
    if (this.#kept.length > 2 * KEPT) {
      this.#kept = this.#kept.slice(-KEPT);
    }
    for (const follower of this.#followers) {
      follower(logged);
    }
  }

  /** The last events, oldest first. */
  recent(): readonly LoggedEvent[] {
    return this.#kept.slice(-KEPT);
  }

  /** Tells of every event from now on, until the function returned is called. */
  follow(follower: (event: LoggedEvent) => void): () => void {
    this.#followers.add(follower);
    return () => {
      this.#followers.delete(follower);
    };
  }
}
