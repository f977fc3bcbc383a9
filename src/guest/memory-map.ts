// SPDX-License-Identifier: Apache-2.0
/** Where the guest's memory is, what of it the launch already validated, and where the kernel keeps its pages. */
import { type Gpa, gpa, PAGE_SIZE, PAGES_PER_2M } from '../lib/addresses.ts';
import type { FrameRange } from './page-state.ts';

/** What firmware tables (e820 and the image's own metadata) tell a real kernel. */
export interface GuestMemoryMap {
  /** Usable RAM, ascending, page frames. */
  readonly ram: readonly FrameRange[];
  /** Pages the launch put in place and validated: accepting them again would be an error. */
  readonly launched: readonly FrameRange[];
}

/** The parts of `ranges` that none of `holes` covers, ascending. */
export function withoutRanges(ranges: readonly FrameRange[], holes: readonly FrameRange[]): FrameRange[] {
  const ordered = [...holes].sort((a, b) => a.from - b.from);
  const left: FrameRange[] = [];
  for (const range of [...ranges].sort((a, b) => a.from - b.from)) {
    let from = range.from;
    for (const hole of ordered) {
      if (hole.to <= from || hole.from >= range.to) {
        continue;
      }
      if (hole.from > from) {
        left.push({ from, to: hole.from });
      }
      from = hole.to;
    }
    if (from < range.to) {
      left.push({ from, to: range.to });
    }
  }
  return left;
}

/** Linux is loaded at 16 MiB unless told otherwise; its pages follow. */
const KERNEL_FROM = 0x1000;

/** As many pages as the certificate buffer of the sev-guest driver has: SEV_FW_BLOB_MAX_SIZE. */
const CERTS_NPAGES = 4;

/** Pages the kernel allocates for itself, in one run that starts 2 MiB aligned. */
export class KernelPages {
  readonly #from: number;
  readonly #vmsas: readonly number[];
  /** Pages shared with the hypervisor: request, response, certificates, then a GHCB for each vCPU. */
  readonly shared: FrameRange;
  /** First frame after all of them. */
  readonly to: number;

  constructor(from: number, vcpus: number) {
    this.#from = from;
    this.shared = { from, to: from + 2 + CERTS_NPAGES + vcpus };
    const vmsas: number[] = [];
    let frame = this.shared.to;
    for (; vmsas.length < vcpus; frame++) {
      // A save area must not lie on a 2 MiB boundary: an erratum makes hardware corrupt it there.
      if (frame % PAGES_PER_2M !== 0) {
        vmsas.push(frame);
      }
    }
    this.#vmsas = vmsas;
    this.to = frame;
  }

  /** A place for the pages in RAM the launch left alone; null when there is none. */
  static place(map: GuestMemoryMap, vcpus: number): KernelPages | null {
    for (const { from, to } of withoutRanges(map.ram, map.launched)) {
      const start = Math.ceil(Math.max(from, KERNEL_FROM) / PAGES_PER_2M) * PAGES_PER_2M;
      const pages = new KernelPages(start, vcpus);
      if (pages.to <= to) {
        return pages;
      }
    }
    return null;
  }

  get request(): Gpa {
    return frameGpa(this.#from);
  }

  get response(): Gpa {
    return frameGpa(this.#from + 1);
  }

  get certs(): Gpa {
    return frameGpa(this.#from + 2);
  }

  ghcb(vcpu: number): Gpa {
    return frameGpa(this.#from + 2 + CERTS_NPAGES + vcpu);
  }

  vmsa(vcpu: number): Gpa {
    return frameGpa(this.#vmsas[vcpu]!);
  }
}

const frameGpa = (frame: number): Gpa => gpa(BigInt(frame * PAGE_SIZE));
