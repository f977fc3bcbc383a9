// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../lib/errors.ts';
import { parseQemu, splitShell } from './qemu.ts';

const GUEST = '-machine q35,confidential-guest-support=sev0 -object sev-snp-guest,id=sev0,cbitpos=51';
const BASE = `qemu-system-x86_64 -enable-kvm -cpu EPYC-v4 ${GUEST} -bios OVMF.fd`;

describe('a shell command line', () => {
  it.each([
    ['a  b\tc\n', ['a', 'b', 'c']],
    [`'a b' "c d"e`, ['a b', 'c de']],
    [`a\\ b "\\"q\\" \\x" '\\'`, ['a b', '"q" \\x', '\\']],
    ['a \\\n b', ['a', 'b']],
    [`'' ""`, ['', '']],
    ['', []],
  ])('%j is the words %j', (text, words) => {
    expect(splitShell(text)).toEqual(words);
  });

  it('with an open quote is refused', () => {
    expect(() => splitShell(`a 'b`)).toThrow(/not closed/);
  });
});

describe('a QEMU command line', () => {
  it('says what is measured', () => {
    expect(parseQemu(BASE)).toEqual({
      mode: 'snp',
      ovmf: 'OVMF.fd',
      vcpus: 1,
      cpuType: 'EPYC-v4',
      cpuFms: {},
      guestFeatures: 1n,
      kernel: null,
      initrd: null,
      append: null,
      kernelHashes: false,
    });
  });

  it.each([
    ['-smp 4', 4],
    ['-smp 4,maxcpus=8,sockets=2', 4],
    ['-smp cpus=6,maxcpus=8', 6],
    ['-smp sockets=2,cores=3,threads=2', 12],
    ['-smp maxcpus=16', 16],
    ['-smp 2 -smp 3', 3],
  ])('with %s starts %i vCPUs', (smp, vcpus) => {
    expect(parseQemu(`${BASE} ${smp}`).vcpus).toBe(vcpus);
  });

  it.each([
    ['-bios code,,1.fd', 'code,,1.fd'],
    ['-drive if=pflash,file=code,,1.fd', 'code,1.fd'],
    [
      '-drive if=pflash,format=raw,unit=1,file=VARS.fd -drive if=pflash,format=raw,unit=0,file=CODE.fd',
      'CODE.fd',
    ],
    ['-drive file=CODE.fd,if=pflash,format=raw,readonly=on -drive if=none,file=disk.img', 'CODE.fd'],
    ['-pflash CODE.fd', 'CODE.fd'],
    [
      '-machine pflash0=f -blockdev node-name=f,driver=raw,file=g -blockdev node-name=g,driver=file,filename=CODE.fd',
      'CODE.fd',
    ],
    [
      `-machine pflash0=f -blockdev '{"node-name":"f","driver":"raw","file":{"driver":"file","filename":"CODE.fd"}}'`,
      'CODE.fd',
    ],
  ])('with %s measures %s', (firmware, path) => {
    expect(parseQemu(`qemu -cpu EPYC ${GUEST} ${firmware}`).ovmf).toBe(path);
  });

  it.each([
    ['sev-snp-guest,id=a', 'snp', 1n],
    ['sev-snp-guest,id=a,debug-swap=on', 'snp', 0x21n],
    ['sev-snp-guest,id=a,debug-swap=off,secure-tsc=on', 'snp', 0x201n],
    ['sev-guest,id=a,policy=0x5', 'seves', 0n],
    ['sev-guest,id=a,policy=1', 'sev', 0n],
    ['sev-guest,id=a', 'sev', 0n],
  ] as const)('with -object %s is %s with features %i', (object, mode, features) => {
    expect(parseQemu(`qemu -cpu EPYC -bios x -object ${object}`)).toMatchObject({
      mode,
      guestFeatures: features,
    });
  });

  it('takes the object the machine names', () => {
    const objects = '-object sev-guest,id=a -object sev-snp-guest,id=b';
    expect(parseQemu(`qemu -cpu EPYC -bios x ${objects} -M q35,memory-encryption=b`).mode).toBe('snp');
    expect(parseQemu(`qemu -cpu EPYC -bios x ${objects}`).mode).toBe('sev');
  });

  it('measures the kernel only with kernel-hashes=on', () => {
    const boot = `-kernel k -initrd i -append 'console=ttyS0  quiet'`;
    expect(parseQemu(`${BASE} ${boot}`)).toMatchObject({ kernel: 'k', kernelHashes: false });
    expect(
      parseQemu(`${BASE},x=y ${boot} -object sev-snp-guest,id=sev0,kernel-hashes=on`.replace(GUEST, '')),
    ).toMatchObject({
      kernel: 'k',
      initrd: 'i',
      append: 'console=ttyS0  quiet',
      kernelHashes: true,
    });
  });

  it('knows family, model and stepping given to -cpu', () => {
    expect(parseQemu(BASE.replace('EPYC-v4', 'host,family=25,model=0x11,stepping=1,-x')).cpuFms).toEqual({
      family: 25,
      model: 17,
      stepping: 1,
    });
  });

  it.each([
    ['qemu -bios x -object sev-snp-guest,id=a', /-cpu: is missing/],
    ['qemu -cpu EPYC -bios x', /has no sev-snp-guest/],
    [`${BASE} -machine confidential-guest-support=other`, /with the id "other"/],
    [`qemu -cpu EPYC ${GUEST}`, /-bios: is missing/],
    [`qemu -cpu EPYC ${GUEST} -machine pflash0=f`, /no file stands behind the node "f"/],
    [`qemu -cpu EPYC ${GUEST} -machine pflash0=f -blockdev node-name=f,file=f`, /no file stands behind/],
    [`qemu -cpu EPYC ${GUEST} -machine pflash0=f -blockdev {x`, /is not JSON/],
    [`${BASE} -object igvm-cfg,id=i,file=x -machine igvm-cfg=i`, /IGVM/],
    [`${BASE} -smp cpus=many`, /cpus=many is no number/],
    [BASE.replace('EPYC-v4', 'EPYC-v4,model=x'), /-cpu model: "x" is no number/],
  ])('%s is refused', (line, message) => {
    expect(() => parseQemu(line)).toThrow(message);
    expect(() => parseQemu(line)).toThrow(InputError);
  });

  it('of any words is read or refused, and nothing else', () => {
    const word = fc.constantFrom(
      ...`${BASE} -smp 4 -kernel k -drive if=pflash -blockdev {} -append ' " \\ , =`.split(' '),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 20 }), (words) => {
        try {
          parseQemu(words.join(' '));
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
      { numRuns: 500 },
    );
  });
});
