// SPDX-License-Identifier: Apache-2.0
/** The host's Linux kernel as far as SNP needs it: processes, the ccp driver and KVM. */
import { SVM_SEV_FEAT_DEBUG_SWAP } from '../abi/vmsa.ts';
import type { Hardware } from '../hw/hardware.ts';
import type { Clock } from '../lib/clock.ts';
import { AsidPools, DEFAULT_CPU, type HostCpu } from './asids.ts';
import { Ccp, type PspMailbox, type PspResult } from './ccp.ts';
import type { EngineFactory, KvmEvents } from './contract.ts';
import { HostFrames } from './host-frames.ts';
import { HostProcess } from './host-process.ts';
import type { KernelServices } from './services.ts';
import { type KernelGeneration, KVM_2026_CERTS_V7 } from './uapi/generation.ts';

export { HostProcess };

/** Operations a guest makes before the next vCPU gets a turn. */
const DEFAULT_SLICE_OPS = 100_000;

export interface HostKernelOptions {
  readonly hw: Hardware;
  /** A SecureProcessor; null on a host whose processor has none. */
  readonly psp: PspMailbox | null;
  readonly clock: Clock;
  readonly engines: EngineFactory;
  readonly onEvent?: KvmEvents;
  /** What CPUID says about ASIDs. */
  readonly cpu?: HostCpu;
  readonly generation?: KernelGeneration;
  /** kvm_amd.debug_swap: VMs may ask for the DebugSwap feature. */
  readonly debugSwap?: boolean;
  /** ccp.psp_init_on_probe: SNP comes up with the kernel, not with the first VM. */
  readonly initOnProbe?: boolean;
  /** Guest operations in one call of KVM_RUN before it answers `blocked` with a time that has come. */
  readonly sliceOps?: number;
}

/**
 * One booted host kernel.
 *
 * A VM has an in-kernel APIC (APs start UNINITIALIZED, HLT sleeps) only after KVM_CREATE_IRQCHIP or
 * KVM_CAP_SPLIT_IRQCHIP, given before the first vCPU, as with the real kernel.
 */
export class HostKernel {
  readonly #services: KernelServices;
  readonly #processes = new Set<HostProcess>();

  constructor(options: HostKernelOptions) {
    const frames = new HostFrames(options.hw);
    const ccp = new Ccp(options.psp, frames);
    const asids = new AsidPools(options.cpu ?? DEFAULT_CPU, ccp);
    let vms = 0;
    this.#services = {
      hw: options.hw,
      frames,
      ccp,
      asids,
      clock: options.clock,
      engines: options.engines,
      onEvent: options.onEvent ?? null,
      generation: options.generation ?? KVM_2026_CERTS_V7,
      snpEnabled: () => ccp.present && asids.hasEncryptedState,
      supportedVmsaFeatures: (options.debugSwap ?? true) ? SVM_SEV_FEAT_DEBUG_SWAP : 0n,
      sliceOps: options.sliceOps ?? DEFAULT_SLICE_OPS,
      nextVmId: () => {
        vms += 1;
        return vms;
      },
    };
    if (options.initOnProbe ?? true) {
      ccp.platformInit();
    }
  }

  spawn(name: string): HostProcess {
    const process: HostProcess = new HostProcess(this.#services, name, () => this.#processes.delete(process));
    this.#processes.add(process);
    return process;
  }

  /** Replaces the firmware while guests run. The result is the driver's. */
  updateFirmware(image: Uint8Array): PspResult {
    return this.#services.ccp.updateFirmware(image);
  }

  /** Leaves legacy SEV down, as a factory reset does, until a VM is made; what it keeps stays. */
  shutdownLegacySev(): PspResult {
    return this.#services.ccp.legacyShutdown();
  }

  /** Ends every process and shuts SNP down, as before a reboot. The result is the driver's. */
  shutdown(): PspResult {
    for (const running of this.#processes) {
      running.exit();
    }
    return this.#services.ccp.platformShutdown();
  }
}
