// SPDX-License-Identifier: Apache-2.0
/**
 * Sizes, offsets and numbers against the kernel's own headers, asked of a C compiler.
 *
 * What the installed headers do not have yet is skipped by name and only if it is newer than they are;
 * KERNEL_HEADERS=<dir> (as `make headers_install` fills it) puts newer ones in front.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BugError } from '../../src/lib/errors.ts';
import { codeTables, layouts } from './declarations.ts';

const HEADERS = [
  'errno.h',
  'asm/kvm.h',
  'linux/kvm.h',
  'linux/kvm_para.h',
  'linux/falloc.h',
  'linux/fuse.h',
  'linux/psp-sev.h',
  'linux/sev-guest.h',
];

/** First kernel whose headers have it; what is not listed is in every kernel from 6.1 on. */
const SINCE: Readonly<Record<string, readonly [major: number, minor: number]>> = {
  KvmUserspaceMemoryRegion2: [6, 8],
  KvmMemoryAttributes: [6, 8],
  KvmCreateGuestMemfd: [6, 8],
  KvmPreFaultMemory: [6, 11],
  KvmRunMemoryFault: [6, 8],
  'KvmRunHypercall.flags': [6, 4],
  KvmRunSnpReqCerts: [7, 1],
  KvmSevInit: [6, 10],
  KvmSevSnpLaunchStart: [6, 11],
  KvmSevSnpLaunchUpdate: [6, 11],
  KvmSevSnpLaunchFinish: [6, 11],
  SevUserDataSnpStatus: [6, 9],
  SevDataSnpConfig: [6, 9],
  SevUserDataSnpVlekLoad: [6, 11],
};

/** Tables whose names are macros or enumerators of the headers. */
const TABLES = [
  'Errno',
  'SevRet',
  'SevUserCmd',
  'SnpGuestIoctl',
  'SnpGuestVmmErr',
  'KvmIoctl',
  'KvmCap',
  'KvmExit',
  'KvmVmType',
  'KvmAttrGroup',
  'KvmSystemAttr',
  'KvmSevAttr',
  'KvmMp',
  'KvmMemFlag',
  'KvmSystemEvent',
  'KvmInternalError',
  'KvmIoDirection',
  'KvmHypercall',
  'KvmHypercallErr',
  'KvmMapGpaRange',
  'KvmSevCmdId',
  'KvmSevSnpPageType',
  'FuseOpcode',
];

/** Numbers the headers have under the name but not for user space, or with a deliberate difference. */
const NOT_IN_HEADERS: Readonly<Record<string, string>> = {
  'Errno.ENOTSUPP': 'kernel-internal',
  'SevRet.SEV_RET_RB_MODE_EXITED': 'Linux: SEV_RET_EXIT_RING_BUFFER',
  'SnpGuestVmmErr.SNP_GUEST_VMM_ERR_NONE': 'softsnp’s name for 0',
  'SnpGuestVmmErr.SNP_GUEST_VMM_ERR_GENERIC': 'private to KVM',
};

interface Check {
  readonly what: string;
  readonly owner: string;
  readonly expression: string;
  readonly expected: bigint;
}

const structChecks: readonly Check[] = layouts.flatMap(({ name, value: layout }) => {
  const c = layout.source.c;
  if (c === undefined) {
    return [];
  }
  const type = `struct ${c.struct}`;
  const members = Object.entries(layout.fields).flatMap(([field, [offset, codec]]) => {
    const member = c.names !== undefined && field in c.names ? c.names[field]! : field;
    return member === null
      ? []
      : [
          {
            what: `${name}.${field} offset`,
            owner: `${name}.${field}`,
            expression: `offsetof(${type}, ${member})`,
            expected: BigInt(offset),
          },
          {
            what: `${name}.${field} size`,
            owner: `${name}.${field}`,
            expression: `sizeof(((${type} *)0)->${member})`,
            expected: BigInt(codec.size),
          },
        ];
  });
  return [
    { what: `${name} size`, owner: name, expression: `sizeof(${type})`, expected: BigInt(layout.size) },
    ...members,
  ];
});

const numberChecks: readonly Check[] = codeTables
  .filter(({ name }) => TABLES.includes(name))
  .flatMap(({ name: table, value }) =>
    Object.entries(value)
      .filter(([name]) => !(`${table}.${name}` in NOT_IN_HEADERS))
      .map(([name, expected]) => ({
        what: `${table}.${name}`,
        owner: `${table}.${name}`,
        expression: name,
        expected: BigInt(expected),
      })),
  );

const checks = [...structChecks, ...numberChecks];

interface Answer {
  readonly version: readonly [number, number];
  /** By `what`: the compiler's number, or null where the headers lack it. */
  readonly values: ReadonlyMap<string, bigint | null>;
}

