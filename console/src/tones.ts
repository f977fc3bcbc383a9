// SPDX-License-Identifier: Apache-2.0
import type { StepResult } from '../../src/verify/index.ts';

/** How something stands; never told by colour alone. */
export type Tone = 'ok' | 'warn' | 'bad' | 'idle';

/** Strokes of the sign of a tone, in a box of 16 around (0, 0). */
export const SIGNS: Readonly<Record<Tone, string>> = {
  ok: 'M-4 0.500 -1.200 3.500 4.200 -3',
  warn: 'M0 -4.500 V1 M0 3.900 V4.100',
  bad: 'M-3 -3 3 3 M3 -3 -3 3',
  idle: 'M-3.500 0 H3.500',
};

/** How a check came out. */
export function toneOfStep({ ok, notRun, findings }: StepResult): Tone {
  if (notRun !== null) {
    return 'idle';
  }
  return !ok ? 'bad' : findings.some(({ severity }) => severity === 'warning') ? 'warn' : 'ok';
}
