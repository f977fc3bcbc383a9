// SPDX-License-Identifier: Apache-2.0
/**
 * The cryptography the deterministic core is given. `os/node-crypto.ts` makes it from node:crypto; in a
 * seeded run signatures are deterministic (RFC 6979) so that the same seed gives the same bytes.
 */
export interface Random {
  /** Fresh unpredictable bytes; in a seeded run the next bytes of the seed's stream. */
  bytes(length: number): Uint8Array;
}

export interface EcdsaSignature {
  /** Big-endian, 48 bytes. */
  readonly r: Uint8Array;
  /** Big-endian, 48 bytes. */
  readonly s: Uint8Array;
}

/** Digest under an ECDSA signature; SHA-384 unless something says otherwise. */
export type EcdsaHash = 'sha256' | 'sha384';

/** A P-384 private key made ready for signing. */
export interface SigningKey {
  /** Uncompressed public point: 0x04 ‖ X ‖ Y, 97 bytes. */
  readonly publicPoint: Uint8Array;
  /** ECDSA over the digest of the message. */
  sign(message: Uint8Array, hash?: EcdsaHash): EcdsaSignature;
}

export interface MachineCrypto {
  sha256(data: Uint8Array): Uint8Array;
  sha384(data: Uint8Array): Uint8Array;
  hmacSha384(key: Uint8Array, data: Uint8Array): Uint8Array;
  /** AES-256-GCM; nonce 12 bytes; returns ciphertext and the 16-byte tag. */
  gcmSeal(
    key: Uint8Array,
    nonce: Uint8Array,
    aad: Uint8Array,
    plaintext: Uint8Array,
  ): { ciphertext: Uint8Array; tag: Uint8Array };
  /** The plaintext, or null when the tag does not authenticate. */
  gcmOpen(
    key: Uint8Array,
    nonce: Uint8Array,
    aad: Uint8Array,
    ciphertext: Uint8Array,
    tag: Uint8Array,
  ): Uint8Array | null;
  /** One 4 KiB page under the memory key (32 bytes); the page's frame number is the tweak. */
  memoryEncrypt(key: Uint8Array, frame: number, page: Uint8Array): Uint8Array;
  memoryDecrypt(key: Uint8Array, frame: number, page: Uint8Array): Uint8Array;
  /** P-384 key from a 48-byte big-endian scalar in [1, n-1]. */
  p384Key(scalar: Uint8Array): SigningKey;
  /** True when the signature of the message verifies under the uncompressed point. */
  p384Verify(
    publicPoint: Uint8Array,
    message: Uint8Array,
    signature: EcdsaSignature,
    hash?: EcdsaHash,
  ): boolean;
}
