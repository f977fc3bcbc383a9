// SPDX-License-Identifier: Apache-2.0
/** The versioned endorsement keys: VCEK of a chip, VLEK of a cloud provider. */
import { fromHex, toHex } from '../lib/bytes.ts';
import type { MachineCrypto, SigningKey } from '../lib/crypto.ts';
import { expand, extract } from './derive.ts';
import type { Stick } from './hash-stick.ts';

/** Which secret a stick comes from, and so which key it gives. */
export type EndorsementKind = 'VCEK' | 'VLEK';

/** Order of the P-384 group. [FIPS186-5] and SEC 2. */
const P384_ORDER =
  0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n;

const SCALAR_SIZE = 48;
/** 64 bits more than the order has: the reduction then favours no scalar measurably. */
const SEED_SIZE = SCALAR_SIZE + 8;

/**
 * The private key of the stick's TCB, the same for ever for one secret and one TCB.
 *
 * Returns  48 bytes, big-endian, in [1, n-1]
 * Source   [FIPS186-5] A.2.1, key pair generation using extra random bits
 */
export function endorsementScalar(crypto: MachineCrypto, stick: Stick, kind: EndorsementKind): Uint8Array {
  const secret = extract(crypto, 'softsnp endorsement key', stick.values);
  const seed = expand(crypto, secret, kind, stick.product, SEED_SIZE);
  const scalar = (BigInt(`0x${toHex(seed)}`) % (P384_ORDER - 1n)) + 1n;
  return fromHex(scalar.toString(16).padStart(2 * SCALAR_SIZE, '0'));
}

/** The key that signs reports for the stick's TCB. */
export function endorsementKey(crypto: MachineCrypto, stick: Stick, kind: EndorsementKind): SigningKey {
  return crypto.p384Key(endorsementScalar(crypto, stick, kind));
}
