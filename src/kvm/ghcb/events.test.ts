// SPDX-License-Identifier: Apache-2.0
/** [GHCB] "Generic validation" and every row of the table of accepted exit codes. */
import { describe, expect, it } from 'vitest';
import { Errno } from '../../abi/errno.ts';
import { GhcbExit, type GhcbQuad } from '../../abi/ghcb.ts';
import { GuestException, type GuestProgram, VECTOR_GP, VECTOR_UD } from '../../abi/guest-ops.ts';
import { KVM_PIO_DATA_OFFSET, KvmCap, KvmExit, KvmIoctl } from '../../abi/kvm.ts';
import {
  KvmRunHypercall,
  KvmRunInternalError,
  KvmRunIo,
  KvmRunMmio,
  KvmRunMsr,
  KvmRunSystemEvent,
} from '../../abi/kvm-run.ts';
import { KvmCpuid2, KvmCpuidEntry2 } from '../../abi/kvm-structs.ts';
import { concat, readU32, writeU32 } from '../../lib/bytes.ts';
import {
  DATA_GPA,
  GHCB_GPA,
  GHCB_SHARED_BUFFER,
  type GhcbAnswer,
  type GhcbCall,
  ghcbCall,
  ghcbPage,
  type LaunchedOptions,
  launched,
  registerGhcb,
  type TestVm,
  writeShared,
} from '../testing.ts';
import type { Vcpu } from '../vcpu.ts';

const RAX = 0x1111_2222_3333_4444n;

interface Outcome {
  readonly answer: GhcbAnswer;
  readonly exits: number[];
  /** What was raised in the guest instead of an answer. */
  readonly raised: GuestException | null;
  readonly vm: TestVm;
}

interface CallOptions extends LaunchedOptions {
  readonly answerExit?: (vm: TestVm, nth: number) => void;
  readonly prepare?: (vm: TestVm) => void;
}

/** One event, up to its answer. */
function event(call: GhcbCall, options: CallOptions = {}): Outcome {
  const answers: GhcbAnswer[] = [];
  let raised: GuestException | null = null;
  const { vm } = launched(
    () =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        try {
          answers.push(yield* ghcbCall(call));
        } catch (error) {
          raised = error as GuestException;
          answers.push(yield* ghcbCall({ code: GhcbExit.SVM_EXIT_INVD }));
        }
      })(),
    options,
  );
  options.prepare?.(vm);
  const exits: number[] = [];
  for (;;) {
    expect(vm.enter()).toEqual({ ret: 0 });
    if (vm.exitReason() === KvmExit.KVM_EXIT_SHUTDOWN) {
      return { answer: answers[0]!, exits, raised, vm };
    }
    exits.push(vm.exitReason());
    options.answerExit?.(vm, exits.length - 1);
  }
}

const infos = (call: GhcbCall, options?: CallOptions) => event(call, options).answer.infos;
const OK = [0n, 0n];
const malformed = (reason: number) => [2n, BigInt(reason)];

