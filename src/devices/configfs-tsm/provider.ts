// SPDX-License-Identifier: Apache-2.0
/**
 * The reports of sev-guest for configfs-tsm: always an extended request, through the same driver as
 * /dev/sev-guest.
 *
 * Source   [DEVICES] "tsm semantics", backend; [LINUX] drivers/virt/coco/sev-guest sev_report_new
 */
import { CERT_TABLE_ENTRY_SIZE, CertTableEntry, SEV_FW_BLOB_MAX_SIZE } from '../../abi/cert-table.ts';
import { SnpExtReportReq, SnpGuestIoctl } from '../../abi/dev-sev-guest.ts';
import { Errno } from '../../abi/errno.ts';
import { MsgReportRsp } from '../../abi/guest-message.ts';
import { SevRet } from '../../abi/sev-status.ts';
import { PAGE_SIZE } from '../../lib/addresses.ts';
import { isZero } from '../../lib/bytes.ts';
import { invariant } from '../../lib/errors.ts';
import { type Refusal, refuse } from '../fuse/filesystem.ts';
import type { SevGuestDriver } from '../sev-guest/device.ts';
import type { TsmBlobs, TsmDescription, TsmProvider } from './device.ts';

/** SNP_REPORT_USER_DATA_SIZE. */
const USER_DATA_SIZE = 64;
/** Where the kernel's own buffer is; only that it is not null matters. */
const KERNEL_BUFFER = 0xffff_8880_0000_0000n;

/** Reports at levels from the key in use on, `vmpckId`. */
export function sevGuestProvider(driver: SevGuestDriver, vmpckId = 0): TsmProvider {
  return {
    name: 'sev_guest',
    privlevelFloor: vmpckId,
    newReport: (description) => newReport(driver, description),
  };
}

async function newReport(
  driver: SevGuestDriver,
  { inblob, privlevel }: TsmDescription,
): Promise<TsmBlobs | Refusal> {
  if (inblob.length !== USER_DATA_SIZE) {
    return refuse(Errno.EINVAL);
  }
  const reply = await driver({
    cmd: SnpGuestIoctl.SNP_GET_EXT_REPORT,
    msg_version: 1,
    req_data: SnpExtReportReq.encode({
      data: { user_data: inblob, vmpl: privlevel, rsvd: new Uint8Array(28) },
      certs_address: KERNEL_BUFFER,
      certs_len: SEV_FW_BLOB_MAX_SIZE,
    }),
    resp_data: true,
    inKernel: true,
  });
  if (reply.ret < 0) {
    return refuse(-reply.ret);
  }
  if (reply.ret > 0) {
    // A refusal by the hypervisor is a positive number, which tsm takes for success.
    return { outblob: null, auxblob: new Uint8Array(0) };
  }
  invariant(reply.response !== null && reply.certs !== null, 'a request that succeeded has its answer');
  const outblob = reportOf(reply.response);
  return outblob instanceof Uint8Array ? { outblob, auxblob: certificatesOf(reply.certs) } : outblob;
}

/** The report in a response; the firmware's refusals become errnos. */
function reportOf(response: Uint8Array): Uint8Array | Refusal {
  const { status, report_size } = MsgReportRsp.decodeLoose(response.subarray(0, MsgReportRsp.size));
  if (status === SevRet.SEV_RET_INVALID_PARAM || status === SevRet.SEV_RET_INVALID_KEY) {
    return refuse(Errno.EINVAL);
  }
  if (status !== SevRet.SEV_RET_SUCCESS) {
    return refuse(Errno.ENXIO);
  }
  if (report_size + MsgReportRsp.size > PAGE_SIZE) {
    return refuse(Errno.ENOMEM);
  }
  const report = new Uint8Array(report_size);
  report.set(response.subarray(MsgReportRsp.size, MsgReportRsp.size + report_size));
  return report;
}

/** The table and its certificates: up to the end of what reaches furthest, and no further than the buffer. */
function certificatesOf(certs: Uint8Array): Uint8Array {
  let end = 0;
  for (let at = 0; at + CERT_TABLE_ENTRY_SIZE <= certs.length; at += CERT_TABLE_ENTRY_SIZE) {
    const entry = certs.subarray(at, at + CERT_TABLE_ENTRY_SIZE);
    if (isZero(entry)) {
      break;
    }
    // The host chooses both; their sum has 32 bits in Linux.
    const { offset, length } = CertTableEntry.decode(entry);
    end = Math.max(end, (offset + length) % 2 ** 32);
  }
  return certs.slice(0, end);
}
