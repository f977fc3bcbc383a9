// SPDX-License-Identifier: Apache-2.0

import { SIGNS, type Tone } from './tones.ts';

const NAMES: Readonly<Record<Tone, string>> = {
  ok: 'passed',
  warn: 'warning',
  bad: 'failed',
  idle: 'not run',
};

/** A disc with the sign of a tone; `label` where no text beside it says the same. */
export function StatusIcon({ tone, label = false }: { tone: Tone; label?: boolean }) {
  const sign = (
    <>
      <circle r="8" />
      <path d={SIGNS[tone]} />
    </>
  );
  const shape = { class: `status status-${tone}`, viewBox: '-8 -8 16 16' };
  return label ? (
    <svg {...shape} role="img">
      <title>{NAMES[tone]}</title>
      {sign}
    </svg>
  ) : (
    <svg {...shape} aria-hidden="true">
      {sign}
    </svg>
  );
}