describe('generic validation', () => {
  it('GHCB usage other than 0 comes first: invalid usage', () => {
    expect(infos({ code: 0x999, usage: 1, without: ['sw_exit_code'] })).toEqual(malformed(2));
  });

  it.each(['sw_exit_code', 'sw_exit_info_1', 'sw_exit_info_2'] as const)(
    '%s without its valid bit, before the code is looked at: missing input',
    (field) => {
      expect(infos({ code: 0x999, without: [field] })).toEqual(malformed(4));
    },
  );

  const accepted = new Set<number>([
    0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b, 0x80000001, 0x80000002,
    0x80000003, 0x80000004, 0x80000005, 0x80000010, 0x80000011, 0x80000012, 0x80000013, 0x8000fffd,
    0x8000fffe, 0x8000ffff,
  ]);
  const probes = [
    ...Array.from({ length: 0x100 }, (_, i) => i),
    ...Array.from({ length: 0x40 }, (_, i) => 0x80000000 + i),
    ...Array.from({ length: 0x20 }, (_, i) => 0x8000ffe0 + i),
    0xffffffff,
  ].filter((code) => !accepted.has(code));

  it('every code outside the table: invalid event', () => {
    const seen = new Map<number, readonly bigint[]>();
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        for (const code of probes) {
          seen.set(code, (yield* ghcbCall({ code })).infos);
        }
      })(),
    );
    expect(vm.enter()).toEqual({ ret: 0 });
    expect([...seen.values()].every(([info1, info2]) => info1 === 2n && info2 === 6n)).toBe(true);
    expect(seen.size).toBe(probes.length);
  });

  it('the code is compared in 64 bits', () => {
    expect(infos({ code: 0x1_0000_0072n, fields: { rax: 0n, rcx: 0n } })).toEqual(malformed(6));
  });

  const NEEDS: readonly [string, GhcbCall, readonly GhcbQuad[]][] = [
    ['write DR7', { code: 0x37 }, ['rax']],
    ['RDPMC', { code: 0x6f }, ['rcx']],
    ['CPUID', { code: 0x72 }, ['rax', 'rcx']],
    ['CPUID 0xD', { code: 0x72, fields: { rax: 0xdn } }, ['xcr0']],
    ['OUT', { code: 0x7b, info1: 0x10n }, ['rax']],
    ['INS', { code: 0x7b, info1: 0x15n }, ['sw_scratch']],
    ['RDMSR', { code: 0x7c }, ['rcx']],
    ['WRMSR', { code: 0x7c, info1: 1n }, ['rcx', 'rax', 'rdx']],
    ['VMMCALL', { code: 0x81, cpl: 0 }, ['rax']],
    ['MONITOR', { code: 0x8a }, ['rax', 'rcx', 'rdx']],
    ['MWAIT', { code: 0x8b }, ['rax', 'rcx']],
    ['MMIO read', { code: 0x80000001, info2: 4n }, ['sw_scratch']],
    ['MMIO write', { code: 0x80000002, info2: 4n }, ['sw_scratch']],
    ['page state change', { code: 0x80000010 }, ['sw_scratch']],
    ['AP creation', { code: 0x80000013, info1: 1n }, ['rax']],
  ];

  for (const [name, call, fields] of NEEDS) {
    it.each(fields)(`${name} without %s: missing input`, (missing) => {
      const given = Object.fromEntries(fields.filter((field) => field !== missing).map((f) => [f, 1n]));
      expect(infos({ ...call, fields: { rcx: 0n, ...given, ...call.fields }, without: [missing] })).toEqual(
        malformed(4),
      );
    });
  }

  it('VMMCALL without CPL: missing input', () => {
    expect(infos({ code: 0x81, fields: { rax: 12n } })).toEqual(malformed(4));
  });

  it('answers with the valid bits of both infos and of RAX to RDX; absent inputs come back as 0', () => {
    const { answer } = event({ code: 0x89, fields: { rax: RAX } });
    const marked: GhcbQuad[] = ['rax', 'rbx', 'rcx', 'rdx', 'sw_exit_info_1', 'sw_exit_info_2'];
    expect(marked.filter((field) => answer.isValid(field))).toEqual(marked);
    expect([answer.get('rax'), answer.get('rbx'), answer.get('rcx')]).toEqual([RAX, 0n, 0n]);
    const unmarked: GhcbQuad[] = ['rsi', 'rdi', 'sw_exit_code', 'sw_scratch', 'xcr0'];
    expect(unmarked.filter((field) => answer.isValid(field))).toEqual([]);
  });

  it('an input without its valid bit is taken as 0, whatever the page holds', () => {
    const page = ghcbPage({ code: 0x89, fields: { rbx: RAX }, without: ['rbx'] });
    let rbx = -1n;
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        yield* writeShared(GHCB_GPA, page);
        yield { op: 'wrmsr', msr: 0xc0010130, value: GHCB_GPA };
        yield { op: 'vmgexit' };
        const seen = (yield { op: 'read', gpa: GHCB_GPA, length: 4096, encrypted: false }) as Uint8Array;
        rbx = new DataView(seen.buffer).getBigUint64(0x318, true);
      })(),
    );
    vm.enter();
    expect(rbx).toBe(0n);
  });

  it('between an exit and the next KVM_RUN the page shows the infos but not the registers', () => {
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        yield* ghcbCall({ code: 0x7b, info1: 0x50_0011n, fields: { rax: RAX } });
      })(),
    );
    vm.enter();
    const bitmap = vm.peek(GHCB_GPA + 0x3f0n, 16);
    expect(bitmap[14]).toBe(0x18);
    expect(bitmap[7]! | bitmap[12]!).toBe(0);
  });

  const SNP_ONLY = [0x80000010, 0x80000011, 0x80000012, 0x80000013];

  it.each(SNP_ONLY)('event 0x%s on a VM that is not SNP: missing input', async (code) => {
    const { handleVmgexit } = await import('./vmgexit.ts');
    const { vm } = launched(() => (function* nothing() {})());
    const vcpu = vm.user.process.files.get(vm.vcpus[0]!) as Vcpu;
    vm.poke(
      GHCB_GPA,
      ghcbPage({ code, info1: 0x1000n, fields: { sw_scratch: GHCB_SHARED_BUFFER, rax: 1n } }),
    );
    vcpu.vm.sev.snp = false;
    vcpu.ghcbMsr = GHCB_GPA;
    expect(handleVmgexit(vcpu)).toBe(1);
    expect(vm.peek(GHCB_GPA + 0x398n, 16)).toEqual(
      Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0),
    );
  });

  it.each([0x10, 0x12, 0x14])(
    'MSR request 0x%s on a VM that is not SNP ends like a termination',
    async (code) => {
      const { handleVmgexit } = await import('./vmgexit.ts');
      const { vm } = launched(() => (function* nothing() {})());
      const vcpu = vm.user.process.files.get(vm.vcpus[0]!) as Vcpu;
      vcpu.vm.sev.snp = false;
      vcpu.ghcbMsr = 0x5000n | BigInt(code);
      expect(handleVmgexit(vcpu)).toBe(0);
      expect(vm.exitReason()).toBe(KvmExit.KVM_EXIT_SYSTEM_EVENT);
      expect(KvmRunSystemEvent.get(vm.run(), 'data')[0]).toBe(0x5000n | BigInt(code));
    },
  );
});

