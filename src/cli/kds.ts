// SPDX-License-Identifier: Apache-2.0
/** `softsnp kds`: AMD's key service, from either end. */
import { defineCommand } from 'citty';
import { type Output, processOutput, type Verb } from './run.ts';

/** `softsnp kds`, writing to `output`. */
export function kdsVerb(output: Output): Verb {
  return defineCommand({
    meta: { name: 'kds', description: 'AMD’s key service: serve it for softsnp chips, fetch from it' },
    subCommands: {
      serve: async () => (await import('./kds-serve.ts')).kdsServeVerb(output),
      fetch: async () => (await import('./kds-fetch.ts')).kdsFetchVerb(output),
    },
  });
}

export const kdsCommand: Verb = kdsVerb(processOutput);
