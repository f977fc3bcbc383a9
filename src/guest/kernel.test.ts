// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { CpuidPage } from '../abi/cpuid-page.ts';
import { SnpGuestIoctl } from '../abi/dev-sev-guest.ts';
import { Errno } from '../abi/errno.ts';
import { GhcbExit } from '../abi/ghcb.ts';
import { ghcbMsrHvFtResp, ghcbMsrSevInfoResp } from '../abi/ghcb-msr.ts';
import { GuestException, ProgramEngine, VECTOR_PF, VECTOR_VC } from '../abi/guest-ops.ts';
import { Vmsa } from '../abi/vmsa.ts';
import { gpa } from '../lib/addresses.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import { entryPoint } from './ap-vmsa.ts';
import { GuestKernel, type GuestKernelOptions } from './kernel.ts';
import { KernelPages, withoutRanges } from './memory-map.ts';
import { ScriptedHost } from './testing.ts';

const SECRETS = gpa(0x80d000n);
const CPUID = gpa(0x80e000n);
const MEMORY = {
  ram: [
    { from: 0, to: 0xa0 },
    { from: 0x100, to: 0x2000 },
  ],
  launched: [{ from: 0x800, to: 0x820 }],
};
const pages = (vcpus: number): KernelPages => KernelPages.place(MEMORY, vcpus)!;
const bspVmsa = Vmsa.encode({
  cs: { selector: 0xf000, attrib: 0x9b, limit: 0xffff, base: 0xffff_0000n },
  rip: 0xfff0n,
});

function machine(options: Partial<GuestKernelOptions> = {}) {
  const host = new ScriptedHost();
  host.private.write(SECRETS + 0x20n, new Uint8Array(128).fill(0x5a));
  host.private.write(CPUID, CpuidPage.encode({ count: 1, entries: cpuidEntries(1) }));
  const log: string[] = [];
  const kernel = new GuestKernel({
    name: 'g',
    memoryMap: MEMORY,
    secretsGpa: SECRETS,
    cpuidGpa: CPUID,
    vcpus: 1,
    crypto: nodeCrypto({ deterministic: true }),
    clock: host.clock,
    onLog: (line) => log.push(line),
    ...options,
  });
  return { host, kernel, log };
}

