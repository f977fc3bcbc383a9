// SPDX-License-Identifier: Apache-2.0
/** A VM's guest physical memory: slots, the private attribute of each page, and the shared backing. */
import { Errno } from '../abi/errno.ts';
import { KVM_MEMORY_ATTRIBUTE_PRIVATE, KvmMemFlag, KvmVmType } from '../abi/kvm.ts';
import type { KvmMemoryAttributes, KvmUserspaceMemoryRegion2 } from '../abi/kvm-structs.ts';
import { PAGE_SIZE, PAGES_PER_2M, pfn } from '../lib/addresses.ts';
import { GuestMemfd } from './guest-memfd.ts';
import type { HostFrames } from './host-frames.ts';
import type { HostProcess } from './host-process.ts';
import { USER_MEM_SLOTS } from './limits.ts';
import { PageBitmap } from './page-bitmap.ts';
import { TASK_SIZE, type UserMemory } from './user-memory.ts';
import type { Vm } from './vm.ts';

export interface MemorySlot {
  readonly id: number;
  readonly baseGfn: number;
  readonly npages: number;
  /** Backs the shared state of each page. */
  readonly userAddress: number;
  readonly flags: number;
  /** Backs the private state; null once the file is closed, and in slots that never had one. */
  gmem: GuestMemfd | null;
  readonly gmemPage: number;
}

/** KVM_MEM_MAX_NR_PAGES. */
const MAX_SLOT_PAGES = 2 ** 31 - 1;
const TWO_64 = 1n << 64n;
const PAGE_MASK = BigInt(PAGE_SIZE - 1);
/**
 * Pages one KVM_SET_MEMORY_ATTRIBUTES may cover: 2^36, all of a 48-bit address space. The kernel reserves an
 * xarray slot for each and runs out of memory long before.
 */
const MAX_ATTRIBUTE_PAGES = 2 ** 36;

/** True when the VM's type knows private memory. */
export const hasPrivateMemory = (type: number): boolean =>
  type === KvmVmType.KVM_X86_SW_PROTECTED_VM || type === KvmVmType.KVM_X86_SNP_VM;

export class GuestMemory {
  readonly #vm: Vm;
  readonly #user: UserMemory;
  readonly #frames: HostFrames;
  /** Ascending by baseGfn. */
  #slots: MemorySlot[] = [];
  #last: MemorySlot | undefined;
  readonly #private = new PageBitmap();

  constructor(vm: Vm, user: UserMemory, frames: HostFrames) {
    this.#vm = vm;
    this.#user = user;
    this.#frames = frames;
  }

  isPrivate(guestFrame: number): boolean {
    return this.#private.has(guestFrame);
  }

  slotAt(guestFrame: number): MemorySlot | undefined {
    const last = this.#last;
    if (last !== undefined && guestFrame >= last.baseGfn && guestFrame < last.baseGfn + last.npages) {
      return last;
    }
    let low = 0;
    let high = this.#slots.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const slot = this.#slots[middle]!;
      if (slot.baseGfn + slot.npages <= guestFrame) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const found = this.#slots[low];
    if (found === undefined || found.baseGfn > guestFrame) {
      return undefined;
    }
    this.#last = found;
    return found;
  }

  /** True when the aligned 2 MiB around the page can be one nested mapping of the slot's guest_memfd. */
  canMap2M(guestFrame: number, slot: MemorySlot, gmem: GuestMemfd): boolean {
    const first = guestFrame - (guestFrame % PAGES_PER_2M);
    const page = slot.gmemPage + first - slot.baseGfn;
    return (
      first >= slot.baseGfn &&
      first + PAGES_PER_2M <= slot.baseGfn + slot.npages &&
      (gmem.firstFrame + page) % PAGES_PER_2M === 0 &&
      this.#private.chunkIsSet(guestFrame)
    );
  }