describe('events without an exit', () => {
  it.each([
    ['read DR7', { code: 0x27 }],
    ['write DR7', { code: 0x37, fields: { rax: 1n } }],
    ['INVD', { code: 0x76 }],
    ['WBINVD', { code: 0x89 }],
    ['MONITOR', { code: 0x8a, fields: { rax: 0n, rcx: 0n, rdx: 0n } }],
    ['MWAIT', { code: 0x8b, fields: { rax: 0n, rcx: 0n } }],
    ['NMI complete', { code: 0x80000003 }],
    ['MMIO of 0 bytes', { code: 0x80000001, info2: 0n, fields: { sw_scratch: 0n } }],
  ])('%s: done', (_, call) => {
    expect(event(call)).toMatchObject({ exits: [], raised: null });
    expect(infos(call)).toEqual(OK);
  });

  it.each([
    ['RDTSCP: #UD', { code: 0x87 }, VECTOR_UD],
    ['RDPMC: #GP', { code: 0x6f, fields: { rcx: 0n } }, VECTOR_GP],
  ])('%s raised at the entry', (_, call, vector) => {
    expect(event(call).raised).toEqual(new GuestException(vector, 0));
  });

  it('RDTSC: internal error, unexpected exit reason 0x6e', () => {
    const data: unknown[] = [];
    const { exits } = event(
      { code: 0x6e },
      {
        answerExit: (vm) => {
          const error = KvmRunInternalError.decodeLoose(vm.run().subarray(0, 2352));
          data.push([error.suberror, error.ndata, error.data[0], error.data[1]]);
        },
      },
    );
    expect(exits).toEqual([KvmExit.KVM_EXIT_INTERNAL_ERROR]);
    expect(data).toEqual([[4, 2, 0x6en, 0n]]);
  });

  it('hypervisor features: SNP and AP creation', () => {
    expect(infos({ code: 0x8000fffd })).toEqual([0n, 3n]);
  });

  it('unsupported event: KVM_RUN fails with EINVAL', () => {
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        yield* ghcbCall({ code: 0x8000ffff });
      })(),
    );
    expect(vm.enter()).toEqual({ ret: -Errno.EINVAL });
  });

  it('AP jump table: 0 until it is set; other requests are invalid input', () => {
    const answers: GhcbAnswer[] = [];
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        for (const [info1, info2] of [
          [1n, 9n],
          [0n, 0x1234_5000n],
          [1n, 0n],
          [2n, 0n],
        ] as const) {
          answers.push(yield* ghcbCall({ code: 0x80000005, info1, info2 }));
        }
      })(),
    );
    vm.enter();
    expect(answers.map((answer) => answer.infos)).toEqual([OK, OK, [0n, 0x1234_5000n], malformed(5)]);
  });

  it('CPUID answers in RAX to RDX; XSTATE sizes follow XCR0', () => {
    const entries = [
      { function: 7, index: 0, flags: 1, eax: 1, ebx: 2, ecx: 3, edx: 0xffffffff },
      { function: 0xd, index: 0, flags: 1, eax: 7, ebx: 0, ecx: 832, edx: 0 },
      { function: 0xd, index: 2, flags: 1, eax: 256, ebx: 576, ecx: 0, edx: 0 },
      { function: 0xb, index: 1, flags: 1, eax: 0, ebx: 0, ecx: 0, edx: 77 },
    ].map((entry) => KvmCpuidEntry2.encode(entry));
    const prepare = (vm: TestVm) => {
      const table = concat(KvmCpuid2.encode({ nent: entries.length }), ...entries);
      expect(vm.user.ioctl(vm.vcpus[0]!, KvmIoctl.KVM_SET_CPUID2, table)).toBe(0);
    };
    const cpuid = (fields: Partial<Record<GhcbQuad, bigint>>) => {
      const { answer } = event({ code: 0x72, fields }, { prepare });
      return (['rax', 'rbx', 'rcx', 'rdx'] as const).map((field) => answer.get(field));
    };
    expect(cpuid({ rax: 7n, rcx: 0n })).toEqual([1n, 2n, 3n, 0xffffffffn]);
    expect(cpuid({ rax: 7n, rcx: 1n })).toEqual([0n, 0n, 0n, 0n]);
    expect(cpuid({ rax: 0xdn, rcx: 0n, xcr0: 7n })[1]).toBe(832n);
    expect(cpuid({ rax: 0xdn, rcx: 0n, xcr0: 3n })[1]).toBe(576n);
    expect(cpuid({ rax: 0xbn, rcx: 5n })).toEqual([0n, 0n, 5n, 77n]);
  });
});

