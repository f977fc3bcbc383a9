// SPDX-License-Identifier: Apache-2.0
/** A measurement told page by page, in a form that can be kept as JSON and compared later. */
import { PageType } from '../abi/page-info.ts';
import { Vmsa } from '../abi/vmsa.ts';
import { PAGE_SIZE } from '../lib/addresses.ts';
import { isZero, toHex } from '../lib/bytes.ts';
import { type DigestOptions, launchDigest, pageContents } from './digest.ts';
import { type Hash, KERNEL_HASH_ENTRIES, KERNEL_HASHES_SIZE, readKernelHashes } from './kernel-hashes.ts';
import { type LaunchPart, sevLaunchDigest } from './legacy.ts';
import type { MeasuredPages } from './plan.ts';

/** One measured page, for SEV and SEV-ES one measured run of bytes, or the digest that stands for an image. */
export interface LedgerRow {
  /** Guest physical address, 0x-prefixed; null where the mode measures none. */
  readonly gpa: string | null;
  /** NORMAL, VMSA, ZERO, UNMEASURED, SECRETS or CPUID; DATA for SEV and SEV-ES; DIGEST for an image given by its. */
  readonly type: string;
  readonly what: string;
  /** Hash of the contents; null where only the type and the address count. */
  readonly contents: string | null;
  /** Launch digest after this row; null where the mode has none before the end. */
  readonly digest: string | null;
  /** What the contents say: registers of a VMSA that are not zero, hashes of a kernel hashes page. */
  readonly fields?: Readonly<Record<string, string>>;
}

const TYPE_NAMES = new Map<number, string>(Object.entries(PageType).map(([name, type]) => [type, name]));

/** The ledger of an SNP launch. The last row's digest is the launch digest. */
export function snpLedger(sha384: Hash, plan: MeasuredPages, options: DigestOptions = {}): LedgerRow[] {
  const rows: LedgerRow[] = [];
  if (options.seed !== undefined) {
    const seed = toHex(options.seed);
    rows.push({ gpa: null, type: 'DIGEST', what: 'OVMF, by its hash', contents: seed, digest: seed });
  }
  launchDigest(sha384, plan, {
    ...options,
    onPage: ({ gpa, type, data, what, digest }) => {
      const contents = pageContents(sha384, type, data);
      const fields = data === null ? undefined : fieldsOf(what, data);
      rows.push({
        gpa: `0x${gpa.toString(16).padStart(12, '0')}`,
        type: TYPE_NAMES.get(type)!,
        what,
        contents: contents === null ? null : toHex(contents),
        digest: toHex(digest),
        ...(fields === undefined ? {} : { fields }),
      });
    },
  });
  return rows;
}

/** The ledger of a SEV or SEV-ES launch. */
export function sevLedger(sha256: Hash, parts: readonly LaunchPart[]): LedgerRow[] {
  const digest = toHex(sevLaunchDigest(sha256, parts));
  return parts.map(({ what, data }, i) => {
    const fields = fieldsOf(what, data);
    return {
      gpa: null,
      type: 'DATA',
      what,
      contents: toHex(sha256(data)),
      digest: i === parts.length - 1 ? digest : null,
      ...(fields === undefined ? {} : { fields }),
    };
  });
}

function fieldsOf(what: string, data: Uint8Array): Record<string, string> | undefined {
  if (what.startsWith('VMSA of')) {
    return vmsaFields(data);
  }
  if (what !== 'kernel hashes') {
    return undefined;
  }
  // The page is zero around the table; the bare table of SEV and SEV-ES begins with its first byte.
  const at = data.length === KERNEL_HASHES_SIZE ? 0 : data.findIndex((byte) => byte !== 0);
  return Object.fromEntries(
    readKernelHashes(data, Math.min(at, PAGE_SIZE - KERNEL_HASHES_SIZE)).map((hash, i) => [
      KERNEL_HASH_ENTRIES[i]!,
      toHex(hash),
    ]),
  );
}

