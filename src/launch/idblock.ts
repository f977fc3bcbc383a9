// SPDX-License-Identifier: Apache-2.0
/** The ID block: a guest owner's signed word on what a guest must measure to, enforced by the firmware. */
import { GUEST_POLICY_DEFAULT, GuestPolicy } from '../abi/guest-policy.ts';
import {
  ID_AUTH_ALGO_ECDSA_P384_SHA384,
  ID_BLOCK_VERSION,
  IdAuth,
  IdBlock,
  SevCurve,
  SevPublicKey,
  SevSignature,
} from '../abi/id-block.ts';
import { SevRet, type SevStatus } from '../abi/sev-status.ts';
import { concat, equalBytes, isZero, reversed, toHex } from '../lib/bytes.ts';
import type { EcdsaSignature, MachineCrypto, SigningKey } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';
import { LAUNCH_DIGEST_SIZE } from './digest.ts';
import type { Hash } from './kernel-hashes.ts';

const COORDINATE_SIZE = 48;

export interface IdBlockOptions {
  /** What the guest has to measure to. */
  readonly launchDigest: Uint8Array;
  readonly familyId?: Uint8Array;
  readonly imageId?: Uint8Array;
  readonly guestSvn?: number;
  /** The policy the guest must be launched with, exactly. */
  readonly policy?: bigint;
  readonly idKey: SigningKey;
  /** Signs the ID key; without it the author fields stay zero and AUTH_KEY_EN must be 0. */
  readonly authorKey?: SigningKey;
}

export interface IdBlockFiles {
  /** 96 bytes. */
  readonly idBlock: Uint8Array;
  /** 4096 bytes. */
  readonly idAuth: Uint8Array;
  /** ID_KEY_DIGEST of the guest's reports. */
  readonly idKeyDigest: Uint8Array;
  /** AUTHOR_KEY_DIGEST of the guest's reports; null without an author key. */
  readonly authorKeyDigest: Uint8Array | null;
}

/**
 * Makes and signs an ID block.
 *
 * Errors   OPTION_INVALID, LAYOUT_VALUE_OUT_OF_RANGE
 * Source   [SNP-ABI] SNP_LAUNCH_FINISH, "ID Block", "ID Authentication Information"
 */
export function createIdBlock(sha384: Hash, options: IdBlockOptions): IdBlockFiles {
  const { launchDigest, idKey, authorKey, policy = GUEST_POLICY_DEFAULT } = options;
  if (launchDigest.length !== LAUNCH_DIGEST_SIZE) {
    throw new InputError('OPTION_INVALID', `${launchDigest.length} bytes given, a launch digest has 48`, {
      where: '--measurement',
    });
  }
  if (!isGuestPolicy(policy)) {
    throw new InputError('OPTION_INVALID', noGuestPolicy(policy), { where: '--policy' });
  }
  const idBlock = IdBlock.encode({
    ld: launchDigest,
    family_id: options.familyId ?? new Uint8Array(16),
    image_id: options.imageId ?? new Uint8Array(16),
    version: ID_BLOCK_VERSION,
    guest_svn: options.guestSvn ?? 0,
    policy,
  });

  const idPublic = encodePublicKey(idKey.publicPoint);
  const idAuth = IdAuth.encode({
    id_key_algo: ID_AUTH_ALGO_ECDSA_P384_SHA384,
    auth_key_algo: authorKey === undefined ? 0 : ID_AUTH_ALGO_ECDSA_P384_SHA384,
  });
  idAuth.set(encodeSignature(idKey.sign(idBlock)), IdAuth.offsetOf('id_block_sig'));
  idAuth.set(idPublic, IdAuth.offsetOf('id_key'));
  if (authorKey === undefined) {
    return { idBlock, idAuth, idKeyDigest: sha384(idPublic), authorKeyDigest: null };
  }
  const authorPublic = encodePublicKey(authorKey.publicPoint);
  idAuth.set(encodeSignature(authorKey.sign(idPublic)), IdAuth.offsetOf('id_key_sig'));
  idAuth.set(authorPublic, IdAuth.offsetOf('author_key'));
  return { idBlock, idAuth, idKeyDigest: sha384(idPublic), authorKeyDigest: sha384(authorPublic) };
}

/** Whether SNP_LAUNCH_START takes the word; no guest can have another. */
const isGuestPolicy = (word: bigint): boolean =>
  (word & GuestPolicy.reservedZeros) === 0n && (~word & GuestPolicy.reservedOnes) === 0n;
const noGuestPolicy = (word: bigint): string =>
  `0x${word.toString(16)} is no guest policy: bit 17 must be set, bits 63:26 clear`;