describe('termination', () => {
  it('exit 24 type 6 with the GPA of the GHCB; the infos are zeroed already', () => {
    const seen: unknown[] = [];
    const { exits } = event(
      { code: 0x8000fffe, info1: 0x21n, info2: 5n },
      {
        answerExit: (vm) => {
          const { type, ndata, data } = KvmRunSystemEvent.decodeLoose(vm.run().subarray(0, 2352));
          seen.push([type, ndata, data[0]], vm.peek(GHCB_GPA + 0x398n, 16));
        },
      },
    );
    expect(exits).toEqual([KvmExit.KVM_EXIT_SYSTEM_EVENT]);
    expect(seen).toEqual([[6, 1, GHCB_GPA], new Uint8Array(16)]);
  });
});

describe('VMMCALL', () => {
  const mapGpaRange = (over: Partial<Record<GhcbQuad, bigint>> = {}, cpl = 0): GhcbCall => ({
    code: 0x81,
    cpl,
    fields: { rax: 12n, rbx: 0x40_0000n, rcx: 2n, rdx: 0x10n, ...over },
  });
  const rax = (call: GhcbCall, options?: CallOptions) =>
    BigInt.asIntN(64, event(call, options).answer.get('rax'));

  it('KVM_HC_MAP_GPA_RANGE leaves to userspace as given, in long mode; RAX := ret', () => {
    const seen: unknown[] = [];
    const options: CallOptions = {
      answerExit: (vm) => {
        const { nr, args, flags } = KvmRunHypercall.decodeLoose(vm.run().subarray(0, 2352));
        seen.push([nr, args[0], args[1], args[2], flags]);
        KvmRunHypercall.set(vm.run(), 'ret', 0x55n);
      },
    };
    expect(rax(mapGpaRange({ rdx: 0xffffn }), options)).toBe(0x55n);
    expect(seen).toEqual([[12n, 0x40_0000n, 2n, 0xffffn, 1n]]);
  });

  it.each([
    ['CPL 3: KVM_EPERM', mapGpaRange({}, 3), -1n],
    ['an unaligned GPA: KVM_EINVAL', mapGpaRange({ rbx: 1n }), -22n],
    ['no pages: KVM_EINVAL', mapGpaRange({ rcx: 0n }), -22n],
    ['a range that wraps: KVM_EINVAL', mapGpaRange({ rcx: 0xffff_ffff_ffff_ffffn }), -22n],
    ['an unknown hypercall: KVM_ENOSYS', mapGpaRange({ rax: 99n }), -1000n],
    ['12 with bits above: KVM_ENOSYS', mapGpaRange({ rax: 0x1_0000_000cn }), -1000n],
  ])('%s', (_, call, expected) => {
    expect(rax(call)).toBe(expected);
  });

  it('exit not enabled: KVM_ENOSYS', () => {
    expect(rax(mapGpaRange(), { hypercalls: false })).toBe(-1000n);
  });
});

