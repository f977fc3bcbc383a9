// SPDX-License-Identifier: Apache-2.0
/** ioctls of a vCPU other than KVM_RUN. [KVM] "vCPU rules" */
import { Errno } from '../abi/errno.ts';
import { KvmIoctl, KvmMp } from '../abi/kvm.ts';
import {
  KvmCpuid2,
  KvmCpuidEntry2,
  KvmDebugregs,
  KvmFpu,
  KvmMpState,
  KvmPreFaultMemory,
  KvmRegs,
  KvmSregs,
  KvmXcrs,
  KvmXsave,
} from '../abi/kvm-structs.ts';
import type { DecodedFields, FieldTable, Layout } from '../lib/struct.ts';
import { copyIn, copyOut } from './copy-user.ts';
import { MAX_CPUID_ENTRIES } from './cpuid.ts';
import type { HostProcess } from './host-process.ts';
import { acceptApicEvents } from './lapic.ts';
import { SUPPORTED_XCR0 } from './limits.ts';
import { preFaultMemory } from './pre-fault-memory.ts';
import {
  getDebugregs,
  getFpu,
  getRegs,
  getSregs,
  getXcrs,
  getXsave,
  type Registers,
  setDebugregs,
  setFpu,
  setRegs,
  setSregs,
  setXcrs,
  setXsave,
} from './registers.ts';
import type { Vcpu } from './vcpu.ts';

/** struct kvm_sregs2: kvm_sregs with flags and PDPTRs where the interrupt bitmap is. */
const SREGS2_SIZE = 320;

export function vcpuIoctl(vcpu: Vcpu, process: HostProcess, nr: number, arg: bigint): number {
  switch (nr) {
    case KvmIoctl.KVM_GET_MP_STATE:
      acceptApicEvents(vcpu);
      return copyOut(process, KvmMpState, arg, { mp_state: vcpu.mpState }) ? 0 : -Errno.EFAULT;
    case KvmIoctl.KVM_SET_MP_STATE: {
      const request = copyIn(process, KvmMpState, arg);
      return request === null ? -Errno.EFAULT : setMpState(vcpu, request.mp_state);
    }
    case KvmIoctl.KVM_SET_CPUID2:
      return setCpuid2(vcpu, process, arg);
    case KvmIoctl.KVM_GET_CPUID2:
      return getCpuid2(vcpu, process, arg);
    case KvmIoctl.KVM_PRE_FAULT_MEMORY: {
      const request = process.memory.read(arg, KvmPreFaultMemory.size);
      if (request === null) {
        return -Errno.EFAULT;
      }
      const result = preFaultMemory(vcpu.vm, request);
      return process.memory.write(arg, request) ? result : -Errno.EFAULT;
    }
    default:
      return registerIoctl(vcpu, process, nr, arg);
  }
}

/** Registers can be had and set only until they are encrypted. */
function registerIoctl(vcpu: Vcpu, process: HostProcess, nr: number, arg: bigint): number {
  const access = ACCESSES.get(nr);
  if (access === undefined || vcpu.isProtected) {
    return -Errno.EINVAL;
  }
  return access(vcpu.registers, process, arg);
}

type Access = (registers: Registers, process: HostProcess, arg: bigint) => number;

function get<F extends FieldTable>(
  layout: Layout<F>,
  read: (registers: Registers) => Partial<DecodedFields<F>>,
): Access {
  return (registers, process, arg) => (copyOut(process, layout, arg, read(registers)) ? 0 : -Errno.EFAULT);
}

/** `write` answers false for values KVM refuses. */
function set<F extends FieldTable>(
  layout: Layout<F>,
  write: (registers: Registers, value: DecodedFields<F>) => boolean | undefined,
): Access {
  return (registers, process, arg) => {
    const value = copyIn(process, layout, arg);
    if (value === null) {
      return -Errno.EFAULT;
    }
    return write(registers, value) === false ? -Errno.EINVAL : 0;
  };
}

const done =
  <T>(write: (registers: Registers, value: T) => void) =>
  (registers: Registers, value: T): undefined => {
    write(registers, value);
  };

const getSregs2: Access = (registers, process, arg) => {
  const out = new Uint8Array(SREGS2_SIZE);
  out.set(KvmSregs.encode(getSregs(registers)));
  return process.memory.write(arg, out) ? 0 : -Errno.EFAULT;
};

