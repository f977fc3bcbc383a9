// SPDX-License-Identifier: Apache-2.0
/** The secure processor: the mailbox and everything behind it. */
import type { ProductLine } from '../abi/product.ts';
import type { SevStatus } from '../abi/sev-status.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import type { Hardware } from '../hw/hardware.ts';
import type { Spa } from '../lib/addresses.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { BugError } from '../lib/errors.ts';

export interface FirmwareVersion {
  readonly major: number;
  readonly minor: number;
  readonly build: number;
}

/** What is fixed for one chip and host board, and the firmware it starts with. */
export interface ChipConfig {
  readonly product: ProductLine;
  /** 64 bytes; Turin: 8 significant bytes, then zeros. */
  readonly chipId: Uint8Array;
  /** Secret fused at manufacturing; endorsement keys derive from it. */
  readonly secret: Uint8Array;
  readonly cpuid: { readonly family: number; readonly model: number; readonly stepping: number };
  readonly currentTcb: TcbParts;
  readonly committedTcb: TcbParts;
  readonly reportedTcb: TcbParts;
  readonly firmwareVersion: FirmwareVersion;
  readonly committedVersion: FirmwareVersion;
  readonly reportVersion: 2 | 3 | 4 | 5;
  readonly smt: boolean;
  readonly tsme: boolean;
  readonly ecc: boolean;
  readonly raplDisabled: boolean;
  readonly ciphertextHiding: boolean;
  readonly memAes256Xts: boolean;
  readonly aliasCheckComplete: boolean;
  readonly sockets: 1 | 2;
  /** Highest ASID an SNP guest may have; they start at 1. */
  readonly maxAsid: number;
  readonly tscKhz: number;
  readonly mitigations: { readonly supported: bigint; readonly verified: bigint };
}

/** What one SNP_GUEST_REQUEST decided: step 5 of the trace. */
export interface GuestRequestDetail {
  readonly status: SevStatus;
  readonly msg_type: number;
  readonly vmpck: number;
  readonly seqno: bigint;
  /** Status inside the response payload; null when no response was made. */
  readonly payload_status: number | null;
  /** Key that signed the report; null when no report was made. */
  readonly key: 'VCEK' | 'VLEK' | 'none' | null;
  readonly reported_tcb: bigint;
}

export interface SecureProcessorOptions {
  readonly hw: Hardware;
  readonly crypto: MachineCrypto;
  readonly random: Random;
  readonly chip: ChipConfig;
  readonly onGuestRequest?: (detail: GuestRequestDetail) => void;
}

/** A chip of the product with usual settings; overrides replace single fields. */
export function defaultChip(
  _crypto: MachineCrypto,
  _product: ProductLine,
  _secret: Uint8Array,
  _overrides: Partial<ChipConfig> = {},
): ChipConfig {
  throw new BugError('firmware is being written');
}

export class SecureProcessor {
  constructor(_options: SecureProcessorOptions) {
    throw new BugError('firmware is being written');
  }

  /** Runs one mailbox command on the buffer in physical memory; never throws. */
  command(_id: number, _bufferAt: Spa): SevStatus {
    throw new BugError('firmware is being written');
  }

  /** Current settings of the platform for the state folder; plain JSON. */
  exportState(): Readonly<Record<string, string | number>> {
    throw new BugError('firmware is being written');
  }

  importState(_state: unknown): void {
    throw new BugError('firmware is being written');
  }
}
