// SPDX-License-Identifier: Apache-2.0

/** How something stands; never told by colour alone. */
export type Tone = 'ok' | 'warn' | 'bad' | 'idle';

/** Strokes of the sign of a tone, in a box of 16 around (0, 0). */
export const SIGNS: Readonly<Record<Tone, string>> = {
  ok: 'M-4 0.500 -1.200 3.500 4.200 -3',
  warn: 'M0 -4.500 V1 M0 3.900 V4.100',
  bad: 'M-3 -3 3 3 M3 -3 -3 3',
  idle: 'M-3.500 0 H3.500',
};

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
