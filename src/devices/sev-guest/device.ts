// SPDX-License-Identifier: Apache-2.0
/**
 * /dev/sev-guest on the caller's side: what the ioctl reads from the caller's memory, what it writes there,
 * and in which order. What happens in between is the guest's driver (guest/sev-guest.ts).
 *
 * Source   [DEVICES] "/dev/sev-guest"; [LINUX] drivers/virt/coco/sev-guest/sev-guest.c
 */
import {
  SNP_GUEST_REQUEST_EXITINFO2_OFFSET,
  SnpDerivedKeyReq,
  SnpDerivedKeyReqV2,
  SnpExtReportReq,
  SnpGuestIoctl,
  SnpGuestRequestIoctl,
  SnpReportReq,
} from '../../abi/dev-sev-guest.ts';
import { Errno } from '../../abi/errno.ts';
import type { SevGuestCall, SevGuestReply } from '../../guest/sev-guest.ts';
import { writeU64 } from '../../lib/bytes.ts';
import type { CallerMemory } from '../../os/process-memory.ts';

/** The driver of one guest: answers one call after another, in the order they came. */
export type SevGuestDriver = (call: SevGuestCall) => Promise<SevGuestReply>;

/** What becomes of one ioctl. */
export interface SevGuestAnswer {
  /** 0, -errno, or a positive EsResult. */
  readonly ret: number;
  /** What replaces the caller's structure, also after a failure; null leaves it as it is. */
  readonly argument: Uint8Array | null;
}

const { SNP_GET_REPORT, SNP_GET_DERIVED_KEY, SNP_GET_EXT_REPORT } = SnpGuestIoctl;

/** Bytes the driver copies from req_data; of an unknown command, none. */
const REQUEST_SIZES: ReadonlyMap<number, number> = new Map([
  [SNP_GET_REPORT, SnpReportReq.size],
  [SNP_GET_DERIVED_KEY, SnpDerivedKeyReq.size],
  [SNP_GET_EXT_REPORT, SnpExtReportReq.size],
]);

/**
 * One ioctl, from after the copy of its argument.
 *
 * Shape    argument: the 32 bytes of SnpGuestRequestIoctl, every one of them the caller's to choose
 * Returns  -EIO, with nothing asked, for a caller whose memory cannot be reached at all
 */
export async function sevGuestIoctl(
  driver: SevGuestDriver,
  memory: CallerMemory,
  cmd: number,
  argument: Uint8Array,
): Promise<SevGuestAnswer> {
  const { msg_version, req_data, resp_data } = SnpGuestRequestIoctl.decodeLoose(argument);
  if (msg_version === 0) {
    // Before the mutex: this answer waits for nobody.
    return { ret: -Errno.EINVAL, argument: null };
  }
  const request = readRequestOf(memory, cmd, msg_version, req_data);
  if (request === 'unreachable') {
    return { ret: -Errno.EIO, argument: null };
  }
  const reply = await driver({ cmd, msg_version, req_data: request, resp_data: resp_data !== 0n });
  const ret = deliver(memory, reply, req_data, resp_data, request) ? reply.ret : -Errno.EFAULT;
  if (!reply.writeBack) {
    return { ret, argument: null };
  }
  const written = argument.slice();
  writeU64(written, SNP_GUEST_REQUEST_EXITINFO2_OFFSET, reply.exitinfo2);
  return { ret, argument: written };
}

/** A key request of version 2 has eight bytes more, which no structure of Linux makes room for. */
function readRequestOf(
  memory: CallerMemory,
  cmd: number,
  msgVersion: number,
  address: bigint,
): ReturnType<typeof readRequest> {
  if (cmd === SNP_GET_DERIVED_KEY && msgVersion >= 2) {
    const whole = readRequest(memory, SnpDerivedKeyReqV2.size, address);
    if (whole instanceof Uint8Array) {
      return whole;
    }
  }
  return readRequest(memory, REQUEST_SIZES.get(cmd) ?? 0, address);
}

function readRequest(
  memory: CallerMemory,
  size: number,
  address: bigint,
): SevGuestCall['req_data'] | 'unreachable' {
  if (address === 0n) {
    return 'null';
  }
  const bytes = memory.read(address, size);
  if (bytes instanceof Uint8Array) {
    return bytes;
  }
  return bytes.errno === Errno.EFAULT ? 'fault' : 'unreachable';
}

/** Writes what the reply holds, in the driver's order; false at the first copy that faults. */
function deliver(
  memory: CallerMemory,
  reply: SevGuestReply,
  reqData: bigint,
  respData: bigint,
  request: SevGuestCall['req_data'],
): boolean {
  const store = (address: bigint, bytes: Uint8Array | null): boolean =>
    bytes === null || memory.write(address, bytes) === null;
  // The address as it was when the request was read: the caller may have changed it since.
  const certsAddress =
    reply.certs !== null && request instanceof Uint8Array
      ? SnpExtReportReq.get(request, 'certs_address')
      : 0n;
  return (
    store(reqData, reply.req_data) && store(certsAddress, reply.certs) && store(respData, reply.response)
  );
}
