// SPDX-License-Identifier: Apache-2.0
import {
  ID_AUTH_ALGO_ECDSA_P384_SHA384,
  ID_BLOCK_VERSION,
  IdAuth,
  IdBlock,
  SevCurve,
  SevPublicKey,
  type SevSignature,
} from '../../abi/id-block.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpLaunchFinish } from '../../abi/snp-commands.ts';
import { equalBytes } from '../../lib/bytes.ts';
import type { GuestContext } from '../guest-context.ts';
import type { Platform } from '../platform.ts';
import { p384Point, p384Signature } from '../sev-keys.ts';

type Identity = Pick<
  GuestContext,
  'familyId' | 'imageId' | 'guestSvn' | 'idKeyDigest' | 'authorKeyEn' | 'authorKeyDigest'
>;

/**
 * Ends a launch; the guest may run and its identity is fixed. [SNP-ABI] SNP_LAUNCH_FINISH
 *
 * Returns  SEV_RET_BAD_MEASUREMENT, SEV_RET_POLICY_FAILURE or SEV_RET_BAD_SIGNATURE, in this order of checks, when
 *          the ID block is not about this launch; nothing is stored then and the launch may be finished again
 */
export function snpLaunchFinish(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpLaunchFinish);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const guest = platform.guestFor(buffer.gctx_paddr, 'SEV_CMD_SNP_LAUNCH_FINISH');
  if (typeof guest === 'number') {
    return guest;
  }
  const { id_block_en, auth_key_en, vcek_dis } = buffer.flags;
  if (auth_key_en === 1 && id_block_en === 0) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  if (id_block_en === 1) {
    const identity = checkIdentity(
      platform,
      guest,
      buffer.id_block_paddr,
      buffer.id_auth_paddr,
      auth_key_en === 1,
    );
    if (typeof identity === 'number') {
      return identity;
    }
    Object.assign(guest, identity);
  }
  guest.vcekDis = vcek_dis === 1;
  guest.hostData = buffer.host_data;
  platform.advance(guest, 'SEV_CMD_SNP_LAUNCH_FINISH');
  return SevRet.SEV_RET_SUCCESS;
}

/** The identity an ID block gives the guest, or the status that refuses it. */
function checkIdentity(
  platform: Platform,
  guest: GuestContext,
  blockPaddr: bigint,
  authPaddr: bigint,
  authorKeyEn: boolean,
): Identity | SevStatus {
  const blockBytes = platform.readBytes(blockPaddr, IdBlock.size);
  const authBytes = platform.readBytes(authPaddr, IdAuth.size);
  if (blockBytes === null || authBytes === null) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const block = IdBlock.tryDecode(blockBytes);
  const auth = IdAuth.tryDecode(authBytes);
  if (block === null || auth === null || !known(auth, authorKeyEn) || block.version !== ID_BLOCK_VERSION) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  if (!equalBytes(block.ld, guest.launchDigest)) {
    return SevRet.SEV_RET_BAD_MEASUREMENT;
  }
  if (block.policy !== guest.policy) {
    return SevRet.SEV_RET_POLICY_FAILURE;
  }
  const keyBytes = (field: 'id_key' | 'author_key'): Uint8Array =>
    authBytes.subarray(IdAuth.offsetOf(field), IdAuth.offsetOf(field) + SevPublicKey.size);
  if (!signedBy(platform, auth.id_key, blockBytes, auth.id_block_sig)) {
    return SevRet.SEV_RET_BAD_SIGNATURE;
  }
  if (authorKeyEn && !signedBy(platform, auth.author_key, keyBytes('id_key'), auth.id_key_sig)) {
    return SevRet.SEV_RET_BAD_SIGNATURE;
  }
  const { crypto } = platform;
  return {
    familyId: block.family_id,
    imageId: block.image_id,
    guestSvn: block.guest_svn,
    idKeyDigest: crypto.sha384(keyBytes('id_key')),
    authorKeyEn,
    authorKeyDigest: authorKeyEn ? crypto.sha384(keyBytes('author_key')) : new Uint8Array(48),
  };
}

/** Whether algorithms and curves are ones the firmware has; those of the author key only where it is used. */
function known(auth: IdAuth, authorKeyEn: boolean): boolean {
  return (
    auth.id_key_algo === ID_AUTH_ALGO_ECDSA_P384_SHA384 &&
    auth.id_key.curve === SevCurve.P384 &&
    (!authorKeyEn ||
      (auth.auth_key_algo === ID_AUTH_ALGO_ECDSA_P384_SHA384 && auth.author_key.curve === SevCurve.P384))
  );
}

function signedBy(
  platform: Platform,
  key: SevPublicKey,
  message: Uint8Array,
  signature: SevSignature,
): boolean {
  const point = p384Point(key);
  const rs = p384Signature(signature);
  return point !== null && rs !== null && platform.crypto.p384Verify(point, message, rs);
}