/** Compiles once to learn what the headers lack, and once more without that to get the numbers. */
function askCompiler(): Answer | string {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-c-'));
  try {
    const compile = (source: string, ...args: readonly string[]) => {
      writeFileSync(join(folder, 'checks.c'), source);
      const headers = process.env['KERNEL_HEADERS'];
      return spawnSync(
        'cc',
        [...(headers === undefined ? [] : ['-I', headers]), '-w', '-fmax-errors=0', ...args, 'checks.c'],
        { cwd: folder, encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } },
      );
    };
    const prologue = [
      '#include <stddef.h>',
      '#include <stdio.h>',
      '#include <linux/version.h>',
      ...HEADERS.map((header) => `#include <${header}>`),
    ].join('\n');
    const probe = compile(`${prologue}\n`, '-fsyntax-only');
    if (probe.error !== undefined || probe.status !== 0) {
      return probe.error === undefined
        ? `headers missing: ${probe.stderr.split('\n')[0]}`
        : 'no C compiler (cc)';
    }
    const program = (list: readonly Check[]): string =>
      [
        prologue,
        'static const unsigned long long answers[] = {',
        ...list.map((check, i) => `#line ${i + 1} "answers"\n(unsigned long long)(${check.expression}),`),
        '};',
        'int main(void) {',
        'printf("%d\\n", LINUX_VERSION_CODE);',
        'for (unsigned i = 0; i < sizeof(answers) / sizeof(*answers); i++) printf("%llu\\n", answers[i]);',
        'return 0; }',
      ].join('\n');
    const lacking = new Set(
      [...compile(program(checks), '-fsyntax-only').stderr.matchAll(/^answers:(\d+):\d+: error/gm)].map(
        ([, line]) => Number(line) - 1,
      ),
    );
    const there = checks.filter((_, i) => !lacking.has(i));
    const built = compile(program(there), '-o', 'checks');
    if (built.status !== 0) {
      throw new BugError(`the comparison does not compile: ${built.stderr.slice(0, 400)}`);
    }
    const [code, ...numbers] = spawnSync(join(folder, 'checks'), { encoding: 'utf8' })
      .stdout.trim()
      .split('\n');
    const values = new Map<string, bigint | null>(checks.map((check) => [check.what, null]));
    there.forEach((check, i) => {
      values.set(check.what, BigInt(numbers[i]!));
    });
    return { version: [Number(code) >> 16, (Number(code) >> 8) & 0xff], values };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const answer = askCompiler();
const skipped = typeof answer === 'string' ? answer : null;
if (skipped !== null) {
  console.warn(`SKIPPED: offsets are not compared with the kernel headers: ${skipped}`);
}

describe.skipIf(skipped !== null)(
  `the kernel headers${skipped === null ? '' : ` (skipped: ${skipped})`}`,
  () => {
    const { version, values } = answer as Answer;
    const newer = (owner: string): boolean => {
      const since = SINCE[owner] ?? SINCE[owner.split('.')[0]!];
      return (
        since !== undefined && (since[0] > version[0] || (since[0] === version[0] && since[1] > version[1]))
      );
    };
    const missing = (list: readonly Check[]): string[] => [
      ...new Set(list.filter((check) => values.get(check.what) === null).map((check) => check.owner)),
    ];
    const wrong = (list: readonly Check[]): string[] =>
      list
        .filter((check) => values.get(check.what) !== null && values.get(check.what) !== check.expected)
        .map((check) => `${check.what}: declared ${check.expected}, header ${values.get(check.what)}`);

    it('have every structure that is not newer than they are', () => {
      const structs = [...new Set(missing(structChecks).map((owner) => owner.split('.')[0]!))];
      expect(missing(structChecks).filter((owner) => !newer(owner))).toEqual([]);
      if (structs.length > 0) {
        console.warn(`headers of Linux ${version.join('.')} lack: ${structs.join(', ')}`);
      }
    });

    it('give each structure and field the size and offset declared here', () => {
      expect(wrong(structChecks)).toEqual([]);
    });

    it('give each number the value declared here', () => {
      expect(TABLES.filter((name) => !codeTables.some((table) => table.name === name))).toEqual([]);
      expect(wrong(numberChecks)).toEqual([]);
      const unknown = missing(numberChecks);
      // An exit reason or two may be newer than the headers; most of a table is not.
      expect(unknown.length).toBeLessThan(numberChecks.length / 4);
      if (unknown.length > 0) {
        console.warn(
          `headers of Linux ${version.join('.')} lack ${unknown.length} of ${numberChecks.length} numbers`,
        );
      }
    });
  },
);
