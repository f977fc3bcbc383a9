// SPDX-License-Identifier: Apache-2.0
/** What else hangs on a secret: the chip's identifier, its VLEK wrapping key, a provider's secret, a document's tag. */
import type { ProductLine } from '../abi/product.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import { expand, extract, SECRET_SIZE } from './derive.ts';

/** Bytes of CHIP_ID in reports and of GET_ID per socket. */
export const CHIP_ID_SIZE = 64;

/** Bytes of CHIP_ID that identify the chip; the rest is zero. They are also the HWID of its VCEKs. */
export const HWID_SIZE = { Milan: 64, Genoa: 64, Turin: 8 } as const satisfies Record<ProductLine, number>;

/** Identifier of the chip that has this secret: 64 bytes, on Turin 8 and zeros. */
export function chipIdOf(crypto: MachineCrypto, chipSecret: Uint8Array, product: ProductLine): Uint8Array {
  const id = new Uint8Array(CHIP_ID_SIZE);
  id.set(expand(crypto, chipSecret, 'softsnp chip id', product, HWID_SIZE[product]));
  return id;
}

/** AES-256 key under which the key service hands VLEK hash sticks to this one chip. */
export function chipWrappingKey(crypto: MachineCrypto, chipSecret: Uint8Array): Uint8Array {
  return expand(crypto, chipSecret, 'softsnp VLEK wrapping key', '', 32);
}

/**
 * The secret behind all VLEKs of one cloud provider, as the key service keeps it.
 *
 * Shape    csp as in the CSP_ID extension, e.g. CN=cloud.example
 */
export function cspSecret(crypto: MachineCrypto, serviceSecret: Uint8Array, csp: string): Uint8Array {
  return expand(crypto, serviceSecret, 'softsnp cloud provider secret', csp, SECRET_SIZE);
}

/** HMAC-SHA-384 of a document under a key that all of these secrets make; 48 bytes. */
export function documentTag(
  crypto: MachineCrypto,
  secrets: readonly Uint8Array[],
  document: Uint8Array,
): Uint8Array {
  return crypto.hmacSha384(extract(crypto, 'softsnp document', secrets), document);
}
