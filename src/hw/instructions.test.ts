// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { asid, gfn, type Pfn, pfn, spaOf, type Vmpl } from '../lib/addresses.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import { Hardware } from './hardware.ts';
import {
  PVALIDATE_DONE,
  PVALIDATE_FAIL_INPUT,
  PVALIDATE_FAIL_SIZEMISMATCH,
  PVALIDATE_UNCHANGED,
} from './instructions.ts';
import { PHYSICAL_PAGES } from './memory.ts';
import { Rmp } from './rmp.ts';
import { FAULT_GP, FAULT_NOT_VALIDATED, FAULT_RMP, FAULT_SIZEM, FAULT_VMPL } from './rmp-fault.ts';

const crypto = nodeCrypto({ deterministic: true });
const PFN = pfn(512 * 5);
const GFN = gfn(512 * 9);

interface Given {
  assigned?: boolean;
  pagesize?: 0 | 1;
  immutable?: boolean;
  asid?: number;
  gfn?: number;
}

function update(hw: Hardware, page: number, given: Given = {}): number {
  const assigned = given.assigned ?? true;
  return hw.rmpupdate(pfn(page), {
    assigned,
    pagesize: given.pagesize ?? 0,
    immutable: given.immutable ?? false,
    asid: asid(given.asid ?? (assigned ? 1 : 0)),
    gfn: gfn(given.gfn ?? (assigned ? GFN : 0)),
  });
}

function pvalidate(
  hw: Hardware,
  more: { page?: number; frame?: number; size?: 0 | 1; validate?: boolean; id?: number; vmpl?: Vmpl } = {},
) {
  return hw.pvalidate({
    pfn: pfn(more.page ?? PFN),
    gfn: gfn(more.frame ?? GFN),
    size: more.size ?? 0,
    validate: more.validate ?? true,
    asid: asid(more.id ?? 1),
    vmpl: more.vmpl ?? 0,
  });
}

function rmpadjust(
  hw: Hardware,
  more: {
    target?: number;
    permissions?: number;
    vmsa?: boolean;
    vmpl?: Vmpl;
    size?: 0 | 1;
    id?: number;
    frame?: number;
    page?: number;
  } = {},
) {
  return hw.rmpadjust({
    pfn: pfn(more.page ?? PFN),
    gfn: gfn(more.frame ?? GFN),
    size: more.size ?? 0,
    asid: asid(more.id ?? 1),
    vmpl: more.vmpl ?? 0,
    targetVmpl: more.target ?? 1,
    permissions: more.permissions ?? 0,
    vmsa: more.vmsa ?? false,
  });
}

describe('RMPUPDATE', () => {
  it('assigns a page with all VMPL0 permissions, not validated', () => {
    const hw = new Hardware(crypto);
    expect(update(hw, PFN)).toBe(0);
    expect(hw.rmp.lookup(PFN)).toEqual({
      assigned: true,
      pagesize: 0,
      immutable: false,
      gfn: GFN,
      asid: 1,
      vmsa: false,
      validated: false,
      perms: [15, 0, 0, 0],
    });
  });

  it('takes the validated bit away whatever it changes', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN);
    pvalidate(hw);
    expect(update(hw, PFN)).toBe(0);
    expect(hw.rmp.isValidated(PFN)).toBe(false);
  });

  it.each<[string, Given & { page?: number }]>([
    ['a page outside physical memory', { page: PHYSICAL_PAGES }],
    ['an unaligned 2 MiB page', { page: PFN + 1, pagesize: 1 }],
    ['an unaligned 2 MiB guest address', { pagesize: 1, gfn: GFN + 1 }],
    ['an ASID of more than 10 bits', { asid: 1024 }],
    ['a guest address of more than 51 bits', { gfn: 2 ** 39 }],
    ['an unassigned page with an ASID', { assigned: false, asid: 1 }],
    ['an unassigned page with a guest address', { assigned: false, gfn: 4 }],
    ['an unassigned immutable page, which would be HV-Fixed', { assigned: false, immutable: true }],
    ['a page of firmware with a guest address, which would be Metadata', { asid: 0, immutable: true }],
  ])('answers FAIL_INPUT for %s', (_, given) => {
    expect(update(new Hardware(crypto), given.page ?? PFN, given)).toBe(1);
  });

  it('answers FAIL_PERMISSION for an immutable entry: the host cannot take pages of firmware', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN, { asid: 0, gfn: 0, immutable: true });
    expect(update(hw, PFN, { assigned: false })).toBe(2);
    hw.rmp.fix(pfn(512), 512);
    expect(update(hw, 512)).toBe(2);
    expect(update(hw, 512, { pagesize: 1 })).toBe(2);
    hw.rmp.fix(pfn(1030), 1);
    expect(update(hw, 1024, { pagesize: 1 })).toBe(2);
    expect(update(hw, 1030)).toBe(2);
    expect(update(hw, 1031)).toBe(0);
  });

  it('answers FAIL_OVERLAP for 4 KiB in a 2 MiB entry and 2 MiB over 4 KiB entries', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN, { pagesize: 1 });
    expect(update(hw, PFN + 3, { assigned: false })).toBe(4);
    expect(update(hw, PFN, { assigned: false })).toBe(4);
    expect(update(hw, PFN, { assigned: false, pagesize: 1 })).toBe(0);
    update(hw, PFN + 511);
    expect(update(hw, PFN, { pagesize: 1 })).toBe(4);
    expect(update(hw, PFN + 511, { assigned: false })).toBe(0);
    expect(update(hw, PFN, { pagesize: 1 })).toBe(0);
  });
});