function vmsaFields(page: Uint8Array): Record<string, string> {
  const fields: Record<string, string> = {};
  const put = (name: string, value: unknown): void => {
    if (typeof value === 'number' || typeof value === 'bigint') {
      if (BigInt(value) !== 0n) {
        fields[name] = `0x${value.toString(16)}`;
      }
    } else if (value instanceof Uint8Array) {
      if (!isZero(value)) {
        fields[name] = toHex(value);
      }
    } else {
      for (const [part, inner] of Object.entries(value as object)) {
        put(`${name}.${part}`, inner);
      }
    }
  };
  for (const [name, value] of Object.entries(Vmsa.decodeLoose(page))) {
    put(name, value);
  }
  return fields;
}

export interface LedgerDifference {
  /** Whether the page is on one side only, differs, or stands at another place in the order. */
  readonly kind: 'only-in-a' | 'only-in-b' | 'type' | 'contents' | 'order';
  readonly gpa: string | null;
  readonly what: string;
  /** The differing fields, types or hashes: [name, in A, in B]. */
  readonly fields: readonly (readonly [name: string, a: string, b: string])[];
}

/** The launch digest a ledger ends in; null where it has no rows. */
export const measurementOf = (rows: readonly LedgerRow[]): string | null => rows.at(-1)?.digest ?? null;

/**
 * What makes two launches measure differently.
 *
 * Returns  nothing when every page is the same and in the same order
 */
export function compareLedgers(a: readonly LedgerRow[], b: readonly LedgerRow[]): LedgerDifference[] {
  const inA = byKey(a);
  const inB = byKey(b);
  const differences: LedgerDifference[] = [];
  for (const [key, row] of inA) {
    const other = inB.get(key);
    if (other === undefined) {
      differences.push({ kind: 'only-in-a', gpa: row.gpa, what: row.what, fields: [] });
    } else if (row.type !== other.type) {
      const fields = [['type', row.type, other.type]] as const;
      differences.push({ kind: 'type', gpa: row.gpa, what: row.what, fields });
    } else if (row.contents !== other.contents) {
      differences.push({
        kind: 'contents',
        gpa: row.gpa,
        what: row.what,
        fields: differingFields(row, other),
      });
    }
  }
  for (const [key, row] of inB) {
    if (!inA.has(key)) {
      differences.push({ kind: 'only-in-b', gpa: row.gpa, what: row.what, fields: [] });
    }
  }
  const order = firstMove(
    [...inA.keys()].filter((key) => inB.has(key)),
    [...inB.keys()].filter((key) => inA.has(key)),
  );
  if (order !== null) {
    const row = inA.get(order)!;
    differences.push({ kind: 'order', gpa: row.gpa, what: row.what, fields: [] });
  }
  return differences;
}

/** Rows by what identifies them: the address, or for VMSAs, which share one, the vCPU. */
function byKey(rows: readonly LedgerRow[]): Map<string, LedgerRow> {
  const seen = new Map<string, number>();
  const keyed = new Map<string, LedgerRow>();
  for (const row of rows) {
    const name = row.type === 'VMSA' || row.gpa === null ? row.what : row.gpa;
    const times = seen.get(name) ?? 0;
    seen.set(name, times + 1);
    keyed.set(`${name} #${times}`, row);
  }
  return keyed;
}

function differingFields(a: LedgerRow, b: LedgerRow): [string, string, string][] {
  const names = new Set([...Object.keys(a.fields ?? {}), ...Object.keys(b.fields ?? {})]);
  const fields = [...names].flatMap((name): [string, string, string][] => {
    const [left, right] = [a.fields?.[name] ?? '0x0', b.fields?.[name] ?? '0x0'];
    return left === right ? [] : [[name, left, right]];
  });
  return fields.length > 0 ? fields : [['contents', a.contents ?? '', b.contents ?? '']];
}

function firstMove(a: readonly string[], b: readonly string[]): string | null {
  return a.find((key, i) => key !== b[i]) ?? null;
}
