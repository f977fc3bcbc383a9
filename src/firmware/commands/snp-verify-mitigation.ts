// SPDX-License-Identifier: Apache-2.0

import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpVerifyMitigation, SnpVerifyMitigationOut } from '../../abi/snp-commands.ts';
import type { Platform } from '../platform.ts';

const SUBCOMMAND_STATUS = 0;
const SUBCOMMAND_VERIFY = 1;

/** Mitigation vectors came with report version 5. */
export function knowsMitigations(platform: Platform): boolean {
  return platform.reportVersion >= 5;
}

/**
 * Tells which mitigations are in place, or verifies one more. [SNP-ABI] SNP_VERIFY_MITIGATION
 *
 * Returns  SEV_RET_INVALID_COMMAND on firmware older than report version 5; SEV_RET_INVALID_PARAM for another
 *          subcommand, or for a VERIFY of no bit, several bits or a bit outside the supported vector
 * Differs  verifying a supported mitigation always succeeds (docs/limitations.md#mitigations)
 */
export function snpVerifyMitigation(platform: Platform, bufferAt: bigint): SevStatus {
  if (!knowsMitigations(platform)) {
    return SevRet.SEV_RET_INVALID_COMMAND;
  }
  const buffer = platform.readBuffer(bufferAt, SevDataSnpVerifyMitigation);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const { subcommand, vector } = buffer;
  if (buffer.length !== SevDataSnpVerifyMitigation.size) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  if (subcommand === SUBCOMMAND_VERIFY) {
    const oneBit = vector !== 0n && (vector & (vector - 1n)) === 0n;
    if (!oneBit || (vector & platform.mitigationsSupported) === 0n) {
      return SevRet.SEV_RET_INVALID_PARAM;
    }
  } else if (subcommand !== SUBCOMMAND_STATUS || vector !== 0n) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const wantsOutput = buffer.flags.dst_paddr_en === 1;
  if (wantsOutput) {
    const refused = platform.checkOutput(buffer.dst_paddr, SnpVerifyMitigationOut.size);
    if (refused !== SevRet.SEV_RET_SUCCESS) {
      return refused;
    }
  }
  if (subcommand === SUBCOMMAND_VERIFY) {
    platform.mitigationsVerified |= vector;
    platform.changed();
  }
  if (wantsOutput) {
    platform.deliver(
      buffer.dst_paddr,
      SnpVerifyMitigationOut.encode({
        verified_vector: platform.mitigationsVerified,
        supported_vector: platform.mitigationsSupported,
      }),
    );
  }
  return SevRet.SEV_RET_SUCCESS;
}
