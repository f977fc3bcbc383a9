// SPDX-License-Identifier: Apache-2.0
/** An orderly end on signals, for processes that have mounts and locks to give back. */
import { constants } from 'node:os';

const SIGNALS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGHUP'];

/**
 * Resolves at the first SIGTERM, SIGINT or SIGHUP: the caller closes what it has, then ends.
 *
 * A second signal ends the process at once, with the exit hooks that detach mounts as its only farewell.
 */
export function shutdownSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    let asked = false;
    for (const signal of SIGNALS) {
      process.on(signal, () => {
        if (asked) {
          process.exit(128 + constants.signals[signal]);
        }
        asked = true;
        resolve(signal);
      });
    }
  });
}
