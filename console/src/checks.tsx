// SPDX-License-Identifier: Apache-2.0
import type { Finding, VerifyResult, VerifyStep } from '../../src/verify/index.ts';
import { StatusIcon } from './icons.tsx';
import { type Tone, toneOfStep } from './tones.ts';
import { actionOf, sourceOf } from './words.ts';

export const QUESTIONS: Readonly<Record<VerifyStep, string>> = {
  decode: 'Are these the 1184 bytes of a known report version, and can the certificates be read?',
  product: 'Do report and certificate belong to one product line?',
  chain: 'Does a trusted root vouch for the intermediate, and that one for the leaf, at this time?',
  revocation: 'Does a current list of the root say that none of them is revoked?',
  'leaf-matches-report': 'Is the certificate for this chip, this REPORTED_TCB and this kind of key?',
  signature:
    'Did the key of the leaf sign the bytes received, 0x000–0x29f, and does the report vouch for what came beside it?',
  policy: 'Is the report what the policy wants?',
};

const SEVERITY_TONES = { error: 'bad', warning: 'warn', info: 'idle' } as const satisfies Record<
  Finding['severity'],
  Tone
>;

/** The seven checks with all they found. */
export function Checks({ result, isPolicyReadable }: { result: VerifyResult; isPolicyReadable: boolean }) {
  return (
    <section class="panel" aria-labelledby="checks-title">
      <h2 id="checks-title">Checks</h2>
      <ol class="checks">
        {result.steps.map((step) => {
          const isUnread = step.name === 'policy' && !isPolicyReadable;
          const notRun = isUnread ? 'The policy cannot be read.' : step.notRun;
          const tone = isUnread ? 'idle' : toneOfStep(step);
          return (
            <li key={step.name} class={`check check-${tone}`} data-check={step.name}>
              <StatusIcon tone={tone} label />
              <div>
                <h3>{step.name}</h3>
                <p class="question">{QUESTIONS[step.name]}</p>
                {notRun !== null && <p class="not-run">Not run: {notRun}</p>}
                {!isUnread && step.findings.length > 0 && <Findings findings={step.findings} />}
              </div>
            </li>
          );
        })}
      </ol>
    </section>
  );
}

export function Findings({ findings }: { findings: readonly Finding[] }) {
  return (
    <ul class="findings">
      {findings.map(({ severity, code, where, message, expected, actual, action, source }, i) => (
        <li key={`${code} ${where} ${i}`} class={`finding finding-${SEVERITY_TONES[severity]}`}>
          <p class="finding-head">
            <b>{severity}</b>
            <code>{code}</code>
            <span class="where">{where}</span>
          </p>
          <p>{message}</p>
          {(expected !== null || actual !== null) && (
            <dl>
              {expected !== null && (
                <div>
                  <dt>expected</dt>
                  <dd>{expected}</dd>
                </div>
              )}
              {actual !== null && (
                <div>
                  <dt>found</dt>
                  <dd>{actual}</dd>
                </div>
              )}
            </dl>
          )}
          {severity !== 'info' && (
            <p class="action">
              <span aria-hidden="true">→</span> {actionOf({ code, action })}
            </p>
          )}
          <p class="source">{sourceOf({ source })}</p>
        </li>
      ))}
    </ul>
  );
}
