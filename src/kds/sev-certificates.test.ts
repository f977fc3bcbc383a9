// SPDX-License-Identifier: Apache-2.0
/** Certificates of legacy SEV, checked with node:crypto from their bytes alone. */
import { constants, createPublicKey, type KeyObject, verify, X509Certificate } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { PRODUCT_LINES } from '../abi/product.ts';
import { SevAmdCertificate, SevCertAlgo, SevCertificate, SevCertUsage } from '../abi/sev-certificate.ts';
import { chipEndorsementKey } from '../keys/index.ts';
import { concat, reversed, toHex } from '../lib/bytes.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import { embeddedAuthority } from './authority.ts';
import { issueCek, issueSevCa } from './sev-certificates.ts';

const ASCII = new TextDecoder();

function keyOf(certificate: Uint8Array): KeyObject {
  const { modulus, pub_exp } = SevAmdCertificate.decode(certificate);
  const number = (bytes: Uint8Array): string => Buffer.from(reversed(bytes)).toString('base64url');
  return createPublicKey({ key: { kty: 'RSA', n: number(modulus), e: number(pub_exp) }, format: 'jwk' });
}

const isPss = (key: KeyObject, signed: Uint8Array, signature: Uint8Array): boolean =>
  verify(
    'sha384',
    signed,
    { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 48 },
    reversed(signature),
  );

describe.each(PRODUCT_LINES)('for %s', (product) => {
  const authority = embeddedAuthority(product);
  const bundle = issueSevCa(authority, seededRandom(1));
  const [ask, ark] = [bundle.subarray(0, 1600), bundle.subarray(1600)];

  it('ASK and ARK have the keys of the X.509 certificates, are signed by the ARK and say what they are', () => {
    expect(bundle).toHaveLength(3200);
    for (const [certificate, role, x509] of [
      [ask, 'ASK', authority.ask],
      [ark, 'ARK', authority.ark],
    ] as const) {
      const fields = SevAmdCertificate.decode(certificate);
      expect(fields).toMatchObject({ version: 1, key_usage: SevCertUsage[role], pub_exp_size: 4096 });
      expect(ASCII.decode(fields.key_id)).toBe(`softsnp TEST ${role}`);
      expect(ASCII.decode(fields.certifying_id)).toBe('softsnp TEST ARK');
      const { publicKey } = new X509Certificate(x509);
      expect(keyOf(certificate).equals(publicKey)).toBe(true);
      expect(isPss(keyOf(ark), certificate.subarray(0, 0x440), fields.signature)).toBe(true);
    }
    expect(isPss(keyOf(ask), ask.subarray(0, 0x440), SevAmdCertificate.get(ask, 'signature'))).toBe(false);
  });

  it('a CEK is signed by the ASK alone, anew each time', () => {
    const secret = seededRandom(2).bytes(48);
    const { publicPoint } = chipEndorsementKey(nodeCrypto({ deterministic: true }), secret, product);
    const random = seededRandom(3);
    const [cek, again] = [issueCek(authority, publicPoint, random), issueCek(authority, publicPoint, random)];
    const { qx, qy, sig1, sig2, ...fields } = SevCertificate.decode(cek);
    expect(fields).toEqual({
      ...{ version: 1, api_major: 0, api_minor: 14, curve: 2 },
      ...{ pubkey_usage: SevCertUsage.CEK, pubkey_algo: SevCertAlgo.ECDSA_SHA256 },
    });
    const point = concat(Uint8Array.of(4), ...[qx, qy].map((part) => reversed(part.subarray(0, 48))));
    expect(toHex(point)).toBe(toHex(publicPoint));
    expect([sig1.usage, sig1.algo, sig2.usage, sig2.algo]).toEqual([0x13, 0x101, 0x1000, 0]);
    expect(isPss(keyOf(ask), cek.subarray(0, 0x414), sig1.signature)).toBe(true);
    expect(again.subarray(0, 0x414)).toEqual(cek.subarray(0, 0x414));
    expect(toHex(again)).not.toBe(toHex(cek));
  });
});
