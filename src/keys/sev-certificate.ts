// SPDX-License-Identifier: Apache-2.0
/** Certificates of legacy SEV, put together: whoever signs one fills the first of two places that is free. */
import { SevCurve, type SevPublicKey, SevSignature } from '../abi/id-block.ts';
import {
  SEV_CERT_SIGNED_SIZE,
  SEV_CERT_VERSION,
  SevCertAlgo,
  SevCertificate,
  type SevCertSignature,
  SevCertUsage,
} from '../abi/sev-certificate.ts';
import { reversed } from '../lib/bytes.ts';
import type { EcdsaSignature } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';

/** Whose key, for what. */
export interface SevSubject {
  readonly usage: number;
  readonly algo: number;
  /** Uncompressed P-384 point, 97 bytes. */
  readonly publicPoint: Uint8Array;
  /** API version of the firmware that makes the certificate. */
  readonly api: { readonly major: number; readonly minor: number };
}

/** A place for a signature that nobody has used. */
export const SEV_CERT_FREE: SevCertSignature = Object.freeze({
  usage: SevCertUsage.INVALID,
  algo: SevCertAlgo.INVALID,
  signature: new Uint8Array(512),
});

const PLACES = ['sig1', 'sig2'] as const;

const littleEndian = (value: Uint8Array): Uint8Array => {
  const out = new Uint8Array(72);
  out.set(reversed(value));
  return out;
};

/** A P-384 key in the firmware's form. */
export function sevPublicKey(publicPoint: Uint8Array): SevPublicKey {
  invariant(publicPoint.length === 97 && publicPoint[0] === 4, 'not an uncompressed P-384 point');
  return {
    curve: SevCurve.P384,
    qx: littleEndian(publicPoint.subarray(1, 49)),
    qy: littleEndian(publicPoint.subarray(49)),
  };
}

/** An ECDSA signature in the firmware's form, 512 bytes. */
export function sevSignature({ r, s }: EcdsaSignature): Uint8Array {
  return SevSignature.encode({ r: littleEndian(r), s: littleEndian(s) });
}

/** 2084 bytes with both places free: what PEK_CSR gives, for one. */
export function unsignedSevCertificate({ usage, algo, publicPoint, api }: SevSubject): Uint8Array {
  return SevCertificate.encode({
    version: SEV_CERT_VERSION,
    api_major: api.major,
    api_minor: api.minor,
    pubkey_usage: usage,
    pubkey_algo: algo,
    ...sevPublicKey(publicPoint),
    sig1: SEV_CERT_FREE,
    sig2: SEV_CERT_FREE,
  });
}

/** The certificate with one more signature. At least one place is free. */
export function addSevSignature(
  certificate: Uint8Array,
  usage: number,
  algo: number,
  sign: (signed: Uint8Array) => Uint8Array,
): Uint8Array {
  const place = PLACES.find((name) => SevCertificate.get(certificate, name).usage === SevCertUsage.INVALID);
  invariant(place !== undefined, 'both places of the certificate are taken');
  const out = certificate.slice();
  SevCertificate.set(out, place, {
    usage,
    algo,
    signature: sign(certificate.subarray(0, SEV_CERT_SIGNED_SIZE)),
  });
  return out;
}

/** The signature a key of this usage and algorithm made; null when there is none. */
export function findSevSignature(
  certificate: SevCertificate,
  usage: number,
  algo: number,
): SevCertSignature | null {
  const found = PLACES.find((name) => certificate[name].usage === usage && certificate[name].algo === algo);
  return found === undefined ? null : certificate[found];
}
