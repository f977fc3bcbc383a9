// SPDX-License-Identifier: Apache-2.0
import { KeySel, MsgKeyReqV1, MsgKeyReqV2, MsgKeyRsp, RootKeySelect } from '../../abi/guest-message.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { decodeTcb, tcbAtMost, tcbReservedIsZero } from '../../abi/tcb-version.ts';
import type { Answer } from '../attestation-report.ts';
import { deriveKey } from '../derived-key.ts';
import { selectKey } from '../key-selection.ts';
import type { Message } from './message.ts';

/**
 * MSG_KEY_REQ: a key only this guest can get, bound to the facts it selects.
 *
 * Returns  STATUS SEV_RET_INVALID_PARAM for reserved bits or a VMPL, SVN, TCB or mitigation vector the guest may
 *          not have; SEV_RET_INVALID_KEY when the selected root is not to be had. The key is zero then
 */
export function key(message: Message): Answer {
  const derived = derive(message);
  const status = typeof derived === 'number' ? derived : SevRet.SEV_RET_SUCCESS;
  const payload = MsgKeyRsp.encode(typeof derived === 'number' ? { status } : { derived_key: derived });
  return { payload, status, key: null };
}

/** A request in the form of version 2, which version 1 is a part of; null when it is malformed. */
function decodeRequest(payload: Uint8Array, version: number): MsgKeyReqV2 | null {
  if (version !== 1) {
    return MsgKeyReqV2.tryDecode(payload);
  }
  const request = MsgKeyReqV1.tryDecode(payload);
  return (
    request && {
      ...request,
      guest_field_select: { ...request.guest_field_select, launch_mit_vector: 0 },
      launch_mit_vector: 0n,
    }
  );
}

function derive({ platform, guest, payload, version, vmpl }: Message): Uint8Array | SevStatus {
  const request = decodeRequest(payload, version);
  if (request === null) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const { product } = platform.chip;
  if (
    request.vmpl < vmpl ||
    request.vmpl > 3 ||
    request.guest_svn > guest.guestSvn ||
    !tcbReservedIsZero(request.tcb_version, product) ||
    !tcbAtMost(decodeTcb(request.tcb_version, product), platform.committedTcb, product) ||
    (request.launch_mit_vector & ~guest.launchMitVector) !== 0n
  ) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const { root_key_select, key_sel } = request.flags;
  if (key_sel > KeySel.KEY_SEL_VLEK) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  if (root_key_select === RootKeySelect.VMRK) {
    return deriveKey(platform.crypto, guest.vmrk, guest, request);
  }
  const signer = selectKey(platform, guest, key_sel);
  if (typeof signer === 'number') {
    return signer;
  }
  // A masked chip key must not show through the keys derived from it either.
  return signer === 'none'
    ? SevRet.SEV_RET_INVALID_KEY
    : deriveKey(platform.crypto, signer.root, guest, request);
}
