// SPDX-License-Identifier: Apache-2.0
/**
 * One guest's VMM: launches it and runs its vCPUs, one small step at a time.
 *
 * A step either makes one KVM_RUN or answers the exit of the last one. So whoever drives the vCPUs can stop
 * at every point where a real VMM could be interrupted: between an exit and its answer, and between the
 * -EINTR that says a report is made and the release of the certificate lock.
 */
import { Errno, errnoName } from '../abi/errno.ts';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KvmExit,
  KvmHypercall,
  KvmIoctl,
  KvmIoDirection,
  KvmMapGpaRange,
  KvmSystemEvent,
  kvmExitName,
} from '../abi/kvm.ts';
import {
  KvmRun,
  KvmRunFailEntry,
  KvmRunHypercall,
  KvmRunIo,
  KvmRunMemoryFault,
  KvmRunMmio,
  KvmRunMsr,
  KvmRunSnpReqCerts,
  KvmRunSystemEvent,
} from '../abi/kvm-run.ts';
import { KvmMemoryAttributes, KvmMsi } from '../abi/kvm-structs.ts';
import type { BlobSource } from '../certs/index.ts';
import type { HostProcess } from '../kvm/host-kernel.ts';
import { PAGE_SIZE, type Pfn } from '../lib/addresses.ts';
import { readU32, readU64, writeU32, writeU64 } from '../lib/bytes.ts';
import type { Clock } from '../lib/clock.ts';
import { invariant } from '../lib/errors.ts';
import type { Tracer } from '../lib/trace.ts';
import type { KvmRefusal } from './kvm-fd.ts';
import { type LaunchedVm, type LaunchSettings, launchVm } from './launch-vm.ts';
import type { FrameRange } from './memory-layout.ts';
import { CertificateService, type HeldCertificates } from './req-certs.ts';
import { formatStop, terminationOf, type VmEnd, type VmStop } from './stop.ts';

export interface VmmOptions extends LaunchSettings {
  /** This guest's alone: it ends with the guest, or with a launch that fails. */
  readonly process: HostProcess;
  /** Null: the guest gets no certificates from this VMM. */
  readonly blob: BlobSource | null;
  readonly maxBlobBytes?: number;
  readonly clock: Clock;
  readonly tracer?: Tracer;
  readonly onLog?: (line: string) => void;
}

/** What one step did. */
export type StepOutcome =
  /** KVM_RUN returned; the next step answers the exit it names, if any. */
  | { readonly kind: 'ran'; readonly ret: number; readonly exit: string | null }
  /** An exit was answered, or a lock released; the next step is a KVM_RUN. */
  | { readonly kind: 'answered'; readonly exit: string }
  /** The vCPU sleeps in the kernel: until `wakeAtMs`, or null until an event. Not later than now: its turn ended. */
  | { readonly kind: 'blocked'; readonly wakeAtMs: number | null }
  | { readonly kind: 'stopped'; readonly end: VmEnd };

/** Where the guest's memory is: what its firmware tables would say. */
export interface VmMemoryMap {
  readonly ram: readonly FrameRange[];
  readonly launched: readonly FrameRange[];
}

interface Vcpu {
  readonly id: number;
  readonly fd: number;
  /** The mapping of kvm_run. */
  readonly run: Uint8Array;
  /** What the next step has to do before KVM_RUN; null: nothing. */
  pending: 'exit' | 'memory-fault' | 'release' | null;
  /** Certificates of a request that KVM has not completed yet. */
  held: HeldCertificates | null;
}

