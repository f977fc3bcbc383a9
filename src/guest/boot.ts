// SPDX-License-Identifier: Apache-2.0
/**
 * What happens from the reset vector to a running kernel: firmware and Linux taken together, because the
 * hypervisor sees one guest.
 */
import { CPUID_PAGE_MAX_ENTRIES, type CpuidEntry, CpuidPage } from '../abi/cpuid-page.ts';
import { ApCreation, ApCreationInfo, GHCB_HV_FT_SNP_AP_CREATION, GhcbExit } from '../abi/ghcb.ts';
import { GhcbCpuidReg } from '../abi/ghcb-msr.ts';
import { Msr, SevStatusMsr } from '../abi/msrs.ts';
import { type Gpa, gfnOf, PAGE_SIZE } from '../lib/addresses.ts';
import type { Clock } from '../lib/clock.ts';
import { apVmsa, TRAMPOLINE_START_IP } from './ap-vmsa.ts';
import { type Guest, hlt, rdmsr, readPrivate, rmpadjust, sleepMs, writePrivate, wrmsr } from './cpu.ts';
import {
  EsResult,
  GhcbPage,
  hypervisorCpuid,
  hypervisorFeatures,
  negotiateProtocol,
  registerGhcb,
  terminateGeneric,
  terminateLinux,
} from './ghcb.ts';
import { type GuestMemoryMap, KernelPages, withoutRanges } from './memory-map.ts';
import { setMemoryPrivate, setMemoryShared, setPagePrivateEarly, setPageSharedEarly } from './page-state.ts';

export interface BootOptions {
  readonly memoryMap: GuestMemoryMap;
  /** Null when the image has no such section: the guest gives up. */
  readonly secretsGpa: Gpa | null;
  readonly cpuidGpa: Gpa | null;
  readonly vcpus: number;
  readonly clock: Clock;
  readonly onLog?: ((line: string) => void) | undefined;
}

/** What the boot processor knows when the system is up. */
export interface Booted {
  readonly pages: KernelPages;
  readonly ghcb: GhcbPage;
  readonly secretsGpa: Gpa;
  readonly protocolVersion: number;
  readonly cpuid: readonly CpuidEntry[];
  /** Application processors asked for and refused, or never seen. */
  readonly missing: readonly number[];
}

/** Boots on vCPU 0. `online` fills as application processors come up. */
export function* bootProcessor(options: BootOptions, online: Set<number>): Guest<Booted> {
  const { memoryMap, vcpus, onLog } = options;
  if (options.cpuidGpa === null) {
    return yield* terminateLinux('GHCB_TERM_CPUID');
  }
  const cpuid = yield* readCpuidTable(options.cpuidGpa);
  const sevStatus = yield* rdmsr(Msr.MSR_AMD64_SEV);
  const protocolVersion = yield* negotiateProtocol();
  const features = yield* hypervisorFeatures();
  if (SevStatusMsr.fromWord(sevStatus).sev_snp === 0) {
    return yield* terminateGeneric('GHCB_SNP_UNSUPPORTED');
  }
  if (options.secretsGpa === null) {
    return yield* terminateLinux('GHCB_TERM_SECRETS_PAGE');
  }
  const pages = KernelPages.place(memoryMap, vcpus);
  if (pages === null) {
    onLog?.('no room for the kernel: give the guest more memory');
    return yield* terminateGeneric('GHCB_SEV_ES_GEN_REQ');
  }

  const ghcb = yield* openGhcb(pages.ghcb(0), protocolVersion);
  const ghcbFrame = gfnOf(pages.ghcb(0));
  const early = { from: ghcbFrame, to: ghcbFrame + 1 };
  for (const range of withoutRanges(memoryMap.ram, [...memoryMap.launched, early])) {
    yield* setMemoryPrivate(ghcb, range);
  }
  for (const range of withoutRanges([pages.shared], [early])) {
    yield* setMemoryShared(ghcb, range);
  }
  yield* checkOwnCpuid(cpuid);

  online.add(0);
  const asked = yield* createProcessors({ pages, ghcb, vcpus, features, sevStatus, onLog });
  const missing = yield* awaitProcessors(asked, online, options.clock);
  for (const id of missing) {
    onLog?.(`CPU${id} failed to report alive state`);
  }
  return { pages, ghcb, secretsGpa: options.secretsGpa, protocolVersion, cpuid, missing };
}

