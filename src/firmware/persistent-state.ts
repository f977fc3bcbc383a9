// SPDX-License-Identifier: Apache-2.0
/** The platform settings that a state folder keeps, as a plain JSON object. */

import { SevCertificate } from '../abi/sev-certificate.ts';
import { decodeTcb, type TcbParts, tcbAtMost, tcbReservedIsZero } from '../abi/tcb-version.ts';
import { fromHex, toHex } from '../lib/bytes.ts';
import { InputError, invariant } from '../lib/errors.ts';
import type { FirmwareVersion } from './chip.ts';
import type { Platform } from './platform.ts';
import { isIdentityOf, SEV_NONCE_SIZE, type SevIdentity } from './sev-identity.ts';

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
  /** Certificates and nonces in hexadecimal; null, or absent in older folders, when no program has asked for them. */
  readonly sev_identity: KeptSevIdentity | null;
}

interface KeptSevIdentity {
  readonly owned: boolean;
  readonly oca: string;
  readonly pek: string;
  readonly pdh: string;
  readonly pek_nonce: string;
  readonly pdh_nonce: string;
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;
const dotted = ({ major, minor, build }: FirmwareVersion): string => `${major}.${minor}.${build}`;

/**
 * What SNP_CONFIG, SNP_COMMIT, SNP_DOWNLOAD_FIRMWARE_EX and the commands of legacy SEV have set. A VLEK is not
 * kept: it is loaded again.
 */
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
    sev_identity: kept(platform.keptSevIdentity),
  };
}

function kept(identity: SevIdentity | null): KeptSevIdentity | null {
  return identity === null
    ? null
    : {
        owned: identity.owned,
        oca: toHex(identity.oca),
        pek: toHex(identity.pek),
        pdh: toHex(identity.pdh),
        pek_nonce: toHex(identity.pekNonce),
        pdh_nonce: toHex(identity.pdhNonce),
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
  const identity = sevIdentity(platform, fields['sev_identity'] ?? null);
  platform.firmwareVersion = firmwareVersion;
  platform.committedVersion = committedVersion;
  platform.mitigationsSupported = supported;
  platform.mitigationsVerified = verified;
  platform.maskChipId = maskChipId;
  platform.maskChipKey = maskChipKey;
  platform.setCurrentTcb(current);
  platform.setCommittedTcb(committed);
  platform.setReportedTcb(reported);
  if (identity !== null) {
    platform.sevIdentity = identity;
  }
}

function sevIdentity(platform: Platform, state: unknown): SevIdentity | null {
  if (state === null) {
    return null;
  }
  const where = 'sev_identity';
  const fields = isRecord(state) ? state : refuse('not an object', where);
  const certificate = (name: string): Uint8Array => hexBytes(fields, name, SevCertificate.size, where);
  const identity = {
    owned: flag(fields, 'owned', `${where}.`),
    oca: certificate('oca'),
    pek: certificate('pek'),
    pdh: certificate('pdh'),
    pekNonce: hexBytes(fields, 'pek_nonce', SEV_NONCE_SIZE, where),
    pdhNonce: hexBytes(fields, 'pdh_nonce', SEV_NONCE_SIZE, where),
  };
  return isIdentityOf(platform, identity) ? identity : refuse('not certificates of keys of this chip', where);
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

function flag(fields: Readonly<Record<string, unknown>>, name: string, prefix = ''): boolean {
  const value = fields[name];
  return typeof value === 'boolean' ? value : refuse('not true or false', `${prefix}${name}`);
}

function hexBytes(
  fields: Readonly<Record<string, unknown>>,
  name: string,
  size: number,
  where: string,
): Uint8Array {
  const value = fields[name];
  return typeof value === 'string' && value.length === 2 * size && /^[0-9a-f]*$/.test(value)
    ? fromHex(value)
    : refuse(`not ${size} bytes in hexadecimal`, `${where}.${name}`);
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
