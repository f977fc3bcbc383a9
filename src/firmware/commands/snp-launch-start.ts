// SPDX-License-Identifier: Apache-2.0
import { GuestPolicy } from '../../abi/guest-policy.ts';
import { SevRet, type SevStatus } from '../../abi/sev-status.ts';
import { SevDataSnpLaunchStart } from '../../abi/snp-commands.ts';
import { TSC_SCALE_ONE } from '../guest-context.ts';
import type { Platform } from '../platform.ts';

/** The TSC scale has 8 integer bits. */
const TSC_SCALE_LIMIT = 256n * TSC_SCALE_ONE;

/**
 * Begins a launch: policy, keys, an empty launch digest. [SNP-ABI] SNP_LAUNCH_START
 *
 * Returns  SEV_RET_POLICY_FAILURE when the platform does not give what the policy demands; SEV_RET_UNSUPPORTED for
 *          a migration agent
 */
export function snpLaunchStart(platform: Platform, bufferAt: bigint): SevStatus {
  const buffer = platform.readBuffer(bufferAt, SevDataSnpLaunchStart);
  if (typeof buffer === 'number') {
    return buffer;
  }
  const guest = platform.guestFor(buffer.gctx_paddr, 'SEV_CMD_SNP_LAUNCH_START');
  if (typeof guest === 'number') {
    return guest;
  }
  const { chip, random } = platform;
  const tscScale =
    buffer.desired_tsc_khz === 0
      ? TSC_SCALE_ONE
      : (BigInt(buffer.desired_tsc_khz) * TSC_SCALE_ONE) / BigInt(chip.tscKhz);
  if (tscScale >= TSC_SCALE_LIMIT) {
    return SevRet.SEV_RET_INVALID_PARAM;
  }
  const { policy, flags } = buffer;
  if (!policyHolds(platform, policy)) {
    return SevRet.SEV_RET_POLICY_FAILURE;
  }
  if (flags.ma_en === 1) {
    return GuestPolicy.fromWord(policy).migrate_ma === 1
      ? SevRet.SEV_RET_UNSUPPORTED
      : SevRet.SEV_RET_POLICY_FAILURE;
  }
  // Where there is no entropy the guest stays as it is.
  const vmpcks = [0, 1, 2, 3].map(() => random.bytes(32));
  const [vmrk, reportId] = [random.bytes(32), random.bytes(32)];
  guest.policy = policy;
  guest.vmpcks = vmpcks;
  guest.vmrk = vmrk;
  guest.reportId = reportId;
  guest.imiEn = flags.imi_en === 1;
  guest.gosvw = buffer.gosvw;
  guest.tscScale = tscScale;
  guest.launchTcb = platform.currentTcbWord;
  guest.launchMitVector = platform.mitigationsVerified;
  platform.advance(guest, 'SEV_CMD_SNP_LAUNCH_START');
  return SevRet.SEV_RET_SUCCESS;
}

/** Whether the platform gives what a policy demands, and the policy is one this firmware knows. */
function policyHolds(platform: Platform, word: bigint): boolean {
  if ((word & GuestPolicy.reservedZeros) !== 0n || (~word & GuestPolicy.reservedOnes) !== 0n) {
    return false;
  }
  const policy = GuestPolicy.fromWord(word);
  const { chip, firmwareVersion } = platform;
  const newer =
    policy.abi_major > firmwareVersion.major ||
    (policy.abi_major === firmwareVersion.major && policy.abi_minor > firmwareVersion.minor);
  return !(
    newer ||
    (policy.smt === 0 && chip.smt) ||
    (policy.single_socket === 1 && chip.sockets > 1) ||
    (policy.mem_aes_256_xts === 1 && !chip.memAes256Xts) ||
    (policy.rapl_dis === 1 && !platform.raplDisabled) ||
    (policy.ciphertext_hiding_dram === 1 && !platform.ciphertextHiding)
  );
}
