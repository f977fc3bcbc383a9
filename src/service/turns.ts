// SPDX-License-Identifier: Apache-2.0
/** Turns for those who change one thing: each has it to itself until it is done, in the order they came. */
import type { Eventually } from '../devices/fuse/filesystem.ts';

export class Turns {
  #last: Promise<void> | null = null;

  /** Runs `work` when nobody else's is under way, at once if that is now. */
  take<T>(work: () => Eventually<T>): Promise<T> {
    const answer = this.#last === null ? begun(work) : this.#last.then(work);
    const done = (): void => {
      if (this.#last === turn) {
        this.#last = null;
      }
    };
    const turn: Promise<void> = answer.then(done, done);
    this.#last = turn;
    return answer;
  }
}

async function begun<T>(work: () => Eventually<T>): Promise<T> {
  return work();
}
