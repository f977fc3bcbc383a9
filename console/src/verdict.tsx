// SPDX-License-Identifier: Apache-2.0
import { useEffect } from 'preact/hooks';
import { decodeTcb, formatTcb } from '../../src/abi/tcb-version.ts';
import { type Explanation, exitCodeOf, type Finding, type VerifyResult } from '../../src/verify/index.ts';
import type { Outcome } from './app.tsx';
import { StatusIcon } from './icons.tsx';
import type { Tone } from './tones.ts';

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

/** The one verdict, spoken when it changes. */
export function Verdict({ outcome, blocked }: { outcome: Outcome; blocked: string | null }) {
  const { tone, title, sentence } = headlineOf(outcome, blocked);
  useEffect(() => {
    document.title = outcome.of === 'nothing' ? 'softsnp console' : `${title} · softsnp console`;
  }, [title, outcome.of]);
  return (
    <section class={`verdict tone-${tone}`} aria-label="Verdict">
      <div class="verdict-icon">
        <StatusIcon tone={tone === 'test' ? 'warn' : tone} />
      </div>
      <div role="status" aria-live="polite" aria-atomic="true" class="verdict-words">
        <p class="verdict-title" data-verdict={tone}>
          {title}
        </p>
        <p class="verdict-sentence">{sentence}</p>
      </div>
      {outcome.of === 'report' && blocked === null && <Facts result={outcome.result} />}
    </section>
  );
}

function Facts({ result }: { result: VerifyResult }) {
  const { report, product, chain, identity } = result;
  if (report === null) {
    return null;
  }
  const tcb =
    product === null
      ? `0x${report.reported_tcb.toString(16)}`
      : formatTcb(decodeTcb(report.reported_tcb, product), product);
  const facts: readonly (readonly [string, string])[] = [
    ['product', product ?? 'unknown'],
    ['key', chain.leaf?.role?.kind ?? 'none'],
    ['reported_tcb', tcb],
    ['vmpl', String(report.vmpl)],
    ['exit code', String(exitCodeOf(result))],
    ['identity', identity ?? ''],
  ];
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name} class={name === 'identity' ? 'wide' : undefined}>
          <dt>{name}</dt>
          <dd title={name === 'identity' ? `SHA-256 of the signed bytes: ${value}` : undefined}>{value}</dd>
        </div>
      ))}
    </dl>
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
              <span aria-hidden="true">→</span> {cure}
            </p>
            <code>{code}</code>
          </li>
        ))}
      </ol>
    </section>
  );
}
