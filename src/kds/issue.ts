// SPDX-License-Identifier: Apache-2.0
/** What AMD's key service signs for running platforms: VCEK and VLEK certificates, revocation lists. [KDS] */
import { X509Certificate } from 'node:crypto';
import { BitString, IA5String, type Sequence } from 'asn1js';
import type { ProductLine } from '../abi/product.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import { CHIP_ID_SIZE, HWID_SIZE } from '../keys/index.ts';
import { isZero } from '../lib/bytes.ts';
import type { Random } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';
import type { CertificateAuthority } from './authority.ts';
import { CA_ROWS, type CaRole, caName } from './ca-certificate.ts';
import { PSS_SALT_SIZE } from './pss.ts';
import {
  amdName,
  authorityKeyIdentifier,
  commentedAuthorityKeyIdentifier,
  der,
  extension,
  integer,
  keyIdentifier,
  nsComment,
  OID,
  oid,
  pssAlgorithm,
  rawExtension,
  sequence,
  signed,
  tagged,
  tbsCertificate,
  time,
  yearsAfter,
} from './x509.ts';

/** AMD's form of the signature algorithm in everything signed since November 2024. */
const TRAILER = 'omitted';

const VCEK_YEARS = 7;
const VLEK_YEARS = 1;

interface EndorsementRequest {
  readonly authority: CertificateAuthority;
  /** The TCB whose key is certified: REPORTED_TCB of the platform. */
  readonly tcb: TcbParts;
  /** Uncompressed P-384 point, 97 bytes. */
  readonly publicPoint: Uint8Array;
  readonly notBeforeMs: number;
  readonly random: Random;
}

export interface VcekRequest extends EndorsementRequest {
  /** CHIP_ID as in reports, 64 bytes. */
  readonly chipId: Uint8Array;
}

export interface VlekRequest extends EndorsementRequest {
  /** Cloud provider as in the CSP_ID extension, e.g. CN=cloud.example; ASCII. */
  readonly csp: string;
}

/**
 * A VCEK certificate in DER, valid for seven years.
 *
 * Source   [KDS] "VCEK Certificate"
 * Differs  carries an authority key identifier with TEST_ROOT_COMMENT; AMD's has none
 */
export function issueVcek(request: VcekRequest): Uint8Array {
  const { chipId, authority } = request;
  const hwidSize = HWID_SIZE[authority.product];
  invariant(chipId.length === CHIP_ID_SIZE, `a CHIP_ID has ${CHIP_ID_SIZE} bytes, not ${chipId.length}`);
  invariant(
    isZero(chipId.subarray(hwidSize)),
    `a CHIP_ID of ${authority.product} has ${hwidSize} bytes and zeros`,
  );
  // The HWID stands in the extension as it is, without a DER type around it.
  const hwid = rawExtension(`${OID.amd}.4`, chipId.slice(0, hwidSize));
  return issueEndorsement(request, {
    role: 'ASK',
    subject: 'SEV-VCEK',
    years: VCEK_YEARS,
    productName: VCEK_PRODUCT_NAME[authority.product],
    identity: hwid,
  });
}

/**
 * A VLEK certificate in DER, valid for one year.
 *
 * Source   [KDS] "VLEK Certificate"; the Turin form is not published, its VCEK form is taken
 * Differs  carries an authority key identifier with TEST_ROOT_COMMENT; AMD's has none
 */
export function issueVlek(request: VlekRequest): Uint8Array {
  return issueEndorsement(request, {
    role: 'ASVK',
    subject: 'SEV-VLEK',
    years: VLEK_YEARS,
    productName: request.authority.product,
    identity: extension(`${OID.amd}.5`, new IA5String({ value: request.csp })),
  });
}

export interface RevokedSerial {
  readonly serial: number;
  readonly revokedMs: number;
}

export interface CrlRequest {
  readonly authority: CertificateAuthority;
  /** Intermediates only: all endorsement key certificates have serial number 0. */
  readonly revokedSerials: readonly RevokedSerial[];
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  /** CRL number; higher in each later list. */
  readonly number: number;
  readonly random: Random;
}

/**
 * A version 2 revocation list in DER, signed by the ARK.
 *
 * Source   [KDS] "CRL"; [RFC5280] 5
 * Differs  an nsComment extension comes last
 */
