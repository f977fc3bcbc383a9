// SPDX-License-Identifier: Apache-2.0
/**
 * What an operator can ask of a running host, apart from how it is asked: softsnp's counterpart of
 * swtpm_ioctl. Requests and answers are JSON documents, described in docs/reference/control-api.md.
 */
import * as v from 'valibot';
import { errnoName } from '../abi/errno.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { WrappedVlekHashstick } from '../abi/snp-commands.ts';
import { decodeTcb, encodeTcb, formatTcb, parseTcbText } from '../abi/tcb-version.ts';
import { buildFirmwareImage, type FirmwareVersion } from '../firmware/secure-processor.ts';
import { formatFaultRule, type KdsService, parseFaultRule } from '../kds/index.ts';
import { fromHex, toHex } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import type { Host, ManagementAnswer } from '../machine/index.ts';
import type { KvmRefusal } from '../vmm/kvm-fd.ts';
import { formatBlobFault, parseBlobFault } from './blob-faults.ts';
import { pathsOf } from './device-tree.ts';
import { kindFor } from './host-blobs.ts';
import type { HostService } from './host-service.ts';
import { answerKdsDocument } from './kds-door.ts';
import type { BootFailure, GuestSpec, ServedGuest } from './served-guest.ts';
import { decodeSnapshot, encodeSnapshot, type SnapshotDocument } from './snapshot-document.ts';

/** A request the machine judged and refused: not the operator's mistake, nor softsnp's. */
export class MachineRefusal {
  readonly step: string;
  readonly reason: string;
  readonly errno: string | null;
  readonly fw_status: string | null;

  constructor(step: string, reason: string, errno: string | null = null, fwStatus: string | null = null) {
    this.step = step;
    this.reason = reason;
    this.errno = errno;
    this.fw_status = fwStatus;
  }
}

/** What `status` answers. */
export type HostStatus = ReturnType<HostControl['status']>;

/** Facts of the process around the service that `status` tells. */
export interface Surroundings {
  readonly state: string;
  readonly pid: number;
  /** Folder with the devices; null when none are shown. */
  readonly devices: string | null;
  /** Paths of the system at which they are shown too; null when that was not asked for. */
  readonly system: readonly string[] | null;
  /** Base address of the key service; null when none is served. */
  readonly kds: string | null;
}

export interface HostControlOptions {
  readonly service: HostService;
  /** The key service of this host, whether it is served or not. */
  readonly kds: KdsService;
  readonly surroundings: () => Surroundings;
  /** A guest from the words of the command line; the name is checked later. */
  readonly guestSpec: (name: string, options: Readonly<Record<string, string>>) => GuestSpec;
  /** The same from `words` of a spec, whatever the command line of this host leaves to be said. */
  readonly keptSpec: (name: string, words: Readonly<Record<string, string>>) => GuestSpec;
}

const TcbBody = v.strictObject({
  tcb: v.string(),
  version: v.optional(v.pipe(v.string(), v.regex(/^\d{1,3}\.\d{1,3}\.\d{1,3}$/))),
});
const ConfigBody = v.strictObject({
  reported_tcb: v.optional(v.string()),
  mask_chip_id: v.optional(v.boolean()),
  mask_chip_key: v.optional(v.boolean()),
});
const VlekBody = v.strictObject({ wrapped: v.optional(v.string()) });
const FaultBody = v.strictObject({ rule: v.string(), guest: v.optional(v.string()) });
const GuestBody = v.strictObject({ name: v.string(), options: v.optional(v.record(v.string(), v.string())) });

export class HostControl {
  readonly service: HostService;
  readonly #options: HostControlOptions;

  constructor(options: HostControlOptions) {
    this.#options = options;
    this.service = options.service;
  }

  status() {
    const { host, guests } = this.service;
    const status = host.management.platformStatus();
    return {
      ...this.#options.surroundings(),
      product: host.chip.product,
      csp: host.state.csp,
      chip_id: toHex(host.chip.chipId),
      processor: { ...host.processor, places: pathsOf(this.service.processorPlaces) },
      firmware: this.#firmware(),
      tcb: this.tcb(),
      signing_key: this.service.signingKey,
      vlek_loaded: status.features.vlek_en === 1,
      mask_chip_id: status.features.mask_chip_id === 1,
      mask_chip_key: status.features.mask_chip_key === 1,
      state_saved: this.service.isSaved,
      failure: this.service.failure,
      places: pathsOf(this.service.hostPlaces),
      guests: [...guests.values()].map((served) => this.#describe(served)),
    };
  }

  /** The TCBs of the platform as text: BL,TEE,SNP,UCODE, with FMC first on Turin. */
  tcb() {
    const { host } = this.service;
    const text = (word: bigint): string => formatTcb(decodeTcb(word, host.chip.product), host.chip.product);
    const { current_tcb, reported_tcb } = host.management.platformStatus();
    return {
      current: text(current_tcb),
      committed: text(BigInt(host.psp.exportState().committed_tcb)),
      reported: text(reported_tcb),
    };
  }

  /** Installs firmware of this TCB while the guests run: provisional until it is committed. */
  async updateFirmware(body: unknown) {
    const { tcb: text, version } = parsed(TcbBody, body);
    const { product } = this.service.host.chip;
    const tcb = parseTcbText(text, product);
    const refused = await this.#change('SNP_DOWNLOAD_FIRMWARE_EX', (host) => {
      const image = buildFirmwareImage(host.deps.crypto, {
        ...{ product, tcb },
        version: versionOf(version ?? this.#firmware().running),
        mitVector: BigInt(host.psp.exportState().mitigations_supported),
      });
      const { errno, status } = host.kernel.updateFirmware(image);
      return errno === 0 ? null : refusal('SNP_DOWNLOAD_FIRMWARE_EX', -errno, status);
    });
    return refused ?? this.tcb();
  }

