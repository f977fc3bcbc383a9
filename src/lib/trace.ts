// SPDX-License-Identifier: Apache-2.0
/**
 * The eight steps of one attestation request. One trace id runs through all of them; the sink is handed
 * in, so the core neither prints nor stores anything.
 */
export const TRACE_STEPS = [
  'extended-report',
  'ext-guest-request',
  'req-certs',
  'complete-req-certs',
  'guest-request',
  'lock-scope',
  'open-response',
  'verify',
] as const;

export type TraceStep = (typeof TRACE_STEPS)[number];

export type TraceValue = string | number | boolean | null;

export interface TraceEvent {
  readonly trace_id: string;
  /** 1 to 8: the place in TRACE_STEPS. */
  readonly n: number;
  readonly step: TraceStep;
  readonly guest: string;
  /** What the step decided, in one sentence. */
  readonly decided: string;
  /** Wire names and values behind the decision. 64-bit values are 0x-prefixed text. */
  readonly detail: Readonly<Record<string, TraceValue>>;
}

export type TraceSink = (event: TraceEvent) => void;

/** Collects the steps of one guest's requests under one id at a time. */
export class Tracer {
  readonly #guest: string;
  readonly #sink: TraceSink;
  #count = 0;
  #id = '';

  constructor(guest: string, sink: TraceSink) {
    this.#guest = guest;
    this.#sink = sink;
  }

  /** Starts a request; steps emitted from now on carry the new id. */
  begin(): string {
    this.#count += 1;
    this.#id = `${this.#guest}/${this.#count}`;
    return this.#id;
  }

  emit(step: TraceStep, decided: string, detail: Readonly<Record<string, TraceValue>> = {}): void {
    this.#sink({
      trace_id: this.#id,
      n: TRACE_STEPS.indexOf(step) + 1,
      step,
      guest: this.#guest,
      decided,
      detail,
    });
  }
}
