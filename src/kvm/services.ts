// SPDX-License-Identifier: Apache-2.0
/** What every part of one kernel shares. */
import type { Hardware } from '../hw/hardware.ts';
import type { Clock } from '../lib/clock.ts';
import type { AsidPools } from './asids.ts';
import type { Ccp } from './ccp.ts';
import type { EngineFactory, KvmEvents } from './contract.ts';
import type { HostFrames } from './host-frames.ts';
import type { KernelGeneration } from './uapi/generation.ts';

export interface KernelServices {
  readonly hw: Hardware;
  readonly frames: HostFrames;
  readonly ccp: Ccp;
  readonly asids: AsidPools;
  readonly clock: Clock;
  readonly engines: EngineFactory;
  /** Null: nobody listens, and no texts are put together. */
  readonly onEvent: KvmEvents | null;
  readonly generation: KernelGeneration;
  /** KVM has SNP: the CPU has ASIDs for it and the firmware is initialised. */
  readonly snpEnabled: () => boolean;
  /** VMSA features KVM_SEV_INIT2 accepts. */
  readonly supportedVmsaFeatures: bigint;
  /** Guest operations after which a vCPU gives its thread up. */
  readonly sliceOps: number;
  readonly nextVmId: () => number;
}
