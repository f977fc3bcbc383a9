// SPDX-License-Identifier: Apache-2.0
/** Verdicts for people and for programs. */
import { CERT_GUIDS } from '../abi/cert-table.ts';
import type { ProductLine } from '../abi/product.ts';
import { decodeTcb, formatTcb, type TcbParts, tcbComponents } from '../abi/tcb-version.ts';
import { isZero, toHex } from '../lib/bytes.ts';
import { printable } from '../lib/text.ts';
import type { KnownCertificate, KnownRevocationList } from '../verify/cache.ts';
import type { CertificatesResult } from '../verify/certificates.ts';
import type { Finding } from '../verify/findings.ts';
import { certificateLabel } from '../verify/roles.ts';
import { exitCodeOf, type VerifyResult } from '../verify/verify.ts';
import type { Explanation } from '../verify/why.ts';

/** A certificate in a few fields. */
export function certificateJson(known: KnownCertificate): Record<string, unknown> {
  const { certificate, fingerprint, role, endorsement } = known;
  return {
    kind: role?.kind ?? null,
    product: role?.product ?? null,
    subject: certificate.subject.text,
    issuer: certificate.issuer.text,
    serial: certificate.serial,
    not_before: new Date(certificate.notBeforeMs).toISOString(),
    not_after: new Date(certificate.notAfterMs).toISOString(),
    sha256: fingerprint,
    ...(endorsement === null
      ? {}
      : {
          product_name: shown(endorsement.productName),
          tcb: endorsement.tcb === null ? null : namedParts(endorsement.tcb, role?.product ?? null),
          hwid: endorsement.hwId === null ? null : toHex(endorsement.hwId),
          csp_id: shown(endorsement.cspId),
        }),
  };
}

const shown = (text: string | null): string | null => (text === null ? null : printable(text));

/** The parts a product line has; only Turin has an FMC. */
const namedParts = (tcb: TcbParts, product: ProductLine | null): Partial<TcbParts> =>
  product === null
    ? tcb
    : Object.fromEntries(tcbComponents(product).map((component) => [component, tcb[component]]));

/** A revocation list in a few fields. */
export function revocationListJson({ list, fingerprint }: KnownRevocationList): Record<string, unknown> {
  const iso = (ms: number): string => new Date(ms).toISOString();
  return {
    kind: 'CRL',
    issuer: list.issuer.text,
    number: list.number === null ? null : String(list.number),
    this_update: iso(list.thisUpdateMs),
    next_update: list.nextUpdateMs === null ? null : iso(list.nextUpdateMs),
    revoked: list.revoked.map(({ serial, dateMs }) => ({ serial, date: iso(dateMs) })),
    sha256: fingerprint,
  };
}

/** The whole verdict as one JSON object. */
export function verdictJson(result: VerifyResult, why: readonly Explanation[]): Record<string, unknown> {
  const { leaf, intermediate, root, isAmd, crl } = result.chain;
  return {
    ok: result.ok,
    exit_code: exitCodeOf(result),
    identity: result.identity,
    product: result.product,
    steps: result.steps.map(({ name, ok, notRun }) => ({ name, ok, not_run: notRun })),
    findings: result.findings,
    why,
    chain: {
      is_amd: isAmd,
      certificates: [leaf, intermediate, root].flatMap((known) =>
        known === null ? [] : [certificateJson(known)],
      ),
      crl,
    },
    report: result.report,
    other_table_entries: result.otherEntries.map(({ guid, data }) => ({
      guid,
      kind: CERT_GUIDS[guid] ?? 'unknown',
      data,
    })),
  };
}

/** The verdict in lines; `forms` are what the report was taken out of, if it was not there as it is. */
export function verdictText(
  result: VerifyResult,
  why: readonly Explanation[],
  forms: readonly string[],
): string {
  const lines = [
    result.ok ? 'ACCEPTED' : 'REFUSED',
    ...(forms.length === 0 ? [] : [`read as  ${forms.join(', ')}`]),
    ...summary(result),
    ...result.steps.flatMap(({ name, ok, notRun, findings }) => [
      `${ok ? 'ok  ' : notRun === null ? 'FAIL' : '-   '}  ${name}${notRun === null ? '' : `  (not run: ${notRun})`}`,
      ...findings.flatMap(findingLines),
    ]),
    ...why.flatMap(causeLines),
  ];
  return `${lines.join('\n')}\n`;
}

const causeLines = ({ code, cause, because, cure }: Explanation): string[] => [
  `why   ${cause} [${code}]`,
  `      ${because}`,
  `      -> ${cure}`,
];

/** The verdict on a set of certificates as one JSON object. */
export function chainsJson(result: CertificatesResult, why: readonly Explanation[]): Record<string, unknown> {
  return {
    ok: result.ok,
    exit_code: exitCodeOf(result),
    chains: result.chains.map(({ leaf, intermediate, root, ok }) => ({
      ok,
      certificates: [leaf, intermediate, root].flatMap((known) =>
        known === null ? [] : [certificateJson(known)],
      ),
    })),
    findings: result.findings,
    why,
  };
}

/** The verdict on a set of certificates in lines. */
export function chainsText(result: CertificatesResult, why: readonly Explanation[]): string {
  const chains = result.chains.flatMap(({ leaf, intermediate, root, ok, findings }) => [
    `${ok ? 'ok  ' : 'FAIL'}  ${pathText(root, intermediate, leaf)}`,
    ...findings.flatMap(findingLines),
  ]);
  const others = result.findings.filter(
    (found) => !result.chains.some(({ findings }) => findings.includes(found)),
  );
  return `${[result.ok ? 'ACCEPTED' : 'REFUSED', ...chains, ...others.flatMap(findingLines), ...why.flatMap(causeLines)].join('\n')}\n`;
}

const pathText = (...path: readonly (KnownCertificate | null)[]): string =>
  path
    .flatMap((known) => (known === null || known.role === null ? [] : [certificateLabel(known.role)]))
    .join(' > ');

function summary({ report, product, chain, identity }: VerifyResult): string[] {
  const lines: string[] = [];
  if (report !== null) {
    const tcb =
      product === null
        ? `0x${report.reported_tcb.toString(16)}`
        : formatTcb(decodeTcb(report.reported_tcb, product), product);
    const chip = isZero(report.chip_id) ? 'not named' : `${toHex(report.chip_id.subarray(0, 8))}…`;
    lines.push(
      `report   version ${report.version}, ${product ?? 'product unknown'}, VMPL ${report.vmpl}, REPORTED_TCB ${tcb}, chip ${chip}`,
      `         measurement ${toHex(report.measurement)}`,
      `         identity ${identity}`,
    );
  }
  const path = pathText(chain.root, chain.intermediate, chain.leaf);
  if (path !== '') {
    const root = chain.root === null ? '' : chain.isAmd ? ' (AMD)' : ' (NOT AMD)';
    lines.push(`chain    ${path}${root}`);
  }
  return lines;
}

function findingLines({ severity, code, where, message, expected, actual, action }: Finding): string[] {
  const values = [
    ...(expected === null ? [] : [`expected ${expected}`]),
    ...(actual === null ? [] : [`found ${actual}`]),
  ];
  return [
    `      ${severity.toUpperCase()} ${code} at ${where}: ${message}`,
    ...(values.length === 0 ? [] : [`        ${values.join('; ')}`]),
    ...(severity === 'info' ? [] : [`        -> ${action}`]),
  ];
}
