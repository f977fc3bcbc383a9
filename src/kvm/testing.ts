// SPDX-License-Identifier: Apache-2.0
/** What KVM's tests share: a host, a small VMM that makes one call at a time, and guest code. */
import { Errno } from '../abi/errno.ts';
import {
  GHCB_VALID_BITMAP_OFFSET,
  GhcbExit,
  type GhcbField,
  GhcbOffset,
  type GhcbQuad,
  ghcbFieldIsValid,
  ghcbGet,
  ghcbPut,
} from '../abi/ghcb.ts';
import { GHCB_MSR_REG_GPA_REQ } from '../abi/ghcb-msr.ts';
import { type GuestAnswer, type GuestOp, type GuestProgram, ProgramEngine } from '../abi/guest-ops.ts';
import {
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KvmCap,
  KvmExit,
  KvmIoctl,
  KvmMapGpaRange,
  KvmMemFlag,
  KvmVmType,
} from '../abi/kvm.ts';
import { KvmRun, KvmRunHypercall, KvmRunMemoryFault } from '../abi/kvm-run.ts';
import {
  KvmSevCmd,
  KvmSevCmdId,
  KvmSevInit,
  KvmSevSnpLaunchFinish,
  KvmSevSnpLaunchStart,
  KvmSevSnpLaunchUpdate,
  KvmSevSnpPageType,
} from '../abi/kvm-sev.ts';
import {
  KvmCreateGuestMemfd,
  KvmEnableCap,
  KvmMemoryAttributes,
  KvmMpState,
  KvmUserspaceMemoryRegion2,
} from '../abi/kvm-structs.ts';
import { Msr } from '../abi/msrs.ts';
import { defaultChip, SecureProcessor } from '../firmware/secure-processor.ts';
import { Hardware } from '../hw/hardware.ts';
import { type Gpa, gpa, PAGE_SIZE, type Spa, type Uaddr, uaddr } from '../lib/addresses.ts';
import { VirtualClock } from '../lib/clock.ts';
import type { DecodedFields, FieldTable, Layout } from '../lib/struct.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import type { PspMailbox } from './ccp.ts';
import type { KvmEvent, RunOutcome } from './contract.ts';
import { HostKernel, type HostKernelOptions } from './host-kernel.ts';
import type { HostProcess } from './host-process.ts';

export type Program = (vcpuId: number, vmsa: Uint8Array) => GuestProgram;

/** A guest that is at its end at once. */
export const NOTHING: Program = () => (function* nothing() {})();

/** A secure processor in front of which a test can put its own answers. */
export class TestMailbox implements PspMailbox {
  readonly #psp: SecureProcessor;
  /** Answers instead of the firmware; null: ask it. */
  intercept: (id: number, bufferAt: Spa) => number | 'timeout' | null = () => null;
  readonly commands: number[] = [];

  constructor(psp: SecureProcessor) {
    this.#psp = psp;
  }

  command(id: number, bufferAt: Spa): number | 'timeout' {
    this.commands.push(id);
    return this.intercept(id, bufferAt) ?? this.#psp.command(id, bufferAt);
  }
}

export class TestHost {
  readonly clock = new VirtualClock(1_700_000_000_000);
  readonly hw: Hardware;
  readonly psp: TestMailbox;
  readonly kernel: HostKernel;
  readonly events: KvmEvent[] = [];
  program: Program;

  constructor(program: Program = NOTHING, options: Partial<HostKernelOptions> = {}) {
    const crypto = nodeCrypto({ deterministic: true });
    this.program = program;
    this.hw = new Hardware(crypto);
    const chip = defaultChip(crypto, 'Milan', new Uint8Array(32).fill(7));
    this.psp = new TestMailbox(new SecureProcessor({ hw: this.hw, crypto, random: seededRandom(1), chip }));
    this.kernel = new HostKernel({
      hw: this.hw,
      psp: this.psp,
      clock: this.clock,
      engines: (_, vcpuId, vmsa) => new ProgramEngine(this.program(vcpuId, vmsa)),
      onEvent: (event) => this.events.push(event),
      ...options,
    });
  }