const IMMEDIATE_EXIT = KvmRun.offsetOf('immediate_exit');
const EXIT_REASON = KvmRun.offsetOf('exit_reason');
const HYPERCALL_NR = KvmRunHypercall.offsetOf('nr');
const HYPERCALL_ARGS = KvmRunHypercall.offsetOf('args');
const HYPERCALL_RET = KvmRunHypercall.offsetOf('ret');
const REQ_CERTS_GPA = KvmRunSnpReqCerts.offsetOf('gpa');
const REQ_CERTS_NPAGES = KvmRunSnpReqCerts.offsetOf('npages');
const REQ_CERTS_RET = KvmRunSnpReqCerts.offsetOf('ret');
const PAGE = BigInt(PAGE_SIZE);
/** No guest of this VMM has more address bits; a longer range is nonsense of the guest's. */
const MAX_FRAMES = 2n ** 40n;
/** Any vector the guest's kernel would use for a device. */
const WAKE_VECTOR = 0x30;
const MSI_ADDRESS = 0xfee0_0000;
const MSI_ADDRESS_LO = KvmMsi.offsetOf('address_lo');
const MSI_ADDRESS_HI = KvmMsi.offsetOf('address_hi');

export class Vmm {
  readonly #options: VmmOptions;
  readonly #unanswered = new Set<string>();
  /** The interrupt `interrupt` sends; only the destination differs. */
  readonly #msi = KvmMsi.encode({ data: WAKE_VECTOR });
  readonly #attributes = new Uint8Array(KvmMemoryAttributes.size);
  #vm: LaunchedVm | null = null;
  #vcpus: readonly Vcpu[] = [];
  #certs: CertificateService | null = null;
  #end: VmEnd | null = null;

  constructor(options: VmmOptions) {
    this.#options = options;
  }

