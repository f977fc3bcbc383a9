// SPDX-License-Identifier: Apache-2.0
/** Public keys and signatures in firmware's own little-endian form. [SNP-ABI] "Public Key Format" */
import { SevCurve, type SevPublicKey, type SevSignature } from '../abi/id-block.ts';
import { concat, isZero, reversed } from '../lib/bytes.ts';
import type { EcdsaSignature } from '../lib/crypto.ts';

const P384_BYTES = 48;

/** Big-endian 48 bytes of a 72-byte little-endian number; null when it is larger than P-384 has. */
function p384Component(component: Uint8Array): Uint8Array | null {
  return isZero(component.subarray(P384_BYTES)) ? reversed(component.subarray(0, P384_BYTES)) : null;
}

/** The uncompressed point of a P-384 key; null for another curve or coordinates that cannot be. */
export function p384Point(key: SevPublicKey): Uint8Array | null {
  const x = p384Component(key.qx);
  const y = p384Component(key.qy);
  return key.curve !== SevCurve.P384 || x === null || y === null ? null : concat(Uint8Array.of(4), x, y);
}

/** A signature as the crypto interface takes it; null when a component is larger than P-384 has. */
export function p384Signature(signature: SevSignature): EcdsaSignature | null {
  const r = p384Component(signature.r);
  const s = p384Component(signature.s);
  return r === null || s === null ? null : { r, s };
}
