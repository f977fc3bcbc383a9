// SPDX-License-Identifier: Apache-2.0
/** A host service in a folder of its own, with time that passes when somebody sleeps. */

import { createPublicKey, verify, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AttestationReportV2, REPORT_SIGNED_SIZE, REPORT_SIZE } from '../../src/abi/attestation-report.ts';
import { VCEK_GUID, VLEK_GUID } from '../../src/abi/cert-table.ts';
import { SnpExtReportReq, SnpGuestIoctl } from '../../src/abi/dev-sev-guest.ts';
import { MsgReportRsp } from '../../src/abi/guest-message.ts';
import { decodeCertificateTable } from '../../src/certs/table.ts';
import type { ChipConfig } from '../../src/firmware/chip.ts';
import type { SevGuestReply } from '../../src/guest/sev-guest.ts';
import { Fleet, KdsService } from '../../src/kds/index.ts';
import { defaultImage, parseOvmf, planLaunch } from '../../src/launch/index.ts';
import { writeU32 } from '../../src/lib/bytes.ts';
import { VirtualClock } from '../../src/lib/clock.ts';
import type { MachineCrypto, Random } from '../../src/lib/crypto.ts';
import { Host, type HostDeps, type HostState, newHostState } from '../../src/machine/index.ts';
import { nodeCrypto, seededRandom } from '../../src/os/node-crypto.ts';
import { EventLog } from '../../src/service/event-log.ts';
import { HostService } from '../../src/service/host-service.ts';
import type { GuestKey, GuestSpec, ServedGuest } from '../../src/service/served-guest.ts';

const usualCrypto = nodeCrypto({ deterministic: false });
const plan = planLaunch({ ovmf: parseOvmf(defaultImage()), vcpus: 1, cpuSig: 0xa00f11 });

export function guestSpec(name: string, key: GuestKey = 'auto', certs: string | null = null): GuestSpec {
  const words = { key, ...(certs === null ? {} : { certs }) };
  return { name, key, certs, words, settings: { plan, memoryBytes: 64 << 20, policy: 0x30000n } };
}

export interface ServiceHost {
  readonly folder: string;
  readonly service: HostService;
  readonly clock: VirtualClock;
  /** Its key service. */
  readonly kds: KdsService;
  /** What was saved, oldest first. */
  readonly saved: HostState[];
  add(name: string, key?: GuestKey): Promise<ServedGuest>;
  close(): Promise<void>;
}

export interface ServiceHostOptions {
  readonly crypto?: MachineCrypto;
  readonly chip?: Partial<ChipConfig>;
  /** Called whenever random bytes are drawn. */
  readonly onRandom?: () => void;
  /** Called before the state is written aside. */
  readonly onPrepareSave?: () => void;
  /** Called before the state is put into its place. */
  readonly onSave?: () => void;
  /** Called with each machine that a snapshot starts. */
  readonly onMachine?: (host: Host) => void;
}

export function serviceHost(
  seed = 1,
  earlier: HostState | null = null,
  options: ServiceHostOptions = {},
): ServiceHost {
  const { crypto = usualCrypto } = options;
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-service-'));
  const clock = new VirtualClock(Date.UTC(2026, 0, 1));
  const stream = seededRandom(seed);
  const random: Random = {
    bytes(length) {
      options.onRandom?.();
      return stream.bytes(length);
    },
  };
  const events = new EventLog(() => clock.nowMs());
  const deps: HostDeps = { crypto, random, clock, trace: (step) => events.emit({ type: 'trace', step }) };
  const state = earlier ?? newHostState(crypto, random, 'Milan', { seed });
  const host = new Host(deps, state, options.chip);
  const kds = new KdsService({ fleet: Fleet.ofHost(crypto, state), clock, random });
  const saved: HostState[] = [];
  const service = new HostService({
    ...{ host, events },
    machine: (state) => {
      const next = new Host(deps, state, { reportVersion: host.chip.reportVersion });
      options.onMachine?.(next);
      return next;
    },
    blobFolder: join(folder, 'blobs'),
    prepareSave(state) {
      options.onPrepareSave?.();
      return {
        place() {
          options.onSave?.();
          saved.push(state);
        },
        discard: () => undefined,
      };
    },
    sleep: (ms) => {
      clock.advance(ms);
      return new Promise((resolve) => setImmediate(resolve));
    },
  });
  return {
    ...{ folder, service, clock, kds, saved },
    async add(name, key) {
      const answer = await service.addGuest(guestSpec(name, key));
      if (!answer.ok) {
        throw new TypeError(`${name} was refused at ${answer.step}`);
      }
      return answer.served;
    },
    async close() {
      await service.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** KEY_SEL of a report request. */
export type KeySel = 0 | 1 | 2;

/** One SNP_GET_EXT_REPORT with four pages for certificates unless said otherwise. */
export function askExtReport(
  { queue }: ServedGuest,
  keySel: KeySel = 0,
  certsLen = 0x4000,
): Promise<SevGuestReply> {
  const rsvd = new Uint8Array(28);
  writeU32(rsvd, 0, keySel);
  const request = SnpExtReportReq.encode({
    data: { user_data: new Uint8Array(64).fill(7), vmpl: 0, rsvd },
    certs_address: 0x10_0000n,
    certs_len: certsLen,
  });
  const cmd = SnpGuestIoctl.SNP_GET_EXT_REPORT;
  return queue.driver({ cmd, msg_version: 1, req_data: request, resp_data: true });
}

/** Which key of which TCB signed a report, as its certificate says; null when they do not belong together. */
export function judge({ response, certs }: SevGuestReply): { key: 'VCEK' | 'VLEK'; tcb: bigint } | null {
  const report = response!.slice(MsgReportRsp.size, MsgReportRsp.size + REPORT_SIZE);
  const leaf = decodeCertificateTable(certs!).find(({ guid }) => guid === VCEK_GUID || guid === VLEK_GUID)!;
  const key = createPublicKey(
    new X509Certificate(leaf.data).publicKey.export({ type: 'spki', format: 'pem' }),
  );
  const bigEndian = (field: 'signature_r' | 'signature_s'): Uint8Array =>
    AttestationReportV2.get(report, field).slice(0, 48).reverse();
  const signature = Buffer.concat([bigEndian('signature_r'), bigEndian('signature_s')]);
  const signed = report.subarray(0, REPORT_SIGNED_SIZE);
  return verify('sha384', signed, { key, dsaEncoding: 'ieee-p1363' }, signature)
    ? {
        key: leaf.guid === VCEK_GUID ? 'VCEK' : 'VLEK',
        tcb: AttestationReportV2.get(report, 'reported_tcb'),
      }
    : null;
}
