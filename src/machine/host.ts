// SPDX-License-Identifier: Apache-2.0
/** One SNP host in software: chip, firmware, kernel, key service and a management tool. */
import { decodeTcb, encodeTcb, type TcbParts } from '../abi/tcb-version.ts';
import { type ChipConfig, defaultChip } from '../firmware/chip.ts';
import { SecureProcessor } from '../firmware/secure-processor.ts';
import { Hardware } from '../hw/hardware.ts';
import { documentTag, type EndorsementKind } from '../keys/index.ts';
import { HostKernel } from '../kvm/host-kernel.ts';
import type { Clock } from '../lib/clock.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { invariant } from '../lib/errors.ts';
import type { TraceSink } from '../lib/trace.ts';
import { type CertificateChain, KeyService } from './endorsement.ts';
import { Guest, type GuestOptions, type LaunchAnswer } from './guest.ts';
import { type ManagementAnswer, ManagementTool } from './management.ts';
import { type Processor, processorOf } from './processor.ts';
import type { HostState } from './state.ts';
import { traceGuestRequest, traceKvm } from './tracing.ts';

export interface HostDeps {
  readonly crypto: MachineCrypto;
  readonly random: Random;
  readonly clock: Clock;
  /** Receives the steps of every guest's attestation requests. */
  readonly trace?: TraceSink;
  /** One line for an operator, without a newline. */
  readonly log?: (line: string) => void;
}

export class Host {
  readonly deps: HostDeps;
  readonly chip: ChipConfig;
  readonly processor: Processor;
  readonly hw: Hardware;
  readonly psp: SecureProcessor;
  readonly kernel: HostKernel;
  readonly keys: KeyService;
  readonly management: ManagementTool;
  readonly #state: HostState;
  readonly #guests = new Map<string, Guest>();
  /** The guest whose vCPU is in KVM_RUN: everything is synchronous, so there is one at most. */
  #running: Guest | null = null;

  /** @param chip what differs from a usual chip of the product; the state says which chip it is */
  constructor(deps: HostDeps, state: HostState, chip: Partial<ChipConfig> = {}) {
    const { crypto, random, clock } = deps;
    // Without a sink nobody puts the texts of a trace together.
    const traced = deps.trace !== undefined;
    this.deps = deps;
    this.#state = state;
    this.chip = defaultChip(crypto, state.product, state.chipSecret, { ...chip, chipId: state.chipId });
    this.processor = processorOf(this.chip);
    this.hw = new Hardware(crypto);
    this.psp = new SecureProcessor({
      ...{ hw: this.hw, crypto, random, chip: this.chip },
      ...(traced
        ? {
            onGuestRequest: (detail) => {
              if (this.#running !== null) {
                traceGuestRequest(this.#running.tracer, detail);
              }
            },
          }
        : {}),
    });
    // A TCB that is asked for is firmware installed anew: what the last one left behind is gone.
    if (state.platform !== null && chip.currentTcb === undefined) {
      this.psp.importState(state.platform);
    }
    this.kernel = new HostKernel({
      ...{ hw: this.hw, psp: this.psp, clock, cpu: this.processor },
      engines: (vm, vcpuId, vmsa) => this.#guest(vm.name).engine(vcpuId, vmsa),
      ...(traced ? { onEvent: (event) => traceKvm(this.#guest(event.vm.name).tracer, event) } : {}),
    });
    this.keys = new KeyService({ crypto, random, clock, state });
    this.management = new ManagementTool(this.kernel.spawn('management'));
  }

  #guest(name: string): Guest {
    const guest = this.#guests.get(name);
    invariant(guest !== undefined, `no guest is named ${name}`);
    return guest;
  }

  get reportedTcb(): TcbParts {
    return decodeTcb(this.management.platformStatus().reported_tcb, this.chip.product);
  }

  /** Certificates for the key that signs reports now. */
  chain(kind: EndorsementKind): CertificateChain {
    return this.keys.chain(kind, this.reportedTcb);
  }

  /** Loads the provider's VLEK for the TCB the platform reports; reports are signed with it from now on. */
  loadVlek(): ManagementAnswer {
    return this.management.vlekLoad(this.keys.wrappedHashstick(this.reportedTcb));
  }

  /**
   * Takes the VLEK away. There is no command for it: the firmware drops it when the reported TCB changes, so
   * the TCB goes down a step and up again.
   *
   * Returns  null when it is gone, or was not there; no-lower-tcb when there is no step down
   */
  unloadVlek(): (ManagementAnswer & { readonly ok: false }) | 'no-lower-tcb' | null {
    const { product } = this.chip;
    const { reported_tcb, features } = this.management.platformStatus();
    if (features.vlek_en === 0) {
      return null;
    }
    const lower = oneStepBelow(decodeTcb(reported_tcb, product));
    if (lower === null) {
      return 'no-lower-tcb';
    }
    const masks = { maskChipId: features.mask_chip_id === 1, maskChipKey: features.mask_chip_key === 1 };
    for (const reportedTcb of [encodeTcb(lower, product), reported_tcb]) {
      const answer = this.management.setConfig({ reportedTcb, ...masks });
      if (!answer.ok) {
        return answer;
      }
    }
    return null;
  }

  /** Launches a guest; its name is unused so far. */
  launch(options: GuestOptions): LaunchAnswer {
    invariant(!this.#guests.has(options.name), `a guest is already named ${options.name}`);
    const guest = new Guest(this, options);
    this.#guests.set(options.name, guest);
    try {
      const answer = guest.launch();
      if (!answer.ok) {
        this.#guests.delete(options.name);
      }
      return answer;
    } catch (error) {
      this.remove(guest);
      throw error;
    }
  }

  /** Ends a guest; its memory, its ASID and its name are free again. */
  remove(guest: Guest): void {
    this.whileRunning(guest, () => guest.vmm.close());
    this.#guests.delete(guest.name);
  }

  /** Runs something on behalf of a guest, so that the firmware's part of it is traced as that guest's. */
  whileRunning<T>(guest: Guest, work: () => T): T {
    const before = this.#running;
    this.#running = guest;
    try {
      return work();
    } finally {
      this.#running = before;
    }
  }

  /** Tag of a document that is to come back to this host: only its chip's and its provider's secret give it. */
  tagOf(document: Uint8Array): Uint8Array {
    const { chipSecret, cspSecret } = this.#state;
    return documentTag(this.deps.crypto, [chipSecret, cspSecret], document);
  }

  /** What to keep for the next start. */
  get state(): HostState {
    return { ...this.#state, platform: this.psp.exportState() };
  }
}

/** Null when every component is zero. */
function oneStepBelow(tcb: TcbParts): TcbParts | null {
  const names = ['microcode', 'snp', 'tee', 'boot_loader', 'fmc'] as const;
  const name = names.find((candidate) => tcb[candidate] > 0);
  return name === undefined ? null : { ...tcb, [name]: tcb[name] - 1 };
}