  async commit() {
    const refused = await this.#change('SNP_COMMIT', ({ management }) =>
      outcome('SNP_COMMIT', management.commit()),
    );
    return refused ?? this.tcb();
  }

  /** What is left out stays as it is. */
  async config(body: unknown) {
    const { reported_tcb, mask_chip_id, mask_chip_key } = parsed(ConfigBody, body);
    const { product } = this.service.host.chip;
    const wanted =
      reported_tcb === undefined ? undefined : encodeTcb(parseTcbText(reported_tcb, product), product);
    const refused = await this.#change('SNP_SET_CONFIG', ({ management }) => {
      const { reported_tcb: current, features } = management.platformStatus();
      const config = {
        reportedTcb: wanted ?? current,
        maskChipId: mask_chip_id ?? features.mask_chip_id === 1,
        maskChipKey: mask_chip_key ?? features.mask_chip_key === 1,
      };
      return outcome('SNP_SET_CONFIG', management.setConfig(config));
    });
    return refused ?? this.tcb();
  }

  async resetConfig() {
    const nothing = { reportedTcb: 0n, maskChipId: false, maskChipKey: false };
    const refused = await this.#change('SNP_SET_CONFIG', ({ management }) =>
      outcome('SNP_SET_CONFIG', management.setConfig(nothing)),
    );
    return refused ?? this.tcb();
  }

  /** Loads a hash stick: the one given, in hexadecimal, or the provider's for the reported TCB. */
  async loadVlek(body: unknown) {
    const { wrapped } = parsed(VlekBody, body);
    const given = wrapped === undefined ? null : hexOfSize(wrapped, WrappedVlekHashstick.size);
    const refused = await this.#change('SNP_VLEK_LOAD', (host) =>
      outcome('SNP_VLEK_LOAD', given === null ? host.loadVlek() : host.management.vlekLoad(given)),
    );
    return refused ?? { signing_key: this.service.signingKey };
  }

  /** Takes the VLEK away: the VCEK signs again. */
  async removeVlek() {
    const holder = [...this.service.guests.values()].find(({ spec }) => spec.key === 'vlek');
    if (holder !== undefined) {
      const message = 'has the certificates of the VLEK; remove it first';
      throw new InputError('OPTION_INVALID', message, { where: `guest ${holder.spec.name}` });
    }
    const refused = await this.#change('VLEK removal', (host) => {
      const answer = host.unloadVlek();
      return answer === null
        ? null
        : answer === 'no-lower-tcb'
          ? new MachineRefusal('SNP_CONFIG', 'no TCB is below the reported one')
          : outcome('SNP_CONFIG', answer);
    });
    return refused ?? { signing_key: this.service.signingKey };
  }

  faults() {
    const guests = [...this.service.guests.values()].flatMap(({ spec, faults }) =>
      faults.list().map((fault) => ({ guest: spec.name, rule: formatBlobFault(fault) })),
    );
    return [...this.#options.kds.faults.list().map((rule) => ({ rule: formatFaultRule(rule) })), ...guests];
  }

  /** certs=... spoils a guest's certificates (all guests' unless one is named), the rest the key service. */
  addFault(body: unknown) {
    const { rule, guest } = parsed(FaultBody, body);
    if (rule.startsWith('certs=')) {
      const fault = parseBlobFault(rule);
      const guests = guest === undefined ? [...this.service.guests.values()] : [this.#guest(guest)];
      for (const { faults } of guests) {
        faults.add(fault);
      }
    } else {
      this.#options.kds.faults.add(parseFaultRule(rule));
    }
    return this.faults();
  }

  clearFaults() {
    this.#options.kds.faults.clear();
    for (const { faults } of this.service.guests.values()) {
      faults.clear();
    }
    return this.faults();
  }

  /** What the key service says to a client of somebody who serves it elsewhere. */
  kds(body: unknown) {
    return answerKdsDocument(this.#options.kds, body);
  }

  async addGuest(body: unknown) {
    const { name, options = {} } = parsed(GuestBody, body);
    const launched = await launchGuest(this.service, this.#options.guestSpec(name, options));
    return launched instanceof MachineRefusal ? launched : this.#describe(launched);
  }

  async removeGuest(name: string) {
    if (!(await this.service.removeGuest(name))) {
      throw unknownGuest(name);
    }
    return {};
  }

  async saveSnapshot(): Promise<SnapshotDocument> {
    const snapshot = await this.service.capture();
    const document = encodeSnapshot(this.service.host, snapshot, this.#options.kds.faults.list());
    const guests = snapshot.guests.map(({ spec }) => spec.name);
    this.service.events.emit({ type: 'snapshot', what: 'saved', guests });
    return document;
  }

  async restoreSnapshot(body: unknown) {
    const { snapshot, kdsFaults } = decodeSnapshot(this.service.host, body, this.#options.keptSpec);
    const refused = await this.service.restore(snapshot);
    if (refused !== null) {
      return launchRefusal(refused.refusal, refused.guest);
    }
    this.#options.kds.faults.replace(kdsFaults);
    return this.status();
  }

  #describe(served: ServedGuest) {
    const { spec, guest, door, queue, measurement, blob, ended } = served;
    return {
      name: spec.name,
      key: spec.key,
      vcpus: guest.vcpuCount,
      measurement: toHex(measurement),
      certs: blob.name,
      certs_for: spec.certs === null ? kindFor(this.service.host, spec.key) : null,
      certs_in_step: this.service.isInStep(served),
      places: pathsOf(door.places),
      requests: { served: queue.served, waiting: queue.waiting },
      ended,
    };
  }

  #guest(name: string): ServedGuest {
    const served = this.service.guests.get(name);
    if (served === undefined) {
      throw unknownGuest(name);
    }
    return served;
  }

  #firmware() {
    const { firmware_version, committed_version } = this.service.host.psp.exportState();
    return { running: firmware_version, committed: committed_version };
  }

  /**
   * Does something with the machine that runs when its turn has come.
   *
   * Returns  what the machine said against it, or null
   * Errors   BLOB_BUSY
   */
  async #change(
    command: string,
    work: (host: Host) => MachineRefusal | null,
  ): Promise<MachineRefusal | null> {
    const answer = await this.service.change(command, () => ({ refused: work(this.service.host) }));
    if (answer === null) {
      throw new EnvironmentError('BLOB_BUSY', `a certificate blob stayed locked; ${command} was not given`);
    }
    return answer.refused;
  }
}

/**
 * Launches a guest.
 *
 * Errors   OPTION_INVALID for a name that is taken or cannot be one
 */
export async function launchGuest(
  service: HostService,
  spec: GuestSpec,
): Promise<ServedGuest | MachineRefusal> {
  const answer = await service.addGuest(spec);
  return answer.ok ? answer.served : launchRefusal(answer, null);
}

function launchRefusal(refused: KvmRefusal | BootFailure, guest: string | null): MachineRefusal {
  const step = guest === null ? refused.step : `guest ${guest}: ${refused.step}`;
  return 'reason' in refused
    ? new MachineRefusal(step, refused.reason)
    : refusal(step, refused.errno, refused.fwStatus);
}

const unknownGuest = (name: string): InputError =>
  new InputError('GUEST_UNKNOWN', 'no guest of this host has the name', {
    where: JSON.stringify(name.slice(0, 80)),
  });

function refusal(step: string, errno: number, fwStatus: number | null): MachineRefusal {
  const names = [errnoName(errno), fwStatus === null ? null : sevRetName(fwStatus)] as const;
  const reason = names[1] === null ? names[0] : `${names[0]}, firmware status ${names[1]}`;
  return new MachineRefusal(step, reason, ...names);
}

function outcome(step: string, answer: ManagementAnswer): MachineRefusal | null {
  return answer.ok ? null : refusal(step, answer.errno, answer.fwStatus);
}

function parsed<S extends v.GenericSchema>(schema: S, body: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, body);
  if (result.success) {
    return result.output;
  }
  const [issue] = result.issues;
  throw new InputError('OPTION_INVALID', issue.message, { where: v.getDotPath(issue) ?? 'request' });
}

function hexOfSize(text: string, size: number): Uint8Array {
  const bytes = fromHex(text, 'wrapped');
  if (bytes.length !== size) {
    throw new InputError('OPTION_INVALID', `${bytes.length} bytes, not ${size}`, { where: 'wrapped' });
  }
  return bytes;
}

function versionOf(text: string): FirmwareVersion {
  const [major = 0, minor = 0, build = 0] = text.split('.').map(Number);
  return { major, minor, build };
}