  /** A process with /dev/kvm and /dev/sev open. */
  user(name = 'vmm'): TestUser {
    return new TestUser(this, this.kernel.spawn(name));
  }
}

const SCRATCH_PAGES = 4;

/** A process and a page for the arguments of its calls. */
export class TestUser {
  readonly host: TestHost;
  readonly process: HostProcess;
  readonly kvm: number;
  readonly sev: number;
  readonly scratch: Uaddr;

  constructor(host: TestHost, process: HostProcess) {
    this.host = host;
    this.process = process;
    this.kvm = process.openDevKvm();
    this.sev = process.openDevSev({ write: true });
    this.scratch = process.mmap(SCRATCH_PAGES * PAGE_SIZE);
  }

  put(bytes: Uint8Array, offset = 0): Uaddr {
    const at = uaddr(this.scratch + BigInt(offset));
    if (!this.process.write(at, bytes)) {
      throw new RangeError('the scratch area is gone');
    }
    return at;
  }

  take(length: number, offset = 0): Uint8Array {
    return this.process.read(uaddr(this.scratch + BigInt(offset)), length)!;
  }

  ioctl(fd: number, nr: number, bytes: Uint8Array): number {
    return this.process.ioctl(fd, nr, this.put(bytes));
  }

  /** A structure an ioctl fills; the errno when it fails. */
  get<F extends FieldTable>(fd: number, nr: number, layout: Layout<F>): DecodedFields<F> | number {
    const ret = this.ioctl(fd, nr, new Uint8Array(layout.size));
    return ret < 0 ? ret : layout.decodeLoose(this.take(layout.size));
  }

  createVm(type: number = KvmVmType.KVM_X86_SNP_VM): number {
    return this.process.ioctl(this.kvm, KvmIoctl.KVM_CREATE_VM, BigInt(type));
  }
}

/** Where a test VM's memory is: 16 MiB from 0, the second of it shared. */
export const RAM_SIZE = 16 * 1024 * 1024;
export const SHARED_AT = 0x10_0000;
export const SHARED_SIZE = 0x10_0000;
export const GHCB_GPA = gpa(BigInt(SHARED_AT));
export const DATA_GPA = gpa(BigInt(SHARED_AT + 0x1_0000));
export const PRIVATE_GPA = gpa(0x40_0000n);
export const POLICY = 0x30000n;

const SEV_ERROR_UNTOUCHED = 0x5eed;

/** A VM and its VMM, one call at a time. */
export class TestVm {
  readonly user: TestUser;
  readonly fd: number;
  ram: Uaddr = uaddr(0n);
  gmem = -1;
  readonly vcpus: number[] = [];
  /** `error` of the last KVM_MEMORY_ENCRYPT_OP. */
  sevError = SEV_ERROR_UNTOUCHED;

  constructor(user: TestUser, type: number = KvmVmType.KVM_X86_SNP_VM) {
    this.user = user;
    this.fd = user.createVm(type);
  }

  sevOp(id: number, data: Uint8Array | null, sevFd = this.user.sev): number {
    const at = data === null ? 0n : this.user.put(data, 0x800);
    return this.sevOpAt(id, at, sevFd);
  }

  sevOpAt(id: number, data: bigint, sevFd = this.user.sev): number {
    const envelope = KvmSevCmd.encode({ id, data, error: SEV_ERROR_UNTOUCHED, sev_fd: sevFd });
    const at = this.user.put(envelope, 0x400);
    const ret = this.user.process.ioctl(this.fd, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, at);
    this.sevError = KvmSevCmd.get(this.user.take(KvmSevCmd.size, 0x400), 'error');
    return ret;
  }

  /** The firmware's status, or null when no firmware command ran. */
  get fwStatus(): number | null {
    return this.sevError === SEV_ERROR_UNTOUCHED ? null : this.sevError;
  }

  enableCap(cap: number, arg: bigint): number {
    const request = KvmEnableCap.encode({ cap, args: [arg, 0n, 0n, 0n] });
    return this.user.ioctl(this.fd, KvmIoctl.KVM_ENABLE_CAP, request);
  }

