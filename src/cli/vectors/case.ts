// SPDX-License-Identifier: Apache-2.0
/** One piece of evidence with its verdict, and how it is put together around one platform. */
import { fromHex, reversed, toHex } from '../../lib/bytes.ts';
import type { Evidence } from '../../verify/evidence.ts';
import type { FindingCode } from '../../verify/findings.ts';
import type { VerifyOptions } from '../../verify/verify.ts';
import {
  type Forge,
  type LeafChanges,
  type RawExtension,
  type ReportChanges,
  VECTOR_TIME_MS,
} from './forge.ts';

/** Evidence and what a verifier must say to it. */
export interface VectorCase {
  readonly name: string;
  /** What is wrong, or why it is not. */
  readonly what: string;
  readonly evidence: Evidence;
  readonly options: Pick<VerifyOptions, 'atMs' | 'crl' | 'crlMinimumNumber' | 'product'> & {
    readonly trust: 'amd' | readonly Uint8Array[];
  };
  /** Codes of all errors among the findings, each once; empty: accepted. */
  readonly expected: readonly FindingCode[];
  /** Codes of all warnings among the findings, each once. */
  readonly warnings: readonly FindingCode[];
}

export const DAY_MS = 86_400_000;

/** Order and field of P-384. */
export const N =
  0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n;

export const P =
  0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffffn;

/** R and S as reports have them, little-endian in 72 bytes, and as numbers. */
export const bigOf = (littleEndian: Uint8Array): bigint => BigInt(`0x${toHex(reversed(littleEndian))}`);

export const littleOf = (value: bigint, size = 72): Uint8Array =>
  reversed(fromHex(value.toString(16).padStart(2 * size, '0')));

/** AMD's object identifiers. */
export const ARC = '1.3.6.1.4.1.3704.1';

/** Changes to the list of extensions of a certificate. */
export const replaced =
  (type: string, change: (extension: RawExtension) => readonly RawExtension[]) =>
  (extensions: readonly RawExtension[]): readonly RawExtension[] =>
    extensions.flatMap((extension) => (extension.oid === type ? change(extension) : [extension]));

export const without = (type: string) => replaced(type, () => []);

export const twice = (type: string) => replaced(type, (extension) => [extension, extension]);

export const valued = (type: string, value: Uint8Array) =>
  replaced(type, (extension) => [{ ...extension, value }]);

export const plus =
  (extra: RawExtension) =>
  (extensions: readonly RawExtension[]): readonly RawExtension[] => [...extensions, extra];

/** What differs from good evidence of the platform. */
export interface Material {
  readonly report?: ReportChanges | Uint8Array;
  readonly leaf?: LeafChanges | Uint8Array;
  readonly kind?: 'VCEK' | 'VLEK';
  /** Kind of the certificate, where it is to differ from that of the report. */
  readonly leafKind?: 'VCEK' | 'VLEK';
  readonly intermediates?: readonly Uint8Array[];
  readonly roots?: readonly Uint8Array[];
  readonly crls?: readonly Uint8Array[];
  readonly table?: Uint8Array;
  readonly noLeaf?: boolean;
  /** Warnings beside the one that lists were not looked at, where they were not. */
  readonly warnings?: readonly FindingCode[];
}

/** Builds cases around one platform. */
export class Cases {
  readonly forge: Forge;
  readonly #prefix: string;
  readonly #leaves = new Map<string, Uint8Array>();

  constructor(forge: Forge) {
    this.forge = forge;
    this.#prefix = forge.product.toLowerCase();
  }

  #leafOf(kind: 'VCEK' | 'VLEK', leaf: Material['leaf']): Uint8Array {
    if (leaf !== undefined) {
      return leaf instanceof Uint8Array ? leaf : this.forge.leaf(kind, leaf);
    }
    // The certificate the key service would issue, signed once.
    const issued = this.#leaves.get(kind) ?? this.forge.leaf(kind);
    this.#leaves.set(kind, issued);
    return issued;
  }

  case(
    title: string,
    what: string,
    material: Material,
    expected: readonly FindingCode[],
    options: Partial<VectorCase['options']> = {},
  ): VectorCase {
    const { forge } = this;
    const kind = material.kind ?? 'VCEK';
    const leafKind = material.leafKind ?? kind;
    const report =
      material.report instanceof Uint8Array ? material.report : forge.report({ kind, ...material.report });
    const leaf = this.#leafOf(leafKind, material.leaf);
    const [intermediate, root] = forge.chain(leafKind);
    const certificates = [
      ...(material.noLeaf === true ? [] : [leaf]),
      ...(material.intermediates ?? [intermediate!]),
      ...(material.roots ?? [root!]),
    ];
    return {
      name: `${this.#prefix}/${title}`,
      what,
      evidence: {
        report,
        ...(material.table === undefined ? { certificates } : { table: material.table }),
        ...(material.crls === undefined ? {} : { crls: material.crls }),
      },
      options: { atMs: VECTOR_TIME_MS, crl: 'skip', trust: [forge.authority.ark], ...options },
      expected,
      warnings: [
        // Without a root there is nobody whose list could have been looked at.
        ...((options.crl ?? 'skip') === 'skip' && !expected.includes('ROOT_MISSING')
          ? (['CRL_NOT_CHECKED'] as const)
          : []),
        ...(material.warnings ?? []),
      ],
    };
  }
}
