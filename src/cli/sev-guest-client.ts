// SPDX-License-Identifier: Apache-2.0
/** A client of /dev/sev-guest: one function for each ioctl. [DEVICES] "/dev/sev-guest" */
import { SEV_FW_BLOB_MAX_SIZE } from '../abi/cert-table.ts';
import {
  SNP_GUEST_REQUEST_EXITINFO2_OFFSET,
  SNP_REPORT_RESP_SIZE,
  SnpDerivedKeyReq,
  SnpDerivedKeyReqV2,
  SnpDerivedKeyResp,
  SnpExtReportReq,
  SnpGuestIoctl,
  SnpGuestRequestIoctl,
  SnpReportReq,
} from '../abi/dev-sev-guest.ts';
import { errnoName } from '../abi/errno.ts';
import { SnpGuestVmmErr, snpGuestVmmErr } from '../abi/ghcb.ts';
import { MsgKeyRsp, MsgReportRsp } from '../abi/guest-message.ts';
import { SevRet, sevRetName } from '../abi/sev-status.ts';
import { readU64 } from '../lib/bytes.ts';
import { EnvironmentError } from '../lib/errors.ts';
import type { DeviceFile, PinnedMemory } from '../os/device-file.ts';

export interface ReportRequest {
  /** REPORT_DATA, 64 bytes. */
  readonly reportData: Uint8Array;
  readonly vmpl: number;
  /** KeySel. */
  readonly keySel: number;
}

export interface ExtendedReport {
  readonly report: Uint8Array;
  /** Certificate table in whole pages; empty when the host has none. */
  readonly table: Uint8Array;
}

/** The host may be given another table between two looks; it is not worth more than so many. */
const MAX_LOOKS = 8;

/**
 * A report.
 *
 * Errors   DEVICE_REFUSED with what the driver, the hypervisor or the firmware answered
 */
export async function getReport(device: DeviceFile, request: ReportRequest): Promise<Uint8Array> {
  const response = device.pin(new Uint8Array(SNP_REPORT_RESP_SIZE));
  const call = await send(device, 'SNP_GET_REPORT', device.pin(reportReq(request)), response);
  expectSuccess('SNP_GET_REPORT', call);
  return reportIn('SNP_GET_REPORT', response.bytes);
}

/**
 * A report and the host's certificates for it, however large their table is.
 *
 * Errors   DEVICE_REFUSED; also for a table of more than SEV_FW_BLOB_MAX_SIZE bytes
 */
export async function getExtReport(device: DeviceFile, request: ReportRequest): Promise<ExtendedReport> {
  const name = 'SNP_GET_EXT_REPORT';
  const response = device.pin(new Uint8Array(SNP_REPORT_RESP_SIZE));
  let certs = device.pin(new Uint8Array(0));
  for (let look = 0; look < MAX_LOOKS; look++) {
    const wanted = certs.bytes.length;
    const bytes = new Uint8Array(SnpExtReportReq.size);
    bytes.set(reportReq(request));
    SnpExtReportReq.set(bytes, 'certs_address', wanted === 0 ? 0n : certs.address);
    SnpExtReportReq.set(bytes, 'certs_len', wanted);
    const extReq = device.pin(bytes);
    const call = await send(device, name, extReq, response);
    if (snpGuestVmmErr(call.exitinfo2) !== SnpGuestVmmErr.SNP_GUEST_VMM_ERR_INVALID_LEN) {
      expectSuccess(name, call);
      return { report: reportIn(name, response.bytes), table: certs.bytes.slice() };
    }
    const needed = SnpExtReportReq.get(extReq.bytes, 'certs_len');
    if (needed > SEV_FW_BLOB_MAX_SIZE) {
      throw refused(
        name,
        `the host's certificates take ${needed} bytes, and no more than ${SEV_FW_BLOB_MAX_SIZE} are possible`,
      );
    }
    certs = device.pin(new Uint8Array(needed));
  }
  throw refused(name, `the host's certificates have changed their size ${MAX_LOOKS} times`);
}

