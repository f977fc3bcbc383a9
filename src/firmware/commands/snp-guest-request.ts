// SPDX-License-Identifier: Apache-2.0
import {
  AUTHTAG_SIZE,
  GUEST_MESSAGE_HDR_VERSION,
  GUEST_MESSAGE_HEADER_SIZE,
  GUEST_MESSAGE_MAX_PAYLOAD,
  GuestMessageHeader,
  guestMessageAad,
  guestMessageNonce,
  SNP_AEAD_AES_256_GCM,
} from '../../abi/guest-message.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpGuestRequest } from '../../abi/snp-commands.ts';
import { type Asid, PAGE_SIZE, type Spa } from '../../lib/addresses.ts';
import { equalBytes, isZero, readU16, readU64, writeU16, writeU64 } from '../../lib/bytes.ts';
import type { GuestContext } from '../guest-context.ts';
import { MESSAGES } from '../messages/index.ts';
import type { GuestRequestDetail, Platform } from '../platform.ts';

const HOST = 0 as Asid;
const BUFFER = {
  gctx_paddr: SevDataSnpGuestRequest.offsetOf('gctx_paddr'),
  req_paddr: SevDataSnpGuestRequest.offsetOf('req_paddr'),
  rsp_paddr: SevDataSnpGuestRequest.offsetOf('rsp_paddr'),
} as const;
const AT = {
  authtag: GuestMessageHeader.offsetOf('authtag'),
  msg_seqno: GuestMessageHeader.offsetOf('msg_seqno'),
  algo: GuestMessageHeader.offsetOf('algo'),
  hdr_version: GuestMessageHeader.offsetOf('hdr_version'),
  hdr_size: GuestMessageHeader.offsetOf('hdr_size'),
  msg_type: GuestMessageHeader.offsetOf('msg_type'),
  msg_version: GuestMessageHeader.offsetOf('msg_version'),
  msg_size: GuestMessageHeader.offsetOf('msg_size'),
  msg_vmpck: GuestMessageHeader.offsetOf('msg_vmpck'),
} as const;
/** A count above this one has no room for a request and its response. */
const LAST_MSG_COUNT = 0xffff_ffff_ffff_fffdn;

/** Message with the decisions taken on the way, for the trace. */
interface Outcome {
  readonly status: SevStatus;
  readonly payloadStatus: SevStatus | null;
  readonly key: GuestRequestDetail['key'];
  readonly ivReuse: boolean;
}

/**
 * Opens a guest's message, does what it asks and seals the answer. [SNP-ABI] SNP_GUEST_REQUEST
 *
 * Returns  SEV_RET_INVALID_PARAM for a malformed header or any sequence number but the next one;
 *          SEV_RET_AEAD_OFLOW when there is no next one; SEV_RET_BAD_MEASUREMENT when the tag does not
 *          authenticate. Only success consumes the sequence number; an error inside the payload is success
 * Differs  the status of a wrong sequence number is not published (docs/limitations.md#status-codes). The response
 *          page stays a Firmware page, as KVM relies on
 */
export function snpGuestRequest(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBytes(bufferAt, SevDataSnpGuestRequest.size);
  if (buffer === null) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  // Three addresses and nothing reserved: there is nothing to judge yet.
  const gctx_paddr = readU64(buffer, BUFFER.gctx_paddr);
  const req_paddr = readU64(buffer, BUFFER.req_paddr);
  const rsp_paddr = readU64(buffer, BUFFER.rsp_paddr);
  if (!platform.isPage(req_paddr) || !platform.isPage(rsp_paddr) || req_paddr === rsp_paddr) {
    return SevRet.SEV_RET_INVALID_ADDRESS;
  }
  const guest = platform.guestFor(gctx_paddr, 'SEV_CMD_SNP_GUEST_REQUEST');
  if (typeof guest === 'number') {
    return guest;
  }
  const refused = platform.checkOutput(rsp_paddr, PAGE_SIZE);
  if (refused !== SevRet.SEV_RET_SUCCESS) {
    return refused;
  }
  // The one copy of the request: the host may change the page at any time.
  const { message } = platform;
  platform.hw.memory.readInto(message, 0, req_paddr as Spa, PAGE_SIZE, HOST);
  const header = readHeader(message);
  const outcome = handle(platform, guest, message, header, rsp_paddr as Spa);
  platform.onGuestRequest?.({
    status: outcome.status,
    msg_type: header.msg_type,
    vmpck: header.msg_vmpck,
    seqno: header.msg_seqno,
    payload_status: outcome.payloadStatus,
    key: outcome.key,
    reported_tcb: platform.reportedTcbWord,
    iv_reuse: outcome.ivReuse,
  });
  return outcome.status;
}

