// SPDX-License-Identifier: Apache-2.0
/** Options of every verb that asks a key service. */
import type { ArgsDef } from 'citty';
import { type KdsCache, MemoryCache } from '../kds/client.ts';
import { CacheDirectory, defaultCacheFolder } from '../os/cache-dir.ts';
import { errnoCode } from '../os/errno.ts';
import { MAX_FILE_BYTES } from './evidence-files.ts';
import { integerOption } from './options.ts';
import type { Output } from './run.ts';

const DEFAULT_DEADLINE_S = 180;

export const CLIENT_ARGS = {
  cache: {
    type: 'string',
    valueHint: 'DIR|none',
    description: 'Where answers of the key service are kept; $XDG_CACHE_HOME/softsnp/kds if left out',
  },
  deadline: {
    type: 'string',
    valueHint: 'SECONDS',
    description: `For each thing that is fetched, waiting included; ${DEFAULT_DEADLINE_S} if left out`,
  },
} as const satisfies ArgsDef;

/** The cache that --cache names. */
export function cacheOption(text: string | undefined, output: Output): KdsCache {
  return text === 'none'
    ? new MemoryCache()
    : new CacheDirectory(text ?? defaultCacheFolder('kds'), {
        maxEntryBytes: MAX_FILE_BYTES,
        onFault: (error) => {
          output.stderr(`softsnp: the cache cannot be written: ${errnoCode(error)}\n`);
        },
      });
}

/** Milliseconds of --deadline. */
export function deadlineOption(text: string | undefined): number {
  return 1000 * (text === undefined ? DEFAULT_DEADLINE_S : integerOption('deadline', text, 1, 86_400));
}