  irqchip(): number {
    return this.user.process.ioctl(this.fd, KvmIoctl.KVM_CREATE_IRQCHIP, 0n);
  }

  init2(fields: Partial<KvmSevInit> = {}): number {
    return this.sevOp(KvmSevCmdId.KVM_SEV_INIT2, KvmSevInit.encode(fields));
  }

  enableReqCerts(): number {
    return this.sevOp(KvmSevCmdId.KVM_SEV_SNP_ENABLE_REQ_CERTS, null);
  }

  createGmem(size: number): number {
    const request = KvmCreateGuestMemfd.encode({ size: BigInt(size) });
    return this.user.ioctl(this.fd, KvmIoctl.KVM_CREATE_GUEST_MEMFD, request);
  }

  setRegion(fields: Partial<KvmUserspaceMemoryRegion2>): number {
    const request = KvmUserspaceMemoryRegion2.encode(fields);
    return this.user.ioctl(this.fd, KvmIoctl.KVM_SET_USER_MEMORY_REGION2, request);
  }

  setAttributes(at: number | bigint, size: number | bigint, isPrivate: boolean): number {
    const request = KvmMemoryAttributes.encode({
      address: BigInt(at),
      size: BigInt(size),
      attributes: isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n,
    });
    return this.user.ioctl(this.fd, KvmIoctl.KVM_SET_MEMORY_ATTRIBUTES, request);
  }

  /** Memory of `size` bytes at 0, all private but the shared mebibyte. */
  addMemory(size = RAM_SIZE): void {
    this.ram = this.user.process.mmap(size);
    this.gmem = this.createGmem(size);
    this.setRegion({
      slot: 0,
      flags: KvmMemFlag.KVM_MEM_GUEST_MEMFD,
      memory_size: BigInt(size),
      userspace_addr: this.ram,
      guest_memfd: this.gmem,
    });
    this.setAttributes(0, size, true);
    this.setAttributes(SHARED_AT, SHARED_SIZE, false);
  }

  launchStart(policy = POLICY, fields: Partial<KvmSevSnpLaunchStart> = {}, sevFd = this.user.sev): number {
    const request = KvmSevSnpLaunchStart.encode({ policy, ...fields });
    return this.sevOp(KvmSevCmdId.KVM_SEV_SNP_LAUNCH_START, request, sevFd);
  }

  launchUpdate(fields: Partial<KvmSevSnpLaunchUpdate>, sevFd = this.user.sev): number {
    const request = KvmSevSnpLaunchUpdate.encode({
      type: KvmSevSnpPageType.KVM_SEV_SNP_PAGE_TYPE_NORMAL,
      ...fields,
    });
    return this.sevOp(KvmSevCmdId.KVM_SEV_SNP_LAUNCH_UPDATE, request, sevFd);
  }

  /** What the last launchUpdate left in its structure. */
  get launchUpdateLeft(): KvmSevSnpLaunchUpdate {
    return KvmSevSnpLaunchUpdate.decodeLoose(this.user.take(KvmSevSnpLaunchUpdate.size, 0x800));
  }

  launchFinish(fields: Partial<KvmSevSnpLaunchFinish> = {}, sevFd = this.user.sev): number {
    const request = KvmSevSnpLaunchFinish.encode(fields);
    return this.sevOp(KvmSevCmdId.KVM_SEV_SNP_LAUNCH_FINISH, request, sevFd);
  }

  createVcpu(id = this.vcpus.length): number {
    const fd = this.user.process.ioctl(this.fd, KvmIoctl.KVM_CREATE_VCPU, BigInt(id));
    if (fd >= 0) {
      this.vcpus.push(fd);
    }
    return fd;
  }

  /** kvm_run of a vCPU. */
  run(index = 0): Uint8Array {
    return this.user.process.mmapVcpu(this.vcpus[index]!);
  }

  /** KVM_RUN. */
  enter(index = 0): RunOutcome {
    return this.user.process.run(this.vcpus[index]!);
  }

