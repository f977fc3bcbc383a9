// SPDX-License-Identifier: Apache-2.0
/**
 * Who a platform is to legacy SEV: its owner's certificate (OCA), its own endorsement key (PEK) and the key
 * guests' owners agree on secrets with (PDH). It outlives restarts; FACTORY_RESET and PEK_GEN make another.
 *
 * Source   [SEV-TOOL] src/tests.cpp: which command changes which certificate; [VIRTEE-SEV] tests/rome
 */

import { SevSignature } from '../abi/id-block.ts';
import {
  SEV_CERT_SIGNED_SIZE,
  SEV_CERT_VERSION,
  SevCertAlgo,
  SevCertificate,
  SevCertUsage,
} from '../abi/sev-certificate.ts';
import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import {
  addSevSignature,
  chipEndorsementKey,
  findSevSignature,
  type PlatformKeyUse,
  platformKey,
  sevSignature,
  unsignedSevCertificate,
} from '../keys/index.ts';
import { equalBytes } from '../lib/bytes.ts';
import type { EcdsaHash, SigningKey } from '../lib/crypto.ts';
import type { Platform } from './platform.ts';
import { p384Point, p384Signature } from './sev-keys.ts';

/** Certificates of 2084 bytes, and what their keys are derived from. */
export interface SevIdentity {
  /** PEK_CERT_IMPORT has put another owner's OCA in the place of the platform's. */
  readonly owned: boolean;
  readonly oca: Uint8Array;
  readonly pek: Uint8Array;
  readonly pdh: Uint8Array;
  readonly pekNonce: Uint8Array;
  readonly pdhNonce: Uint8Array;
}

export const SEV_NONCE_SIZE = 32;

const ALGO: Readonly<Record<PlatformKeyUse, number>> = {
  OCA: SevCertAlgo.ECDSA_SHA256,
  PEK: SevCertAlgo.ECDSA_SHA256,
  PDH: SevCertAlgo.ECDH_SHA256,
};

/** Algorithms an owner may sign with. */
const OWNER_HASHES: ReadonlyMap<number, EcdsaHash> = new Map([
  [SevCertAlgo.ECDSA_SHA256, 'sha256'],
  [SevCertAlgo.ECDSA_SHA384, 'sha384'],
]);

interface Signer {
  readonly usage: number;
  readonly key: SigningKey;
}

function certificate(
  platform: Platform,
  usage: PlatformKeyUse | 'CEK',
  { publicPoint }: SigningKey,
): Uint8Array {
  const algo = usage === 'CEK' ? SevCertAlgo.ECDSA_SHA256 : ALGO[usage];
  return unsignedSevCertificate({
    usage: SevCertUsage[usage],
    algo,
    publicPoint,
    api: platform.firmwareVersion,
  });
}

function signedBy(unsigned: Uint8Array, ...signers: readonly Signer[]): Uint8Array {
  return signers.reduce(
    (done, { usage, key }) =>
      addSevSignature(done, usage, SevCertAlgo.ECDSA_SHA256, (bytes) =>
        sevSignature(key.sign(bytes, 'sha256')),
      ),
    unsigned,
  );
}

const keyOf = ({ crypto, chip }: Platform, use: PlatformKeyUse, nonce: Uint8Array): SigningKey =>
  platformKey(crypto, chip.secret, use, nonce);

const cekOf = ({ crypto, chip }: Platform): SigningKey =>
  chipEndorsementKey(crypto, chip.secret, chip.product);

/** The CEK as the platform itself shows it: only AMD's key service has one that is signed. */
export function cekCertificate(platform: Platform): Uint8Array {
  return certificate(platform, 'CEK', cekOf(platform));
}

function newPdh(platform: Platform, pek: SigningKey): Pick<SevIdentity, 'pdh' | 'pdhNonce'> {
  const pdhNonce = platform.random.bytes(SEV_NONCE_SIZE);
  const unsigned = certificate(platform, 'PDH', keyOf(platform, 'PDH', pdhNonce));
  return { pdhNonce, pdh: signedBy(unsigned, { usage: SevCertUsage.PEK, key: pek }) };
}

/** A platform that belongs to itself, with new keys. The key of its OCA signs twice and is forgotten. */
export function newIdentity(platform: Platform): SevIdentity {
  const ownKey = keyOf(platform, 'OCA', platform.random.bytes(SEV_NONCE_SIZE));
  const pekNonce = platform.random.bytes(SEV_NONCE_SIZE);
  const pekKey = keyOf(platform, 'PEK', pekNonce);
  const owner: Signer = { usage: SevCertUsage.OCA, key: ownKey };
  const chip: Signer = { usage: SevCertUsage.CEK, key: cekOf(platform) };
  return {
    owned: false,
    oca: signedBy(certificate(platform, 'OCA', ownKey), owner),
    pek: signedBy(certificate(platform, 'PEK', pekKey), owner, chip),
    pekNonce,
    ...newPdh(platform, pekKey),
  };
}

