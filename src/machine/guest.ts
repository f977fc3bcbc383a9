// SPDX-License-Identifier: Apache-2.0
/** One guest of a host: its VMM on the outside, its kernel on the inside. */
import { ProgramEngine, type VcpuEngine } from '../abi/guest-ops.ts';
import type { BlobSource } from '../certs/blob.ts';
import type { GuestLife, LaunchFacts } from '../firmware/secure-processor.ts';
import { GuestKernel } from '../guest/kernel.ts';
import type { SevGuestCall, SevGuestReply } from '../guest/sev-guest.ts';
import { invariant } from '../lib/errors.ts';
import { Tracer } from '../lib/trace.ts';
import type { KvmRefusal } from '../vmm/kvm-fd.ts';
import type { LaunchSettings } from '../vmm/launch-vm.ts';
import { type RunEnd, runUntil, runUntilAsync } from '../vmm/scheduler.ts';
import { type StepOutcome, Vmm } from '../vmm/vmm.ts';
import type { Host } from './host.ts';

export interface GuestOptions extends LaunchSettings {
  readonly name: string;
  /** Certificates for the guest's extended requests; null: this VMM has none. */
  readonly blob: BlobSource | null;
  /** VMPCK the guest's driver uses; that of the VMPL it runs at unless given. */
  readonly vmpckId?: number;
}

export type LaunchAnswer = { readonly ok: true; readonly guest: Guest } | KvmRefusal;

/** An ioctl's reply, or why the guest will never give one. */
export type IoctlOutcome = { readonly reply: SevGuestReply } | { readonly end: RunEnd };

export class Guest {
  readonly name: string;
  readonly tracer: Tracer;
  readonly vmm: Vmm;
  readonly #host: Host;
  readonly #options: GuestOptions;
  #kernel: GuestKernel | null = null;

  constructor(host: Host, options: GuestOptions) {
    const { clock, log, trace } = host.deps;
    this.name = options.name;
    this.#host = host;
    this.#options = options;
    this.tracer = new Tracer(options.name, trace ?? (() => {}));
    const onLog = (line: string): void => log?.(`${options.name}: ${line}`);
    this.vmm = new Vmm({
      ...options,
      process: host.kernel.spawn(options.name),
      ...{ clock, onLog },
      ...(trace === undefined ? {} : { tracer: this.tracer }),
    });
  }

  /** Makes the VM; its vCPUs run from the first turn they get. */
  launch(): LaunchAnswer {
    const refusal = this.vmm.launch();
    if (refusal !== null) {
      return refusal;
    }
    const { crypto, clock, log, trace } = this.#host.deps;
    const { plan, vmpckId } = this.#options;
    this.#kernel = new GuestKernel({
      name: this.name,
      memoryMap: this.vmm.memoryMap,
      secretsGpa: plan.secretsGpa,
      cpuidGpa: plan.cpuidGpa,
      vcpus: this.vmm.vcpuCount,
      ...{ crypto, clock },
      ...(trace === undefined ? {} : { tracer: this.tracer }),
      onJob: () => this.vmm.interrupt(0),
      onLog: (line) => log?.(`${this.name} guest: ${line}`),
      ...(vmpckId === undefined ? {} : { vmpckId }),
    });
    return { ok: true, guest: this };
  }

  get kernel(): GuestKernel {
    invariant(this.#kernel !== null, 'the guest is launched');
    return this.#kernel;
  }

  /** The code a vCPU runs when it is entered with this save area. */
  engine(vcpuId: number, vmsa: Uint8Array): VcpuEngine {
    return new ProgramEngine(this.kernel.boot(vcpuId, vmsa));
  }

  /** Does the next thing a vCPU's thread would do. */
  step(vcpuId: number): StepOutcome {
    return this.#host.whileRunning(this, () => this.vmm.step(vcpuId));
  }

  /** Runs all vCPUs in turn until `done` holds; `sleep` makes time pass. */
  runUntil(done: () => boolean, sleep: (ms: number) => void): RunEnd {
    const { clock } = this.#host.deps;
    return runUntil(this, done, { clock, sleep });
  }

  /** The same, letting other guests and the event loop in between turns. */
  runUntilAsync(done: () => boolean, sleep: (ms: number) => Promise<void>): Promise<RunEnd> {
    const { clock } = this.#host.deps;
    return runUntilAsync(this, done, { clock, sleep });
  }

  /** Runs the guest until its system is up. */
  boot(sleep: (ms: number) => void): RunEnd {
    return this.runUntil(() => this.kernel.system !== null, sleep);
  }

  /** One ioctl of the guest's /dev/sev-guest, carried through the whole machine. */
  ioctl(call: SevGuestCall, sleep: (ms: number) => void): IoctlOutcome {
    const handle = this.kernel.sevGuestIoctl(call);
    const end = this.runUntil(() => handle.done, sleep);
    return handle.result === undefined ? { end } : { reply: handle.result };
  }

  /** What the firmware knows of it. */
  facts(): { readonly launch: LaunchFacts; readonly life: GuestLife } {
    return this.#host.psp.guestFacts(this.vmm.contextPage);
  }

  /** Lets it stand for another guest of the same launch; its driver has to go on where that one's was. */
  resume(life: GuestLife): void {
    this.#host.psp.resumeGuest(this.vmm.contextPage, life);
  }

  get vcpuCount(): number {
    return this.vmm.vcpuCount;
  }

  get end() {
    return this.vmm.end;
  }
}
