// SPDX-License-Identifier: Apache-2.0
/** A host under the control API, and everything that programs see of it. */

import { reportLayout } from '../../src/abi/attestation-report.ts';
import { SEV_ISSUE_CMD, SevIssueCmd, SevUserCmd, SevUserDataStatus } from '../../src/abi/dev-sev.ts';
import { SnpDerivedKeyReq, SnpGuestIoctl } from '../../src/abi/dev-sev-guest.ts';
import { MsgReportRsp, RootKeySelect } from '../../src/abi/guest-message.ts';
import { SevUserDataSnpStatus } from '../../src/abi/snp-commands.ts';
import { guestSpecOf } from '../../src/cli/guest-specs.ts';
import type { DirectoryNode, FileNode, FsNode } from '../../src/devices/fuse/filesystem.ts';
import { TestFile, TestMemory } from '../../src/devices/testing.ts';
import type { SevGuestReply } from '../../src/guest/sev-guest.ts';
import { toHex } from '../../src/lib/bytes.ts';
import type { HostState } from '../../src/machine/index.ts';
import { HostControl, MachineRefusal } from '../../src/service/host-control.ts';
import type { ServedGuest } from '../../src/service/served-guest.ts';
import { type SnapshotDocument, tagOf } from '../../src/service/snapshot-document.ts';
import {
  askExtReport,
  judge,
  type ServiceHost,
  type ServiceHostOptions,
  serviceHost,
} from './service-host.ts';

export interface SnapshotHost extends ServiceHost {
  readonly control: HostControl;
  guest(name: string): ServedGuest;
  /** Adds a guest through the control API. */
  launch(name: string, options?: Readonly<Record<string, string>>): Promise<void>;
}

/** Guests are as small as they can be unless they say otherwise. */
const DEFAULTS = { mem: '64M' };

export function snapshotHost(
  seed = 1,
  earlier: HostState | null = null,
  options: ServiceHostOptions = {},
): SnapshotHost {
  const host = serviceHost(seed, earlier, options);
  const { crypto } = host.service.host.deps;
  const control = new HostControl({
    ...{ service: host.service, kds: host.kds },
    surroundings: () => ({ state: '', pid: 1, devices: null, system: null, kds: null }),
    guestSpec: (name, words) => guestSpecOf(crypto, { name, words }, DEFAULTS),
    keptSpec: (name, words) => guestSpecOf(crypto, { name, words }, {}),
  });
  return {
    ...{ ...host, control },
    guest: (name) => host.service.guests.get(name)!,
    async launch(name, more = {}) {
      const answer = await control.addGuest({ name, options: more });
      if (answer instanceof MachineRefusal) {
        throw new TypeError(`${name} was refused: ${answer.reason}`);
      }
    },
  };
}

/** The document as a client gets it and sends it back. */
export async function saved({ control }: SnapshotHost): Promise<SnapshotDocument> {
  return JSON.parse(JSON.stringify(await control.saveSnapshot())) as SnapshotDocument;
}

/** A document that was edited by somebody who can make its tag. */
export function resealed(host: SnapshotHost, document: SnapshotDocument): SnapshotDocument {
  const { mac: _, ...body } = document;
  return { ...body, mac: tagOf(host.service.host, body) };
}

export const derivedKey = async (
  { queue }: ServedGuest,
  root: keyof typeof RootKeySelect,
): Promise<string> => {
  const request = SnpDerivedKeyReq.encode({
    root_key_select: RootKeySelect[root],
    guest_field_select: 0x3fn,
    tcb_version: 0x01n,
  });
  const cmd = SnpGuestIoctl.SNP_GET_DERIVED_KEY;
  const { ret, response } = await queue.driver({ cmd, msg_version: 1, req_data: request, resp_data: true });
  return ret === 0 ? toHex(response!) : `refused: ${ret}`;
};

/** The report without what is new in each. */
function reportIn({ response }: SevGuestReply, version: 2 | 3 | 4 | 5): object {
  const layout = reportLayout(version as 3);
  const from = MsgReportRsp.size;
  const {
    signature_r: _r,
    signature_s: _s,
    ...report
  } = layout.decode(response!.slice(from, from + layout.size));
  return report;
}

/** What the programs in a guest see, each request in its turn. */
export async function seenIn(host: SnapshotHost, name: string): Promise<object> {
  const guest = host.guest(name);
  const kind = guest.spec.key === 'vcek' ? 1 : guest.spec.key === 'vlek' ? 2 : 0;
  const reply = await askExtReport(guest, kind);
  if (reply.ret !== 0) {
    return { ret: reply.ret, exitinfo2: reply.exitinfo2 };
  }
  return {
    report: reportIn(reply, host.service.host.chip.reportVersion),
    signed: judge(reply),
    keys: [await derivedKey(guest, 'VCEK'), await derivedKey(guest, 'VMRK')],
    messages: sentBy(host, name).slice(-3),
  };
}

/** Sequence numbers of a guest's messages, oldest first. */
export const sentBy = (host: SnapshotHost, name: string): number[] =>
  host.service.events
    .recent()
    .flatMap((event) =>
      event.type === 'trace' && event.step.guest === name && event.step.step === 'extended-report'
        ? [Number(event.step.detail['msg_seqno'])]
        : [],
    );

/** /dev/sev of the host, opened for writing. */
export async function openDevSev(host: SnapshotHost): Promise<TestFile> {
  const file = await TestFile.open(host.service.hostPlaces['/dev/sev'] as FileNode, 2);
  if (!(file instanceof TestFile)) {
    throw new TypeError(`open answered ${file}`);
  }
  return file;
}

/** A command without data, or what it writes into so many bytes. */
export async function sevCommand(file: TestFile, cmd: number, size = 0): Promise<Uint8Array> {
  const memory = new TestMemory();
  const data = memory.map(new Uint8Array(size));
  const { result } = await file.ioctl(SEV_ISSUE_CMD, SevIssueCmd.encode({ cmd, data }), memory);
  if (result !== 0) {
    throw new TypeError(`command ${cmd} answered ${result}`);
  }
  return memory.at(data);
}

/** What a program sees through /dev/sev. */
async function seenOnDevSev(host: SnapshotHost): Promise<object> {
  const file = await openDevSev(host);
  const { SNP_PLATFORM_STATUS, SEV_PLATFORM_STATUS } = SevUserCmd;
  const snp = await sevCommand(file, SNP_PLATFORM_STATUS, SevUserDataSnpStatus.size);
  const legacy = await sevCommand(file, SEV_PLATFORM_STATUS, SevUserDataStatus.size);
  return { snp: SevUserDataSnpStatus.decode(snp), legacy: SevUserDataStatus.decode(legacy) };
}

/** Everything but guests' requests, which change it. */
export async function seen(host: SnapshotHost): Promise<object> {
  const status = host.control.status();
  return { status, faults: host.control.faults(), devSev: await seenOnDevSev(host), tsm: tsmNames(host) };
}

export function nodeAt(root: FsNode, ...path: readonly string[]): FsNode | null {
  return path.reduce<FsNode | null>(
    (node, name) => (node as DirectoryNode | null)?.lookup(name) ?? null,
    root,
  );
}

export const reportGroupOf = (host: SnapshotHost, guest: string): DirectoryNode =>
  nodeAt(host.guest(guest).door.places['/sys/kernel/config']!, 'tsm', 'report') as DirectoryNode;

const tsmNames = (host: SnapshotHost): string[][] =>
  [...host.service.guests.keys()].map((name) =>
    [...reportGroupOf(host, name).entries()].map(([entry]) => entry),
  );
