// SPDX-License-Identifier: Apache-2.0
/**
 * What AMD signs for legacy SEV, in SEV's own form: CEKs, and the ASK and ARK above them, whose keys are those
 * of the X.509 certificates. [VIRTEE-SEV] src/certs/sev, tests/rome/cek.cert; [SEV-TOOL] src/amdcert.cpp
 */
import { X509Certificate } from 'node:crypto';
import {
  SEV_AMD_CERT_SIGNED_SIZE,
  SEV_CERT_VERSION,
  SevAmdCertificate,
  SevCertAlgo,
  SevCertUsage,
} from '../abi/sev-certificate.ts';
import { addSevSignature, unsignedSevCertificate } from '../keys/index.ts';
import { concat, reversed, utf8 } from '../lib/bytes.ts';
import type { Random } from '../lib/crypto.ts';
import type { CertificateAuthority } from './authority.ts';
import { PSS_SALT_SIZE } from './pss.ts';

type SevCaRole = 'ASK' | 'ARK';

/** These certificates have no field for a comment; key ids are 16 bytes that mean nothing to anybody. */
const KEY_IDS: Readonly<Record<SevCaRole, Uint8Array>> = {
  ARK: utf8('softsnp TEST ARK'),
  ASK: utf8('softsnp TEST ASK'),
};

const KEY_BITS = 4096;

/** As AMD's service writes into CEKs. */
const CEK_API = { major: 0, minor: 14 };

/** A big-endian number in the 512 bytes these certificates have for it. */
function littleEndian(base64url: string): Uint8Array {
  const out = new Uint8Array(KEY_BITS / 8);
  out.set(reversed(Uint8Array.from(Buffer.from(base64url, 'base64url'))));
  return out;
}

const signature = (
  authority: CertificateAuthority,
  role: SevCaRole,
  signed: Uint8Array,
  random: Random,
): Uint8Array => reversed(authority.sign(role, signed, random.bytes(PSS_SALT_SIZE)));

function caCertificate(authority: CertificateAuthority, role: SevCaRole, random: Random): Uint8Array {
  const x509 = role === 'ARK' ? authority.ark : authority.ask;
  const { n = '', e = '' } = new X509Certificate(x509).publicKey.export({ format: 'jwk' });
  const certificate = SevAmdCertificate.encode({
    version: SEV_CERT_VERSION,
    key_id: KEY_IDS[role],
    certifying_id: KEY_IDS.ARK,
    key_usage: SevCertUsage[role],
    pub_exp_size: KEY_BITS,
    modulus_size: KEY_BITS,
    pub_exp: littleEndian(e),
    modulus: littleEndian(n),
  });
  const signed = certificate.subarray(0, SEV_AMD_CERT_SIGNED_SIZE);
  SevAmdCertificate.set(certificate, 'signature', signature(authority, 'ARK', signed, random));
  return certificate;
}

/**
 * ASK and ARK, one after the other, as AMD has them for download: 3200 bytes.
 *
 * Differs  key ids say that these are test keys; [SEV-TOOL] knows AMD's and refuses others
 */
export function issueSevCa(authority: CertificateAuthority, random: Random): Uint8Array {
  return concat(caCertificate(authority, 'ASK', random), caCertificate(authority, 'ARK', random));
}

/**
 * A CEK certificate of 2084 bytes, signed by the ASK anew each time.
 *
 * Shape    publicPoint uncompressed, 97 bytes
 * Differs  nothing in it says that it is for tests: it has neither comment nor key id
 */
export function issueCek(
  authority: CertificateAuthority,
  publicPoint: Uint8Array,
  random: Random,
): Uint8Array {
  const unsigned = unsignedSevCertificate({
    usage: SevCertUsage.CEK,
    algo: SevCertAlgo.ECDSA_SHA256,
    publicPoint,
    api: CEK_API,
  });
  return addSevSignature(unsigned, SevCertUsage.ASK, SevCertAlgo.RSA_SHA384, (signed) =>
    signature(authority, 'ASK', signed, random),
  );
}
