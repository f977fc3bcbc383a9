// SPDX-License-Identifier: Apache-2.0
/** The platform settings that a state folder keeps, as a plain JSON object. */
import { decodeTcb, type TcbParts, tcbAtMost, tcbReservedIsZero } from '../abi/tcb-version.ts';
import { InputError, invariant } from '../lib/errors.ts';
import type { FirmwareVersion } from './chip.ts';
import type { Platform } from './platform.ts';

/** 64-bit values are 0x-prefixed text, versions major.minor.build. */
export interface PersistentState {
  readonly product: string;
  readonly current_tcb: string;
  readonly committed_tcb: string;
  readonly reported_tcb: string;
  readonly firmware_version: string;
  readonly committed_version: string;
  readonly mask_chip_id: boolean;
  readonly mask_chip_key: boolean;
  readonly mitigations_supported: string;
  readonly mitigations_verified: string;
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;
const dotted = ({ major, minor, build }: FirmwareVersion): string => `${major}.${minor}.${build}`;

/** What SNP_CONFIG, SNP_COMMIT and SNP_DOWNLOAD_FIRMWARE_EX have set. A VLEK is not kept: it is loaded again. */
export function exportState(platform: Platform): PersistentState {
  return {
    product: platform.chip.product,
    current_tcb: hex(platform.currentTcbWord),
    committed_tcb: hex(platform.committedTcbWord),
    reported_tcb: hex(platform.reportedTcbWord),
    firmware_version: dotted(platform.firmwareVersion),
    committed_version: dotted(platform.committedVersion),
    mask_chip_id: platform.maskChipId,
    mask_chip_key: platform.maskChipKey,
    mitigations_supported: hex(platform.mitigationsSupported),
    mitigations_verified: hex(platform.mitigationsVerified),
  };
}

/**
 * Takes settings back before SNP_INIT.
 *
 * Errors   STATE_INVALID for another product, a missing or malformed value, or TCBs that are not
 *          ReportedTcb <= CommittedTcb <= CurrentTcb; nothing is changed then
 */
export function importState(platform: Platform, state: unknown): void {
  invariant(platform.state === 'UNINIT', 'state imported into a running platform');
  const { product } = platform.chip;
  const fields = isRecord(state) ? state : refuse('not an object', '');
  if (fields['product'] !== product) {
    refuse(`is ${JSON.stringify(fields['product'])}, the chip is ${product}`, 'product');
  }
  const tcb = (name: string): TcbParts => {
    const word = word64(fields, name);
    return tcbReservedIsZero(word, product) ? decodeTcb(word, product) : refuse('reserved bytes', name);
  };
  const current = tcb('current_tcb');
  const committed = tcb('committed_tcb');
  const reported = tcb('reported_tcb');
  if (!tcbAtMost(committed, current, product)) {
    refuse('above current_tcb', 'committed_tcb');
  }
  if (!tcbAtMost(reported, committed, product)) {
    refuse('above committed_tcb', 'reported_tcb');
  }
  const firmwareVersion = version(fields, 'firmware_version');
  const committedVersion = version(fields, 'committed_version');
  const supported = word64(fields, 'mitigations_supported');
  const verified = word64(fields, 'mitigations_verified');
  const maskChipId = flag(fields, 'mask_chip_id');
  const maskChipKey = flag(fields, 'mask_chip_key');
  platform.firmwareVersion = firmwareVersion;
  platform.committedVersion = committedVersion;
  platform.mitigationsSupported = supported;
  platform.mitigationsVerified = verified;
  platform.maskChipId = maskChipId;
  platform.maskChipKey = maskChipKey;
  platform.setCurrentTcb(current);
  platform.setCommittedTcb(committed);
  platform.setReportedTcb(reported);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function refuse(message: string, name: string): never {
  throw new InputError('STATE_INVALID', message, { where: `platform state${name === '' ? '' : `.${name}`}` });
}

function word64(fields: Readonly<Record<string, unknown>>, name: string): bigint {
  const value = fields[name];
  return typeof value === 'string' && /^0x[0-9a-f]{1,16}$/.test(value)
    ? BigInt(value)
    : refuse('not a 64-bit value', name);
}

function flag(fields: Readonly<Record<string, unknown>>, name: string): boolean {
  const value = fields[name];
  return typeof value === 'boolean' ? value : refuse('not true or false', name);
}

function version(fields: Readonly<Record<string, unknown>>, name: string): FirmwareVersion {
  const value = fields[name];
  const parts = typeof value === 'string' ? /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(value) : null;
  const [major, minor, build] = (parts ?? []).slice(1).map(Number);
  if (
    major === undefined ||
    minor === undefined ||
    build === undefined ||
    major > 255 ||
    minor > 255 ||
    build > 255
  ) {
    return refuse('not a version major.minor.build', name);
  }
  return { major, minor, build };
}