function cpuidEntries(first: number) {
  const zero = { ecx_in: 0, xcr0_in: 0n, xss_in: 0n, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  return Array.from({ length: 64 }, (_, i) => ({ ...zero, eax_in: i === 0 ? first : 0 }));
}

/** Runs vCPU 0 until it has nothing left to do; true when it came up. */
function boot(options: Partial<GuestKernelOptions> = {}, prepare: (host: ScriptedHost) => void = () => {}) {
  const world = machine(options);
  prepare(world.host);
  world.host.run(world.kernel.boot(0, bspVmsa), 60_000);
  return world;
}

describe('the boot processor', () => {
  it('negotiates, asks for features, makes the GHCB by MSR, then uses the page protocol', () => {
    const { host, kernel } = boot();
    const ghcb = (pages(1).ghcb(0) >> 12n).toString(16);
    const early = host.log.slice(
      0,
      host.log.findIndex((line) => line.startsWith('page')),
    );
    expect(early).toEqual([
      'msr 0x2',
      'msr 0x80',
      'msr 0x14',
      `psc private 0x${ghcb}`,
      `pvalidate 0x${ghcb} 0 true`,
      `rmpadjust 0x${ghcb} vmpl 1`,
      `pvalidate 0x${ghcb} 0 false`,
      'msr 0x14',
      `psc shared 0x${ghcb}`,
      'msr 0x12',
    ]);
    expect(kernel.system?.protocolVersion).toBe(2);
    expect([...kernel.online]).toEqual([0]);
  });

  it('accepts all RAM but what was launched, and shares its buffers', () => {
    const { host } = boot();
    const shared = pages(1).shared;
    const expected = withoutRanges(MEMORY.ram, [...MEMORY.launched, shared]);
    const count = expected.reduce((sum, { from, to }) => sum + to - from, 0);
    expect(host.validated.size).toBe(count);
    expect(expected.every(({ from, to }) => host.validated.has(from) && host.validated.has(to - 1))).toBe(
      true,
    );
  });

  const refusals: [string, Partial<GuestKernelOptions>, (host: ScriptedHost) => void, number, number][] = [
    ['no common protocol version', {}, (h) => (h.sevInfo = ghcbMsrSevInfoResp(4, 3, 51)), 0, 1],
    ['another response code', {}, (h) => (h.sevInfo = 0x2n), 0, 1],
    ['no SNP feature', {}, (h) => (h.features = ghcbMsrHvFtResp(2)), 0, 2],
    ['a guest without SNP', {}, (h) => (h.sevStatus = 3n), 0, 2],
    ['another GHCB page', {}, (h) => (h.msrAnswers = { 18: 0xffff_ffff_ffff_f013n }), 1, 0],
    ['a VMPL other than 0', {}, (h) => (h.rmpadjustResult = 2), 1, 3],
    ['an image without CPUID page', { cpuidGpa: null }, () => {}, 1, 4],
    ['an empty CPUID table', {}, (h) => h.private.write(CPUID, new Uint8Array(4096)), 1, 4],
    ['a CPUID table of 65 entries', {}, (h) => h.private.write(CPUID, Uint8Array.of(65)), 1, 4],
    ['no CPUID answer', {}, (h) => (h.msrAnswers = { 4: 0n }), 1, 5],
    ['an image without secrets page', { secretsGpa: null }, () => {}, 1, 6],
    ['too little memory', { memoryMap: { ram: [{ from: 0, to: 0x100 }], launched: [] } }, () => {}, 0, 0],
  ];
  for (const [what, options, prepare, reason_set, reason_code] of refusals) {
    it(`terminates with ${reason_set}:${reason_code} on ${what}`, () => {
      expect(boot(options, (host) => void prepare(host)).host.terminated).toEqual({
        reason_set,
        reason_code,
      });
    });
  }

  it('stays halted when the hypervisor resumes it after a termination', () => {
    const { host, kernel } = machine({ cpuidGpa: null });
    const engine = new ProgramEngine(kernel.boot(0, bspVmsa));
    host.run(kernel.boot(0, bspVmsa));
    const ops = Array.from({ length: 6 }, () => engine.next(undefined)?.op);
    expect(ops).toEqual(['wrmsr', 'vmgexit', 'hlt', 'hlt', 'hlt', 'hlt']);
  });

  it('terminates on a #VC it does not expect and shuts down on other exceptions', () => {
    const { kernel } = machine();
    for (const [vector, next] of [
      [VECTOR_VC, 'wrmsr'],
      [VECTOR_PF, undefined],
    ] as const) {
      const engine = new ProgramEngine(kernel.boot(0, bspVmsa));
      engine.next(undefined);
      expect(engine.raise(new GuestException(vector, 0x404))?.op).toBe(next);
    }
  });

  it('has no code anywhere else', () => {
    const { kernel } = machine({ vcpus: 2 });
    const elsewhere = Vmsa.encode({ rip: 0x1000n });
    for (const [id, vmsa] of [
      [0, elsewhere],
      [1, elsewhere],
      [1, bspVmsa],
    ] as const) {
      expect(new ProgramEngine(kernel.boot(id, vmsa)).next(undefined)).toBeNull();
    }
  });
});

describe('application processors', () => {
  it('get a save area in the INIT state, marked by RMPADJUST, and report', () => {
    const created: { apic: number; at: bigint; rax: bigint }[] = [];
    const { host, kernel, log } = machine({ vcpus: 3 });
    const aps: ProgramEngine[] = [];
    host.onExit = ({ code, info1, info2, get }) => {
      if (code === GhcbExit.SVM_VMGEXIT_AP_CREATION) {
        created.push({ apic: Number(info1 >> 32n), at: info2, rax: get('rax') });
        expect(Number(info1 & 0xffff_ffffn)).toBe(1);
        aps.push(new ProgramEngine(kernel.boot(Number(info1 >> 32n), host.private.page(info2))));
        for (let op = aps.at(-1)!.next(undefined); op?.op !== 'hlt'; ) {
          // Registration is answered with the request's own frame.
          op = aps.at(-1)!.next(op?.op === 'rdmsr' ? pages(3).ghcb(aps.length) | 0x13n : undefined);
        }
      }
    };
    host.run(kernel.boot(0, bspVmsa), 60_000);
    expect(created).toEqual([
      { apic: 1, at: pages(3).vmsa(1), rax: 1n },
      { apic: 2, at: pages(3).vmsa(2), rax: 1n },
    ]);
    expect(host.log.filter((line) => line.endsWith('vmsa'))).toHaveLength(2);
    const vmsa = Vmsa.decode(host.private.read(pages(3).vmsa(1), 4096));
    expect(vmsa).toMatchObject({ cr0: 0x6000_0010n, efer: 0x1000n, sev_features: 1n, vmpl: 0 });
    expect(entryPoint(host.private.read(pages(3).vmsa(1), 4096))).toBe(0x9_8000);
    expect([...kernel.online].sort()).toEqual([0, 1, 2]);
    expect(kernel.system?.missing).toEqual([]);
    expect(log.some((line) => line.includes('failed'))).toBe(false);
  });

  it('never have a save area on a 2 MiB boundary', () => {
    const many = new KernelPages(0x1000, 4096);
    const frames = Array.from({ length: 4096 }, (_, id) => Number(many.vmsa(id) >> 12n));
    expect(frames.some((frame) => frame % 512 === 0)).toBe(false);
    expect(new Set(frames).size).toBe(4096);
    expect(Math.max(...frames)).toBeLessThan(many.to);
  });

  it('that never report are given up after ten seconds', () => {
    const { kernel, host, log } = boot({ vcpus: 2 });
    expect(kernel.system?.missing).toEqual([1]);
    expect(log).toContain('CPU1 failed to report alive state');
    expect(host.clock.monotonicMs()).toBe(10_000);
  });

  it('that the hypervisor refuses are left out', () => {
    const { kernel, log } = boot({ vcpus: 2 }, (host) => {
      host.onExit = ({ code, put }) => {
        if (code === GhcbExit.SVM_VMGEXIT_AP_CREATION) {
          put('sw_exit_info_1', 2n);
        }
      };
    });
    expect(log).toContain('CPU1: SNP AP creation error');
    expect(kernel.system?.missing).toEqual([]);
  });

  it('are not asked for without the feature', () => {
    const { kernel, log } = boot({ vcpus: 2 }, (host) => {
      host.features = ghcbMsrHvFtResp(1);
    });
    expect(kernel.online.size).toBe(1);
    expect(log).toContain('the hypervisor has no SNP AP creation: running on one CPU');
  });
});

describe('jobs', () => {
  it('run one after another, in the order they were submitted, also before the boot', () => {
    const { host, kernel } = machine();
    const order: number[] = [];
    const handles = [1, 2, 3].map((id) =>
      kernel.submit(function* () {
        order.push(id);
        yield { op: 'hlt', wakeAfterMs: 5 };
        order.push(id);
        return id * 10;
      }),
    );
    host.run(kernel.boot(0, bspVmsa), 60_000);
    expect(order).toEqual([1, 1, 2, 2, 3, 3]);
    expect(handles.map(({ done, result }) => [done, result])).toEqual([
      [true, 10],
      [true, 20],
      [true, 30],
    ]);
    expect(kernel.pending).toBe(0);
  });

  it('answer ENODEV when the driver did not load', () => {
    const { host, kernel } = machine({ vmpckId: 5 });
    const handle = kernel.sevGuestIoctl({
      cmd: SnpGuestIoctl.SNP_GET_REPORT,
      msg_version: 1,
      req_data: 'null',
      resp_data: true,
    });
    host.run(kernel.boot(0, bspVmsa), 60_000);
    expect(kernel.system?.sevGuest).toBe(-Errno.EINVAL);
    expect(handle.result?.ret).toBe(-Errno.ENODEV);
  });
});

describe('withoutRanges', () => {
  it('cuts holes out of ranges', () => {
    expect(
      withoutRanges(
        [
          { from: 10, to: 20 },
          { from: 30, to: 40 },
        ],
        [
          { from: 38, to: 50 },
          { from: 0, to: 11 },
          { from: 15, to: 32 },
        ],
      ),
    ).toEqual([
      { from: 11, to: 15 },
      { from: 32, to: 38 },
    ]);
  });
});