/** The same platform with another PDH. */
export function withNewPdh(platform: Platform, identity: SevIdentity): SevIdentity {
  return { ...identity, ...newPdh(platform, keyOf(platform, 'PEK', identity.pekNonce)) };
}

/** The PEK without its signatures: the request its owner is to sign. */
export function signingRequest(platform: Platform, identity: SevIdentity): Uint8Array {
  return certificate(platform, 'PEK', keyOf(platform, 'PEK', identity.pekNonce));
}

/**
 * The platform as another owner has it, who has signed its PEK.
 *
 * Returns  SEV_RET_INVALID_CERTIFICATE for anything but an OCA and this platform's PEK with one signature;
 *          SEV_RET_BAD_SIGNATURE when the OCA is not signed by itself or the PEK not by it
 */
export function joined(
  platform: Platform,
  identity: SevIdentity,
  pekBytes: Uint8Array,
  ocaBytes: Uint8Array,
): SevIdentity | SevStatus {
  const oca = SevCertificate.tryDecode(ocaBytes);
  const pek = SevCertificate.tryDecode(pekBytes);
  if (oca === null || pek === null || !isOwner(oca) || !isRequested(platform, identity, pek)) {
    return SevRet.SEV_RET_INVALID_CERTIFICATE;
  }
  if (!isSignedBy(platform, ocaBytes, oca) || !isSignedBy(platform, pekBytes, oca)) {
    return SevRet.SEV_RET_BAD_SIGNATURE;
  }
  return {
    owned: true,
    oca: ocaBytes,
    pek: signedBy(pekBytes, { usage: SevCertUsage.CEK, key: cekOf(platform) }),
    pekNonce: identity.pekNonce,
    ...newPdh(platform, keyOf(platform, 'PEK', identity.pekNonce)),
  };
}

const isOwner = (oca: SevCertificate): boolean =>
  oca.version === SEV_CERT_VERSION &&
  oca.pubkey_usage === SevCertUsage.OCA &&
  OWNER_HASHES.has(oca.pubkey_algo) &&
  p384Point(oca) !== null;

/** The certificate signing request, whoever made it, with one place still free for the CEK. */
function isRequested(platform: Platform, { pekNonce }: SevIdentity, pek: SevCertificate): boolean {
  const point = p384Point(pek);
  return (
    pek.version === SEV_CERT_VERSION &&
    pek.pubkey_usage === SevCertUsage.PEK &&
    pek.pubkey_algo === ALGO.PEK &&
    [pek.sig1, pek.sig2].filter(({ usage }) => usage === SevCertUsage.INVALID).length === 1 &&
    point !== null &&
    equalBytes(point, keyOf(platform, 'PEK', pekNonce).publicPoint)
  );
}

function isSignedBy({ crypto }: Platform, bytes: Uint8Array, owner: SevCertificate): boolean {
  const found = findSevSignature(SevCertificate.decode(bytes), owner.pubkey_usage, owner.pubkey_algo);
  const decoded = found === null ? null : SevSignature.tryDecode(found.signature);
  const signature = decoded === null ? null : p384Signature(decoded);
  const point = p384Point(owner);
  return (
    signature !== null &&
    point !== null &&
    crypto.p384Verify(
      point,
      bytes.subarray(0, SEV_CERT_SIGNED_SIZE),
      signature,
      OWNER_HASHES.get(owner.pubkey_algo),
    )
  );
}

/** Whether these are certificates of the keys that the chip derives from the nonces. */
export function isIdentityOf(platform: Platform, identity: SevIdentity): boolean {
  const uses = [
    [identity.oca, 'OCA', null],
    [identity.pek, 'PEK', identity.pekNonce],
    [identity.pdh, 'PDH', identity.pdhNonce],
  ] as const;
  return uses.every(([bytes, use, nonce]) => {
    const decoded = SevCertificate.tryDecode(bytes);
    const point = decoded === null ? null : p384Point(decoded);
    return (
      decoded?.version === SEV_CERT_VERSION &&
      decoded.pubkey_usage === SevCertUsage[use] &&
      point !== null &&
      (nonce === null || equalBytes(point, keyOf(platform, use, nonce).publicPoint))
    );
  });
}
