// SPDX-License-Identifier: Apache-2.0
/** One attestation request from a fresh guest, from launch to verdict: the eight steps in one go. */
import { REPORT_SIZE } from '../abi/attestation-report.ts';
import { SEV_FW_BLOB_MAX_SIZE } from '../abi/cert-table.ts';
import { SnpExtReportReq, SnpGuestIoctl } from '../abi/dev-sev-guest.ts';
import { errnoName } from '../abi/errno.ts';
import { MsgReportRsp } from '../abi/guest-message.ts';
import { GuestPolicy } from '../abi/guest-policy.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { tableSize } from '../certs/index.ts';
import type { SevGuestReply } from '../guest/sev-guest.ts';
import { issueCrl } from '../kds/issue.ts';
import { launchDigest } from '../launch/digest.ts';
import type { Vmpl } from '../lib/addresses.ts';
import { toHex } from '../lib/bytes.ts';
import { parsePolicy, type VerifyCrypto, type VerifyResult, verifyEvidence } from '../verify/index.ts';
import type { RunEnd } from '../vmm/scheduler.ts';
import { formatStop } from '../vmm/stop.ts';
import type { Guest, GuestOptions } from './guest.ts';
import type { Host } from './host.ts';

export interface AttestOptions extends GuestOptions {
  /** VMPL named in the request. */
  readonly vmpl: Vmpl;
  /** 64 bytes. */
  readonly reportData: Uint8Array;
  readonly verifyCrypto: VerifyCrypto;
  /** Makes time pass while the guest sleeps. */
  readonly sleep: (ms: number) => void;
}

/** Evidence and what a relying party thinks of it. */
export interface Attestation {
  readonly ok: true;
  /** What the launch must measure to, computed from its inputs. */
  readonly expectedMeasurement: Uint8Array;
  readonly report: Uint8Array;
  /** The certificate table as the guest got it, without the zeros behind it; empty when it got none. */
  readonly table: Uint8Array;
  /** The revocation list it was judged by, in DER. */
  readonly crl: Uint8Array;
  readonly verdict: VerifyResult;
}

/** The machine would not do it. */
export interface Refusal {
  readonly ok: false;
  /** What was refused: a KVM call, the guest's boot, or its ioctl. */
  readonly step: string;
  /** Errno, firmware status or why the guest stopped, by name. */
  readonly reason: string;
  readonly errno: string | null;
  readonly fwStatus: string | null;
  /** Of the guest's request; null when it was never made. */
  readonly swExitInfo2: bigint | null;
}

/** Any address a guest program could have; where it is does not matter to the driver. */
const CERTS_ADDRESS = 0x10_0000n;
/** A year, as a list of the key service has: who keeps the evidence keeps the list with it. */
const CRL_LIFETIME_MS = 365 * 86_400_000;

/** Launches a guest on the host and has it attest itself. The guest is gone afterwards. */
export function attest(host: Host, options: AttestOptions): Attestation | Refusal {
  const launched = host.launch(options);
  if (!launched.ok) {
    const { step, errno, fwStatus } = launched;
    return refusal(step, errnoName(errno), fwStatus === null ? null : sevRetName(fwStatus));
  }
  const { guest } = launched;
  try {
    return attestGuest(host, guest, options);
  } finally {
    host.remove(guest);
  }
}

