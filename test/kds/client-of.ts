// SPDX-License-Identifier: Apache-2.0
/** A client whose waiting takes no time but moves its clock, and what it asks for in these tests. */

import { embeddedAuthority, KdsClient, type KdsClientOptions } from '../../src/kds/index.ts';
import { VirtualClock } from '../../src/lib/clock.ts';
import { nodeVerifyCrypto } from '../../src/os/verify-crypto.ts';
import { kdsJudge } from '../../src/verify/kds-judge.ts';
import { hwid, NOW_MS, type TestService, tcbOf } from './setup.ts';

export const roots = (['Milan', 'Genoa', 'Turin'] as const).map((product) => embeddedAuthority(product).ark);
export const verifyCrypto = nodeVerifyCrypto();

export function clientOf(
  base: string,
  options: Partial<KdsClientOptions> & { clock?: VirtualClock; trust?: 'amd' } = {},
) {
  const clock = options.clock ?? new VirtualClock(NOW_MS);
  const waits: number[] = [];
  const troubles: string[] = [];
  const client = new KdsClient({
    judge: kdsJudge({ crypto: verifyCrypto, clock, trust: options.trust ?? roots }),
    base,
    sleep: async (ms) => {
      waits.push(ms);
      clock.advance(ms);
    },
    jitter: () => 0.5,
    onTrouble: (_url, why) => {
      troubles.push(why);
    },
    ...options,
    clock,
  });
  return { client, clock, waits, troubles };
}

export const milan = () => ['Milan', hwid('Milan'), tcbOf('Milan')] as const;

/** How often the service was asked for a target with this in it. */
export const count = ({ log }: TestService, part: string): number =>
  log.filter(({ target }) => target.includes(part)).length;
