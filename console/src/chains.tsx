// SPDX-License-Identifier: Apache-2.0
import { useState } from 'preact/hooks';
import { formatTcb } from '../../src/abi/tcb-version.ts';
import { toHex } from '../../src/lib/bytes.ts';
import { printable } from '../../src/lib/text.ts';
import type { CertificatesResult, KnownCertificate, VerifyResult } from '../../src/verify/index.ts';
import { pictureOfChain, pictureOfReport } from './chain-model.ts';
import { ChainPicture } from './chain-picture.tsx';
import { Findings } from './checks.tsx';

const present = (known: KnownCertificate | null): readonly KnownCertificate[] =>
  known === null ? [] : [known];

export function ReportChain({ result }: { result: VerifyResult }) {
  const { leaf, intermediate, root } = result.chain;
  return (
    <section class="panel" aria-labelledby="chain-title">
      <h2 id="chain-title">Chain</h2>
      <ChainPicture picture={pictureOfReport(result)} />
      <CertificateDetails certificates={[leaf, intermediate, root].flatMap(present)} />
    </section>
  );
}

/** Chains that are drawn at once; a collection has hundreds. */
const MANY_CHAINS = 8;

/** Every chain there is among certificates without a report, the refused ones first. */
export function CertificateChains({ result }: { result: CertificatesResult }) {
  const [showsAll, setShowsAll] = useState(false);
  const own = new Set(result.chains.flatMap(({ findings }) => findings));
  const others = result.findings.filter((found) => !own.has(found));
  const chains = [...result.chains].sort((a, b) => Number(a.ok) - Number(b.ok));
  const shown = showsAll ? chains : chains.slice(0, MANY_CHAINS);
  return (
    <>
      {others.length > 0 && (
        <section class="panel" aria-labelledby="reading-title">
          <h2 id="reading-title">Reading</h2>
          <Findings findings={others} />
        </section>
      )}
      {shown.map(({ leaf, intermediate, root, crl, findings }, i) => (
        <section key={`${i}`} class="panel" aria-labelledby={`chain-${i}`}>
          <h2 id={`chain-${i}`}>{chains.length === 1 ? 'Chain' : `Chain ${i + 1} of ${chains.length}`}</h2>
          <ChainPicture picture={pictureOfChain({ leaf, intermediate, root, crl }, findings, null)} />
          <CertificateDetails certificates={[leaf, intermediate, root].flatMap(present)} />
          {findings.length > 0 && <Findings findings={findings} />}
        </section>
      ))}
      {shown.length < chains.length && (
        <button type="button" onClick={() => setShowsAll(true)}>
          Show the other {chains.length - shown.length} chains
        </button>
      )}
    </>
  );
}

function CertificateDetails({ certificates }: { certificates: readonly KnownCertificate[] }) {
  if (certificates.length === 0) {
    return null;
  }
  return (
    <details class="certificates">
      <summary>Certificates in full</summary>
      {certificates.map((known) => (
        <dl key={known.fingerprint} class="rows">
          {rowsOf(known).map(([name, value]) => (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      ))}
    </details>
  );
}

function rowsOf({
  certificate,
  role,
  fingerprint,
  endorsement,
}: KnownCertificate): readonly (readonly [string, string])[] {
  const { tcb = null, hwId = null, cspId = null, productName = null } = endorsement ?? {};
  return [
    ['kind', role === null ? 'none of AMD’s' : `${role.kind}, ${role.product}`],
    ['subject', certificate.subject.text],
    ['issuer', certificate.issuer.text],
    ['serial', `0x${certificate.serial}`],
    ['not_before', new Date(certificate.notBeforeMs).toISOString()],
    ['not_after', new Date(certificate.notAfterMs).toISOString()],
    ['signature', certificate.signatureAlgorithm.text],
    ['sha256', fingerprint],
    ...(productName === null ? [] : [['product_name', printable(productName)] as const]),
    ...(tcb === null || role === null ? [] : [['tcb', formatTcb(tcb, role.product)] as const]),
    ...(hwId === null ? [] : [['hwid', toHex(hwId)] as const]),
    ...(cspId === null ? [] : [['csp_id', printable(cspId)] as const]),
  ];
}