describe('PSMASH', () => {
  it('gives 512 entries the owner, consecutive guest frames, validation and permissions of the one', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN, { pagesize: 1, asid: 3 });
    pvalidate(hw, { size: 1, id: 3 });
    rmpadjust(hw, { size: 1, id: 3, target: 2, permissions: 5 });
    expect(hw.psmash(PFN)).toBe(0);
    for (const i of [0, 1, 255, 511]) {
      expect(hw.rmp.lookup(pfn(PFN + i))).toEqual({
        assigned: true,
        pagesize: 0,
        immutable: false,
        gfn: GFN + i,
        asid: 3,
        vmsa: false,
        validated: true,
        perms: [15, 0, 5, 0],
      });
    }
  });

  it('answers FAIL_INPUT for what is no assigned 2 MiB entry and FAIL_PERMISSION for an immutable one', () => {
    const hw = new Hardware(crypto);
    expect(hw.psmash(PFN)).toBe(1);
    expect(hw.psmash(pfn(PHYSICAL_PAGES))).toBe(1);
    update(hw, PFN, { pagesize: 1 });
    expect(hw.psmash(pfn(PFN + 1))).toBe(1);
    hw.psmash(PFN);
    expect(hw.psmash(PFN)).toBe(1);
    update(hw, 512, { pagesize: 1, immutable: true });
    expect(hw.psmash(pfn(512))).toBe(2);
  });
});

describe('PVALIDATE', () => {
  it('sets and clears the validated bit, and says by CF that nothing changed', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN);
    expect(pvalidate(hw, { validate: false })).toBe(PVALIDATE_UNCHANGED);
    expect(pvalidate(hw)).toBe(PVALIDATE_DONE);
    expect(pvalidate(hw)).toBe(PVALIDATE_UNCHANGED);
    expect(pvalidate(hw, { validate: false })).toBe(PVALIDATE_DONE);
  });

  it('answers FAIL_INPUT for an unaligned 2 MiB page and FAIL_SIZEMISMATCH for 2 MiB over 4 KiB entries', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN);
    expect(pvalidate(hw, { size: 1, frame: GFN + 1 })).toBe(PVALIDATE_FAIL_INPUT);
    expect(pvalidate(hw, { size: 1 })).toBe(PVALIDATE_FAIL_SIZEMISMATCH);
  });

  it('leaves to the hypervisor with SIZEM for 4 KiB inside a 2 MiB entry', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN, { pagesize: 1 });
    expect(pvalidate(hw, { page: PFN + 4, frame: GFN + 4 })).toBe(FAULT_SIZEM);
    expect(pvalidate(hw, { size: 1 })).toBe(PVALIDATE_DONE);
    hw.psmash(PFN);
    expect(pvalidate(hw, { page: PFN + 4, frame: GFN + 4 })).toBe(PVALIDATE_UNCHANGED);
  });

  it('leaves to the hypervisor for a page that is not the guest’s at that address', () => {
    const hw = new Hardware(crypto);
    expect(pvalidate(hw)).toBe(FAULT_RMP);
    update(hw, PFN);
    expect(pvalidate(hw, { id: 2 })).toBe(FAULT_RMP);
    expect(pvalidate(hw, { frame: GFN + 1 })).toBe(FAULT_RMP);
    expect(pvalidate(hw, { frame: GFN + 2 ** 20 })).toBe(FAULT_RMP);
    expect(pvalidate(hw, { page: PHYSICAL_PAGES })).toBe(FAULT_RMP);
    update(hw, 40, { immutable: true });
    expect(pvalidate(hw, { page: 40 })).toBe(FAULT_RMP);
  });

  it('is refused at any VMPL but 0', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN);
    expect(pvalidate(hw, { vmpl: 1 })).toBe(FAULT_GP);
  });
});