function attestGuest(host: Host, guest: Guest, options: AttestOptions): Attestation | Refusal {
  const { vmpl, reportData, sleep } = options;
  const boot = guest.boot(sleep);
  if (boot.kind !== 'done') {
    return { ...refusal('boot', null, null), reason: whyEnded(boot) };
  }
  const request = SnpExtReportReq.encode({
    data: { user_data: reportData, vmpl, rsvd: new Uint8Array(28) },
    certs_address: CERTS_ADDRESS,
    certs_len: SEV_FW_BLOB_MAX_SIZE,
  });
  const outcome = guest.ioctl(
    { cmd: SnpGuestIoctl.SNP_GET_EXT_REPORT, msg_version: 1, req_data: request, resp_data: true },
    sleep,
  );
  if ('end' in outcome) {
    return { ...refusal('SNP_GET_EXT_REPORT', null, null), reason: whyEnded(outcome.end) };
  }
  const { reply } = outcome;
  const refused = refusedReply(reply);
  if (refused !== null) {
    return refused;
  }
  const report = reply.response!.slice(MsgReportRsp.size, MsgReportRsp.size + REPORT_SIZE);
  const certs = reply.certs ?? new Uint8Array(0);
  const table = certs.slice(0, tableSize(certs));
  const expectedMeasurement = launchDigest(host.deps.crypto.sha384, options.plan);
  const crl = revocationList(host);
  const verdict = verify(host, guest, options, { report, table, crl, expectedMeasurement });
  return { ok: true, expectedMeasurement, report, table, crl, verdict };
}

/** What this host's root says of its certificates now: none is revoked. */
function revocationList({ deps: { clock, random }, keys: { authority } }: Host): Uint8Array {
  const thisUpdateMs = clock.nowMs();
  return issueCrl({
    ...{ authority, random, revokedSerials: [], number: 1 },
    thisUpdateMs,
    nextUpdateMs: thisUpdateMs + CRL_LIFETIME_MS,
  });
}

/** Step 8: a relying party that knows what was launched and asked, and trusts this host's root for it. */
function verify(
  host: Host,
  guest: Guest,
  options: AttestOptions,
  { report, table, crl, expectedMeasurement }: Omit<Attestation, 'ok' | 'verdict'>,
): VerifyResult {
  const { authority } = host.keys;
  const policy = parsePolicy({
    measurement: toHex(expectedMeasurement),
    report_data: toHex(options.reportData),
    host_data: toHex(options.hostData ?? new Uint8Array(32)),
    vmpl: options.vmpl,
    guest_policy: { debug: GuestPolicy.fromWord(options.policy).debug === 1 ? 'required' : 'forbidden' },
  });
  const verdict = verifyEvidence(
    { report, table, crls: [crl] },
    {
      ...{ atMs: host.deps.clock.nowMs(), trust: [authority.ark], policy },
      ...{ product: host.chip.product, crypto: options.verifyCrypto },
    },
  );
  const errors = verdict.findings.filter(({ severity }) => severity === 'error');
  guest.tracer.emit(
    'verify',
    verdict.ok
      ? 'chain, revocation, TCB, chip, signature and policy hold under the softsnp test root'
      : `refused: ${errors.map(({ code }) => code).join(', ') || verdict.steps.find(({ ok }) => !ok)?.notRun}`,
    { ok: verdict.ok, findings: verdict.findings.map(({ code }) => code).join(' ') },
  );
  return verdict;
}

function refusedReply(reply: SevGuestReply): Refusal | null {
  const named = 'SNP_GET_EXT_REPORT';
  if (reply.ret !== 0 || reply.response === null) {
    const fwStatus = Number(reply.exitinfo2 & 0xffff_ffffn);
    const errno = reply.ret < 0 ? errnoName(-reply.ret) : `es_result ${reply.ret}`;
    const vmmError = reply.exitinfo2 >> 32n;
    return {
      ...refusal(named, errno, vmmError === 0n && fwStatus !== 0 ? sevRetName(fwStatus) : null),
      swExitInfo2: reply.exitinfo2,
    };
  }
  const status = MsgReportRsp.get(reply.response, 'status');
  return status === 0 ? null : { ...refusal(named, null, sevRetName(status)), swExitInfo2: 0n };
}

function refusal(step: string, errno: string | null, fwStatus: string | null): Refusal {
  const firmware = fwStatus === null ? null : `firmware status ${fwStatus}`;
  const reason = [errno, firmware].filter((part) => part !== null).join(', ');
  return { ok: false, step, reason, errno, fwStatus, swExitInfo2: null };
}

function whyEnded(end: RunEnd): string {
  return end.kind === 'stopped' ? formatStop(end.end) : 'every vCPU sleeps and nothing will wake one';
}
