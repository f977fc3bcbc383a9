// SPDX-License-Identifier: Apache-2.0
/** Before there is evidence: what will be asked of it, and where to get some. */
import { VERIFY_STEPS } from '../../src/verify/index.ts';
import type { Picture } from './chain-model.ts';
import { ChainPicture } from './chain-picture.tsx';
import { QUESTIONS } from './checks.tsx';

const ghost = (kind: string, name: string, ...lines: readonly string[]): Picture['boxes'][number] => ({
  kind,
  name,
  lines,
  tone: 'idle',
  isMissing: true,
  errors: [],
});

const EXPECTED: Picture = {
  boxes: [
    ghost('REPORT', 'from the guest', '1184 bytes', 'versions 2, 3, 4, 5'),
    ghost('VCEK or VLEK', 'SEV-VCEK, SEV-VLEK', 'one chip or one cloud', 'and one REPORTED_TCB'),
    ghost('ASK or ASVK', 'SEV-Milan ...', 'of the product line'),
    ghost('ARK', 'ARK-Milan ...', 'Milan, Genoa, Turin'),
  ],
  links: Array.from({ length: 3 }, () => ({ tone: 'idle', says: 'signed by' })),
  anchor: { kind: 'amd', title: 'AMD root', detail: 'pinned by SHA-256' },
  list: { tone: 'idle', title: 'CRL', detail: 'signed by the ARK' },
};

const SOURCES: readonly { readonly what: string; readonly command: string }[] = [
  {
    what: 'In an SNP guest with configfs-tsm: report and certificates',
    command:
      'd=/sys/kernel/config/tsm/report/r; mkdir $d && head -c 64 /dev/urandom > $d/inblob && cp $d/outblob $d/auxblob .',
  },
  {
    what: 'From AMD, for a report at hand',
    command:
      'softsnp kds fetch vcek --report report.bin --out vcek.pem; softsnp kds fetch ca --product milan --out ca.pem; softsnp kds fetch crl --product milan --out crl.pem',
  },
  { what: 'Without an EPYC, under test roots', command: 'softsnp attest --out evidence' },
];

export function Start() {
  return (
    <>
      <section class="panel" aria-labelledby="start-title">
        <h2 id="start-title">What is looked for</h2>
        <ChainPicture picture={EXPECTED} />
      </section>
      <section class="panel two" aria-labelledby="asked-title">
        <div>
          <h2 id="asked-title">What is asked</h2>
          <ol class="asked">
            {VERIFY_STEPS.map((step) => (
              <li key={step}>
                <h3>{step}</h3>
                <p class="question">{QUESTIONS[step]}</p>
              </li>
            ))}
          </ol>
        </div>
        <div>
          <h2>Where evidence comes from</h2>
          <dl class="sources">
            {SOURCES.map(({ what, command }) => (
              <div key={what}>
                <dt>{what}</dt>
                <dd>
                  <code>{command}</code>
                </dd>
              </div>
            ))}
          </dl>
          <p class="hint">
            A whole folder can be dropped. The files stay in this browser: the page may connect to nothing.
          </p>
        </div>
      </section>
    </>
  );
}
