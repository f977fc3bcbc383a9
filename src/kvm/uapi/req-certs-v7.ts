// SPDX-License-Identifier: Apache-2.0
/**
 * KVM_EXIT_SNP_REQ_CERTS, as applied to the kvm-x86 tree in February 2026.
 *
 * Source   [KVM-CERTS-V7] patch 1/2, Documentation/virt/kvm/api.rst
 */
import { Errno } from '../../abi/errno.ts';
import { SnpGuestVmmErr } from '../../abi/ghcb.ts';
import { SnpMsg } from '../../abi/guest-message.ts';
import { KvmExit } from '../../abi/kvm.ts';
import { KvmRun, KvmRunSnpReqCerts } from '../../abi/kvm-run.ts';
import { readU64, writeU32, writeU64 } from '../../lib/bytes.ts';
import type { CertsAnswer, ReqCerts } from './req-certs.ts';

const EXIT_REASON = KvmRun.offsetOf('exit_reason');
const GPA = KvmRunSnpReqCerts.offsetOf('gpa');
const NPAGES = KvmRunSnpReqCerts.offsetOf('npages');
const RET = KvmRunSnpReqCerts.offsetOf('ret');

export const reqCertsV7: ReqCerts = {
  messageTypes: [SnpMsg.SNP_MSG_REPORT_REQ],

  begin(run, { gpa, npages }) {
    writeU32(run, EXIT_REASON, KvmExit.KVM_EXIT_SNP_REQ_CERTS);
    writeU64(run, GPA, gpa);
    writeU64(run, NPAGES, npages);
    writeU64(run, RET, 0n);
  },

  answer(run) {
    const userRet = readU64(run, RET);
    return { userRet, answer: answerOf(userRet, run) };
  },
};

function answerOf(ret: bigint, run: Uint8Array): CertsAnswer {
  switch (ret) {
    case 0n:
      return { kind: 'proceed' };
    case BigInt(Errno.ENOSPC):
      return {
        kind: 'guest-error',
        vmmError: SnpGuestVmmErr.SNP_GUEST_VMM_ERR_INVALID_LEN,
        npages: readU64(run, NPAGES),
      };
    case BigInt(Errno.EAGAIN):
      return { kind: 'guest-error', vmmError: SnpGuestVmmErr.SNP_GUEST_VMM_ERR_BUSY };
    case BigInt(Errno.EIO):
      return { kind: 'guest-error', vmmError: SnpGuestVmmErr.SNP_GUEST_VMM_ERR_GENERIC };
    default:
      return { kind: 'errno', errno: Errno.EINVAL };
  }
}
