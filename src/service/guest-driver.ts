// SPDX-License-Identifier: Apache-2.0
/** The queue in front of a guest's sev-guest driver: programs come in parallel, the guest answers in turn. */
import { Errno } from '../abi/errno.ts';
import type { SevGuestDriver } from '../devices/sev-guest/device.ts';
import type { SevGuestReply } from '../guest/sev-guest.ts';
import type { Guest } from '../machine/index.ts';
import type { RunEnd } from '../vmm/scheduler.ts';

/** What a program sees of a guest that has ended: its device does not answer any more. */
const GONE: SevGuestReply = {
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
}

/** Carries calls to a guest's driver, one after another in the order they came. */
export class GuestQueue {
  readonly #options: GuestQueueOptions;
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #served = 0;
  #ended = false;

  constructor(options: GuestQueueOptions) {
    this.#options = options;
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
      try {
        return await this.#carry(call);
      } finally {
        this.#waiting -= 1;
        this.#served += 1;
      }
    });
    // One call's failure is its caller's; the next one goes on.
    this.#last = answer.catch(() => undefined);
    return answer;
  };

  async #carry(call: Parameters<SevGuestDriver>[0]): Promise<SevGuestReply> {
    if (this.#ended) {
      return GONE;
    }
    const { guest, sleep, onEnd } = this.#options;
    const handle = guest.kernel.sevGuestIoctl(call);
    const end = await guest.runUntilAsync(() => handle.done, sleep);
    if (handle.result !== undefined) {
      return handle.result;
    }
    this.#ended = true;
    onEnd(end);
    return GONE;
  }
}