/** An ID block and its authentication page, read but not judged. */
export interface IdBlockContents {
  readonly launchDigest: Uint8Array;
  readonly familyId: Uint8Array;
  readonly imageId: Uint8Array;
  readonly version: number;
  readonly guestSvn: number;
  readonly policy: bigint;
  readonly idKeyAlgo: number;
  readonly authorKeyAlgo: number;
  /** SHA-384 over the 1028 bytes of the key, as the firmware puts it into reports. */
  readonly idKeyDigest: Uint8Array;
  /** Null when the page carries no author key. */
  readonly authorKeyDigest: Uint8Array | null;
}

/**
 * Reads an ID block and its authentication page.
 *
 * Errors   LAYOUT_LENGTH_MISMATCH
 */
export function readIdBlock(sha384: Hash, idBlock: Uint8Array, idAuth: Uint8Array): IdBlockContents {
  const block = IdBlock.decodeLoose(idBlock);
  const auth = IdAuth.decodeLoose(idAuth);
  const author = field(idAuth, 'author_key');
  return {
    launchDigest: block.ld,
    familyId: block.family_id,
    imageId: block.image_id,
    version: block.version,
    guestSvn: block.guest_svn,
    policy: block.policy,
    idKeyAlgo: auth.id_key_algo,
    authorKeyAlgo: auth.auth_key_algo,
    idKeyDigest: sha384(field(idAuth, 'id_key')),
    authorKeyDigest: isZero(author) ? null : sha384(author),
  };
}

export interface IdBlockFinding {
  readonly code:
    | 'ID_BLOCK_VERSION_UNSUPPORTED'
    | 'ID_AUTH_RESERVED_NOT_ZERO'
    | 'ID_KEY_ALGO_UNSUPPORTED'
    | 'ID_KEY_INVALID'
    | 'AUTHOR_KEY_ALGO_UNSUPPORTED'
    | 'AUTHOR_KEY_INVALID'
    | 'ID_BLOCK_DIGEST_MISMATCH'
    | 'ID_BLOCK_POLICY_INVALID'
    | 'ID_BLOCK_POLICY_MISMATCH'
    | 'ID_BLOCK_SIGNATURE_INVALID'
    | 'ID_KEY_SIGNATURE_INVALID';
  readonly message: string;
  /** What SNP_LAUNCH_FINISH returns for it. */
  readonly status: SevStatus;
}

export interface IdBlockExpectation {
  /** Launch digest of the guest, when known. */
  readonly launchDigest?: Uint8Array;
  /** Policy the guest is launched with, when known. */
  readonly policy?: bigint;
  /** AUTH_KEY_EN; by default on when the page carries an author key. */
  readonly authorKeyEnabled?: boolean;
}

/**
 * Everything SNP_LAUNCH_FINISH would find wrong, in the order it looks; the first one is its answer.
 *
 * Returns  no findings when the firmware would accept the pair
 * Errors   LAYOUT_LENGTH_MISMATCH
 */