describe('RMPADJUST', () => {
  function validated(): Hardware {
    const hw = new Hardware(crypto);
    update(hw, PFN);
    pvalidate(hw);
    return hw;
  }

  it('lets VMPL0 give VMPL1 permissions and mark a VMSA that VMRUN then takes', () => {
    const hw = validated();
    expect(rmpadjust(hw, { permissions: 7 })).toBe(0);
    expect(hw.rmp.lookup(PFN).perms).toEqual([15, 7, 0, 0]);
    expect(hw.isRunnableVmsa(PFN, asid(1))).toBe(false);
    expect(rmpadjust(hw, { vmsa: true })).toBe(0);
    expect(hw.isRunnableVmsa(PFN, asid(1))).toBe(true);
    expect(hw.isRunnableVmsa(PFN, asid(2))).toBe(false);
    expect(hw.isRunnableVmsa(pfn(PHYSICAL_PAGES), asid(1))).toBe(false);
    expect(rmpadjust(hw, { vmsa: false })).toBe(0);
    expect(hw.isRunnableVmsa(PFN, asid(1))).toBe(false);
  });

  it('never lets a VMPL change its own or a more privileged one’s permissions', () => {
    const hw = validated();
    for (const vmpl of [0, 1, 2, 3] as const) {
      for (const target of [0, 1, 2, 3]) {
        expect(rmpadjust(hw, { vmpl, target }), `${vmpl} -> ${target}`).toBe(target > vmpl ? 0 : 2);
      }
    }
  });

  it('never lets a VMPL give more than it has, or mark a VMSA unless it is VMPL0', () => {
    const hw = validated();
    rmpadjust(hw, { target: 1, permissions: 3 });
    expect(rmpadjust(hw, { vmpl: 1, target: 2, permissions: 3 })).toBe(0);
    expect(rmpadjust(hw, { vmpl: 1, target: 2, permissions: 4 })).toBe(2);
    expect(rmpadjust(hw, { vmpl: 1, target: 2, permissions: 1, vmsa: true })).toBe(2);
  });

  it('answers FAIL_INPUT for a target above 3, reserved permissions and a 2 MiB VMSA', () => {
    const hw = validated();
    expect(rmpadjust(hw, { target: 4 })).toBe(1);
    expect(rmpadjust(hw, { permissions: 16 })).toBe(1);
    expect(rmpadjust(hw, { size: 1, vmsa: true })).toBe(1);
    expect(rmpadjust(hw, { size: 1, frame: GFN + 1 })).toBe(1);
  });

  it('answers FAIL_SIZEMISMATCH, or leaves with SIZEM, when the sizes differ', () => {
    const hw = validated();
    expect(rmpadjust(hw, { size: 1 })).toBe(6);
    update(hw, 512, { pagesize: 1, gfn: 512 });
    pvalidate(hw, { page: 512, frame: 512, size: 1 });
    expect(rmpadjust(hw, { page: 513, frame: 513 })).toBe(FAULT_SIZEM);
  });

  it('faults on pages that are not the guest’s or not validated', () => {
    const hw = validated();
    expect(rmpadjust(hw, { id: 2 })).toBe(FAULT_RMP);
    expect(rmpadjust(hw, { page: PHYSICAL_PAGES })).toBe(FAULT_RMP);
    pvalidate(hw, { validate: false });
    expect(rmpadjust(hw)).toBe(FAULT_NOT_VALIDATED);
  });
});