const setSregs2: Access = (registers, process, arg) => {
  const bytes = process.memory.read(arg, SREGS2_SIZE);
  if (bytes === null) {
    return -Errno.EFAULT;
  }
  return setSregs(registers, KvmSregs.decodeLoose(bytes.subarray(0, KvmSregs.size))) ? 0 : -Errno.EINVAL;
};

const ACCESSES: ReadonlyMap<number, Access> = new Map<number, Access>([
  [KvmIoctl.KVM_GET_REGS, get(KvmRegs, getRegs)],
  [KvmIoctl.KVM_SET_REGS, set(KvmRegs, done(setRegs))],
  [KvmIoctl.KVM_GET_SREGS, get(KvmSregs, getSregs)],
  [KvmIoctl.KVM_SET_SREGS, set(KvmSregs, setSregs)],
  [KvmIoctl.KVM_GET_SREGS2, getSregs2],
  [KvmIoctl.KVM_SET_SREGS2, setSregs2],
  [KvmIoctl.KVM_GET_DEBUGREGS, get(KvmDebugregs, getDebugregs)],
  [KvmIoctl.KVM_SET_DEBUGREGS, set(KvmDebugregs, setDebugregs)],
  [KvmIoctl.KVM_GET_XCRS, get(KvmXcrs, getXcrs)],
  [KvmIoctl.KVM_SET_XCRS, set(KvmXcrs, (registers, value) => setXcrs(registers, value, SUPPORTED_XCR0))],
  [KvmIoctl.KVM_GET_FPU, get(KvmFpu, getFpu)],
  [KvmIoctl.KVM_SET_FPU, set(KvmFpu, done(setFpu))],
  [KvmIoctl.KVM_GET_XSAVE, get(KvmXsave, getXsave)],
  [KvmIoctl.KVM_GET_XSAVE2, get(KvmXsave, getXsave)],
  [KvmIoctl.KVM_SET_XSAVE, set(KvmXsave, done(setXsave))],
]);

function setMpState(vcpu: Vcpu, state: number): number {
  switch (state) {
    case KvmMp.KVM_MP_STATE_RUNNABLE:
      break;
    case KvmMp.KVM_MP_STATE_UNINITIALIZED:
    case KvmMp.KVM_MP_STATE_INIT_RECEIVED:
    case KvmMp.KVM_MP_STATE_HALTED:
    case KvmMp.KVM_MP_STATE_SIPI_RECEIVED:
    case KvmMp.KVM_MP_STATE_AP_RESET_HOLD:
      if (!vcpu.vm.irqchip) {
        return -Errno.EINVAL;
      }
      break;
    default:
      return -Errno.EINVAL;
  }
  if (state === KvmMp.KVM_MP_STATE_SIPI_RECEIVED) {
    vcpu.mpState = KvmMp.KVM_MP_STATE_INIT_RECEIVED;
    vcpu.lapic.sipiPending = true;
  } else {
    vcpu.mpState = state;
  }
  return 0;
}

function setCpuid2(vcpu: Vcpu, process: HostProcess, arg: bigint): number {
  const head = copyIn(process, KvmCpuid2, arg);
  if (head === null) {
    return -Errno.EFAULT;
  }
  if (head.nent > MAX_CPUID_ENTRIES) {
    return -Errno.E2BIG;
  }
  const size = KvmCpuidEntry2.size;
  const bytes = process.memory.read(arg + BigInt(KvmCpuid2.size), head.nent * size);
  if (bytes === null) {
    return -Errno.EFAULT;
  }
  vcpu.cpuid.set(
    Array.from({ length: head.nent }, (_, i) =>
      KvmCpuidEntry2.decodeLoose(bytes.subarray(i * size, (i + 1) * size)),
    ),
  );
  return 0;
}

function getCpuid2(vcpu: Vcpu, process: HostProcess, arg: bigint): number {
  const head = copyIn(process, KvmCpuid2, arg);
  if (head === null) {
    return -Errno.EFAULT;
  }
  const { entries } = vcpu.cpuid;
  if (head.nent < entries.length) {
    return -Errno.E2BIG;
  }
  const out = new Uint8Array(KvmCpuid2.size + KvmCpuidEntry2.size * entries.length);
  KvmCpuid2.set(out, 'nent', entries.length);
  entries.forEach((entry, i) => {
    out.set(KvmCpuidEntry2.encode(entry), KvmCpuid2.size + KvmCpuidEntry2.size * i);
  });
  return process.memory.write(arg, out) ? 0 : -Errno.EFAULT;
}
