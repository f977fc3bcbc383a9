// SPDX-License-Identifier: Apache-2.0
/**
 * What comes to be verified, sorted by what it is. The host controls every byte of it: which slot or
 * position a certificate came in is checked, never believed.
 */
import { ARK_GUID, ASK_GUID, CRL_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import { certificatesOf } from '../certs/pem.ts';
import { type CertificateEntry, readCertificateTable } from '../certs/table.ts';
import { equalBytes } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import type { KnownCertificate, VerifyCache } from './cache.ts';
import type { Pool } from './chain.ts';
import { type Judging, sha256HexOfEach } from './crypto.ts';
import { type Finding, finding } from './findings.ts';
import type { RevocationSource } from './revocation.ts';
import type { CertificateKind } from './roles.ts';
import type { RuntimeData } from './runtime-data.ts';

/** A report and whatever certificates came with it, in any order. */
export interface Evidence {
  /** The 1184 bytes the firmware made. */
  readonly report: Uint8Array;
  /** GHCB certificate table: auxblob of configfs-tsm, certificates of an extended report. */
  readonly table?: Uint8Array;
  /** Single certificates in DER. */
  readonly certificates?: readonly Uint8Array[];
  /** Revocation lists in DER. */
  readonly crls?: readonly Uint8Array[];
  /** What came beside the report and nothing but its REPORT_DATA vouches for: that of an Azure HCL report. */
  readonly runtimeData?: RuntimeData;
  /** What configfs-tsm calls the device the report is from; for causes alone, nothing is judged by it. */
  readonly provider?: string;
  /** What findings call them, file names say; places that are left out are named by their index. */
  readonly labels?: EvidenceLabels;
}

export interface EvidenceLabels {
  readonly table?: string;
  readonly certificates?: readonly string[];
  readonly crls?: readonly string[];
}

export interface SortedEvidence extends Pool {
  readonly leaves: readonly KnownCertificate[];
  /** Certificates with names that are none of AMD's. */
  readonly strangers: readonly KnownCertificate[];
  /** Entries of the table that are neither certificates nor lists; nothing vouches for what they say. */
  readonly otherEntries: readonly CertificateEntry[];
  readonly findings: readonly Finding[];
}

/** A chain has three; a folder with the certificates of some TCBs a few more. */
export const DEFAULT_MAX_CERTIFICATES = 16;

const SLOTS: Readonly<Record<string, readonly CertificateKind[]>> = {
  [VCEK_GUID]: ['VCEK'],
  [VLEK_GUID]: ['VLEK'],
  [ASK_GUID]: ['ASK', 'ASVK'],
  [ARK_GUID]: ['ARK'],
};

interface Item {
  readonly der: Uint8Array;
  readonly where: string;
  /** What its place in a table says it is; null outside tables. */
  readonly slot: readonly CertificateKind[] | null;
}

interface NamedList {
  readonly der: Uint8Array;
  readonly where: string;
}

interface Gathered {
  readonly items: readonly Item[];
  readonly lists: readonly NamedList[];
  readonly otherEntries: readonly CertificateEntry[];
  readonly findings: readonly Finding[];
}

/** Decodes and sorts all certificates and lists; what cannot be read is a finding. */
export function* readEvidence(
  cache: VerifyCache,
  evidence: Omit<Evidence, 'report'>,
  maxCertificates = DEFAULT_MAX_CERTIFICATES,
): Judging<SortedEvidence> {
  const { items, lists, otherEntries, findings } = gather(evidence, maxCertificates);
  const found = [...findings];
  const sorted: Record<'leaves' | 'intermediates' | 'roots' | 'strangers', KnownCertificate[]> = {
    leaves: [],
    intermediates: [],
    roots: [],
    strangers: [],
  };
  const fingerprints = yield* sha256HexOfEach([...items, ...lists].map(({ der }) => der));
  for (const [i, { der, where, slot }] of items.entries()) {
    const fingerprint = fingerprints[i]!;
    const known = cache.knownCertificate(fingerprint) ?? (yield* cache.certificate(der, fingerprint));
    if ('malformed' in known) {
      found.push(finding('CERT_MALFORMED', { where, actual: known.malformed }));
      continue;
    }
    const kind = known.role?.kind ?? null;
    if (slot !== null && (kind === null || !slot.includes(kind))) {
      found.push(
        finding('CERT_SLOT_MISMATCH', {
          where,
          expected: slot.join(' or '),
          actual: kind ?? known.certificate.subject.text,
        }),
      );
    }
    const group = sorted[groupOf(kind)];
    if (!group.some((other) => other.fingerprint === known.fingerprint)) {
      group.push(known);
    }
  }
  const sources: RevocationSource[] = [];
  for (const [i, { der, where }] of lists.entries()) {
    const fingerprint = fingerprints[items.length + i]!;
    const known = cache.knownRevocationList(fingerprint) ?? (yield* cache.revocationList(der, fingerprint));
    sources.push({ known, where });
  }
  return { ...sorted, lists: sources, otherEntries, findings: found };
}

function groupOf(kind: CertificateKind | null): 'leaves' | 'intermediates' | 'roots' | 'strangers' {
  switch (kind) {
    case 'VCEK':
    case 'VLEK':
      return 'leaves';
    case 'ASK':
    case 'ASVK':
      return 'intermediates';
    case 'ARK':
      return 'roots';
    case null:
      return 'strangers';
  }
}

function gather(
  { table, certificates = [], crls = [], labels = {} }: Omit<Evidence, 'report'>,
  maxCertificates: number,
): Gathered {
  const fromTable = table === undefined ? null : tableItems(table, labels.table ?? 'table');
  const loose = certificates.map((der, i) => ({
    der,
    where: labels.certificates?.[i] ?? `certificates[${i}]`,
    slot: null,
  }));
  const items = distinct([...(fromTable?.items ?? []), ...loose], maxCertificates);
  const lists = [
    ...(fromTable?.lists ?? []),
    ...crls.map((der, i) => ({ der, where: labels.crls?.[i] ?? `CRL[${i}]` })),
  ];
  const findings = [...(fromTable?.findings ?? [])];
  const maxLists = maxCertificates >> 1;
  if (items.length > maxCertificates || lists.length > maxLists) {
    findings.push(
      finding('CERT_TOO_MANY', {
        where: items.length > maxCertificates ? 'certificates' : 'crls',
        expected: `at most ${maxCertificates} certificates and ${maxLists} revocation lists`,
        actual: `${certificates.length + (fromTable?.items.length ?? 0)} and ${lists.length}`,
      }),
    );
  }
  return {
    items: items.slice(0, maxCertificates),
    lists: lists.slice(0, maxLists),
    otherEntries: fromTable?.otherEntries ?? [],
    findings,
  };
}

/** Copies of one certificate count once, or three files of one chain would be too many; stops above the limit. */
function distinct(items: readonly Item[], limit: number): readonly Item[] {
  if (items.length <= limit) {
    return items;
  }
  const kept: Item[] = [];
  for (const item of items) {
    const isCopy = kept.some(
      ({ der, slot }) => (item.slot === null || item.slot === slot) && equalBytes(der, item.der),
    );
    if (!isCopy) {
      kept.push(item);
    }
    if (kept.length > limit) {
      break;
    }
  }
  return kept;
}

function tableItems(table: Uint8Array, name: string): Gathered {
  const items: Item[] = [];
  const lists: NamedList[] = [];
  const otherEntries: CertificateEntry[] = [];
  const findings: Finding[] = [];
  const reading = readCertificateTable(table);
  if ('fault' in reading) {
    const actual = `${reading.fault}: ${reading.message}`;
    findings.push(finding('CERT_TABLE_INVALID', { where: name, actual }));
    return { items, lists, otherEntries, findings };
  }
  for (const { guid, data } of reading.entries) {
    const slot = SLOTS[guid];
    if (guid === CRL_GUID) {
      lists.push({ der: data, where: `${name}.CRL` });
    } else if (slot === undefined) {
      otherEntries.push({ guid, data });
    } else {
      const where = `${name}.${slot.join('/')}`;
      try {
        items.push(...certificatesOf(data).map((der) => ({ der, where, slot })));
      } catch (error) {
        findings.push(finding('CERT_MALFORMED', { where, actual: inputMessage(error) }));
      }
    }
  }
  return { items, lists, otherEntries, findings };
}

function inputMessage(error: unknown): string {
  if (error instanceof InputError) {
    return error.message;
  }
  throw error;
}
