// SPDX-License-Identifier: Apache-2.0
/**
 * What comes to be verified, sorted by what it is. The host controls every byte of it: which slot or
 * position a certificate came in is checked, never believed.
 */
import { ARK_GUID, ASK_GUID, CRL_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import { certificatesOf } from '../certs/pem.ts';
import { readCertificateTable } from '../certs/table.ts';
import { InputError } from '../lib/errors.ts';
import type { KnownCertificate, VerifyCache } from './cache.ts';
import type { Pool } from './chain.ts';
import type { Judging } from './crypto.ts';
import { type Finding, finding } from './findings.ts';
import type { RevocationSource } from './revocation.ts';
import type { CertificateKind } from './roles.ts';

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
}

export interface SortedEvidence extends Pool {
  readonly leaves: readonly KnownCertificate[];
  /** Certificates with names that are none of AMD's. */
  readonly strangers: readonly KnownCertificate[];
  readonly findings: readonly Finding[];
}

/** A chain has three; a folder with the certificates of some TCBs a few more. */
const MAX_CERTIFICATES = 16;
const MAX_LISTS = 8;

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

interface Gathered {
  readonly items: readonly Item[];
  readonly lists: readonly Uint8Array[];
  readonly findings: readonly Finding[];
}

/** Decodes and sorts all certificates and lists; what cannot be read is a finding. */
export function* readEvidence(
  cache: VerifyCache,
  evidence: Omit<Evidence, 'report'>,
): Judging<SortedEvidence> {
  const { items, lists, findings } = gather(evidence);
  const found = [...findings];
  const sorted: Record<'leaves' | 'intermediates' | 'roots' | 'strangers', KnownCertificate[]> = {
    leaves: [],
    intermediates: [],
    roots: [],
    strangers: [],
  };
  const seen = new Set<string>();
  for (const { der, where, slot } of items) {
    const known = yield* cache.certificate(der);
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
    if (!seen.has(known.fingerprint)) {
      seen.add(known.fingerprint);
      sorted[groupOf(kind)].push(known);
    }
  }
  const sources: RevocationSource[] = [];
  for (const der of lists) {
    sources.push(yield* cache.revocationList(der));
  }
  return { ...sorted, lists: sources, findings: found };
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

function gather({ table, certificates = [], crls = [] }: Omit<Evidence, 'report'>): Gathered {
  const fromTable = table === undefined ? null : tableItems(table);
  const items = [
    ...(fromTable?.items ?? []),
    ...certificates.map((der, i) => ({ der, where: `certificates[${i}]`, slot: null })),
  ];
  const lists = [...(fromTable?.lists ?? []), ...crls];
  const findings = [...(fromTable?.findings ?? [])];
  if (items.length > MAX_CERTIFICATES || lists.length > MAX_LISTS) {
    findings.push(
      finding('CERT_TOO_MANY', {
        where: items.length > MAX_CERTIFICATES ? 'certificates' : 'crls',
        expected: `at most ${MAX_CERTIFICATES} certificates and ${MAX_LISTS} revocation lists`,
        actual: `${items.length} and ${lists.length}`,
      }),
    );
  }
  return { items: items.slice(0, MAX_CERTIFICATES), lists: lists.slice(0, MAX_LISTS), findings };
}

function tableItems(table: Uint8Array): Gathered {
  const items: Item[] = [];
  const lists: Uint8Array[] = [];
  const findings: Finding[] = [];
  const reading = readCertificateTable(table);
  if ('fault' in reading) {
    const actual = `${reading.fault}: ${reading.message}`;
    return { items, lists, findings: [finding('CERT_TABLE_INVALID', { where: 'table', actual })] };
  }
  for (const { guid, data } of reading.entries) {
    const slot = SLOTS[guid];
    if (guid === CRL_GUID) {
      lists.push(data);
    } else if (slot !== undefined) {
      const where = `table.${slot.join('/')}`;
      try {
        items.push(...certificatesOf(data).map((der) => ({ der, where, slot })));
      } catch (error) {
        findings.push(finding('CERT_MALFORMED', { where, actual: inputMessage(error) }));
      }
    }
  }
  return { items, lists, findings };
}

function inputMessage(error: unknown): string {
  if (error instanceof InputError) {
    return error.message;
  }
  throw error;
}
