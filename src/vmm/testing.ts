// SPDX-License-Identifier: Apache-2.0
/** A whole host with one guest each, for tests of the VMM: real KVM, firmware and hardware below it. */
import { SnpGuestIoctl } from '../abi/dev-sev-guest.ts';
import { ProgramEngine } from '../abi/guest-ops.ts';
import { defaultChip, type GuestRequestDetail, SecureProcessor } from '../firmware/secure-processor.ts';
import { GuestKernel, type JobHandle } from '../guest/kernel.ts';
import type { SevGuestCall, SevGuestReply } from '../guest/sev-guest.ts';
import { Hardware } from '../hw/hardware.ts';
import type { KvmEvent } from '../kvm/contract.ts';
import { HostKernel, type HostProcess } from '../kvm/host-kernel.ts';
import { cpuSigOf, defaultImage, type LaunchPlan, parseOvmf, planLaunch } from '../launch/index.ts';
import { writeU32, writeU64 } from '../lib/bytes.ts';
import { VirtualClock } from '../lib/clock.ts';
import { type TraceEvent, Tracer } from '../lib/trace.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import type { KvmRefusal } from './kvm-fd.ts';
import { type RunEnd, runUntil } from './scheduler.ts';
import { Vmm, type VmmOptions } from './vmm.ts';

export const MIB = 2 ** 20;

/** One host. */
export class TestHost {
  readonly clock = new VirtualClock(Date.UTC(2026, 0, 1));
  readonly crypto = nodeCrypto({ deterministic: true });
  readonly hw = new Hardware(this.crypto);
  readonly guests = new Map<string, TestGuest>();
  readonly requests: GuestRequestDetail[] = [];
  readonly events: KvmEvent[] = [];
  readonly kernel: HostKernel;

  constructor(seed = 1) {
    const random = seededRandom(seed);
    const psp = new SecureProcessor({
      hw: this.hw,
      crypto: this.crypto,
      random,
      chip: defaultChip(this.crypto, 'Milan', random.bytes(48)),
      onGuestRequest: (detail) => this.requests.push(detail),
    });
    this.kernel = new HostKernel({
      hw: this.hw,
      psp,
      clock: this.clock,
      engines: (vm, vcpuId, vmsa) => new ProgramEngine(this.guests.get(vm.name)!.kernel.boot(vcpuId, vmsa)),
      onEvent: (event) => this.events.push(event),
    });
  }

  /** Launches a guest that boots when it is run. */
  guest(options: Partial<VmmOptions> & { readonly vcpus?: number } = {}): TestGuest {
    const guest = this.attempt(options);
    if (guest.refusal !== null) {
      throw new TypeError(
        `${guest.refusal.step}: errno ${guest.refusal.errno}, status ${guest.refusal.fwStatus}`,
      );
    }
    return guest;
  }

  /** The same where the launch may fail. */
  attempt(options: Partial<VmmOptions> & { readonly vcpus?: number } = {}): TestGuest {
    const name = `guest${this.guests.size}`;
    const guest = new TestGuest(this, name, this.kernel.spawn(name), options);
    this.guests.set(name, guest);
    return guest;
  }
}

export const defaultPlan = (vcpus: number): LaunchPlan =>
  planLaunch({ ovmf: parseOvmf(defaultImage()), vcpus, cpuSig: cpuSigOf('EPYC-Milan-v2') });

export class TestGuest {
  readonly host: TestHost;
  readonly trace: TraceEvent[] = [];
  readonly log: string[] = [];
  readonly plan: LaunchPlan;
  readonly process: HostProcess;
  readonly vmm: Vmm;
  readonly refusal: KvmRefusal | null;
  readonly #kernel: GuestKernel | null;

  constructor(
    host: TestHost,
    name: string,
    process: HostProcess,
    { vcpus = 1, ...options }: Partial<VmmOptions> & { readonly vcpus?: number },
  ) {
    this.host = host;
    this.process = process;
    this.plan = options.plan ?? defaultPlan(vcpus);
    const tracer = new Tracer(name, (event) => this.trace.push(event));
    const shared = { clock: host.clock, tracer, onLog: (line: string) => void this.log.push(line) };
    this.vmm = new Vmm({
      process,
      plan: this.plan,
      memoryBytes: 64 * MIB,
      policy: 0x30000n,
      blob: null,
      ...shared,
      ...options,
    });
    this.refusal = this.vmm.launch();
    this.#kernel =
      this.refusal !== null
        ? null
        : new GuestKernel({
            name,
            memoryMap: this.vmm.memoryMap,
            secretsGpa: this.plan.secretsGpa,
            cpuidGpa: this.plan.cpuidGpa,
            vcpus: this.vmm.vcpuCount,
            crypto: host.crypto,
            onJob: () => this.vmm.interrupt(0),
            ...shared,
          });
  }

  get kernel(): GuestKernel {
    return this.#kernel!;
  }

  runUntil(done: () => boolean): RunEnd {
    const { clock } = this.host;
    return runUntil(this.vmm, done, { clock, sleep: (ms) => clock.advance(ms) });
  }

  boot(): RunEnd {
    return this.runUntil(() => this.kernel.system !== null);
  }

  /** Runs a job to its end. */
  finish<T>(handle: JobHandle<T>): T {
    const end = this.runUntil(() => handle.done);
    if (end.kind !== 'done') {
      throw new TypeError(`the guest did not finish: ${end.kind}; ${this.log.at(-1)}`);
    }
    return handle.result!;
  }

  /** SNP_GET_EXT_REPORT with a buffer of so many bytes, on its way. */
  startExtReport(certsLen = 0x4000): JobHandle<SevGuestReply> {
    return this.kernel.sevGuestIoctl(extCall(certsLen));
  }

  extReport(certsLen = 0x4000): SevGuestReply {
    return this.finish(this.startExtReport(certsLen));
  }
}

/** SNP_GET_EXT_REPORT as an ordinary program makes it. */
export function extCall(certsLen: number): SevGuestCall {
  const request = new Uint8Array(112).fill(0x5a, 0, 64);
  writeU64(request, 96, 0x10_0000n);
  writeU32(request, 104, certsLen);
  return { cmd: SnpGuestIoctl.SNP_GET_EXT_REPORT, msg_version: 1, req_data: request, resp_data: true };
}
