// SPDX-License-Identifier: Apache-2.0
/** The versioned endorsement keys: VCEK of a chip, VLEK of a cloud provider. */
import type { MachineCrypto, SigningKey } from '../lib/crypto.ts';
import { expandScalar, extract } from './derive.ts';
import type { Stick } from './hash-stick.ts';

/** Which secret a stick comes from, and so which key it gives. */
export type EndorsementKind = 'VCEK' | 'VLEK';

/**
 * The private key of the stick's TCB, the same for ever for one secret and one TCB.
 *
 * Returns  48 bytes, big-endian, in [1, n-1]
 */
export function endorsementScalar(crypto: MachineCrypto, stick: Stick, kind: EndorsementKind): Uint8Array {
  const secret = extract(crypto, 'softsnp endorsement key', stick.values);
  return expandScalar(crypto, secret, kind, stick.product);
}

/** The key that signs reports for the stick's TCB. */
export function endorsementKey(crypto: MachineCrypto, stick: Stick, kind: EndorsementKind): SigningKey {
  return crypto.p384Key(endorsementScalar(crypto, stick, kind));
}