/** What an application processor does once its save area runs; it never comes back. */
export function* applicationProcessor(id: number, ghcbGpa: Gpa, online: Set<number>): Guest<void> {
  yield* registerGhcb(ghcbGpa);
  yield* wrmsr(Msr.MSR_AMD64_SEV_ES_GHCB, ghcbGpa);
  online.add(id);
  for (;;) {
    yield* hlt();
  }
}

/**
 * Makes a page the GHCB with nothing but the MSR protocol. While the page is still private it also shows
 * that this code runs at VMPL0: only there can it change the permissions of VMPL1.
 */
function* openGhcb(at: Gpa, protocolVersion: number): Guest<GhcbPage> {
  const frame = gfnOf(at);
  yield* setPagePrivateEarly(frame);
  if ((yield* rmpadjust(at, 1, 0, false)) !== 0) {
    yield* terminateLinux('GHCB_TERM_NOT_VMPL0');
  }
  yield* setPageSharedEarly(frame);
  yield* registerGhcb(at);
  return new GhcbPage(at, protocolVersion);
}

function* readCpuidTable(at: Gpa): Guest<readonly CpuidEntry[]> {
  const { count, entries } = CpuidPage.decodeLoose(yield* readPrivate(at, PAGE_SIZE));
  if (count === 0 || count > CPUID_PAGE_MAX_ENTRIES) {
    return yield* terminateLinux('GHCB_TERM_CPUID');
  }
  return entries.slice(0, count);
}

/** The table says what the CPU is; only the hypervisor knows which of the CPUs this one is. */
function* checkOwnCpuid(table: readonly CpuidEntry[]): Guest<void> {
  if (!table.some(({ eax_in }) => eax_in === 1)) {
    yield* terminateLinux('GHCB_TERM_CPUID');
  }
  yield* hypervisorCpuid(1, GhcbCpuidReg.GHCB_CPUID_REQ_EBX);
}

interface ProcessorOptions {
  readonly pages: KernelPages;
  readonly ghcb: GhcbPage;
  readonly vcpus: number;
  readonly features: number;
  readonly sevStatus: bigint;
  readonly onLog: ((line: string) => void) | undefined;
}

const CR4_MCE = 0x40n;
const VMPL0 = 0;

/** Creates every application processor; returns those the hypervisor accepted. */
function* createProcessors(options: ProcessorOptions): Guest<readonly number[]> {
  const { pages, ghcb, vcpus, features, sevStatus, onLog } = options;
  const asked: number[] = [];
  if (vcpus > 1 && (features & GHCB_HV_FT_SNP_AP_CREATION) === 0) {
    onLog?.('the hypervisor has no SNP AP creation: running on one CPU');
    return asked;
  }
  const sevFeatures = sevStatus >> 2n;
  for (let id = 1; id < vcpus; id++) {
    const at = pages.vmsa(id);
    yield* writePrivate(at, apVmsa(TRAMPOLINE_START_IP, CR4_MCE, VMPL0, sevFeatures));
    // The VMSA bit can only be set together with the permissions of a lower level, so VMPL1 it is.
    const set = yield* rmpadjust(at, 1, 0, true);
    if (set !== 0) {
      onLog?.(`CPU${id}: set VMSA page failed (${set})`);
      continue;
    }
    ghcb.invalidate();
    ghcb.put('rax', sevFeatures);
    const info1 = ApCreationInfo.toWord({
      request: ApCreation.SVM_VMGEXIT_AP_CREATE,
      vmpl: VMPL0,
      apic_id: id,
    });
    const result = yield* ghcb.call(GhcbExit.SVM_VMGEXIT_AP_CREATION, info1, at);
    if (result !== EsResult.ES_OK || !ghcb.answered('sw_exit_info_1')) {
      onLog?.(`CPU${id}: SNP AP creation error`);
      continue;
    }
    asked.push(id);
  }
  return asked;
}

/** How long Linux waits for a processor to report. */
const BRINGUP_TIMEOUT_MS = 10_000;
const BRINGUP_POLL_MS = 10;

/** Gives the others their turn until they are up; returns those that never were. */
function* awaitProcessors(
  asked: readonly number[],
  online: ReadonlySet<number>,
  clock: Clock,
): Guest<readonly number[]> {
  const deadlineMs = clock.monotonicMs() + BRINGUP_TIMEOUT_MS;
  const missing = (): readonly number[] => asked.filter((id) => !online.has(id));
  for (let turns = 0; missing().length > 0 && clock.monotonicMs() < deadlineMs; turns++) {
    yield* sleepMs(turns <= asked.length ? 0 : BRINGUP_POLL_MS);
  }
  return missing();
}
