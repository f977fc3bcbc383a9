// SPDX-License-Identifier: Apache-2.0
/** The keys of legacy SEV: the one of the chip, and those a platform makes for itself. */
import type { ProductLine } from '../abi/product.ts';
import { toHex } from '../lib/bytes.ts';
import type { MachineCrypto, SigningKey } from '../lib/crypto.ts';
import { expandScalar } from './derive.ts';

/**
 * The chip's CEK: the same for ever, whatever the TCB and the owner.
 *
 * Differs  AMD does not publish its derivation (docs/limitations.md)
 */
export function chipEndorsementKey(
  crypto: MachineCrypto,
  chipSecret: Uint8Array,
  product: ProductLine,
): SigningKey {
  return crypto.p384Key(expandScalar(crypto, chipSecret, 'softsnp chip endorsement key', product));
}

/** What a platform makes a key for. */
export type PlatformKeyUse = 'OCA' | 'PEK' | 'PDH';

/**
 * The key that belongs to a nonce. Whoever keeps the nonce and the chip's secret apart keeps no key.
 *
 * Shape    nonce 32 random bytes, fresh for every key that is generated
 */
export function platformKey(
  crypto: MachineCrypto,
  chipSecret: Uint8Array,
  use: PlatformKeyUse,
  nonce: Uint8Array,
): SigningKey {
  return crypto.p384Key(expandScalar(crypto, chipSecret, `softsnp platform ${use}`, toHex(nonce)));
}