  /**
   * Makes the VM. Once.
   *
   * Returns  null, or the call that failed; the guest cannot run then
   * Errors   OPTION_INVALID for a memory size no layout holds
   */
  launch(): KvmRefusal | null {
    invariant(this.#vm === null && this.#end === null, 'a VMM launches one guest once');
    const { process, blob, clock, tracer, maxBlobBytes } = this.#options;
    const onLog = (line: string): void => this.#log(line);
    const vm = launchVm(process, this.#options, blob !== null, onLog);
    if ('ok' in vm) {
      return vm;
    }
    this.#vm = vm;
    this.#vcpus = vm.vcpus.map((fd, id) => {
      return { id, fd, run: process.mmapVcpu(fd), pending: null, held: null };
    });
    if (blob !== null && vm.certsEnabled) {
      this.#certs = new CertificateService({
        blob,
        writeShared: (gpa, data) => vm.ram.writeShared(gpa, data),
        ...{ clock, tracer, onLog },
        ...(maxBlobBytes === undefined ? {} : { maxBlobBytes }),
      });
    }
    return null;
  }

  get vcpuCount(): number {
    return this.#vcpus.length;
  }

  /** Null while the guest can run. */
  get end(): VmEnd | null {
    return this.#end;
  }

  /** Page of the guest's context in the firmware. */
  get contextPage(): Pfn {
    const page = this.#options.process.guestContext(this.#launchedVm().vmFd);
    invariant(page !== null, 'a launched guest has a context');
    return page;
  }

  get memoryMap(): VmMemoryMap {
    const firmwareFrom = Number(this.#options.plan.ovmfGpa / PAGE);
    return {
      ram: this.#launchedVm()
        .ram.slots.filter(({ from }) => from !== firmwareFrom)
        .map(({ from, to }) => ({ from, to })),
      launched: this.#options.plan.regions.map(({ gpa, sizeBytes }) => {
        const from = Number(gpa / PAGE);
        return { from, to: from + sizeBytes / PAGE_SIZE };
      }),
    };
  }

  /** Does the next thing a vCPU's thread would do. */
  step(vcpuId: number): StepOutcome {
    if (this.#end !== null) {
      return { kind: 'stopped', end: this.#end };
    }
    const vcpu = this.#vcpus[vcpuId];
    invariant(vcpu !== undefined, `there is no vCPU ${vcpuId}`);
    const { pending } = vcpu;
    if (pending === null) {
      return this.#run(vcpu);
    }
    vcpu.pending = null;
    switch (pending) {
      case 'release':
        this.#release(vcpu, '-EINTR');
        return { kind: 'answered', exit: 'EINTR' };
      case 'memory-fault':
        return this.#afterAnswer(vcpu, this.#memoryFault(vcpu), KvmExit.KVM_EXIT_MEMORY_FAULT);
      case 'exit': {
        const reason = readU32(vcpu.run, EXIT_REASON);
        return this.#afterAnswer(vcpu, this.#answer(vcpu, reason), reason);
      }
    }
  }

  /** Sends a vCPU an interrupt: a halted one goes on. Without a VM it reaches nobody. */
  interrupt(vcpuId: number): void {
    const vm = this.#vm;
    if (vm !== null) {
      const address_lo = (MSI_ADDRESS | ((vcpuId & 0xff) << 12)) >>> 0;
      writeU32(this.#msi, MSI_ADDRESS_LO, address_lo);
      writeU32(this.#msi, MSI_ADDRESS_HI, vcpuId & ~0xff);
      vm.calls.ioctl(vm.vmFd, KvmIoctl.KVM_SIGNAL_MSI, this.#msi);
    }
  }

  /** Ends the guest and the process that was its VMM: locks are released, the kernel takes all back. */
  close(): void {
    this.#finish({ stop: { kind: 'closed' }, vcpu: null });
    this.#vm = null;
    const { process: vmmProcess } = this.#options;
    vmmProcess.exit();
  }

  #run(vcpu: Vcpu): StepOutcome {
    const outcome = this.#options.process.run(vcpu.fd);
    if (outcome.blocked === true) {
      return { kind: 'blocked', wakeAtMs: outcome.wakeAtMs };
    }
    const { ret } = outcome;
    if (vcpu.held !== null) {
      if (ret === -Errno.EINTR) {
        vcpu.pending = 'release';
        return { kind: 'ran', ret, exit: 'EINTR' };
      }
      // Not what the contract promises, and the lock must not outlive the request in any case.
      this.#log(`KVM_RUN returned ${retName(ret)} where -EINTR was due`);
      this.#release(vcpu, retName(ret));
    }
    if (ret === 0) {
      vcpu.pending = 'exit';
      return { kind: 'ran', ret, exit: kvmExitName(readU32(vcpu.run, EXIT_REASON)) };
    }
    if (ret === -Errno.EINTR || ret === -Errno.EAGAIN) {
      return { kind: 'ran', ret, exit: null };
    }
    const fault = ret === -Errno.EFAULT || ret === -Errno.EHWPOISON;
    if (fault && readU32(vcpu.run, EXIT_REASON) === KvmExit.KVM_EXIT_MEMORY_FAULT) {
      vcpu.pending = 'memory-fault';
      return { kind: 'ran', ret, exit: kvmExitName(KvmExit.KVM_EXIT_MEMORY_FAULT) };
    }
    return this.#stopped({ kind: 'run-failed', errno: -ret }, vcpu);
  }

  /** Answers an exit. Null: the vCPU goes on. */
  #answer(vcpu: Vcpu, reason: number): VmStop | null {
    const { run } = vcpu;
    switch (reason) {
      case KvmExit.KVM_EXIT_HYPERCALL:
        writeU64(run, HYPERCALL_RET, BigInt.asUintN(64, BigInt(-this.#hypercall(run))));
        return null;
      case KvmExit.KVM_EXIT_SNP_REQ_CERTS:
        this.#requestCertificates(vcpu);
        return null;
      case KvmExit.KVM_EXIT_IO:
        this.#io(run);
        return null;
      case KvmExit.KVM_EXIT_MMIO:
        this.#mmio(run);
        return null;
      case KvmExit.KVM_EXIT_X86_RDMSR:
      case KvmExit.KVM_EXIT_X86_WRMSR:
        KvmRunMsr.set(run, 'error', 1);
        return null;
      case KvmExit.KVM_EXIT_INTR:
      case KvmExit.KVM_EXIT_HLT:
        return null;
      case KvmExit.KVM_EXIT_SYSTEM_EVENT:
        return systemEvent(run);
      case KvmExit.KVM_EXIT_SHUTDOWN:
        return { kind: 'shutdown' };
      case KvmExit.KVM_EXIT_FAIL_ENTRY:
        return {
          kind: 'fail-entry',
          hardwareReason: KvmRunFailEntry.get(run, 'hardware_entry_failure_reason'),
        };
      default:
        return { kind: 'unhandled-exit', exitReason: reason };
    }
  }

  #afterAnswer(vcpu: Vcpu, stop: VmStop | null, reason: number): StepOutcome {
    return stop === null ? { kind: 'answered', exit: kvmExitName(reason) } : this.#stopped(stop, vcpu);
  }

  /** Returns 0 or a positive errno for the guest. */
  #hypercall(run: Uint8Array): number {
    if (readU64(run, HYPERCALL_NR) !== BigInt(KvmHypercall.KVM_HC_MAP_GPA_RANGE)) {
      return Errno.ENOSYS;
    }
    const gpa = readU64(run, HYPERCALL_ARGS);
    const npages = readU64(run, HYPERCALL_ARGS + 8);
    const attributes = readU64(run, HYPERCALL_ARGS + 16);
    const toPrivate = (attributes & BigInt(KvmMapGpaRange.KVM_MAP_GPA_RANGE_ENCRYPTED)) !== 0n;
    return this.#convert(gpa, npages, toPrivate);
  }

  /** Makes pages private or shared; 0 or a positive errno. */
  #convert(gpa: bigint, npages: bigint, toPrivate: boolean): number {
    if (gpa % PAGE !== 0n || npages === 0n || npages > MAX_FRAMES || gpa / PAGE + npages > MAX_FRAMES) {
      return Errno.EINVAL;
    }
    const { ram, calls, vmFd } = this.#launchedVm();
    const from = Number(gpa / PAGE);
    const range = { from, to: from + Number(npages) };
    const parts = ram.resolve(range);
    if (parts === null) {
      // Memory-mapped devices are shared already; a guest that says so once more is right.
      return !toPrivate && ram.isUnbacked(range) ? 0 : Errno.EINVAL;
    }
    writeU64(this.#attributes, 0, gpa);
    writeU64(this.#attributes, 8, npages * PAGE);
    writeU64(this.#attributes, 16, toPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n);
    const ret = calls.ioctl(vmFd, KvmIoctl.KVM_SET_MEMORY_ATTRIBUTES, this.#attributes);
    if (ret !== 0) {
      return -ret;
    }
    ram.markPrivate(range, toPrivate);
    if (!toPrivate) {
      for (const { block, blockPage, from: first, to } of parts) {
        const mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
        const offset = blockPage * PAGE_SIZE;
        this.#options.process.fallocate(block.guestMemfd, mode, offset, (to - first) * PAGE_SIZE);
      }
    }
    return 0;
  }

  /** Steps 3 and, for what goes wrong before the firmware is asked, the end of the request. */
  #requestCertificates(vcpu: Vcpu): void {
    const { run } = vcpu;
    const gpa = readU64(run, REQ_CERTS_GPA);
    const npages = readU64(run, REQ_CERTS_NPAGES);
    invariant(this.#certs !== null, 'KVM_EXIT_SNP_REQ_CERTS comes only where it was enabled');
    const answer = this.#certs.serve(gpa, npages);
    writeU64(run, REQ_CERTS_NPAGES, answer.npages);
    writeU64(run, REQ_CERTS_RET, BigInt(answer.ret));
    vcpu.held = answer.held;
    if (answer.held !== null) {
      run[IMMEDIATE_EXIT] = 1;
    }
  }

  /** An implicit conversion: the guest accessed a page in the state it is not in. */
  #memoryFault(vcpu: Vcpu): VmStop | null {
    const gpa = KvmRunMemoryFault.get(vcpu.run, 'gpa');
    const size = KvmRunMemoryFault.get(vcpu.run, 'size');
    const toPrivate = (KvmRunMemoryFault.get(vcpu.run, 'flags') & KVM_MEMORY_EXIT_FLAG_PRIVATE) !== 0n;
    const errno = this.#convert(gpa, size / PAGE, toPrivate);
    if (errno === 0) {
      return null;
    }
    this.#log(
      `vCPU ${vcpu.id} accessed 0x${gpa.toString(16)} as ${toPrivate ? 'private' : 'shared'}: ${errnoName(errno)}`,
    );
    return { kind: 'run-failed', errno: Errno.EFAULT };
  }

  /** No device answers: reads give all ones, writes go nowhere. */
  #io(run: Uint8Array): void {
    const size = KvmRunIo.get(run, 'size');
    const port = KvmRunIo.get(run, 'port');
    if (KvmRunIo.get(run, 'direction') === KvmIoDirection.KVM_EXIT_IO_IN) {
      const at = Number(KvmRunIo.get(run, 'data_offset'));
      run.fill(0xff, at, at + size * KvmRunIo.get(run, 'count'));
    }
    this.#unansweredOnce(`port 0x${port.toString(16)}`);
  }

  #mmio(run: Uint8Array): void {
    if (KvmRunMmio.get(run, 'is_write') === 0) {
      KvmRunMmio.set(run, 'data', new Uint8Array(8).fill(0xff));
    }
    this.#unansweredOnce(`address 0x${(KvmRunMmio.get(run, 'phys_addr') / PAGE).toString(16)}000`);
  }

  /** A guest can name any number of places; the log takes a few. */
  #unansweredOnce(place: string): void {
    if (this.#unanswered.size < 64 && !this.#unanswered.has(place)) {
      this.#unanswered.add(place);
      this.#log(`no device at ${place}`);
    }
  }

  #release(vcpu: Vcpu, because: string): void {
    vcpu.held?.release(because);
    vcpu.held = null;
    vcpu.run[IMMEDIATE_EXIT] = 0;
  }

  #stopped(stop: VmStop, vcpu: Vcpu): StepOutcome {
    const end = { stop, vcpu: vcpu.id };
    this.#finish(end);
    return { kind: 'stopped', end };
  }

  #finish(end: VmEnd): void {
    if (this.#end !== null) {
      return;
    }
    this.#end = end;
    for (const vcpu of this.#vcpus) {
      this.#release(vcpu, 'never: the VM stopped');
    }
    this.#log(formatStop(end));
  }

  #launchedVm(): LaunchedVm {
    invariant(this.#vm !== null, 'the guest is launched');
    return this.#vm;
  }

  #log(line: string): void {
    this.#options.onLog?.(line);
  }
}

const retName = (ret: number): string => (ret < 0 ? `-${errnoName(ret)}` : String(ret));

function systemEvent(run: Uint8Array): VmStop {
  const [data = 0n] = KvmRunSystemEvent.get(run, 'data');
  switch (KvmRunSystemEvent.get(run, 'type')) {
    case KvmSystemEvent.KVM_SYSTEM_EVENT_SEV_TERM:
      return terminationOf(data);
    case KvmSystemEvent.KVM_SYSTEM_EVENT_SHUTDOWN:
    case KvmSystemEvent.KVM_SYSTEM_EVENT_RESET:
    case KvmSystemEvent.KVM_SYSTEM_EVENT_CRASH:
      return { kind: 'shutdown' };
    default:
      return { kind: 'unhandled-exit', exitReason: KvmExit.KVM_EXIT_SYSTEM_EVENT };
  }
}