  exitReason(index = 0): number {
    return KvmRun.get(this.run(index), 'exit_reason');
  }

  setMpState(index: number, mp_state: number): number {
    return this.user.ioctl(this.vcpus[index]!, KvmIoctl.KVM_SET_MP_STATE, KvmMpState.encode({ mp_state }));
  }

  mpState(index = 0): number {
    const state = this.user.get(this.vcpus[index]!, KvmIoctl.KVM_GET_MP_STATE, KvmMpState);
    return typeof state === 'number' ? state : state.mp_state;
  }

  /** Bytes of the shared backing of a guest address. */
  peek(at: bigint, length: number): Uint8Array {
    return this.user.process.read(uaddr(this.ram + at), length)!;
  }

  poke(at: bigint, data: Uint8Array): void {
    this.user.process.write(uaddr(this.ram + at), data);
  }

  punchHole(at: number, size: number): number {
    return this.user.process.fallocate(this.gmem, 3, at, size);
  }

  /** Serves page state changes and memory faults until something else comes up. */
  enterServing(index = 0): RunOutcome {
    for (;;) {
      const outcome = this.enter(index);
      const run = this.run(index);
      if (outcome.ret === 0 && this.exitReason(index) === KvmExit.KVM_EXIT_HYPERCALL) {
        const [at, npages, attributes] = KvmRunHypercall.get(run, 'args');
        const isPrivate = (attributes! & BigInt(KvmMapGpaRange.KVM_MAP_GPA_RANGE_ENCRYPTED)) !== 0n;
        const ret = this.setAttributes(at!, npages! << 12n, isPrivate);
        KvmRunHypercall.set(run, 'ret', BigInt(-ret));
      } else if (outcome.ret === -Errno.EFAULT && this.exitReason(index) === KvmExit.KVM_EXIT_MEMORY_FAULT) {
        const isPrivate = KvmRunMemoryFault.get(run, 'flags') !== 0n;
        this.setAttributes(KvmRunMemoryFault.get(run, 'gpa'), PAGE_SIZE, isPrivate);
      } else {
        return outcome;
      }
    }
  }
}

export interface LaunchedOptions {
  readonly vcpus?: number;
  readonly irqchip?: boolean;
  readonly certs?: boolean;
  readonly hypercalls?: boolean;
  readonly memory?: number;
  readonly ghcbVersion?: number;
  readonly host?: Partial<HostKernelOptions>;
}

/** An SNP VM after LAUNCH_FINISH; its vCPUs run `program`. */
export function launched(program: Program, options: LaunchedOptions = {}): { host: TestHost; vm: TestVm } {
  const host = new TestHost(program, options.host);
  const vm = new TestVm(host.user());
  if (options.hypercalls ?? true) {
    vm.enableCap(KvmCap.KVM_CAP_EXIT_HYPERCALL, 1n << 12n);
  }
  if (options.irqchip ?? true) {
    vm.irqchip();
  }
  vm.init2({ ghcb_version: options.ghcbVersion ?? 0 });
  if (options.certs ?? false) {
    vm.enableReqCerts();
  }
  vm.addMemory(options.memory);
  vm.launchStart();
  for (let id = 0; id < (options.vcpus ?? 1); id++) {
    vm.createVcpu();
  }
  const ret = vm.launchFinish();
  if (ret !== 0) {
    throw new RangeError(`launch failed: ${ret}, status ${vm.fwStatus}`);
  }
  return { host, vm };
}

export type Guest<T> = Generator<GuestOp, T, GuestAnswer>;

export function* writeShared(at: Gpa, data: Uint8Array): Guest<void> {
  yield { op: 'write', gpa: at, data, encrypted: false };
}

export function* readShared(at: Gpa, length: number): Guest<Uint8Array> {
  return (yield { op: 'read', gpa: at, length, encrypted: false }) as Uint8Array;
}

