// SPDX-License-Identifier: Apache-2.0
/** Port I/O. There is no device in the kernel: everything goes to userspace. [GHCB] "IOIO" */
import { Errno } from '../../abi/errno.ts';
import { KVM_PIO_DATA_OFFSET, KvmExit, KvmIoDirection } from '../../abi/kvm.ts';
import { KvmRun, KvmRunIo } from '../../abi/kvm-run.ts';
import { PAGE_SIZE } from '../../lib/addresses.ts';
import { readU32, writeU32 } from '../../lib/bytes.ts';
import type { Vcpu } from '../vcpu.ts';
import { EXIT, type GhcbMapping, RESUME } from './mapping.ts';
import { type Scratch, setUpScratch } from './scratch.ts';

const BIT_IN = 1n << 0n;
const BIT_STRING = 1n << 2n;
const INT_MAX = 2 ** 31 - 1;
const SIZE_MASKS = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const;

interface PortAccess {
  readonly port: number;
  readonly size: 1 | 2 | 4;
  readonly isIn: boolean;
}

export const isStringIo = ({ exitInfo1 }: GhcbMapping): boolean => (exitInfo1 & BIT_STRING) !== 0n;
export const isIoIn = ({ exitInfo1 }: GhcbMapping): boolean => (exitInfo1 & BIT_IN) !== 0n;

export function ioioEvent(vcpu: Vcpu, ghcb: GhcbMapping): number {
  const sizeBits = Number((ghcb.exitInfo1 >> 4n) & 7n);
  const port = Number((ghcb.exitInfo1 >> 16n) & 0xffffn);
  const isIn = isIoIn(ghcb);
  if (isStringIo(ghcb)) {
    return stringIo(vcpu, ghcb, port, sizeBits, isIn);
  }
  if (sizeBits !== 1 && sizeBits !== 2 && sizeBits !== 4) {
    return RESUME;
  }
  return isIn ? portIn(vcpu, port, sizeBits) : portOut(vcpu, port, sizeBits);
}

function portOut(vcpu: Vcpu, port: number, size: 1 | 2 | 4): number {
  const { run, shadow } = vcpu;
  writeU32(run, KVM_PIO_DATA_OFFSET, (Number(shadow.rax & 0xffff_ffffn) & SIZE_MASKS[size]) >>> 0);
  vcpu.completion = () => RESUME;
  return exitForIo(vcpu, { port, size, isIn: false }, 1);
}

function portIn(vcpu: Vcpu, port: number, size: 1 | 2 | 4): number {
  const { run, shadow } = vcpu;
  vcpu.completion = () => {
    const mask = BigInt(SIZE_MASKS[size]);
    const value = BigInt(readU32(run, KVM_PIO_DATA_OFFSET)) & mask;
    // A 32-bit result clears the upper half of the register, narrower ones leave the rest alone.
    shadow.rax = size === 4 ? value : (shadow.rax & ~mask) | value;
    return RESUME;
  };
  return exitForIo(vcpu, { port, size, isIn: true }, 1);
}

function stringIo(vcpu: Vcpu, ghcb: GhcbMapping, port: number, size: number, isIn: boolean): number {
  if (ghcb.exitInfo2 > BigInt(INT_MAX)) {
    return -Errno.EINVAL;
  }
  const count = Number(ghcb.exitInfo2);
  if (count * size > INT_MAX) {
    return -Errno.EINVAL;
  }
  if (count * size === 0 || (size !== 1 && size !== 2 && size !== 4)) {
    return RESUME;
  }
  const refused = setUpScratch(vcpu, ghcb, isIn, count * size);
  return refused ?? nextChunk(vcpu, ghcb.scratch!, { port, size, isIn }, 0, count);
}

/** As many elements as the data page holds in one exit. */
function nextChunk(vcpu: Vcpu, scratch: Scratch, access: PortAccess, done: number, count: number): number {
  if (done === count) {
    return RESUME;
  }
  const { run } = vcpu;
  const elements = Math.min(count - done, PAGE_SIZE / access.size);
  const from = done * access.size;
  const length = elements * access.size;
  if (!access.isIn) {
    run.set(scratch.read(from, length), KVM_PIO_DATA_OFFSET);
  }
  vcpu.completion = () => {
    if (access.isIn) {
      scratch.write(from, run.subarray(KVM_PIO_DATA_OFFSET, KVM_PIO_DATA_OFFSET + length));
    }
    return nextChunk(vcpu, scratch, access, done + elements, count);
  };
  return exitForIo(vcpu, access, elements);
}

function exitForIo({ run }: Vcpu, { port, size, isIn }: PortAccess, count: number): number {
  KvmRun.set(run, 'exit_reason', KvmExit.KVM_EXIT_IO);
  KvmRunIo.set(run, 'direction', isIn ? KvmIoDirection.KVM_EXIT_IO_IN : KvmIoDirection.KVM_EXIT_IO_OUT);
  KvmRunIo.set(run, 'size', size);
  KvmRunIo.set(run, 'port', port);
  KvmRunIo.set(run, 'count', count);
  KvmRunIo.set(run, 'data_offset', BigInt(KVM_PIO_DATA_OFFSET));
  return EXIT;
}
