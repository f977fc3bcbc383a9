// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef } from 'preact/hooks';
import { decodeTcb, formatTcb } from '../../src/abi/tcb-version.ts';
import { type Explanation, exitCodeOf, type Finding, type VerifyResult } from '../../src/verify/index.ts';
import type { Outcome } from './app.tsx';
import { StatusIcon } from './icons.tsx';
import type { Tone } from './tones.ts';
import { cureOf } from './words.ts';

interface Headline {
  readonly tone: Tone | 'test';
  readonly title: string;
  readonly sentence: string;
}

const plural = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? '' : 's'}`;

function tally(findings: readonly Finding[]): string {
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  const warnings = findings.filter(({ severity }) => severity === 'warning').length;
  return [
    ...(errors > 0 ? [plural(errors, 'error')] : []),
    ...(warnings > 0 ? [plural(warnings, 'warning')] : []),
  ].join(', ');
}

const EXIT_MEANINGS: Readonly<Record<number, string>> = {
  2: 'signature or chain',
  3: 'certificates missing',
  4: 'revoked, or no revocation list',
  5: 'not what the policy wants',
};

function headlineOf(outcome: Outcome, blocked: string | null): Headline {
  switch (outcome.of) {
    case 'failure':
      return { tone: 'bad', title: 'No verdict', sentence: outcome.message };
    case 'nothing':
      return {
        tone: 'idle',
        title: 'No evidence yet',
        sentence: 'Drop a report with its certificates; the verdict and its reasons appear here.',
      };
    case 'certificates': {
      if (blocked !== null) {
        return { tone: 'warn', title: 'No verdict', sentence: blocked };
      }
      const { ok, findings } = outcome.result;
      return ok
        ? { tone: 'idle', title: 'Certificates are good', sentence: 'There is no report for them yet.' }
        : {
            tone: 'bad',
            title: 'Certificates refused',
            sentence: `${tally(findings)}. There is no report yet.`,
          };
    }
    case 'report':
      return blocked === null
        ? reportHeadline(outcome.result)
        : { tone: 'warn', title: 'No verdict', sentence: blocked };
  }
}

function reportHeadline(result: VerifyResult): Headline {
  const { findings, chain, product } = result;
  const tallied = tally(findings);
  if (!result.ok) {
    const meaning = EXIT_MEANINGS[exitCodeOf(result)] ?? '';
    return {
      tone: 'bad',
      title: 'Refused',
      sentence: `${tallied === '' ? 'A check could not run' : tallied}: ${meaning}.`,
    };
  }
  const noted = tallied === '' ? '' : ` ${tallied}.`;
  return chain.isAmd
    ? {
        tone: 'ok',
        title: 'Accepted',
        sentence: `Made by a genuine AMD ${product} processor, and what the policy wants.${noted}`,
      }
    : {
        tone: 'test',
        title: 'Accepted under a test root',
        sentence: `Proves nothing about hardware: the root is not AMD’s.${noted}`,
      };
}

/** Whether a time says anything about what is shown. */
const isJudged = (outcome: Outcome): boolean => outcome.of === 'report' || outcome.of === 'certificates';

/**
 * The one verdict, spoken when it changes. It stays at the top of the window, beside whatever is being edited.
 *
 * Shape    `asOfMs` is the time somebody set, null for now
 */
export function Verdict({
  outcome,
  asOfMs,
  blocked,
}: {
  outcome: Outcome;
  asOfMs: number | null;
  blocked: string | null;
}) {
  const { tone, title, sentence } = headlineOf(outcome, blocked);
  const asOf =
    asOfMs === null || blocked !== null || !isJudged(outcome)
      ? ''
      : `as of ${new Date(asOfMs).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
  useEffect(() => {
    const said = asOf === '' ? title : `${title} ${asOf}`;
    document.title = outcome.of === 'nothing' ? 'softsnp console' : `${said} · softsnp console`;
  }, [title, asOf, outcome.of]);
  return (
    <section class={`verdict tone-${tone}`} aria-label="Verdict" ref={useRoomAbove()}>
      <div class="verdict-icon">
        <StatusIcon tone={tone === 'test' ? 'warn' : tone} />
      </div>
      <div role="status" aria-live="polite" aria-atomic="true" class="verdict-words">
        <p class="verdict-title" data-verdict={tone}>
          {title}
        </p>
        {asOf !== '' && <p class="as-of">{asOf}</p>}
        <p class="verdict-sentence">{sentence}</p>
      </div>
      {isJudged(outcome) && (
        <a class="to-reasons" href="#results">
          Reasons <span aria-hidden="true">↓</span>
        </a>
      )}
    </section>
  );
}

/** Has the page scroll to below the verdict, so that nothing with the focus is hidden under it. */
function useRoomAbove() {
  const band = useRef<HTMLElement>(null);
  useEffect(() => {
    const observer = new ResizeObserver(() => {
      document.documentElement.style.scrollPaddingTop = `${band.current!.offsetHeight + 12}px`;
    });
    observer.observe(band.current!);
    return () => observer.disconnect();
  }, []);
  return band;
}

/** What was judged, in a line. */
export function Facts({ name, result }: { name: string | null; result: VerifyResult }) {
  const { report, product, chain, identity } = result;
  if (report === null) {
    return null;
  }
  const tcb =
    product === null
      ? `0x${report.reported_tcb.toString(16)}`
      : formatTcb(decodeTcb(report.reported_tcb, product), product);
  const facts: readonly (readonly [string, string])[] = [
    ['file', name ?? ''],
    ['product', product ?? 'unknown'],
    ['key', chain.leaf?.role?.kind ?? 'none'],
    ['reported_tcb', tcb],
    ['vmpl', String(report.vmpl)],
    ['exit code', String(exitCodeOf(result))],
    ['identity', identity ?? ''],
  ];
  return (
    <section class="panel" aria-label="What was judged">
      <dl class="facts">
        {facts.map(([name, value]) => (
          <div key={name} class={name === 'identity' || name === 'file' ? 'wide' : undefined}>
            <dt>{name}</dt>
            <dd title={name === 'identity' ? `SHA-256 of the signed bytes: ${value}` : undefined}>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

/** Causes found by trying, and their cures. */
export function Why({ why }: { why: readonly Explanation[] }) {
  if (why.length === 0) {
    return null;
  }
  return (
    <section class="panel why" aria-labelledby="why-title">
      <h2 id="why-title">Why not?</h2>
      <ol>
        {why.map(({ code, cause, because, cure }) => (
          <li key={`${code} ${because}`}>
            <p class="cause">{cause}</p>
            <p>{because}</p>
            <p class="action">
              <span aria-hidden="true">→</span> {cureOf({ code, cure })}
            </p>
            <code>{code}</code>
          </li>
        ))}
      </ol>
    </section>
  );
}
