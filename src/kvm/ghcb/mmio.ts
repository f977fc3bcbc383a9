// SPDX-License-Identifier: Apache-2.0
/** MMIO. There is no device in the kernel: everything goes to userspace. [GHCB] "MMIO" */
import { KvmExit } from '../../abi/kvm.ts';
import { KvmRun, KvmRunMmio } from '../../abi/kvm-run.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, type GhcbMapping, malformed, RESUME } from './mapping.ts';
import { type Scratch, setUpScratch } from './scratch.ts';

/** Bytes one exit carries, and from version 2 on one event. */
const FRAGMENT = 8;
const LENGTH_LIMIT_VERSION = 2;

interface Mmio {
  readonly scratch: Scratch;
  readonly gpa: bigint;
  readonly length: number;
  readonly isWrite: boolean;
}

export const mmioRead = (vcpu: Vcpu, ghcb: GhcbMapping): number => mmioEvent(vcpu, ghcb, false);
export const mmioWrite = (vcpu: Vcpu, ghcb: GhcbMapping): number => mmioEvent(vcpu, ghcb, true);

function mmioEvent(vcpu: Vcpu, ghcb: GhcbMapping, isWrite: boolean): number {
  const { exitInfo1: gpa, exitInfo2 } = ghcb;
  if (exitInfo2 === 0n) {
    return RESUME;
  }
  if (vcpu.vm.sev.ghcbVersion >= LENGTH_LIMIT_VERSION && exitInfo2 > BigInt(FRAGMENT)) {
    return malformed(vcpu, ghcb, 'GHCB_ERR_INVALID_INPUT');
  }
  // Beyond 2^53 the exact length does not matter: no scratch area holds it.
  const length = Number(exitInfo2);
  const refused = setUpScratch(vcpu, ghcb, !isWrite, length);
  return refused ?? nextFragment(vcpu, { scratch: ghcb.scratch!, gpa, length, isWrite }, 0);
}

function nextFragment(vcpu: Vcpu, mmio: Mmio, done: number): number {
  if (done === mmio.length) {
    return RESUME;
  }
  const { run } = vcpu;
  const { scratch, isWrite } = mmio;
  const length = Math.min(FRAGMENT, mmio.length - done);
  const data = new Uint8Array(FRAGMENT);
  if (isWrite) {
    data.set(scratch.read(done, length));
  }
  KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_MMIO);
  KvmRunMmio.set(run, 'phys_addr', BigInt.asUintN(64, mmio.gpa + BigInt(done)));
  KvmRunMmio.set(run, 'data', data);
  KvmRunMmio.set(run, 'len', length);
  KvmRunMmio.set(run, 'is_write', isWrite ? 1 : 0);
  vcpu.completion = () => {
    if (!isWrite) {
      scratch.write(done, KvmRunMmio.get(run, 'data').subarray(0, length));
    }
    return nextFragment(vcpu, mmio, done + length);
  };
  return EXIT;
}
