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
import type { CertsAnswer, ReqCerts } from './req-certs.ts';

export const reqCertsV7: ReqCerts = {
  messageTypes: [SnpMsg.SNP_MSG_REPORT_REQ],

  begin(run, { gpa, npages }) {
    KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_SNP_REQ_CERTS);
    KvmRunSnpReqCerts.set(run, 'gpa', gpa);
    KvmRunSnpReqCerts.set(run, 'npages', npages);
    KvmRunSnpReqCerts.set(run, 'ret', 0n);
  },

  answer(run) {
    const userRet = KvmRunSnpReqCerts.get(run, 'ret');
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
        npages: KvmRunSnpReqCerts.get(run, 'npages'),
      };
    case BigInt(Errno.EAGAIN):
      return { kind: 'guest-error', vmmError: SnpGuestVmmErr.SNP_GUEST_VMM_ERR_BUSY };
    case BigInt(Errno.EIO):
      return { kind: 'guest-error', vmmError: SnpGuestVmmErr.SNP_GUEST_VMM_ERR_GENERIC };
    default:
      return { kind: 'errno', errno: Errno.EINVAL };
  }
}
