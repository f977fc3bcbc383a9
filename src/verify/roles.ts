// SPDX-License-Identifier: Apache-2.0
/** The five kinds of certificate, who issues which, and the names AMD gives them. */
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { concat, utf8 } from '../lib/bytes.ts';
import { Tag } from './der.ts';

export type CertificateKind = 'ARK' | 'ASK' | 'ASVK' | 'VCEK' | 'VLEK';

export interface CertificateRole {
  readonly kind: CertificateKind;
  readonly product: ProductLine;
}

// The attributes before the common name, as AMD writes them: OU, C, L, ST, O.
const NAME_ATTRIBUTES: readonly (readonly [type: number, tag: number, text: string])[] = [
  [11, Tag.UTF8_STRING, 'Engineering'],
  [6, Tag.PRINTABLE_STRING, 'US'],
  [7, Tag.UTF8_STRING, 'Santa Clara'],
  [8, Tag.UTF8_STRING, 'CA'],
  [10, Tag.UTF8_STRING, 'Advanced Micro Devices'],
];

/** One element of DER of at most 255 bytes. */
export const tlv = (tag: number, content: Uint8Array): Uint8Array =>
  concat(
    Uint8Array.from(content.length < 0x80 ? [tag, content.length] : [tag, 0x81, content.length]),
    content,
  );

function nameDer(commonName: string): Uint8Array {
  const attributes = [...NAME_ATTRIBUTES, [3, Tag.UTF8_STRING, commonName] as const];
  return tlv(
    Tag.SEQUENCE,
    concat(
      ...attributes.map(([type, tag, text]) =>
        tlv(
          Tag.SET,
          tlv(Tag.SEQUENCE, concat(tlv(Tag.OID, Uint8Array.of(0x55, 0x04, type)), tlv(tag, utf8(text)))),
        ),
      ),
    ),
  );
}

/** Common name of the subject of a certificate of this role. */
export function subjectCommonName({ kind, product }: CertificateRole): string {
  switch (kind) {
    case 'ARK':
      return `ARK-${product}`;
    case 'ASK':
      return `SEV-${product}`;
    case 'ASVK':
      return `SEV-VLEK-${product}`;
    case 'VCEK':
    case 'VLEK':
      return `SEV-${kind}`;
  }
}

/** Role of whoever issues certificates of this role. */
export function issuerRole({ kind, product }: CertificateRole): CertificateRole {
  switch (kind) {
    case 'ARK':
    case 'ASK':
    case 'ASVK':
      return { kind: 'ARK', product };
    case 'VCEK':
      return { kind: 'ASK', product };
    case 'VLEK':
      return { kind: 'ASVK', product };
  }
}

const NAMES = new Map<string, Uint8Array>();

/** DER of the name AMD gives the subject of this role. */
export function subjectNameDer(role: CertificateRole): Uint8Array {
  const commonName = subjectCommonName(role);
  let der = NAMES.get(commonName);
  if (der === undefined) {
    der = nameDer(commonName);
    NAMES.set(commonName, der);
  }
  return der;
}

/** Roles of authorities by common name. */
export const CA_ROLES: ReadonlyMap<string, CertificateRole> = new Map(
  PRODUCT_LINES.flatMap((product) =>
    (['ARK', 'ASK', 'ASVK'] as const).map((kind) => [
      subjectCommonName({ kind, product }),
      { kind, product },
    ]),
  ),
);

/** Where a certificate stands, for findings: VCEK, ASK of Milan ... */
export const certificateLabel = (role: CertificateRole): string =>
  role.kind === 'ARK' || role.kind === 'ASK' || role.kind === 'ASVK'
    ? `${role.kind}-${role.product}`
    : role.kind;