/**
 * A key derived from the guest's identity: 32 bytes. With a `launch_mit_vector` it is asked for in message
 * version 2, which firmware knows from ABI 1.58 on.
 *
 * Errors   DEVICE_REFUSED
 */
export async function getDerivedKey(
  device: DeviceFile,
  request: Partial<SnpDerivedKeyReqV2>,
): Promise<Uint8Array> {
  const name = 'SNP_GET_DERIVED_KEY';
  const response = device.pin(new Uint8Array(SnpDerivedKeyResp.size));
  const { launch_mit_vector, ...first } = request;
  const [version, payload] =
    launch_mit_vector === undefined
      ? ([1, SnpDerivedKeyReq.encode(first)] as const)
      : ([2, SnpDerivedKeyReqV2.encode({ ...first, launch_mit_vector })] as const);
  const call = await send(device, name, device.pin(payload), response, version);
  expectSuccess(name, call);
  const { status, derived_key } = MsgKeyRsp.decodeLoose(response.bytes);
  expectStatus(name, status);
  return derived_key;
}

interface Outcome {
  readonly ret: number;
  /** 0 when the driver did not write it. */
  readonly exitinfo2: bigint;
}

async function send(
  device: DeviceFile,
  name: keyof typeof SnpGuestIoctl,
  request: PinnedMemory,
  response: PinnedMemory,
  version = 1,
): Promise<Outcome> {
  const argument = device.pin(
    SnpGuestRequestIoctl.encode({
      msg_version: version,
      req_data: request.address,
      resp_data: response.address,
    }),
  );
  const ret = await device.ioctl(SnpGuestIoctl[name], argument);
  return { ret, exitinfo2: readU64(argument.bytes, SNP_GUEST_REQUEST_EXITINFO2_OFFSET) };
}

function reportReq({ reportData, vmpl, keySel }: ReportRequest): Uint8Array {
  const rsvd = new Uint8Array(28);
  // MSG_REPORT_REQ has KEY_SEL where the driver's structure has reserved bytes, and the driver passes them on.
  rsvd[0] = keySel;
  return SnpReportReq.encode({ user_data: reportData, vmpl, rsvd });
}

function reportIn(name: string, response: Uint8Array): Uint8Array {
  const { status, report_size } = MsgReportRsp.decodeLoose(response.subarray(0, MsgReportRsp.size));
  expectStatus(name, status);
  if (report_size > response.length - MsgReportRsp.size) {
    throw refused(name, `a report of ${report_size} bytes does not fit its response`);
  }
  return response.slice(MsgReportRsp.size, MsgReportRsp.size + report_size);
}

function expectSuccess(name: string, { ret, exitinfo2 }: Outcome): void {
  if (ret > 0) {
    throw refused(name, `the hypervisor broke the GHCB protocol (es_result ${ret})`);
  }
  if (ret < 0) {
    throw refused(name, `${errnoName(ret)}${whyOf(exitinfo2)}`);
  }
}

function expectStatus(name: string, status: number): void {
  if (status !== SevRet.SEV_RET_SUCCESS) {
    throw refused(name, `the firmware answered ${sevRetName(status)} (0x${status.toString(16)})`);
  }
}

/** exitinfo2 while the driver has not sent anything. */
const NOT_SENT = 0xffn;

function whyOf(exitinfo2: bigint): string {
  if (exitinfo2 === 0n || exitinfo2 === NOT_SENT) {
    return ', by the driver';
  }
  const vmm = snpGuestVmmErr(exitinfo2);
  const fw = Number(exitinfo2 & 0xffff_ffffn);
  if (vmm === 0) {
    return `, firmware status ${sevRetName(fw)} (0x${fw.toString(16)})`;
  }
  const vmmName = Object.entries(SnpGuestVmmErr).find(([, value]) => value === vmm)?.[0];
  return `, hypervisor status ${vmmName ?? vmm} (exitinfo2 0x${exitinfo2.toString(16)})`;
}

const refused = (name: string, message: string): EnvironmentError =>
  new EnvironmentError('DEVICE_REFUSED', message, { where: name });