describe('IOIO', () => {
  const port = 0x3f8n << 16n;

  it('OUT: direction, size, port, count and data', () => {
    const seen: unknown[] = [];
    event(
      { code: 0x7b, info1: port | 0x20n, fields: { rax: RAX } },
      {
        answerExit: (vm) => {
          seen.push(KvmRunIo.decodeLoose(vm.run().subarray(0, 2352)));
          seen.push(readU32(vm.run(), KVM_PIO_DATA_OFFSET));
        },
      },
    );
    expect(seen).toEqual([{ direction: 1, size: 2, port: 0x3f8, count: 1, data_offset: 4096n }, 0x4444]);
  });

  it.each([
    [1, 0x11n, 0x1111_2222_3333_44ddn],
    [2, 0x21n, 0x1111_2222_3333_ccddn],
    [4, 0x41n, 0xaabb_ccddn],
  ])('IN of %i bytes merges into RAX', (_, info1, expected) => {
    const { answer } = event(
      { code: 0x7b, info1: port | info1, fields: { rax: RAX } },
      { answerExit: (vm) => writeU32(vm.run(), KVM_PIO_DATA_OFFSET, 0xaabbccdd) },
    );
    expect(answer.get('rax')).toBe(expected);
  });

  it.each([0x00n, 0x01n, 0x30n, 0x70n])('size bits %s: no I/O', (bits) => {
    expect(event({ code: 0x7b, info1: port | bits, fields: { rax: 0n } }).exits).toEqual([]);
  });

  it('OUTS takes its data from the scratch area, INS puts it there', () => {
    const buffer = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]);
    const scratch = { sw_scratch: GHCB_SHARED_BUFFER };
    const out: Uint8Array[] = [];
    event(
      { code: 0x7b, info1: port | 0x24n, info2: 4n, fields: scratch, buffer },
      { answerExit: (vm) => out.push(vm.run().slice(KVM_PIO_DATA_OFFSET, KVM_PIO_DATA_OFFSET + 8)) },
    );
    expect(out).toEqual([buffer]);
    const { answer } = event(
      { code: 0x7b, info1: port | 0x15n, info2: 5n, fields: scratch },
      { answerExit: (vm) => vm.run().fill(0x7e, KVM_PIO_DATA_OFFSET, KVM_PIO_DATA_OFFSET + 8) },
    );
    expect(answer.page.slice(0x800, 0x808)).toEqual(Uint8Array.of(0x7e, 0x7e, 0x7e, 0x7e, 0x7e, 0, 0, 0));
  });

  it('a version 1 VM moves long strings in chunks of a page, and gets them back', () => {
    const counts: number[] = [];
    const { vm, answer } = event(
      { code: 0x7b, info1: port | 0x15n, info2: 5000n, fields: { sw_scratch: DATA_GPA } },
      {
        ghcbVersion: 1,
        answerExit: (machine) => {
          counts.push(KvmRunIo.get(machine.run(), 'count'));
          machine.run().fill(0x7e, KVM_PIO_DATA_OFFSET, KVM_PIO_DATA_OFFSET + 4096);
        },
      },
    );
    expect(counts).toEqual([4096, 904]);
    expect(answer.infos).toEqual(OK);
    expect(vm.peek(DATA_GPA, 5001)).toEqual(Uint8Array.from([...new Array(5000).fill(0x7e), 0]));
  });

  it.each([
    ['a count above INT_MAX', 0x15n, 0x8000_0000n],
    ['a size that overflows', 0x45n, 0x2000_0000n],
  ])('%s: KVM_RUN fails with EINVAL', (_, bits, info2) => {
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        yield* ghcbCall({ code: 0x7b, info1: port | bits, info2, fields: { sw_scratch: DATA_GPA } });
      })(),
    );
    expect(vm.enter()).toEqual({ ret: -Errno.EINVAL });
  });

  it('a string too long for the shared buffer: invalid scratch area', () => {
    const call = {
      code: 0x7b,
      info1: port | 0x15n,
      info2: 2033n,
      fields: { sw_scratch: GHCB_SHARED_BUFFER },
    };
    expect(infos(call)).toEqual(malformed(3));
  });

  it('a version 1 string of more than 64 KiB: invalid scratch area', () => {
    const call = { code: 0x7b, info1: port | 0x15n, info2: 65537n, fields: { sw_scratch: DATA_GPA } };
    expect(infos(call, { ghcbVersion: 1 })).toEqual(malformed(3));
  });
});

