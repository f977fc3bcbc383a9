// SPDX-License-Identifier: Apache-2.0
/**
 * What a certificate of each kind looks like when AMD issues it, and everything in which one differs.
 *
 * AMD's certificates follow a fixed form down to the string types of their names, so names are compared
 * as bytes. The findings depend on the certificate alone, never on time, trust or its neighbours, and are
 * therefore kept with it.
 */
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import { equalBytes, toHex, utf8 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { contentOf, type DerNode, decodeDer, smallIntegerOf, Tag, textOf } from './der.ts';
import { type Finding, finding } from './findings.ts';
import {
  CA_ROLES,
  type CertificateRole,
  certificateLabel,
  issuerRole,
  subjectCommonName,
  subjectNameDer,
  tlv,
} from './roles.ts';
import { type Certificate, type Extension, Oid } from './x509.ts';

/** What a VCEK or VLEK certificate says about its key. */
export interface Endorsement {
  /** 0 for Milan and Genoa, 1 for Turin. */
  readonly structVersion: number | null;
  /** Product line, on VCEKs of Milan with the stepping: Milan-B0. */
  readonly productName: string | null;
  /** Null when a component is missing or malformed. */
  readonly tcb: TcbParts | null;
  /** VCEK: 64 bytes, on Turin 8. */
  readonly hwId: Uint8Array | null;
  /** VLEK: the cloud provider. */
  readonly cspId: string | null;
}

const AMD_ARC = '1.3.6.1.4.1.3704.1';

/** AMD's extensions of endorsement certificates by name. */
export const AmdOid = {
  structVersion: `${AMD_ARC}.1`,
  productName: `${AMD_ARC}.2`,
  blSPL: `${AMD_ARC}.3.1`,
  teeSPL: `${AMD_ARC}.3.2`,
  snpSPL: `${AMD_ARC}.3.3`,
  spl4: `${AMD_ARC}.3.4`,
  spl5: `${AMD_ARC}.3.5`,
  spl6: `${AMD_ARC}.3.6`,
  spl7: `${AMD_ARC}.3.7`,
  ucodeSPL: `${AMD_ARC}.3.8`,
  fmcSPL: `${AMD_ARC}.3.9`,
  hwID: `${AMD_ARC}.4`,
  cspID: `${AMD_ARC}.5`,
} as const;

const EXTENSION_NAMES: Readonly<Record<string, string>> = Object.fromEntries(
  [...Object.entries(AmdOid), ...Object.entries(Oid)].map(([name, oid]) => [oid, name]),
);

const extensionName = (oid: string): string => EXTENSION_NAMES[oid] ?? oid;

const hex = (value: number): string => `0x${value.toString(16)}`;

/**
 * What the names of a certificate say it is.
 *
 * Returns  null when the common names are none of AMD's; a leaf takes its product line from its issuer, or
 *          from productName when the issuer is none of AMD's
 */
export function roleOf(certificate: Certificate): CertificateRole | null {
  const subject = certificate.subject.commonName ?? '';
  const kind = subject === 'SEV-VCEK' ? 'VCEK' : subject === 'SEV-VLEK' ? 'VLEK' : null;
  if (kind === null) {
    return CA_ROLES.get(subject) ?? null;
  }
  const issuer = CA_ROLES.get(certificate.issuer.commonName ?? '');
  const product = issuer?.product ?? productLineOfName(endorsementOf(certificate).productName);
  return product === null ? null : { kind, product };
}

/** Product line of a productName such as Milan-B0; steppings are not judged (they are known to differ). */
export function productLineOfName(productName: string | null): ProductLine | null {
  const line = /^([A-Za-z]+)(-[A-Z][0-9])?$/.exec(productName ?? '')?.[1];
  return PRODUCT_LINES.find((product) => product === line) ?? null;
}

const one = (certificate: Certificate, oid: string): Extension | null =>
  certificate.extensions.find((extension) => extension.oid === oid) ?? null;

function innerOf(value: Uint8Array, tag: number): DerNode | null {
  try {
    const node = decodeDer(value, { what: 'extnValue', maxBytes: 256, maxNodes: 1 });
    return node.tag === tag ? node : null;
  } catch (error) {
    if (error instanceof InputError) {
      return null;
    }
    throw error;
  }
}

function byteValue(extension: Extension | null): number | null {
  const node = extension === null ? null : innerOf(extension.value, Tag.INTEGER);
  const value = node === null ? null : smallIntegerOf(extension!.value, node);
  return value !== null && value <= 255 ? value : null;
}

function textValue(extension: Extension | null): string | null {
  const node = extension === null ? null : innerOf(extension.value, Tag.IA5_STRING);
  return node === null ? null : textOf(extension!.value, node);
}

/** Reads the AMD extensions; what is missing or malformed is null. */
export function endorsementOf(certificate: Certificate): Endorsement {
  const structVersion = byteValue(one(certificate, AmdOid.structVersion));
  const spl = (oid: string): number | null => byteValue(one(certificate, oid));
  const fmc = structVersion === 1 ? spl(AmdOid.fmcSPL) : 0;
  const boot_loader = spl(AmdOid.blSPL);
  const tee = spl(AmdOid.teeSPL);
  const snp = spl(AmdOid.snpSPL);
  const microcode = spl(AmdOid.ucodeSPL);
  return {
    structVersion,
    productName: textValue(one(certificate, AmdOid.productName)),
    tcb:
      fmc === null || boot_loader === null || tee === null || snp === null || microcode === null
        ? null
        : { fmc, boot_loader, tee, snp, microcode },
    // Raw bytes, whatever the first of them looks like; 0x04 there is chance, not a tag.
    hwId: one(certificate, AmdOid.hwID)?.value ?? null,
    cspId: textValue(one(certificate, AmdOid.cspID)),
  };
}

/**
 * Everything in which a certificate differs from what AMD issues for its role.
 *
 * Shape    `endorsement` of a VCEK or VLEK, null for the others
 */
export function profileFindings(
  certificate: Certificate,
  role: CertificateRole,
  endorsement: Endorsement | null,
): Finding[] {
  const where = certificateLabel(role);
  const found: Finding[] = [];
  if (certificate.version !== 3) {
    found.push(
      finding('CERT_VERSION_UNSUPPORTED', { where, expected: '3', actual: String(certificate.version) }),
    );
  }
  if (!certificate.signatureAlgorithm.isAmdPss) {
    found.push(
      finding('CERT_SIGNATURE_PARAMS_UNSUPPORTED', {
        where,
        expected: 'RSASSA-PSS, SHA-384, MGF1-SHA-384, salt 48',
        actual: certificate.signatureAlgorithm.text,
      }),
    );
  }
  for (const [part, name, named] of [
    ['subject', certificate.subject, role],
    ['issuer', certificate.issuer, issuerRole(role)],
  ] as const) {
    if (!equalBytes(name.der, subjectNameDer(named))) {
      found.push(
        finding('CERT_NAME_MISMATCH', {
          where: `${where}.${part}`,
          expected: `OU=Engineering, C=US, L=Santa Clara, ST=CA, O=Advanced Micro Devices, CN=${subjectCommonName(named)}`,
          actual: name.text,
        }),
      );
    }
  }
  found.push(...duplicateFindings(certificate, where));
  found.push(
    ...(endorsement === null
      ? authorityFindings(certificate, role, where)
      : leafFindings(certificate, role, endorsement, where)),
  );
  return found;
}

function duplicateFindings(certificate: Certificate, where: string): Finding[] {
  const oids = certificate.extensions.map(({ oid }) => oid);
  return [...new Set(oids.filter((oid, i) => oids.indexOf(oid) !== i))].map((oid) =>
    finding('CERT_EXTENSION_DUPLICATE', { where: `${where}.${extensionName(oid)}`, actual: oid }),
  );
}

function closedListFindings(
  certificate: Certificate,
  where: string,
  required: readonly string[],
  optional: readonly string[],
): Finding[] {
  const missing = required
    .filter((oid) => one(certificate, oid) === null)
    .map((oid) =>
      finding('CERT_EXTENSION_MISSING', { where: `${where}.${extensionName(oid)}`, expected: oid }),
    );
  const unknown = certificate.extensions
    .filter(({ oid }) => !required.includes(oid) && !optional.includes(oid))
    .map(({ oid, critical }) =>
      finding('CERT_EXTENSION_UNKNOWN', {
        where: `${where}.${extensionName(oid)}`,
        actual: critical ? `${oid}, critical` : oid,
      }),
    );
  return [...missing, ...unknown];
}

const CRITICAL_IN_CA: readonly string[] = [Oid.basicConstraints, Oid.keyUsage];

function authorityFindings(certificate: Certificate, role: CertificateRole, where: string): Finding[] {
  const found: Finding[] = [];
  const { key } = certificate;
  if (key.kind !== 'rsa' || key.bits !== 4096 || key.exponent !== 65537) {
    found.push(
      finding('CERT_KEY_UNSUPPORTED', {
        where,
        expected: 'RSA, 4096 bits, exponent 65537',
        actual:
          key.kind === 'rsa'
            ? `RSA, ${key.bits} bits, exponent ${key.exponent}`
            : key.kind === 'p384'
              ? 'EC key on P-384'
              : key.what,
      }),
    );
  }
  const isRoot = role.kind === 'ARK';
  found.push(
    ...closedListFindings(
      certificate,
      where,
      [
        Oid.keyUsage,
        Oid.basicConstraints,
        Oid.subjectKeyIdentifier,
        Oid.crlDistributionPoints,
        ...(isRoot ? [] : [Oid.authorityKeyIdentifier]),
      ],
      [Oid.authorityKeyIdentifier, Oid.nsComment],
    ),
  );
  const url = crlUrl(role);
  const points = one(certificate, Oid.crlDistributionPoints);
  if (points !== null && !equalBytes(points.value, crlDistributionPointDer(url))) {
    found.push(
      finding('CERT_EXTENSION_INVALID', {
        where: `${where}.crlDistributionPoints`,
        expected: url,
        actual: printable(points.value),
      }),
    );
  }
  const constraints = basicConstraintsOf(one(certificate, Oid.basicConstraints));
  const wantedConstraints = isRoot ? 'CA' : 'CA, pathLen 0';
  if (constraints !== null && constraints !== wantedConstraints) {
    found.push(
      finding('CERT_CONSTRAINTS_MISMATCH', {
        where: `${where}.basicConstraints`,
        expected: wantedConstraints,
        actual: constraints,
      }),
    );
  }
  const usage = keyUsageOf(one(certificate, Oid.keyUsage));
  const wantedUsage = isRoot ? 'keyCertSign, cRLSign' : 'keyCertSign';
  if (usage !== null && usage !== wantedUsage) {
    found.push(
      finding('CERT_CONSTRAINTS_MISMATCH', {
        where: `${where}.keyUsage`,
        expected: wantedUsage,
        actual: usage,
      }),
    );
  }
  for (const { oid, critical } of certificate.extensions) {
    if (critical !== CRITICAL_IN_CA.includes(oid)) {
      found.push(
        finding('CERT_CONSTRAINTS_MISMATCH', {
          where: `${where}.${extensionName(oid)}`,
          expected: critical ? 'not critical' : 'critical',
          actual: critical ? 'critical' : 'not critical',
        }),
      );
    }
  }
  return found;
}

/** Where AMD publishes the revocation list that covers a certificate of this role. */
const crlUrl = ({ kind, product }: CertificateRole): string =>
  `https://kdsintf.amd.com/${kind === 'ASVK' ? 'vlek' : 'vcek'}/v1/${product}/crl`;

/** Exactly one distribution point with exactly this URI. */
function crlDistributionPointDer(url: string): Uint8Array {
  const name = tlv(0xa0, tlv(0xa0, tlv(0x86, utf8(url))));
  return tlv(Tag.SEQUENCE, tlv(Tag.SEQUENCE, name));
}

/** Bytes for people: the characters among them, dots for the rest. */
const printable = (bytes: Uint8Array): string =>
  Array.from(bytes.subarray(0, 128), (byte) =>
    byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.',
  ).join('');

function basicConstraintsOf(extension: Extension | null): string | null {
  if (extension === null) {
    return null;
  }
  try {
    const node = decodeDer(extension.value, { what: 'basicConstraints', maxBytes: 16, maxNodes: 3 });
    const [ca, pathLength, ...rest] = node.children;
    // BOOLEAN FALSE is the default and must be left out, so a first BOOLEAN is TRUE.
    if (node.tag !== Tag.SEQUENCE || ca?.tag !== Tag.BOOLEAN || rest.length > 0) {
      return 'not CA';
    }
    if (pathLength === undefined) {
      return 'CA';
    }
    return pathLength.tag === Tag.INTEGER
      ? `CA, pathLen ${smallIntegerOf(extension.value, pathLength)}`
      : 'malformed';
  } catch (error) {
    if (error instanceof InputError) {
      return 'malformed';
    }
    throw error;
  }
}

const KEY_USAGES: readonly string[] = [
  'digitalSignature',
  'nonRepudiation',
  'keyEncipherment',
  'dataEncipherment',
  'keyAgreement',
  'keyCertSign',
  'cRLSign',
  'encipherOnly',
];

/**
 * The names of the bits that are set.
 *
 * Differs  AMD's ASK and ASVK write 03 02 01 04, one unused bit where DER wants two; trailing zero bits of
 *          this BIT STRING are therefore not judged
 */
function keyUsageOf(extension: Extension | null): string | null {
  if (extension === null) {
    return null;
  }
  const node = innerOf(extension.value, Tag.BIT_STRING);
  const content = node === null ? null : contentOf(extension.value, node);
  if (content === null || content.length !== 2) {
    return 'malformed';
  }
  return KEY_USAGES.filter((_, bit) => (content[1]! & (0x80 >> bit)) !== 0).join(', ');
}

const SPL_COMMON: readonly string[] = [
  AmdOid.structVersion,
  AmdOid.productName,
  AmdOid.blSPL,
  AmdOid.teeSPL,
  AmdOid.snpSPL,
  AmdOid.spl5,
  AmdOid.spl6,
  AmdOid.spl7,
  AmdOid.ucodeSPL,
];
const RESERVED_SPLS: readonly string[] = [AmdOid.spl4, AmdOid.spl5, AmdOid.spl6, AmdOid.spl7];

/** Bytes of the hwID extension. */
const HWID_SIZE: Readonly<Record<ProductLine, number>> = { Milan: 64, Genoa: 64, Turin: 8 };

function leafFindings(
  certificate: Certificate,
  role: CertificateRole,
  endorsement: Endorsement,
  where: string,
): Finding[] {
  const found: Finding[] = [];
  const { key } = certificate;
  if (key.kind !== 'p384' || !isOnP384(key.point)) {
    found.push(
      finding('CERT_KEY_UNSUPPORTED', {
        where,
        expected: 'EC key on P-384, uncompressed point',
        actual:
          key.kind === 'p384'
            ? 'a point that is not on the curve'
            : key.kind === 'rsa'
              ? `RSA, ${key.bits} bits`
              : key.what,
      }),
    );
  }
  const isTurin = role.product === 'Turin';
  found.push(
    ...closedListFindings(
      certificate,
      where,
      [
        ...SPL_COMMON,
        isTurin ? AmdOid.fmcSPL : AmdOid.spl4,
        role.kind === 'VCEK' ? AmdOid.hwID : AmdOid.cspID,
      ],
      [Oid.authorityKeyIdentifier],
    ),
  );
  const invalid = (name: string, expected: string, actual: string): void => {
    found.push(finding('CERT_EXTENSION_INVALID', { where: `${where}.${name}`, expected, actual }));
  };
  for (const { oid, critical, value } of certificate.extensions) {
    const name = extensionName(oid);
    if (critical) {
      invalid(name, 'not critical', 'critical');
    }
    if (oid.startsWith(`${AMD_ARC}.3.`) || oid === AmdOid.structVersion) {
      const byte = byteValue({ oid, critical, value });
      if (byte === null) {
        invalid(name, 'an INTEGER 0-255 in DER', toHex(value));
      } else if (RESERVED_SPLS.includes(oid) && byte !== 0) {
        invalid(name, '0', String(byte));
      }
    }
  }
  const wantedStruct = isTurin ? 1 : 0;
  if (endorsement.structVersion !== null && endorsement.structVersion !== wantedStruct) {
    invalid('structVersion', `${wantedStruct} (${role.product})`, String(endorsement.structVersion));
  }
  if (one(certificate, AmdOid.productName) !== null) {
    const line = productLineOfName(endorsement.productName);
    if (line === null) {
      invalid('productName', role.product, endorsement.productName ?? 'not an IA5String');
    } else if (line !== role.product) {
      found.push(
        finding('PRODUCT_MISMATCH', {
          where: `${where}.productName`,
          expected: `${role.product}, as in the name of the issuer`,
          actual: endorsement.productName!,
        }),
      );
    }
  }
  if (endorsement.hwId !== null && endorsement.hwId.length !== HWID_SIZE[role.product]) {
    invalid('hwID', `${HWID_SIZE[role.product]} raw bytes`, `${endorsement.hwId.length} bytes`);
  }
  if (one(certificate, AmdOid.cspID) !== null && (endorsement.cspId ?? '') === '') {
    invalid('cspID', 'a non-empty IA5String', toHex(one(certificate, AmdOid.cspID)!.value.subarray(0, 64)));
  }
  return found;
}

const P = 0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffffn;
const B = 0xb3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aefn;

/** y² = x³ - 3x + b over the field of P-384; WebCrypto implementations differ in whether they look. */
function isOnP384(point: Uint8Array): boolean {
  const x = BigInt(`0x${toHex(point.subarray(1, 49))}`);
  const y = BigInt(`0x${toHex(point.subarray(49))}`);
  return x < P && y < P && (y * y - (x * x - 3n) * x - B) % P === 0n;
}

/** Serial number for people. */
export const serialText = (certificate: Certificate): string =>
  certificate.serial.length <= 12 ? hex(Number.parseInt(certificate.serial, 16)) : `0x${certificate.serial}`;
