// SPDX-License-Identifier: Apache-2.0
/** What the picture of a chain says, without how it looks. */
import { decodeTcb, formatTcb } from '../../src/abi/tcb-version.ts';
import { isZero, toHex } from '../../src/lib/bytes.ts';
import { printable } from '../../src/lib/text.ts';
import {
  AMD_ROOTS,
  type ChainVerdict,
  type Finding,
  type KnownCertificate,
  type VerifyResult,
} from '../../src/verify/index.ts';
import { wantedKind } from '../../src/verify/report.ts';
import { certificateLabel } from '../../src/verify/roles.ts';
import { type Tone, toneOfStep } from './tones.ts';

export interface Box {
  /** REPORT, VCEK, ASK ... */
  readonly kind: string;
  readonly name: string;
  readonly lines: readonly string[];
  readonly tone: Tone;
  readonly isMissing: boolean;
  /** Codes of the errors about it. */
  readonly errors: readonly string[];
}

/** Whether the box before it is signed by the box after it. */
export interface Link {
  readonly tone: Tone;
  readonly says: string;
}

/** What the root rests on. */
export interface Anchor {
  readonly kind: 'amd' | 'test' | 'untrusted' | 'none';
  readonly title: string;
  readonly detail: string;
}

/** What is known of revocation. */
export interface ListBadge {
  readonly tone: Tone;
  readonly title: string;
  readonly detail: string;
}

export interface Picture {
  readonly boxes: readonly Box[];
  /** One less than boxes. */
  readonly links: readonly Link[];
  readonly anchor: Anchor;
  readonly list: ListBadge;
}

export const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