/** The header, field by field: the general decoder would take as long as the cipher. */
function readHeader(message: Uint8Array): GuestMessageHeader {
  return {
    authtag: message.slice(AT.authtag, AT.msg_seqno),
    msg_seqno: readU64(message, AT.msg_seqno),
    algo: message[AT.algo]!,
    hdr_version: message[AT.hdr_version]!,
    hdr_size: readU16(message, AT.hdr_size),
    msg_type: message[AT.msg_type]!,
    msg_version: message[AT.msg_version]!,
    msg_size: readU16(message, AT.msg_size),
    msg_vmpck: message[AT.msg_vmpck]!,
  };
}

const refusal = (status: SevStatus, ivReuse = false): Outcome => ({
  status,
  payloadStatus: null,
  key: null,
  ivReuse,
});

function handle(
  platform: Platform,
  guest: GuestContext,
  message: Uint8Array,
  header: GuestMessageHeader,
  responseAt: Spa,
): Outcome {
  const kind = MESSAGES.get(header.msg_type);
  const since = kind?.versionsSince[header.msg_version - 1];
  const { msg_vmpck, msg_seqno, msg_size, msg_version } = header;
  if (
    header.algo !== SNP_AEAD_AES_256_GCM ||
    header.hdr_version !== GUEST_MESSAGE_HDR_VERSION ||
    header.hdr_size !== GUEST_MESSAGE_HEADER_SIZE ||
    msg_vmpck > 3 ||
    kind === undefined ||
    since === undefined ||
    since > platform.reportVersion ||
    msg_size > GUEST_MESSAGE_MAX_PAYLOAD ||
    !kind.accepts(msg_size, msg_version) ||
    !isZero(header.authtag.subarray(AUTHTAG_SIZE)) ||
    GuestMessageHeader.violations(platform.messageHeader).length > 0
  ) {
    return refusal(SevRet.SEV_RET_INVALID_PARAM);
  }
  const count = guest.msgCounts[msg_vmpck]!;
  if (count > LAST_MSG_COUNT) {
    return refusal(SevRet.SEV_RET_AEAD_OFLOW);
  }
  const tag = header.authtag.slice(0, AUTHTAG_SIZE);
  if (msg_seqno !== count + 1n) {
    const last = guest.lastTags[msg_vmpck]!;
    return refusal(
      SevRet.SEV_RET_INVALID_PARAM,
      last !== null && msg_seqno === count - 1n && !equalBytes(last, tag),
    );
  }
  const vmpck = guest.vmpcks[msg_vmpck]!;
  const payload = platform.crypto.gcmOpen(
    vmpck,
    guestMessageNonce(msg_seqno),
    guestMessageAad(message),
    message.subarray(GUEST_MESSAGE_HEADER_SIZE, GUEST_MESSAGE_HEADER_SIZE + msg_size),
    tag,
  );
  if (payload === null) {
    return refusal(SevRet.SEV_RET_BAD_MEASUREMENT);
  }
  const answer = kind.answer({ platform, guest, version: msg_version, vmpl: msg_vmpck, payload });
  seal(platform, vmpck, header, answer.payload, responseAt);
  guest.msgCounts[msg_vmpck] = count + 2n;
  guest.lastTags[msg_vmpck] = tag;
  return {
    status: SevRet.SEV_RET_SUCCESS,
    payloadStatus: answer.status,
    key: answer.key,
    ivReuse: false,
  };
}

function seal(
  platform: Platform,
  vmpck: Uint8Array,
  request: GuestMessageHeader,
  payload: Uint8Array,
  at: Spa,
): void {
  const seqno = request.msg_seqno + 1n;
  const page = platform.message.fill(0);
  writeU64(page, AT.msg_seqno, seqno);
  page[AT.algo] = SNP_AEAD_AES_256_GCM;
  page[AT.hdr_version] = GUEST_MESSAGE_HDR_VERSION;
  writeU16(page, AT.hdr_size, GUEST_MESSAGE_HEADER_SIZE);
  page[AT.msg_type] = request.msg_type + 1;
  page[AT.msg_version] = request.msg_version;
  writeU16(page, AT.msg_size, payload.length);
  page[AT.msg_vmpck] = request.msg_vmpck;
  const { ciphertext, tag } = platform.crypto.gcmSeal(
    vmpck,
    guestMessageNonce(seqno),
    guestMessageAad(page),
    payload,
  );
  page.set(tag, AT.authtag);
  page.set(ciphertext, GUEST_MESSAGE_HEADER_SIZE);
  platform.hw.memory.write(at, page, HOST);
}
