// SPDX-License-Identifier: Apache-2.0
/**
 * The certificate authorities softsnp issues under. Their private keys are part of the program and known
 * to everybody: what they certify proves nothing about hardware.
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import type { ProductLine } from '../abi/product.ts';
import type { CaRole } from './ca-certificate.ts';
import { GENOA } from './embedded/genoa.ts';
import { MILAN } from './embedded/milan.ts';
import { TURIN } from './embedded/turin.ts';
import { signPss } from './pss.ts';

/** One product line's ARK, ASK and ASVK. */
export interface CertificateAuthority {
  readonly product: ProductLine;
  /** Certificates in DER. */
  readonly ark: Uint8Array;
  readonly ask: Uint8Array;
  readonly asvk: Uint8Array;
  /**
   * RSASSA-PSS signature of a TBSCertificate or TBSCertList, 512 bytes.
   *
   * Shape    salt 48 bytes, from the caller's source of randomness
   */
  sign(which: CaRole, tbs: Uint8Array, salt: Uint8Array): Uint8Array;
}

/** A key and its certificate: base64 of PKCS #8 and of X.509, with line breaks around and between. */
interface EmbeddedKey {
  readonly privateKey: string;
  readonly certificate: string;
}

const EMBEDDED: Readonly<Record<ProductLine, Readonly<Record<CaRole, EmbeddedKey>>>> = {
  Milan: MILAN,
  Genoa: GENOA,
  Turin: TURIN,
};

/** The public test authority of a product line. */
export function embeddedAuthority(product: ProductLine): CertificateAuthority {
  const embedded = EMBEDDED[product];
  const keys = new Map<CaRole, KeyObject>();
  const keyOf = (which: CaRole): KeyObject => {
    let key = keys.get(which);
    if (key === undefined) {
      key = createPrivateKey(
        `-----BEGIN PRIVATE KEY-----${embedded[which].privateKey}-----END PRIVATE KEY-----\n`,
      );
      keys.set(which, key);
    }
    return key;
  };
  return {
    product,
    ark: fromBase64(embedded.ARK.certificate),
    ask: fromBase64(embedded.ASK.certificate),
    asvk: fromBase64(embedded.ASVK.certificate),
    sign: (which, tbs, salt) => signPss(keyOf(which), tbs, salt),
  };
}

const fromBase64 = (text: string): Uint8Array => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