  /** Frame of the page's shared backing; -1 without slot or mapping. */
  sharedFrame(guestFrame: number): number {
    const slot = this.slotAt(guestFrame);
    return slot === undefined
      ? -1
      : this.#user.frameAt(slot.userAddress + (guestFrame - slot.baseGfn) * PAGE_SIZE);
  }

  /** kvm_read_guest: the shared backing whatever the attribute; null where it faults. */
  readShared(at: bigint, length: number): Uint8Array | null {
    const out = new Uint8Array(length);
    return this.readSharedInto(out, at) ? out : null;
  }

  /** The same into all of `out`; false where it faults, `out` being filled up to there. */
  readSharedInto(out: Uint8Array, at: bigint): boolean {
    let guestFrame = Number(at >> 12n);
    let offset = Number(at & PAGE_MASK);
    let done = 0;
    while (done < out.length) {
      const take = Math.min(out.length - done, PAGE_SIZE - offset);
      const frame = this.sharedFrame(guestFrame);
      if (frame === -1) {
        return false;
      }
      this.#frames.readInto(out, done, pfn(frame), offset, take);
      done += take;
      guestFrame += 1;
      offset = 0;
    }
    return true;
  }

  /** kvm_write_guest: false where it faults; pages before the fault are written. */
  writeShared(at: bigint, data: Uint8Array): boolean {
    let guestFrame = Number(at >> 12n);
    let offset = Number(at & PAGE_MASK);
    let done = 0;
    while (done < data.length) {
      const take = Math.min(data.length - done, PAGE_SIZE - offset);
      const frame = this.sharedFrame(guestFrame);
      if (frame === -1 || !this.#frames.writePart(pfn(frame), offset, data, done, take)) {
        return false;
      }
      done += take;
      guestFrame += 1;
      offset = 0;
    }
    return true;
  }

