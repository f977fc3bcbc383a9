// SPDX-License-Identifier: Apache-2.0
/**
 * Scratch areas: where an event's bulk data is.
 *
 * Source   [GHCB] "Scratch area rules"
 */
import { Errno } from '../../abi/errno.ts';
import { GHCB_SHARED_BUFFER_END } from '../../abi/ghcb.ts';
import type { Vcpu } from '../vcpu.ts';
import { type GhcbMapping, inSharedBuffer, malformed } from './mapping.ts';

export interface Scratch {
  readonly length: number;
  read(offset: number, length: number): Uint8Array;
  write(offset: number, data: Uint8Array): void;
  /** At the next entry: a kernel copy goes back to guest memory. */
  finish(): void;
}

/** GHCB_SCRATCH_AREA_LIMIT: what a kernel copy may take. */
const COPY_LIMIT = 16 * 4096;
const U64_MAX = (1n << 64n) - 1n;

/** Version from which scratch areas must lie in the page. */
const IN_PAGE_ONLY_VERSION = 2;

/**
 * Sets the event's scratch area up. `sync`: what the event writes is for the guest.
 *
 * Returns  null when it is there; RESUME with the guest told why not, or an errno
 */
export function setUpScratch(vcpu: Vcpu, ghcb: GhcbMapping, sync: boolean, minLength: number): number | null {
  const { scratchGpa } = ghcb;
  const refused = () => malformed(vcpu, ghcb, 'GHCB_ERR_INVALID_SCRATCH_AREA');
  if (scratchGpa === 0n || scratchGpa + BigInt(minLength) > U64_MAX) {
    return refused();
  }
  if (scratchGpa >> 12n === ghcb.gpa >> 12n) {
    if (!inSharedBuffer(ghcb, scratchGpa, minLength)) {
      return refused();
    }
    ghcb.scratch = inPage(vcpu, ghcb, Number(scratchGpa & 0xfffn));
    return null;
  }
  if (vcpu.vm.sev.ghcbVersion >= IN_PAGE_ONLY_VERSION || minLength > COPY_LIMIT) {
    return refused();
  }
  const copy = vcpu.vm.memory.readShared(scratchGpa, minLength);
  if (copy === null) {
    return -Errno.EFAULT;
  }
  ghcb.scratch = kernelCopy(vcpu, scratchGpa, copy, sync);
  return null;
}

function inPage(vcpu: Vcpu, ghcb: GhcbMapping, start: number): Scratch {
  const { frames } = vcpu.vm.services;
  return {
    length: GHCB_SHARED_BUFFER_END - start,
    read: (offset, length) => frames.read(ghcb.frame, start + offset, length),
    write: (offset, data) => {
      frames.write(ghcb.frame, start + offset, data);
    },
    finish: () => undefined,
  };
}

function kernelCopy(vcpu: Vcpu, gpa: bigint, copy: Uint8Array, sync: boolean): Scratch {
  return {
    length: copy.length,
    read: (offset, length) => copy.slice(offset, offset + length),
    write: (offset, data) => {
      copy.set(data, offset);
    },
    finish: () => {
      if (sync) {
        vcpu.vm.memory.writeShared(gpa, copy);
      }
    },
  };
}