describe('memory accesses', () => {
  it('lets the guest use a validated page of its own with the permissions of its VMPL', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN);
    const access = {
      pfn: PFN,
      gfn: GFN,
      asid: asid(1),
      vmpl: 0 as Vmpl,
      write: false,
      encrypted: true,
    };
    expect(hw.checkGuestAccess(access)).toBe(FAULT_NOT_VALIDATED);
    pvalidate(hw);
    expect(hw.checkGuestAccess(access)).toBeNull();
    expect(hw.checkGuestAccess({ ...access, write: true })).toBeNull();
    expect(hw.checkGuestAccess({ ...access, vmpl: 1 })).toBe(FAULT_VMPL);
    rmpadjust(hw, { permissions: 1 });
    expect(hw.checkGuestAccess({ ...access, vmpl: 1 })).toBeNull();
    expect(hw.checkGuestAccess({ ...access, vmpl: 1, write: true })).toBe(FAULT_VMPL);
    expect(hw.checkGuestAccess({ ...access, gfn: gfn(GFN + 1) })).toBe(FAULT_RMP);
    expect(hw.checkGuestAccess({ ...access, asid: asid(2) })).toBe(FAULT_RMP);
    expect(hw.checkGuestAccess({ ...access, pfn: pfn(PHYSICAL_PAGES) })).toBe(FAULT_RMP);
  });

  it('lets a guest read any shared mapping and write only to pages nobody owns', () => {
    const hw = new Hardware(crypto);
    const access = {
      pfn: PFN,
      gfn: GFN,
      asid: asid(1),
      vmpl: 0 as Vmpl,
      write: true,
      encrypted: false,
    };
    expect(hw.checkGuestAccess(access)).toBeNull();
    update(hw, PFN);
    expect(hw.checkGuestAccess(access)).toBe(FAULT_RMP);
    expect(hw.checkGuestAccess({ ...access, write: false })).toBeNull();
  });

  it('refuses host writes to assigned pages, writing what comes before, and host reads never', () => {
    const hw = new Hardware(crypto);
    const before = (PFN - 1) as Pfn;
    update(hw, PFN);
    hw.memory.setKey(asid(1), new Uint8Array(32).fill(7));
    hw.memory.write(spaOf(PFN), new Uint8Array(4096).fill(0x55), asid(1));
    expect(hw.hostWrite(spaOf(before), new Uint8Array(4097).fill(0xaa))).toBe(FAULT_RMP);
    expect(hw.hostRead(spaOf(before), 4096)).toEqual(new Uint8Array(4096).fill(0xaa));
    expect(hw.hostRead(spaOf(PFN), 16)).not.toEqual(new Uint8Array(16).fill(0x55));
    expect(hw.memory.read(spaOf(PFN), 16, asid(1))).toEqual(new Uint8Array(16).fill(0x55));
    expect(hw.hostWrite(spaOf(before), Uint8Array.of(1))).toBeNull();
  });
});

describe('the RMP table', () => {
  it('stays as a plain list of pages would, whatever is done to it', () => {
    const pages = 3 * 512;
    const page = fc.integer({ min: 0, max: pages - 1 });
    const operation = fc.oneof(
      fc.record({ op: fc.constant('put4K' as const), page, value: fc.integer({ min: 0, max: 3 }) }),
      fc.record({ op: fc.constant('put2M' as const), page, value: fc.integer({ min: 0, max: 3 }) }),
      fc.record({ op: fc.constant('split' as const), page, value: fc.constant(0) }),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
        const rmp = new Rmp();
        const plain = new Int32Array(pages);
        for (const { op, page: at, value } of operations) {
          const first = at - (at % 512);
          if (op === 'put4K') {
            rmp.put4K(at, value, value * 7, value * 9);
            plain[at] = value;
          } else if (op === 'put2M') {
            rmp.put2M(first, value, value * 7, value * 9);
            plain.fill(value, first, first + 512);
          } else {
            rmp.split(at);
          }
        }
        for (let i = 0; i < pages; i += 37) {
          rmp.seek(i);
          const got = [rmp.words[rmp.base]! & 5, rmp.words[rmp.base + 1]!, rmp.words[rmp.base + 2]!];
          expect(got).toEqual([plain[i]! & 5, plain[i]! * 7, plain[i]! * 9]);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('takes at most 16 bytes a page, and one entry for an unsplit 2 MiB page', () => {
    const hw = new Hardware(crypto);
    const empty = hw.rmp.memoryBytes;
    const npages = 512 * 512;
    for (let i = 0; i < npages; i++) {
      update(hw, i, { gfn: i });
    }
    expect((hw.rmp.memoryBytes - empty) / npages).toBeLessThan(16);
    hw.rmp.reset();
    for (let i = 0; i < 64 * 512 * 512; i += 512) {
      update(hw, i, { gfn: i, pagesize: 1 });
    }
    expect(hw.rmp.memoryBytes).toBeLessThan(2 ** 21 + empty);
  });

  it('forgets split regions that are empty again', () => {
    const hw = new Hardware(crypto);
    update(hw, PFN);
    const one = hw.rmp.memoryBytes;
    for (let round = 0; round < 100; round++) {
      update(hw, PFN, { assigned: false });
      update(hw, PFN + 512 * (round % 7));
      update(hw, PFN + 512 * (round % 7), { assigned: false });
      update(hw, PFN);
    }
    expect(hw.rmp.memoryBytes).toBe(one);
  });
});