describe('MMIO', () => {
  const at = 0xfec0_0000n;
  const scratch = { sw_scratch: GHCB_SHARED_BUFFER };

  it('a write shows address, data and length; a read puts its data into the scratch area', () => {
    const seen: unknown[] = [];
    event(
      { code: 0x80000002, info1: at, info2: 4n, fields: scratch, buffer: Uint8Array.of(1, 2, 3, 4, 5) },
      { answerExit: (vm) => seen.push(KvmRunMmio.decodeLoose(vm.run().subarray(0, 2352))) },
    );
    expect(seen).toEqual([
      { phys_addr: at, data: Uint8Array.of(1, 2, 3, 4, 0, 0, 0, 0), len: 4, is_write: 1 },
    ]);
    const { answer } = event(
      { code: 0x80000001, info1: at, info2: 2n, fields: scratch },
      { answerExit: (vm) => KvmRunMmio.set(vm.run(), 'data', new Uint8Array(8).fill(9)) },
    );
    expect(answer.page.slice(0x800, 0x803)).toEqual(Uint8Array.of(9, 9, 0));
  });

  it.each([9n, 0xffff_ffff_ffff_ffffn])('%s bytes: invalid input', (info2) => {
    expect(infos({ code: 0x80000001, info1: at, info2, fields: scratch })).toEqual(malformed(5));
  });

  it('a version 1 VM gets fragments of 8 bytes', () => {
    const seen: unknown[] = [];
    event(
      { code: 0x80000002, info1: at, info2: 20n, fields: { sw_scratch: DATA_GPA } },
      {
        ghcbVersion: 1,
        answerExit: (vm) =>
          seen.push([KvmRunMmio.get(vm.run(), 'phys_addr'), KvmRunMmio.get(vm.run(), 'len')]),
      },
    );
    expect(seen).toEqual([
      [at, 8],
      [at + 8n, 8],
      [at + 16n, 4],
    ]);
  });

  it('a version 1 VM with a length no scratch area holds: invalid scratch area', () => {
    const call = {
      code: 0x80000001,
      info1: at,
      info2: 0xffff_ffff_ffff_0000n,
      fields: { sw_scratch: DATA_GPA },
    };
    expect(infos(call, { ghcbVersion: 1 })).toEqual(malformed(3));
  });
});

