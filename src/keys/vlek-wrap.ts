// SPDX-License-Identifier: Apache-2.0
/** VLEK hash sticks as they travel: sealed by the key service for one chip, opened by SNP_VLEK_LOAD. */
import type { ProductLine } from '../abi/product.ts';
import { WrappedVlekHashstick } from '../abi/snp-commands.ts';
import { decodeTcb, encodeTcb, type TcbParts, tcbComponents, tcbReservedIsZero } from '../abi/tcb-version.ts';
import { concat, isZero } from '../lib/bytes.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { STICK_VALUE_SIZE, type Stick } from './hash-stick.ts';

const PLAINTEXT_SIZE = 384;

/** The bytes the tag covers besides the ciphertext: TCB_VERSION and the reserved bytes after it. */
function associatedData(wrapped: Uint8Array): Uint8Array {
  const from = WrappedVlekHashstick.offsetOf('tcb_version');
  return wrapped.subarray(from, WrappedVlekHashstick.offsetOf('auth_tag'));
}

/**
 * Seals a stick for the chip with this wrapping key.
 *
 * Returns  432 bytes
 * Source   [SNP-ABI] SNP_VLEK_LOAD
 * Differs  AMD does not publish the plaintext; here the component values in order, padded with zeros
 */
export function wrapHashstick(
  crypto: MachineCrypto,
  random: Random,
  wrappingKey: Uint8Array,
  stick: Stick,
): Uint8Array {
  const plaintext = new Uint8Array(PLAINTEXT_SIZE);
  plaintext.set(concat(...stick.values));
  const iv = random.bytes(12);
  const wrapped = WrappedVlekHashstick.encode({ iv, tcb_version: encodeTcb(stick.tcb, stick.product) });
  const { ciphertext, tag } = crypto.gcmSeal(wrappingKey, iv, associatedData(wrapped), plaintext);
  WrappedVlekHashstick.set(wrapped, 'vlek_wrapped', ciphertext);
  WrappedVlekHashstick.set(wrapped, 'auth_tag', tag);
  return wrapped;
}

/**
 * The TCB a wrapped stick says it is for, which anybody can read; only unwrapping proves it.
 *
 * Returns  null for bytes that are not a wrapped stick of this product line
 */
export function wrappedHashstickTcb(product: ProductLine, wrapped: Uint8Array): TcbParts | null {
  const fields = WrappedVlekHashstick.tryDecode(wrapped);
  return fields === null || !tcbReservedIsZero(fields.tcb_version, product)
    ? null
    : decodeTcb(fields.tcb_version, product);
}

/**
 * Opens a wrapped stick.
 *
 * Returns  null when the structure or the tag is wrong: another chip's, another TCB's, or altered
 */
export function unwrapHashstick(
  crypto: MachineCrypto,
  wrappingKey: Uint8Array,
  product: ProductLine,
  wrapped: Uint8Array,
): Stick | null {
  const tcb = wrappedHashstickTcb(product, wrapped);
  if (tcb === null) {
    return null;
  }
  const { iv, vlek_wrapped, auth_tag } = WrappedVlekHashstick.decode(wrapped);
  const plaintext = crypto.gcmOpen(wrappingKey, iv, associatedData(wrapped), vlek_wrapped, auth_tag);
  if (plaintext === null) {
    return null;
  }
  const count = tcbComponents(product).length;
  const values = Array.from({ length: count }, (_, i) =>
    plaintext.slice(i * STICK_VALUE_SIZE, (i + 1) * STICK_VALUE_SIZE),
  );
  return isZero(plaintext.subarray(count * STICK_VALUE_SIZE)) ? { product, tcb, values } : null;
}