/** A text cut to the room there is for it. */
export const fitted = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, length - 1)}…`;

const shortHex = (bytes: Uint8Array): string => `${toHex(bytes.subarray(0, 6))}…`;

type Chain = Pick<ChainVerdict, 'leaf' | 'intermediate' | 'root' | 'crl'>;

/** The picture of a report's chain. */
export function pictureOfReport(result: VerifyResult): Picture {
  const { report, product, chain, findings, steps } = result;
  const own = findings.filter(({ where, severity }) => severity === 'error' && /^report\b/.test(where));
  // What the policy does not want is no defect of the report.
  const defects = own.filter(({ step }) => step !== 'policy' && step !== 'signature').map(({ code }) => code);
  const box: Box = {
    kind: 'REPORT',
    name: report === null ? 'not decoded' : `version ${report.version}`,
    lines:
      report === null
        ? []
        : [
            `${product ?? 'product unknown'}, VMPL ${report.vmpl}`,
            product === null ? '' : `TCB ${formatTcb(decodeTcb(report.reported_tcb, product), product)}`,
            isZero(report.chip_id) ? 'chip not named' : `chip ${shortHex(report.chip_id)}`,
          ],
    tone: defects.length > 0 || report === null ? 'bad' : 'ok',
    isMissing: false,
    errors: defects,
  };
  const signature = steps.find(({ name }) => name === 'signature')!;
  const tone = toneOfStep(signature);
  const rest = pictureOfChain(chain, findings, (report === null ? null : wantedKind(report)) ?? 'VCEK');
  return {
    ...rest,
    boxes: [box, ...rest.boxes],
    links: [
      { tone, says: tone === 'idle' ? 'not checked' : tone === 'bad' ? 'NOT signed by' : 'signed by' },
      ...rest.links,
    ],
  };
}

/** The picture of a chain without a report. */
export function pictureOfChain(
  chain: Chain,
  findings: readonly Finding[],
  /** Null where there is no report, hence no kind to want. */
  wanted: 'VCEK' | 'VLEK' | null,
): Picture {
  const { leaf, intermediate, root, crl } = chain;
  const isLeafless = leaf === null && wanted === null;
  const kind = leaf?.role?.kind ?? wanted ?? (intermediate?.role?.kind === 'ASVK' ? 'VLEK' : 'VCEK');
  return {
    boxes: [
      // Without a report nobody misses a leaf.
      ...(isLeafless ? [] : [certificateBox(leaf, kind, findings)]),
      certificateBox(intermediate, kind === 'VLEK' ? 'ASVK' : 'ASK', findings),
      certificateBox(root, 'ARK', findings),
    ],
    links: [
      ...(isLeafless ? [] : [signedBy(leaf, intermediate, findings)]),
      signedBy(intermediate, root, findings),
    ],
    anchor: anchorOf(root, findings),
    list: listBadge(findings, crl),
  };
}

const labelOf = (known: KnownCertificate): string =>
  known.role === null ? known.certificate.subject.text : certificateLabel(known.role);

function certificateBox(known: KnownCertificate | null, kind: string, findings: readonly Finding[]): Box {
  if (known === null) {
    return {
      kind,
      name: 'missing',
      lines: ['not among the files'],
      tone: 'bad',
      isMissing: true,
      errors: [],
    };
  }
  const { certificate, role, endorsement, fingerprint } = known;
  const label = labelOf(known);
  const about = findings.filter(({ where }) => where === label || where.startsWith(`${label}.`));
  const errors = about.filter(({ severity }) => severity === 'error').map(({ code }) => code);
  const tcb = endorsement?.tcb ?? null;
  return {
    kind: role?.kind ?? kind,
    name: certificate.subject.commonName ?? 'no common name',
    lines: [
      ...(tcb === null || role === null ? [] : [`TCB ${formatTcb(tcb, role.product)}`]),
      ...(endorsement === null
        ? [`serial 0x${certificate.serial.slice(0, 14)}`]
        : endorsement.hwId !== null
          ? [`chip ${shortHex(endorsement.hwId)}`]
          : [fitted(printable(endorsement.cspId ?? 'no provider'), 22)]),
      `until ${dayOf(certificate.notAfterMs)}`,
      ...(endorsement === null ? [`sha256 ${fingerprint.slice(0, 12)}…`] : []),
    ],
    tone: errors.length > 0 ? 'bad' : about.some(({ severity }) => severity === 'warning') ? 'warn' : 'ok',
    isMissing: false,
    errors,
  };
}

function signedBy(
  signed: KnownCertificate | null,
  issuer: KnownCertificate | null,
  findings: readonly Finding[],
): Link {
  if (signed === null || issuer === null) {
    return { tone: 'idle', says: 'not checked' };
  }
  const isBad = findings.some(
    ({ code, where }) => code === 'CERT_SIGNATURE_MISMATCH' && where.startsWith(`${labelOf(signed)}.`),
  );
  return isBad || !signed.certificate.signatureAlgorithm.isAmdPss
    ? { tone: 'bad', says: 'NOT signed by' }
    : { tone: 'ok', says: 'signed by' };
}

function anchorOf(root: KnownCertificate | null, findings: readonly Finding[]): Anchor {
  if (root === null) {
    return { kind: 'none', title: 'No root', detail: 'nothing to trust' };
  }
  if (findings.some(({ code }) => code === 'ROOT_UNTRUSTED')) {
    return { kind: 'untrusted', title: 'NOT TRUSTED', detail: 'matches no pin' };
  }
  return AMD_ROOTS.some(({ sha256 }) => sha256 === root.fingerprint)
    ? { kind: 'amd', title: 'AMD root', detail: 'pinned by SHA-256' }
    : { kind: 'test', title: 'TEST ROOT', detail: 'NOT AMD' };
}

function listBadge(findings: readonly Finding[], crl: Chain['crl']): ListBadge {
  const about = findings.filter(({ step }) => step === 'revocation');
  const error = about.find(({ severity }) => severity === 'error');
  if (error !== undefined) {
    const titles: Readonly<Record<string, string>> = {
      CERT_REVOKED: 'REVOKED',
      CRL_MISSING: 'No revocation list',
    };
    return { tone: 'bad', title: titles[error.code] ?? 'CRL not usable', detail: error.code };
  }
  if (about.some(({ code }) => code === 'CRL_NOT_CHECKED')) {
    return { tone: 'idle', title: 'Not checked', detail: 'for revocation' };
  }
  if (crl !== null) {
    return {
      tone: 'ok',
      title: 'Not revoked',
      detail: `CRL ${crl.number ?? ''}, to ${dayOf(crl.nextUpdateMs)}`,
    };
  }
  return { tone: 'idle', title: 'CRL', detail: 'no root to judge it' };
}