  /** KVM_SET_MEMORY_ATTRIBUTES. */
  setAttributes(request: KvmMemoryAttributes): number {
    const supported = hasPrivateMemory(this.#vm.type) ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
    if (request.flags !== 0n || (request.attributes & ~supported) !== 0n) {
      return -Errno.EINVAL;
    }
    if (request.size === 0n || request.address + request.size > TWO_64 - 1n) {
      return -Errno.EINVAL;
    }
    if (((request.address | request.size) & PAGE_MASK) !== 0n) {
      return -Errno.EINVAL;
    }
    const count = Number(request.size >> 12n);
    if (count > MAX_ATTRIBUTE_PAGES) {
      return -Errno.ENOMEM;
    }
    this.#private.set(Number(request.address >> 12n), count, request.attributes !== 0n);
    return 0;
  }

  /** KVM_SET_USER_MEMORY_REGION2, in the kernel's order of checks. */
  setRegion(process: HostProcess, request: KvmUserspaceMemoryRegion2): number {
    if ((request.flags & ~this.#validFlags(request.flags)) !== 0) {
      return -Errno.EINVAL;
    }
    const wantsGmem = (request.flags & KvmMemFlag.KVM_MEM_GUEST_MEMFD) !== 0;
    const { guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset } = request;
    if (((memory_size | guest_phys_addr | userspace_addr) & PAGE_MASK) !== 0n) {
      return -Errno.EINVAL;
    }
    if (userspace_addr + memory_size > BigInt(TASK_SIZE)) {
      return -Errno.EINVAL;
    }
    if (
      wantsGmem &&
      ((guest_memfd_offset & PAGE_MASK) !== 0n || guest_memfd_offset + memory_size >= TWO_64)
    ) {
      return -Errno.EINVAL;
    }
    const id = request.slot & 0xffff;
    if (request.slot >>> 16 >= this.#addressSpaces() || id >= USER_MEM_SLOTS) {
      return -Errno.EINVAL;
    }
    if (guest_phys_addr + memory_size >= TWO_64 || memory_size >> 12n > BigInt(MAX_SLOT_PAGES)) {
      return -Errno.EINVAL;
    }
    const old = this.#slots.find((slot) => slot.id === request.slot);
    if (memory_size === 0n) {
      return this.#deleteSlot(old);
    }
    const slot: MemorySlot = {
      id: request.slot,
      baseGfn: Number(guest_phys_addr >> 12n),
      npages: Number(memory_size >> 12n),
      userAddress: Number(userspace_addr),
      flags: request.flags,
      gmem: null,
      gmemPage: Number(guest_memfd_offset >> 12n),
    };
    const refused = old === undefined ? 0 : changeRefused(old, slot);
    if (refused !== 0) {
      return refused;
    }
    if (this.#slots.some((other) => other !== old && overlap(other, slot))) {
      return -Errno.EEXIST;
    }
    return wantsGmem ? this.#insertBound(process, slot, request.guest_memfd) : this.#insert(slot, old);
  }

  /** Every slot goes; guest_memfd files stay as they are. */
  clear(): void {
    for (const slot of this.#slots) {
      slot.gmem?.unbind(slot);
    }
    this.#slots = [];
    this.#last = undefined;
  }

  #validFlags(flags: number): number {
    let valid: number = KvmMemFlag.KVM_MEM_LOG_DIRTY_PAGES;
    if (hasPrivateMemory(this.#vm.type)) {
      valid |= KvmMemFlag.KVM_MEM_GUEST_MEMFD;
    }
    const type = this.#vm.type;
    const encryptedState = type === KvmVmType.KVM_X86_SEV_ES_VM || type === KvmVmType.KVM_X86_SNP_VM;
    if ((flags & KvmMemFlag.KVM_MEM_GUEST_MEMFD) !== 0) {
      valid &= ~KvmMemFlag.KVM_MEM_LOG_DIRTY_PAGES;
    } else if (!encryptedState) {
      valid |= KvmMemFlag.KVM_MEM_READONLY;
    }
    return valid;
  }

  /** System management mode has its own, on VMs whose state KVM can reach and without private memory. */
  #addressSpaces(): number {
    return hasPrivateMemory(this.#vm.type) ? 1 : 2;
  }

  #deleteSlot(old: MemorySlot | undefined): number {
    if (old === undefined) {
      return -Errno.EINVAL;
    }
    old.gmem?.unbind(old);
    this.#remove(old);
    return 0;
  }

  #insertBound(process: HostProcess, slot: MemorySlot, fd: number): number {
    const file = process.files.get(fd);
    if (file === null) {
      return -Errno.EBADF;
    }
    if (!(file instanceof GuestMemfd) || file.vm !== this.#vm || !file.canBind(slot.gmemPage, slot.npages)) {
      return -Errno.EINVAL;
    }
    slot.gmem = file;
    file.bind(slot);
    return this.#insert(slot, undefined);
  }

  #insert(slot: MemorySlot, replaced: MemorySlot | undefined): number {
    if (replaced !== undefined) {
      this.#remove(replaced);
    }
    this.#slots.push(slot);
    this.#slots.sort((a, b) => a.baseGfn - b.baseGfn);
    return 0;
  }

  #remove(slot: MemorySlot): void {
    this.#slots.splice(this.#slots.indexOf(slot), 1);
    this.#last = undefined;
  }
}

/** -EINVAL when an existing slot may not become the new one. */
function changeRefused(old: MemorySlot, slot: MemorySlot): number {
  const fixed = KvmMemFlag.KVM_MEM_READONLY | KvmMemFlag.KVM_MEM_GUEST_MEMFD;
  return (slot.flags & KvmMemFlag.KVM_MEM_GUEST_MEMFD) !== 0 ||
    slot.userAddress !== old.userAddress ||
    slot.npages !== old.npages ||
    ((slot.flags ^ old.flags) & fixed) !== 0
    ? -Errno.EINVAL
    : 0;
}

function overlap(a: MemorySlot, b: MemorySlot): boolean {
  return a.id >>> 16 === b.id >>> 16 && a.baseGfn < b.baseGfn + b.npages && b.baseGfn < a.baseGfn + a.npages;
}
