// SPDX-License-Identifier: Apache-2.0
/**
 * Two things no library function does, as x86-64 machine code in a page of this process: executing CPUID,
 * and starting a process that waits for its tracer before it becomes another program.
 */
import { EnvironmentError } from '../lib/errors.ts';
import { koffiFor } from './libc.ts';

/** Registers after CPUID. */
export interface CpuidRegisters {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

export interface MachineCode {
  /** CPUID of the processor this thread happens to run on. */
  cpuid(leaf: number, subleaf: number): CpuidRegisters;
  /**
   * fork(2), as the kernel has it: none of the C library's state survives in the child, so that it can do
   * nothing but the system calls listed, one after the other. The last one must not return.
   *
   * Shape    7 words a call: number, six arguments
   * Returns  the process id, or -errno
   */
  forkCalls(calls: BigUint64Array): number;
}

const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const PAGE_SIZE = 4096;

/** void (u32 edi leaf, u32 esi subleaf, u32 rdx[4] registers) */
const CPUID = [
  ...[0xf3, 0x0f, 0x1e, 0xfa], // endbr64
  ...[0x53], //                   push rbx
  ...[0x49, 0x89, 0xd0], //       mov r8, rdx
  ...[0x89, 0xf8], //             mov eax, edi
  ...[0x89, 0xf1], //             mov ecx, esi
  ...[0x0f, 0xa2], //             cpuid
  ...[0x41, 0x89, 0x00], //       mov [r8], eax
  ...[0x41, 0x89, 0x58, 0x04], // mov [r8 + 4], ebx
  ...[0x41, 0x89, 0x48, 0x08], // mov [r8 + 8], ecx
  ...[0x41, 0x89, 0x50, 0x0c], // mov [r8 + 12], edx
  ...[0x5b, 0xc3], //             pop rbx; ret
];

/** int (u64 rdi calls[][7], u64 rsi count) */
const FORK_CALLS = [
  ...[0xf3, 0x0f, 0x1e, 0xfa], //       endbr64
  ...[0x53, 0x55], //                   push rbx; push rbp
  ...[0x48, 0x89, 0xfb], //             mov rbx, rdi
  ...[0x48, 0x89, 0xf5], //             mov rbp, rsi
  ...[0xb8, 0x39, 0x00, 0x00, 0x00], // mov eax, 57 (fork)
  ...[0x0f, 0x05], //                   syscall
  ...[0x85, 0xc0, 0x75, 0x28], //       test eax, eax; jnz parent
  ...[0x48, 0x8b, 0x03], //       next: mov rax, [rbx]
  ...[0x48, 0x8b, 0x7b, 0x08], //       mov rdi, [rbx + 8]
  ...[0x48, 0x8b, 0x73, 0x10], //       mov rsi, [rbx + 16]
  ...[0x48, 0x8b, 0x53, 0x18], //       mov rdx, [rbx + 24]
  ...[0x4c, 0x8b, 0x53, 0x20], //       mov r10, [rbx + 32]
  ...[0x4c, 0x8b, 0x43, 0x28], //       mov r8, [rbx + 40]
  ...[0x4c, 0x8b, 0x4b, 0x30], //       mov r9, [rbx + 48]
  ...[0x0f, 0x05], //                   syscall
  ...[0x48, 0x83, 0xc3, 0x38], //       add rbx, 56
  ...[0x48, 0xff, 0xcd, 0x75, 0xda], // dec rbp; jnz next
  ...[0x0f, 0x0b], //                   ud2
  ...[0x5d, 0x5b, 0xc3], //     parent: pop rbp; pop rbx; ret
];

const CPUID_AT = 0;
const FORK_CALLS_AT = 64;

let loaded: MachineCode | undefined;

/**
 * The code, put into memory once.
 *
 * Errors   FFI_UNAVAILABLE; CPUID_UNAVAILABLE on another processor or system, or where memory cannot be
 *          made executable
 */
export function machineCode(): MachineCode {
  loaded ??= load();
  return loaded;
}

function load(): MachineCode {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new EnvironmentError(
      'CPUID_UNAVAILABLE',
      `${process.platform} on ${process.arch} is not Linux on x86-64`,
    );
  }
  const koffi = koffiFor('answering CPUID');
  const libc = koffi.load(null);
  const mmap = libc.func(
    'void *mmap(void *at, size_t length, int protection, int flags, int fd, long offset)',
  );
  const mprotect = libc.func('int mprotect(void *at, size_t length, int protection)');
  const page: bigint = mmap(null, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page === MAP_FAILED) {
    throw new EnvironmentError('CPUID_UNAVAILABLE', 'there is no memory for a page of machine code');
  }
  koffi.encode(page, CPUID_AT, 'uint8_t', CPUID, CPUID.length);
  koffi.encode(page, FORK_CALLS_AT, 'uint8_t', FORK_CALLS, FORK_CALLS.length);
  if (mprotect(page, PAGE_SIZE, PROT_READ | PROT_EXEC) !== 0) {
    throw new EnvironmentError('CPUID_UNAVAILABLE', 'the kernel makes no memory executable here');
  }
  const at = (offset: number, prototype: string) =>
    koffi.decode(page + BigInt(offset), koffi.proto(prototype)) as (...args: unknown[]) => number;
  const cpuid = at(CPUID_AT, 'void softsnp_cpuid(uint32_t leaf, uint32_t subleaf, void *registers)');
  const forkCalls = at(FORK_CALLS_AT, 'int softsnp_fork_calls(const void *calls, uint64_t count)');
  const registers = new Uint32Array(4);
  return {
    cpuid(leaf, subleaf) {
      cpuid(leaf, subleaf, registers);
      const [eax, ebx, ecx, edx] = registers as unknown as readonly [number, number, number, number];
      return { eax, ebx, ecx, edx };
    },
    forkCalls: (calls) => forkCalls(calls, calls.length / 7),
  };
}
