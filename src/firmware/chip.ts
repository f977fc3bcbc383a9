// SPDX-License-Identifier: Apache-2.0
/** The chip and board a secure processor sits on, and the firmware it starts with. */
import type { ReportVersion } from '../abi/attestation-report.ts';
import type { ProductLine } from '../abi/product.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import { chipIdOf } from '../keys/index.ts';
import type { MachineCrypto } from '../lib/crypto.ts';

export interface FirmwareVersion {
  readonly major: number;
  readonly minor: number;
  readonly build: number;
}

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
  readonly reportVersion: ReportVersion;
  /** Facts of the board, as PLATFORM_INFO shows them. */
  readonly smt: boolean;
  readonly tsme: boolean;
  readonly ecc: boolean;
  readonly aliasCheckComplete: boolean;
  /** RAPL is off already; otherwise SNP_INIT_EX can turn it off. */
  readonly raplDisabled: boolean;
  /** What the chip could do; SNP_INIT_EX turns it on. */
  readonly ciphertextHidingCapable: boolean;
  /** Memory is encrypted with AES-256-XTS. */
  readonly memAes256Xts: boolean;
  readonly sockets: 1 | 2;
  /** Highest ASID an SNP guest may have; they start at 1. */
  readonly maxAsid: number;
  readonly tscKhz: number;
  /** Mitigation vectors: what the firmware knows, and what it found in place at start. */
  readonly mitigations: { readonly supported: bigint; readonly verified: bigint };
}

const TCBS: Readonly<Record<ProductLine, TcbParts>> = {
  Milan: { fmc: 0, boot_loader: 4, tee: 0, snp: 24, microcode: 219 },
  Genoa: { fmc: 0, boot_loader: 10, tee: 0, snp: 23, microcode: 84 },
  Turin: { fmc: 1, boot_loader: 1, tee: 1, snp: 4, microcode: 81 },
};

const CPUIDS: Readonly<Record<ProductLine, ChipConfig['cpuid']>> = {
  Milan: { family: 0x19, model: 0x01, stepping: 1 },
  Genoa: { family: 0x19, model: 0x11, stepping: 1 },
  Turin: { family: 0x1a, model: 0x02, stepping: 1 },
};

/** Firmware that makes reports of the version, as seen in the field. */
const VERSIONS: Readonly<Record<ReportVersion, FirmwareVersion>> = {
  2: { major: 1, minor: 55, build: 21 },
  3: { major: 1, minor: 55, build: 29 },
  4: { major: 1, minor: 55, build: 31 },
  5: { major: 1, minor: 55, build: 45 },
};

/**
 * A chip of the product with usual settings; overrides replace single fields.
 *
 * Shape    `committedTcb` and `reportedTcb` follow `currentTcb`, versions follow `reportVersion`, the chip id
 *          follows the secret, unless given
 */
export function defaultChip(
  crypto: MachineCrypto,
  product: ProductLine,
  secret: Uint8Array,
  overrides: Partial<ChipConfig> = {},
): ChipConfig {
  const reportVersion = overrides.reportVersion ?? (product === 'Turin' ? 5 : 3);
  const currentTcb = overrides.currentTcb ?? TCBS[product];
  const committedTcb = overrides.committedTcb ?? currentTcb;
  const firmwareVersion = overrides.firmwareVersion ?? VERSIONS[reportVersion];
  return {
    product,
    chipId: chipIdOf(crypto, secret, product),
    secret,
    cpuid: CPUIDS[product],
    currentTcb,
    committedTcb,
    reportedTcb: committedTcb,
    firmwareVersion,
    committedVersion: firmwareVersion,
    reportVersion,
    smt: true,
    tsme: true,
    ecc: true,
    aliasCheckComplete: reportVersion >= 3,
    raplDisabled: false,
    ciphertextHidingCapable: product === 'Turin',
    memAes256Xts: product !== 'Milan',
    sockets: 1,
    maxAsid: product === 'Milan' ? 509 : 1006,
    tscKhz: 2_450_000,
    mitigations: reportVersion >= 5 ? { supported: 0x0fn, verified: 0x0fn } : { supported: 0n, verified: 0n },
    ...overrides,
  };
}