/** One exchange through the GHCB MSR. */
export function* msrCall(request: bigint): Guest<bigint> {
  yield { op: 'wrmsr', msr: Msr.MSR_AMD64_SEV_ES_GHCB, value: request };
  yield { op: 'vmgexit' };
  return (yield { op: 'rdmsr', msr: Msr.MSR_AMD64_SEV_ES_GHCB }) as bigint;
}

export function* registerGhcb(at: Gpa = GHCB_GPA): Guest<void> {
  yield* msrCall(at | BigInt(GHCB_MSR_REG_GPA_REQ));
}

export interface GhcbCall {
  readonly code: number | bigint;
  readonly info1?: bigint;
  readonly info2?: bigint;
  readonly fields?: Partial<Record<GhcbQuad, bigint>>;
  readonly cpl?: number;
  readonly usage?: number;
  /** Fields whose valid bit is left clear. */
  readonly without?: readonly GhcbField[];
  /** Bytes for the shared buffer at 0x800. */
  readonly buffer?: Uint8Array;
}

export class GhcbAnswer {
  readonly page: Uint8Array;

  constructor(page: Uint8Array) {
    this.page = page;
  }

  get info1(): bigint {
    return ghcbGet(this.page, 'sw_exit_info_1');
  }

  get info2(): bigint {
    return ghcbGet(this.page, 'sw_exit_info_2');
  }

  get(field: GhcbQuad): bigint {
    return ghcbGet(this.page, field);
  }

  isValid(field: GhcbField): boolean {
    return ghcbFieldIsValid(this.page, field, GHCB_VALID_BITMAP_OFFSET);
  }

  /** [SW_EXITINFO1, SW_EXITINFO2]. */
  get infos(): readonly [bigint, bigint] {
    return [this.info1, this.info2];
  }
}

/** The page a guest fills for one event. */
export function ghcbPage({ code, info1 = 0n, info2 = 0n, fields = {}, ...rest }: GhcbCall): Uint8Array {
  const page = new Uint8Array(PAGE_SIZE);
  ghcbPut(page, 'sw_exit_code', BigInt(code));
  ghcbPut(page, 'sw_exit_info_1', info1);
  ghcbPut(page, 'sw_exit_info_2', info2);
  for (const [field, value] of Object.entries(fields)) {
    ghcbPut(page, field as GhcbQuad, value);
  }
  if (rest.cpl !== undefined) {
    page[GhcbOffset.cpl] = rest.cpl;
    page[GHCB_VALID_BITMAP_OFFSET + 3]! |= 2;
  }
  for (const field of rest.without ?? []) {
    const bit = GhcbOffset[field] >> 3;
    page[GHCB_VALID_BITMAP_OFFSET + (bit >> 3)]! &= ~(1 << (bit & 7));
  }
  page[0xffc] = rest.usage ?? 0;
  page.set(rest.buffer ?? new Uint8Array(0), 0x800);
  return page;
}

/** One event through the GHCB page, which must be registered. */
export function* ghcbCall(call: GhcbCall, at: Gpa = GHCB_GPA): Guest<GhcbAnswer> {
  yield* writeShared(at, ghcbPage(call));
  yield { op: 'wrmsr', msr: Msr.MSR_AMD64_SEV_ES_GHCB, value: at };
  yield { op: 'vmgexit' };
  return new GhcbAnswer(yield* readShared(at, PAGE_SIZE));
}

/** Registers the GHCB and makes the calls one after another, keeping the answers. */
export function callingProgram(calls: readonly GhcbCall[], answers: GhcbAnswer[]): Program {
  return () =>
    (function* program(): GuestProgram {
      yield* registerGhcb();
      for (const call of calls) {
        answers.push(yield* ghcbCall(call));
      }
    })();
}

export const GHCB_SHARED_BUFFER = GHCB_GPA + 0x800n;

/** A page state change of entries in the GHCB's shared buffer. */
export const pscCall = (buffer: Uint8Array, scratch = GHCB_SHARED_BUFFER): GhcbCall => ({
  code: GhcbExit.SVM_VMGEXIT_PSC,
  fields: { sw_scratch: scratch },
  buffer,
});