describe('MSR', () => {
  const GP = [1n, 0x8000_030dn];

  it('an unknown register: exception 13 in the infos', () => {
    expect(infos({ code: 0x7c, fields: { rcx: 0x4b564d99n } })).toEqual(GP);
    expect(infos({ code: 0x7c, info1: 1n, fields: { rcx: 0x4b564d99n, rax: 0n, rdx: 0n } })).toEqual(GP);
  });

  it('the TSC follows the clock', () => {
    const { answer } = event(
      { code: 0x7c, fields: { rcx: 0x10n } },
      { prepare: (vm) => vm.user.host.clock.advance(2000) },
    );
    expect(answer.infos).toEqual(OK);
    expect((answer.get('rdx') << 32n) | answer.get('rax')).toBe(4_900_000_000n);
  });

  it('APIC base and x2APIC registers, which need x2APIC mode', () => {
    const answers: GhcbAnswer[] = [];
    const rdmsr = (rcx: bigint): GhcbCall => ({ code: 0x7c, fields: { rcx } });
    const wrmsr = (rcx: bigint, rax: bigint): GhcbCall => ({
      code: 0x7c,
      info1: 1n,
      fields: { rcx, rax, rdx: 0n },
    });
    const { vm } = launched(() =>
      (function* program(): GuestProgram {
        yield* registerGhcb();
        for (const call of [
          rdmsr(0x1bn),
          rdmsr(0x802n),
          wrmsr(0x1bn, 0xfee0_0400n),
          wrmsr(0x1bn, 0xfee0_0d00n),
          rdmsr(0x802n),
          rdmsr(0x803n),
          wrmsr(0x80fn, 0x1ffn),
          rdmsr(0x80fn),
          wrmsr(0x80bn, 0n),
          wrmsr(0x80bn, 1n),
          rdmsr(0x80bn),
        ]) {
          answers.push(yield* ghcbCall(call));
        }
      })(),
    );
    vm.enter();
    expect(answers.map((answer) => [Number(answer.info1), answer.get('rax')])).toEqual([
      [0, 0xfee0_0900n],
      [1, 0n],
      [1, 0xfee0_0400n],
      [0, 0xfee0_0d00n],
      [0, 0n],
      [0, 0x5_0014n],
      [0, 0x1ffn],
      [0, 0x1ffn],
      [0, 0n],
      [1, 1n],
      [1, 0n],
    ]);
  });

  it('goes to userspace where it asked for unknown ones, which decides', () => {
    const seen: unknown[] = [];
    const prepare = (vm: TestVm) => expect(vm.enableCap(KvmCap.KVM_CAP_X86_USER_SPACE_MSR, 2n)).toBe(0);
    const read = (error: number) =>
      event(
        { code: 0x7c, fields: { rcx: 0x1234n } },
        {
          prepare,
          answerExit: (vm) => {
            seen.push([vm.exitReason(), KvmRunMsr.decodeLoose(vm.run().subarray(0, 2352))]);
            KvmRunMsr.set(vm.run(), 'error', error);
            KvmRunMsr.set(vm.run(), 'data', 0x1_0000_0002n);
          },
        },
      ).answer;
    expect([read(0).get('rax'), read(0).get('rdx')]).toEqual([2n, 1n]);
    expect(read(1).infos).toEqual(GP);
    expect(seen[0]).toEqual([29, { error: 0, reason: 2, index: 0x1234, data: 0n }]);
    const write = event(
      { code: 0x7c, info1: 1n, fields: { rcx: 0x1234n, rax: 5n, rdx: 6n } },
      { prepare, answerExit: (vm) => seen.push(KvmRunMsr.get(vm.run(), 'data')) },
    );
    expect(write.exits).toEqual([KvmExit.KVM_EXIT_X86_WRMSR]);
    expect(seen.at(-1)).toBe(0x6_0000_0005n);
    expect(write.answer.infos).toEqual(OK);
  });
});
