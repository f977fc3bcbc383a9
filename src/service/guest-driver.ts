// SPDX-License-Identifier: Apache-2.0
/** The queue in front of a guest's sev-guest driver: programs come in parallel, the guest answers in turn. */
import { Errno } from '../abi/errno.ts';
import type { SevGuestDriver } from '../devices/sev-guest/device.ts';
import type { GuestKernel, JobHandle } from '../guest/kernel.ts';
import type { SevGuestReply } from '../guest/sev-guest.ts';
import type { Guest } from '../machine/index.ts';
import type { RunEnd } from '../vmm/scheduler.ts';

/** What a program sees of a guest that has ended: its device does not answer any more. */
export const GONE: SevGuestReply = {
  ret: -Errno.EIO,
  exitinfo2: 0n,
  writeBack: false,
  response: null,
  certs: null,
  req_data: null,
};

export interface GuestQueueOptions {
  readonly guest: Guest;
  /** Makes time pass; with 0, lets the event loop go round. */
  readonly sleep: (ms: number) => Promise<void>;
  /** The guest runs no further: once, at the first call that meets it. */
  readonly onEnd: (end: RunEnd) => void;
  /** Calls answered before, by the guest that this one stands for. */
  readonly served?: number;
}

/** Carries calls to a guest's driver, one after another in the order they came. */
export class GuestQueue {
  readonly #options: GuestQueueOptions;
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #served: number;
  #ended = false;
  #carrying = false;
  #held: { readonly released: Promise<void>; readonly release: () => void } | null = null;

  constructor(options: GuestQueueOptions) {
    this.#options = options;
    this.#served = options.served ?? 0;
  }

  /** Calls that have no answer yet. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Calls answered. */
  get served(): number {
    return this.#served;
  }

  readonly driver: SevGuestDriver = (call) => {
    this.#waiting += 1;
    const answer = this.#last.then(async () => {
      while (this.#held !== null) {
        await this.#held.released;
      }
      this.#carrying = true;
      try {
        return await this.#carry(call);
      } finally {
        this.#carrying = false;
        this.#waiting -= 1;
        this.#served += 1;
      }
    });
    // One call's failure is its caller's; the next one goes on.
    this.#last = answer.catch(() => undefined);
    return answer;
  };

  /** Lets no further call begin until `release`. */
  hold(): void {
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#held = { released, release };
  }

  release(): void {
    this.#held?.release();
    this.#held = null;
  }

  /** No call is under way: nothing but what is asked of `run` runs in the guest while it is held. */
  get idle(): boolean {
    return !this.#carrying;
  }

  /** Answers no call from now on, as if the guest had ended. */
  end(): void {
    this.#ended = true;
  }

  /**
   * Has the guest's kernel do something.
   *
   * Returns  null when the guest has ended, or ends over it
   */
  async run<T>(start: (kernel: GuestKernel) => JobHandle<T>): Promise<T | null> {
    if (this.#ended) {
      return null;
    }
    const { guest, sleep, onEnd } = this.#options;
    const handle = start(guest.kernel);
    const end = await guest.runUntilAsync(() => handle.done, sleep);
    if (handle.result !== undefined) {
      return handle.result;
    }
    this.#ended = true;
    onEnd(end);
    return null;
  }

  async #carry(call: Parameters<SevGuestDriver>[0]): Promise<SevGuestReply> {
    return (await this.run((kernel) => kernel.sevGuestIoctl(call))) ?? GONE;
  }
}
