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

  it.each([
    [`a '$(b) $c \`d\` ; # & <'`, ['a', '$(b) $c `d` ; # & <']],
    ['a "x \\$(b) ;|&"', ['a', 'x $(b) ;|&']],
    ['a # -b c\n d#e', ['a', 'd#e']],
    ['a $ 5$ "6$"', ['a', '$', '5$', '6$']],
  ])('%j has nothing to evaluate in %j', (text, words) => {
    expect(splitShell(text)).toEqual(words);
  });

  it.each([
    [`a 'b`, /--qemu: a ' is not closed/],
    ['-smp $(nproc)', /"\$\(nproc\)" is for a shell to evaluate/],
    ['-smp "$N"', /"\$N\\"" is for a shell to evaluate/],
    ['-smp `nproc`', /for a shell to evaluate/],
    ["-append $'a b'", /for a shell to evaluate/],
    ['a && b', /"&" is the shell’s/],
    ['a >log', /">" is the shell’s/],
  ])('%j is refused', (text, message) => {
    expect(() => splitShell(text)).toThrow(message);
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
      unknown: [],
    });
  });

  it.each([
    ['-smp 4', 4],
    ['-smp 4,maxcpus=8,sockets=2', 4],
    ['-smp cpus=6,maxcpus=8', 6],
    ['-smp sockets=2,cores=3,threads=2', 12],
    ['-smp maxcpus=16', 16],
    ['-smp 2 -smp 3', 3],
    ['-smp 2 -smp maxcpus=8', 2],
    ['-smp sockets=2 -smp cores=4', 8],
    ['-machine smp.cpus=5', 5],
    // Options without a value beside it.
    ...['-mem-prealloc', '-only-migratable', '-preconfig', '-win2k-hack', '--nographic', '-S', '-s'].map(
      (flag): [string, number] => [`${flag} -smp 2`, 2],
    ),
    ['-flag-of-another-qemu -smp 2', 2],
    ['-option-of-another-qemu value -smp 2', 2],
    ['-name -smp -smp 2', 2],
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
    ['qom-type=sev-snp-guest,id=a', 'snp', 1n],
    ['id=a,qom-type=sev-snp-guest', 'snp', 1n],
    [`'{"qom-type":"sev-snp-guest","id":"a","cbitpos":51,"debug-swap":true}'`, 'snp', 0x21n],
    [`'{"qom-type":"sev-guest","id":"a","policy":7}'`, 'seves', 0n],
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

  it('measures the kernel of JSON objects and of -machine, the last one given', () => {
    const object = `-object '{"qom-type":"sev-snp-guest","id":"sev0","kernel-hashes":true}'`;
    const line = `qemu -cpu EPYC -bios x -machine q35,kernel=a -preconfig -kernel b -win2k-hack ${object}`;
    expect(parseQemu(`${line} -initrd -append -append --quiet`)).toMatchObject({
      ...{ kernel: 'b', kernelHashes: true },
      ...{ initrd: '-append', append: '--quiet' },
    });
  });

  it('names the options that it passed over', () => {
    expect(parseQemu(`${BASE} -spm 4 --smp=4`)).toMatchObject({ vcpus: 1, unknown: ['-spm', '--smp=4'] });
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
    [`${BASE} -smp 4k`, /cpus=4k is no number/],
    [`${BASE} -smp 0`, /cpus=0 is no number from 1 on/],
    [`${BASE} -smp 4,cors=2`, /"cors" is no property of it/],
    [`${BASE} -smp`, /--qemu: -smp: needs a value/],
    [`${BASE} -smp -nographic`, /cpus=-nographic is no number/],
    [`${BASE} -smp $(nproc)`, /for a shell to evaluate/],
    [`${BASE} -readconfig file`, /-readconfig: the file may hold any option/],
    [`${BASE} -append x`, /-append: needs -kernel beside it/],
    [`${BASE} -initrd x`, /-initrd: needs -kernel beside it/],
    [`${BASE} -kernel k -shim s`, /a shim is not computed here/],
    [`${BASE} -set machine.x.kernel=y`, /-set: machine\.x\.kernel=y may change/],
    [`${BASE} -global EPYC-x86_64-cpu.family=25`, /-global: .* changes the CPU signature/],
    [`qemu -cpu EPYC -bios x -object sev-snp-guest,id=a,kernel-hashes=maybe`, /"maybe" is not on or off/],
    ['qemu -cpu EPYC -bios x -object sev-guest,id=a,policy=es', /policy: "es" is no number/],
    ['qemu -cpu EPYC -bios x -object {x', /-object: {x is not JSON/],
    [BASE.replace('EPYC-v4', 'EPYC-v4,model=x'), /-cpu model: "x" is no number/],
    [BASE.replace('EPYC-v4', 'EPYC-v4,model='), /-cpu model: "" is no number/],
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