export function issueCrl(request: CrlRequest): Uint8Array {
  const { authority, random } = request;
  const revoked = request.revokedSerials.map(({ serial, revokedMs }) =>
    sequence(integer(serial), time(revokedMs)),
  );
  const extensions = [
    authorityKeyIdentifier(certificateKeyId(authority.ark)),
    extension(OID.cRLNumber, integer(request.number)),
    nsComment(),
  ];
  const tbs = der(
    sequence(
      integer(1),
      pssAlgorithm(TRAILER),
      amdName(caName(authority.product, 'ARK')),
      time(request.thisUpdateMs),
      time(request.nextUpdateMs),
      // An empty list must be absent. [RFC5280] 5.1.2.6.
      ...(revoked.length === 0 ? [] : [sequence(...revoked)]),
      tagged(0, sequence(...extensions)),
    ),
  );
  return signed(tbs, TRAILER, authority.sign('ARK', tbs, random.bytes(PSS_SALT_SIZE)));
}

/** Only Milan's VCEKs name the stepping. */
const VCEK_PRODUCT_NAME: Readonly<Record<ProductLine, string>> = {
  Milan: 'Milan-B0',
  Genoa: 'Genoa',
  Turin: 'Turin',
};

interface EndorsementProfile {
  readonly role: Exclude<CaRole, 'ARK'>;
  readonly subject: string;
  readonly years: number;
  readonly productName: string;
  /** The extension that says whose key it is. */
  readonly identity: Sequence;
}

function issueEndorsement(request: EndorsementRequest, profile: EndorsementProfile): Uint8Array {
  const { authority, publicPoint, notBeforeMs } = request;
  const { product } = authority;
  invariant(publicPoint.length === 97 && publicPoint[0] === 4, 'not an uncompressed P-384 point');
  const issuer = profile.role === 'ASK' ? authority.ask : authority.asvk;
  const spki = sequence(
    sequence(oid(OID.id_ecPublicKey), oid(OID.secp384r1)),
    new BitString({ valueHex: publicPoint }),
  );
  const tbs = tbsCertificate({
    serial: 0,
    trailer: TRAILER,
    issuer: caName(product, profile.role),
    notBeforeMs,
    notAfterMs: yearsAfter(notBeforeMs, profile.years),
    subject: profile.subject,
    spki: der(spki),
    extensions: [
      ...versionExtensions(product, profile.productName, request.tcb),
      profile.identity,
      commentedAuthorityKeyIdentifier(certificateKeyId(issuer), CA_ROWS[product][profile.role].serial),
    ],
  });
  return signed(tbs, TRAILER, authority.sign(profile.role, tbs, request.random.bytes(PSS_SALT_SIZE)));
}

/** structVersion, productName and one SPL for every byte of TCB_VERSION, in the order AMD writes them. */
function versionExtensions(product: ProductLine, productName: string, tcb: TcbParts): readonly Sequence[] {
  const number = (suffix: string, value: number): Sequence =>
    extension(`${OID.amd}.${suffix}`, integer(value));
  const structVersion = product === 'Turin' ? 1 : 0;
  const spl: Readonly<Record<string, number>> = {
    '3.1': tcb.boot_loader,
    '3.2': tcb.tee,
    '3.3': tcb.snp,
    '3.8': tcb.microcode,
    '3.9': tcb.fmc,
  };
  return [
    number('1', structVersion),
    extension(`${OID.amd}.2`, new IA5String({ value: productName })),
    ...SPL_ORDER[structVersion].map((suffix) => number(suffix, spl[suffix] ?? 0)),
  ];
}

/** By structVersion. 3.4 to 3.7 stand for reserved bytes and are zero. */
const SPL_ORDER = [
  ['3.1', '3.2', '3.4', '3.5', '3.6', '3.7', '3.3', '3.8'],
  ['3.9', '3.1', '3.2', '3.3', '3.5', '3.6', '3.7', '3.8'],
] as const;

function certificateKeyId(certificate: Uint8Array): Uint8Array {
  const { publicKey } = new X509Certificate(certificate);
  return keyIdentifier(Uint8Array.from(publicKey.export({ format: 'der', type: 'spki' })));
}
