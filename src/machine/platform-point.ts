// SPDX-License-Identifier: Apache-2.0
/**
 * Where a platform stands, and the way back there. The way is the one an administrator has, command by
 * command: what SNP_COMMIT has raised stays up.
 */
import { decodeTcb } from '../abi/tcb-version.ts';
import { buildFirmwareImage, type PersistentState } from '../firmware/secure-processor.ts';
import { equalBytes } from '../lib/bytes.ts';
import type { Host } from './host.ts';

export interface PlatformPoint {
  readonly state: PersistentState;
  /** Loaded hash stick, wrapped; null when there is none. */
  readonly vlek: Uint8Array | null;
}

export function pointOf({ psp }: Host): PlatformPoint {
  return { state: psp.exportState(), vlek: psp.wrappedVlek };
}

export function isAt({ psp }: Host, { state, vlek }: PlatformPoint): boolean {
  return JSON.stringify(psp.exportState()) === JSON.stringify(state) && isVlek(psp.wrappedVlek, vlek);
}

function isVlek(a: Uint8Array | null, b: Uint8Array | null): boolean {
  return a === null || b === null ? a === b : equalBytes(a, b);
}

/** Takes back what commands have changed since. False when there is no way: the platform is then where it was. */
export function goBack(host: Host, point: PlatformPoint): boolean {
  const { state, vlek } = point;
  const now = host.psp.exportState();
  if (now.committed_tcb !== state.committed_tcb || now.committed_version !== state.committed_version) {
    return false;
  }
  if (now.current_tcb !== state.current_tcb || now.firmware_version !== state.firmware_version) {
    host.kernel.updateFirmware(firmwareOf(host, state));
  }
  if (JSON.stringify(host.psp.exportState()) !== JSON.stringify(state)) {
    host.management.setConfig({
      reportedTcb: BigInt(state.reported_tcb),
      maskChipId: state.mask_chip_id,
      maskChipKey: state.mask_chip_key,
    });
  }
  if (!isVlek(host.psp.wrappedVlek, vlek)) {
    if (vlek === null) {
      host.unloadVlek();
    } else {
      host.management.vlekLoad(vlek);
    }
  }
  return isAt(host, point);
}

function firmwareOf({ deps, chip }: Host, state: PersistentState): Uint8Array {
  const [major = 0, minor = 0, build = 0] = state.firmware_version.split('.').map(Number);
  return buildFirmwareImage(deps.crypto, {
    product: chip.product,
    tcb: decodeTcb(BigInt(state.current_tcb), chip.product),
    version: { major, minor, build },
    mitVector: BigInt(state.mitigations_supported),
  });
}
