// SPDX-License-Identifier: Apache-2.0
/** One guest's kernel: the code of all its vCPUs, and the work programs in the guest give it. */
import { Errno } from '../abi/errno.ts';
import { GuestException, type GuestOp, type GuestProgram, VECTOR_VC } from '../abi/guest-ops.ts';
import type { Gpa } from '../lib/addresses.ts';
import type { MachineCrypto } from '../lib/crypto.ts';
import type { Tracer } from '../lib/trace.ts';
import { entryPoint, TRAMPOLINE_START_IP } from './ap-vmsa.ts';
import { applicationProcessor, type Booted, type BootOptions, bootProcessor } from './boot.ts';
import type { Guest } from './cpu.ts';
import { terminateGeneric } from './ghcb.ts';
import { KernelPages } from './memory-map.ts';
import { type DriverState, SevGuest, type SevGuestCall, type SevGuestReply } from './sev-guest.ts';

export interface GuestKernelOptions extends BootOptions {
  readonly name: string;
  readonly crypto: MachineCrypto;
  readonly tracer?: Tracer;
  /** Module parameter of sev-guest; the VMPL the kernel runs at unless given. */
  readonly vmpckId?: number;
  /** Linear address at which the boot processor starts. */
  readonly bootEntry?: number;
  /** There is a job: vCPU 0 may be halted and needs an interrupt. */
  readonly onJob?: () => void;
}

/** Work for vCPU 0: guest code that computes a T. */
export type GuestJob<T> = (system: RunningSystem) => Guest<T>;

/** What jobs may use. */
export interface RunningSystem extends Booted {
  /** Negative errno when the driver did not load. */
  readonly sevGuest: SevGuest | number;
}

/** A job on its way. */
export interface JobHandle<T> {
  readonly done: boolean;
  /** What the job returned; undefined until done. */
  readonly result: T | undefined;
}

interface QueuedJob<T> {
  readonly job: GuestJob<T>;
  done: boolean;
  result: T | undefined;
}

const RESET_VECTOR = 0xffff_fff0;
/** The kernel runs at VMPL0: there is no SVSM below it. */
const KERNEL_VMPL = 0;

export class GuestKernel {
  readonly name: string;
  readonly #options: GuestKernelOptions;
  readonly #online = new Set<number>();
  readonly #queue: QueuedJob<unknown>[] = [];
  #system: RunningSystem | null = null;

  constructor(options: GuestKernelOptions) {
    this.name = options.name;
    this.#options = options;
  }

  /** vCPUs whose code has come as far as reporting. */
  get online(): ReadonlySet<number> {
    return this.#online;
  }

  /** Null until the boot processor is done. */
  get system(): RunningSystem | null {
    return this.#system;
  }

  /** Jobs submitted and not finished: while there are none, running the guest changes nothing. */
  get pending(): number {
    return this.#queue.length;
  }

  /**
   * The code of a vCPU that starts with this save area.
   *
   * Returns  a program that ends at once where the guest has no code: the vCPU shuts down
   */
  boot(vcpuId: number, vmsa: Uint8Array): GuestProgram {
    const entry = entryPoint(vmsa);
    if (vcpuId === 0 && entry === (this.#options.bootEntry ?? RESET_VECTOR)) {
      return this.#bootAndServe();
    }
    const pages = KernelPages.place(this.#options.memoryMap, this.#options.vcpus);
    if (entry === TRAMPOLINE_START_IP && pages !== null && vcpuId < this.#options.vcpus) {
      return this.#applicationProcessor(vcpuId, pages.ghcb(vcpuId));
    }
    return noCode();
  }

  /** Queues work for vCPU 0; it runs after the boot and after what was queued before. */
  submit<T>(job: GuestJob<T>): JobHandle<T> {
    const queued: QueuedJob<T> = { job, done: false, result: undefined };
    this.#queue.push(queued as QueuedJob<unknown>);
    this.#options.onJob?.();
    return queued;
  }

  /** Queues one ioctl of /dev/sev-guest; -ENODEV when the driver did not load. */
  sevGuestIoctl(call: SevGuestCall): JobHandle<SevGuestReply> {
    return this.submit(function* ({ sevGuest }) {
      return typeof sevGuest === 'number' ? NO_DEVICE : yield* sevGuest.ioctl(call);
    });
  }

  /** Asks the driver how far it has come; -errno when it did not load. */
  driverState(): JobHandle<DriverState | number> {
    return this.submit(function* ({ sevGuest }) {
      return typeof sevGuest === 'number' ? sevGuest : yield* sevGuest.state();
    });
  }

  /** Lets the driver go on where another one was; the result is 0, or why it did not load. */
  resumeDriver(state: DriverState): JobHandle<number> {
    return this.submit(function* ({ sevGuest }) {
      if (typeof sevGuest === 'number') {
        return sevGuest;
      }
      yield* sevGuest.resume(state);
      return 0;
    });
  }

  *#bootAndServe(): Guest<void> {
    try {
      const system = yield* this.#start();
      this.#system = system;
      for (;;) {
        const next = this.#queue[0];
        if (next === undefined) {
          yield HLT;
          continue;
        }
        next.result = yield* next.job(system);
        next.done = true;
        this.#queue.shift();
      }
    } catch (error) {
      yield* this.#unexpected(error);
    }
  }

  /** Boots, then loads the driver. */
  *#start(): Guest<RunningSystem> {
    const { crypto, clock, tracer, onLog, vmpckId = KERNEL_VMPL } = this.#options;
    const booted = yield* bootProcessor(this.#options, this.#online);
    const { pages, ghcb, secretsGpa } = booted;
    const { request, response, certs } = pages;
    const sevGuest = yield* SevGuest.probe({
      ...{ ghcb, secretsGpa, request, response, certs },
      ...{ vmpckId, crypto, clock, tracer, onLog },
    });
    return { ...booted, sevGuest };
  }

  *#applicationProcessor(id: number, ghcbGpa: Gpa): Guest<void> {
    try {
      yield* applicationProcessor(id, ghcbGpa, this.#online);
    } catch (error) {
      yield* this.#unexpected(error);
    }
  }

  /** A #VC the kernel has no answer to ends in a termination request, any other exception in a shutdown. */
  *#unexpected(error: unknown): Guest<void> {
    if (!(error instanceof GuestException && error.vector === VECTOR_VC)) {
      throw error;
    }
    this.#options.onLog?.(`unexpected #VC, error code 0x${error.errorCode.toString(16)}`);
    yield* terminateGeneric('GHCB_SEV_ES_GEN_REQ');
  }
}

const HLT: GuestOp = { op: 'hlt' };

const NO_DEVICE: SevGuestReply = Object.freeze({
  ret: -Errno.ENODEV,
  exitinfo2: 0n,
  writeBack: false,
  response: null,
  certs: null,
  req_data: null,
});

function* noCode(): Guest<void> {}