export function checkIdBlock(
  crypto: Pick<MachineCrypto, 'sha384' | 'p384Verify'>,
  idBlock: Uint8Array,
  idAuth: Uint8Array,
  expected: IdBlockExpectation = {},
): readonly IdBlockFinding[] {
  const contents = readIdBlock(crypto.sha384, idBlock, idAuth);
  const withAuthor = expected.authorKeyEnabled ?? contents.authorKeyDigest !== null;
  const idPoint = decodePublicKey(field(idAuth, 'id_key'));
  const authorPoint = decodePublicKey(field(idAuth, 'author_key'));
  const [reserved] = IdAuth.violations(idAuth);
  const { SEV_RET_INVALID_PARAM, SEV_RET_BAD_MEASUREMENT, SEV_RET_POLICY_FAILURE, SEV_RET_BAD_SIGNATURE } =
    SevRet;
  const signs = (point: Uint8Array | null, message: Uint8Array, signature: Uint8Array): boolean => {
    const decoded = decodeSignature(signature);
    return point !== null && decoded !== null && crypto.p384Verify(point, message, decoded);
  };
  const checks: readonly (readonly [wrong: boolean, IdBlockFinding['code'], SevStatus, message: string])[] = [
    [
      contents.version !== ID_BLOCK_VERSION,
      'ID_BLOCK_VERSION_UNSUPPORTED',
      SEV_RET_INVALID_PARAM,
      `the ID block has version ${contents.version}, not 1`,
    ],
    [
      reserved !== undefined,
      'ID_AUTH_RESERVED_NOT_ZERO',
      SEV_RET_INVALID_PARAM,
      `the authentication page: ${reserved?.message}`,
    ],
    [
      contents.idKeyAlgo !== ID_AUTH_ALGO_ECDSA_P384_SHA384,
      'ID_KEY_ALGO_UNSUPPORTED',
      SEV_RET_INVALID_PARAM,
      `ID key algorithm ${contents.idKeyAlgo}; 1 (ECDSA P-384 with SHA-384) is the only one`,
    ],
    [idPoint === null, 'ID_KEY_INVALID', SEV_RET_INVALID_PARAM, 'the ID key is no P-384 public key'],
    [
      withAuthor && contents.authorKeyAlgo !== ID_AUTH_ALGO_ECDSA_P384_SHA384,
      'AUTHOR_KEY_ALGO_UNSUPPORTED',
      SEV_RET_INVALID_PARAM,
      `author key algorithm ${contents.authorKeyAlgo}; 1 (ECDSA P-384 with SHA-384) is the only one`,
    ],
    [
      withAuthor && authorPoint === null,
      'AUTHOR_KEY_INVALID',
      SEV_RET_INVALID_PARAM,
      'the author key is no P-384 public key',
    ],
    [
      expected.launchDigest !== undefined && !equalBytes(expected.launchDigest, contents.launchDigest),
      'ID_BLOCK_DIGEST_MISMATCH',
      SEV_RET_BAD_MEASUREMENT,
      `the ID block wants ${toHex(contents.launchDigest)}, the guest measures ${toHex(expected.launchDigest ?? new Uint8Array())}`,
    ],
    [
      !isGuestPolicy(contents.policy),
      'ID_BLOCK_POLICY_INVALID',
      SEV_RET_POLICY_FAILURE,
      `the ID block wants a policy that no guest can have: ${noGuestPolicy(contents.policy)}`,
    ],
    [
      expected.policy !== undefined && expected.policy !== contents.policy,
      'ID_BLOCK_POLICY_MISMATCH',
      SEV_RET_POLICY_FAILURE,
      `the ID block wants policy 0x${contents.policy.toString(16)}, the guest has 0x${expected.policy?.toString(16)}`,
    ],
    [
      idPoint !== null && !signs(idPoint, idBlock, field(idAuth, 'id_block_sig')),
      'ID_BLOCK_SIGNATURE_INVALID',
      SEV_RET_BAD_SIGNATURE,
      'the ID key did not sign this ID block',
    ],
    [
      withAuthor &&
        authorPoint !== null &&
        !signs(authorPoint, field(idAuth, 'id_key'), field(idAuth, 'id_key_sig')),
      'ID_KEY_SIGNATURE_INVALID',
      SEV_RET_BAD_SIGNATURE,
      'the author key did not sign this ID key',
    ],
  ];
  return checks.flatMap(([wrong, code, status, message]) => (wrong ? [{ code, status, message }] : []));
}

/** The bytes of a field of the authentication page: signatures count over what was received. */
function field(idAuth: Uint8Array, name: keyof typeof IdAuth.fields): Uint8Array {
  const [offset, { size }] = IdAuth.fields[name];
  return idAuth.subarray(offset, offset + size);
}

/** A P-384 point as the firmware stores it: curve, little-endian coordinates of 72 bytes. */
export function encodePublicKey(publicPoint: Uint8Array): Uint8Array {
  return SevPublicKey.encode({
    curve: SevCurve.P384,
    qx: widened(publicPoint.subarray(1, 1 + COORDINATE_SIZE)),
    qy: widened(publicPoint.subarray(1 + COORDINATE_SIZE)),
  });
}

/** The uncompressed point of a stored public key; null when it is not in the form of a P-384 key. */
export function decodePublicKey(bytes: Uint8Array): Uint8Array | null {
  const key = SevPublicKey.tryDecode(bytes);
  if (key === null || key.curve !== SevCurve.P384) {
    return null;
  }
  const x = narrowed(key.qx);
  const y = narrowed(key.qy);
  return x === null || y === null ? null : concat(Uint8Array.of(4), x, y);
}

function encodeSignature({ r, s }: EcdsaSignature): Uint8Array {
  return SevSignature.encode({ r: widened(r), s: widened(s) });
}

function decodeSignature(bytes: Uint8Array): EcdsaSignature | null {
  const signature = SevSignature.tryDecode(bytes);
  const r = signature === null ? null : narrowed(signature.r);
  const s = signature === null ? null : narrowed(signature.s);
  return r === null || s === null ? null : { r, s };
}

/** 48 big-endian bytes as 72 little-endian ones. */
const widened = (value: Uint8Array): Uint8Array => concat(reversed(value), new Uint8Array(24));

/** 72 little-endian bytes as 48 big-endian ones; null when the number is larger. */
function narrowed(value: Uint8Array): Uint8Array | null {
  return isZero(value.subarray(COORDINATE_SIZE)) ? reversed(value.subarray(0, COORDINATE_SIZE)) : null;
}
