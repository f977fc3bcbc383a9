// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../lib/errors.ts';
import { parseQemu } from './qemu.ts';

const GUEST = '-machine q35,confidential-guest-support=sev0 -object sev-snp-guest,id=sev0,cbitpos=51';
/** A machine whose guest object is called a. */
const NAMED = 'qemu -cpu EPYC -bios x -M q35,confidential-guest-support=a';
const BASE = `qemu-system-x86_64 -enable-kvm -cpu EPYC-v4 ${GUEST} -bios OVMF.fd`;

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
      notes: [],
      svsm: null,
      vmmType: 'QEMU',
    });
  });

  it.each([
    ['-smp 4', 4],
    ['-smp 4,maxcpus=8,sockets=2', 4],
    ['-smp cpus=4,maxcpus=8,sockets=2,cores=4,threads=1', 4],
    ['-smp 2,maxcpus=4 -device EPYC-v4-x86_64-cpu,socket-id=2 -device virtio-rng-pci', 3],
    [`-smp 2,maxcpus=4 -device '{"driver":"EPYC-v4-x86_64-cpu","core-id":1}'`, 3],
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
    [`-name '-smp' -smp 2`, 2],
    ['-nodefaults disk.img -smp 2', 2],
    ['-smp 2 disk.img', 2],
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
    ['-pflash CODE.fd -pflash VARS.fd', 'CODE.fd'],
    ['-drive if=pflash,unit=1,file=VARS.fd -pflash CODE.fd', 'CODE.fd'],
    ['-drive if=pflash,file=CODE.fd -drive if=pflash,file=VARS.fd', 'CODE.fd'],
    ['-drive if=pflash,file.filename=CODE.fd,file.driver=file', 'CODE.fd'],
    ['-drive id=f,if=none,format=raw,file=file:CODE.fd -machine pflash0=f', 'CODE.fd'],
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
    ['sev-guest,id=a,policy=5,debug-swap=on', 'seves', 0x20n],
    ['sev-guest,id=a,policy=1', 'sev', 0n],
    ['sev-guest,id=a', 'sev', 0n],
    ['qom-type=sev-snp-guest,id=a', 'snp', 1n],
    ['id=a,qom-type=sev-snp-guest', 'snp', 1n],
    [`'{"qom-type":"sev-snp-guest","id":"a","cbitpos":51,"debug-swap":true}'`, 'snp', 0x21n],
    [`'{"qom-type":"sev-guest","id":"a","policy":7}'`, 'seves', 0n],
  ] as const)('with -object %s is %s with features %i', (object, mode, features) => {
    expect(parseQemu(`${NAMED} -object ${object}`)).toMatchObject({
      mode,
      guestFeatures: features,
    });
  });

  it('takes the object the machine names', () => {
    const objects = '-object sev-guest,id=a -object sev-snp-guest,id=b';
    expect(parseQemu(`qemu -cpu EPYC -bios x ${objects} -M q35,memory-encryption=b`).mode).toBe('snp');
    expect(parseQemu(`${NAMED} ${objects}`).mode).toBe('sev');
  });

  it('measures the kernel only with kernel-hashes=on', () => {
    const boot = `-kernel k -initrd i -append 'console=ttyS0  quiet'`;
    expect(parseQemu(`${BASE} ${boot}`)).toMatchObject({ kernel: 'k', kernelHashes: false });
    expect(parseQemu(`${BASE.replace('cbitpos=51', 'kernel-hashes=on')} ${boot}`)).toMatchObject({
      kernel: 'k',
      initrd: 'i',
      append: 'console=ttyS0  quiet',
      kernelHashes: true,
    });
    expect(parseQemu(`${BASE} -kernel k -initrd '' -append ''`)).toMatchObject({ initrd: null, append: '' });
  });

  it('measures the kernel of JSON objects and of -machine, the last one given', () => {
    const object = `-object '{"qom-type":"sev-snp-guest","id":"a","kernel-hashes":true}'`;
    const line = `${NAMED},kernel=c -machine kernel=a -preconfig -kernel b -win2k-hack ${object}`;
    expect(parseQemu(`${line} -initrd '-append' -append --quiet`)).toMatchObject({
      ...{ kernel: 'b', kernelHashes: true },
      ...{ initrd: '-append', append: '--quiet' },
    });
  });

  it('names the options that it passed over', () => {
    expect(parseQemu(`${BASE} -frob 4 -smp 2 --knob`)).toMatchObject({
      vcpus: 2,
      unknown: ['-frob', '--knob'],
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
    [`qemu -bios x ${GUEST}`, /-cpu: is missing/],
    ['qemu -cpu EPYC -bios x', /has no sev-snp-guest/],
    [
      'qemu -cpu EPYC -bios x -M q35 -object sev-snp-guest,id=a',
      /names no object .* an ordinary guest; is confidential-guest-support=a meant/,
    ],
    [`${NAMED} -object sev-snp-guest,id=a -object sev-guest,id=a`, /the id "a" is given twice/],
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
    [`${BASE} -smp -nographic`, /-smp: would take -nographic as its value/],
    [`${BASE} -smp $(nproc)`, /for a shell to evaluate/],
    [`${BASE} -readconfig file`, /-readconfig: the file may hold any option/],
    [`${BASE} -append x`, /-append: needs -kernel beside it/],
    [`${BASE} -initrd x`, /-initrd: needs -kernel beside it/],
    [`${BASE} -kernel k -shim s`, /a shim is not computed here/],
    [`${BASE} -set machine.x.kernel=y`, /-set: machine\.x\.kernel=y may change/],
    [`${BASE} -global EPYC-x86_64-cpu.family=25`, /-global: .* changes the CPU signature/],
    [`${NAMED} -object sev-snp-guest,id=a,kernel-hashes=maybe`, /"maybe" is not on or off/],
    [`${NAMED} -object sev-guest,id=a,policy=es`, /policy: "es" is no number/],
    ['qemu -cpu EPYC -bios x -object {x', /-object: {x is not JSON/],
    [BASE.replace('EPYC-v4', 'EPYC-v4,model=x'), /-cpu model: "x" is no number/],
    [BASE.replace('EPYC-v4', 'EPYC-v4,model='), /-cpu model: "" is no number/],
    // Quotes that were lost, and what stands for ASCII.
    [`${BASE} -kernel k -append console=ttyS0 quiet`, /-append console=ttyS0: is followed by "quiet"/],
    [`${BASE} -kernel k -append quiet -- single`, /--: is no option of QEMU/],
    [`${BASE} -kernel k -append quiet -x single`, /-append quiet: is followed by -x/],
    [`${BASE} -kernel my kernel`, /-kernel my: is followed by "kernel"/],
    [`${BASE} -kernel k -append -initrd i`, /-append: would take -initrd as its value/],
    [`${BASE} -name -smp 4`, /-name: would take -smp as its value/],
    [`${BASE} -smp 4, maxcpus=8`, /-smp 4,: is followed by "maxcpus=8"/],
    [`${BASE} -smp 4 cores`, /-smp 4: is followed by "cores"/],
    [`${BASE} -name my guest -S one.img`, /"guest" and "one.img": belong to no option/],
    [`${BASE} –smp 4`, /U\+2013/],
    [`${BASE} -append “quiet”`, /U\+201C/],
    [`${BASE} -smp\u00a04`, /U\+00A0/],
    [`${BASE} -append \ufffd`, /U\+FFFD: stands for bytes that are no UTF-8/],
    [`${BASE} -smp=4`, /the value of -smp is the next word/],
    [`${BASE} -spm 4`, /is -smp meant/],
    [`${BASE} -kernels k`, /is -kernel meant/],
    ['./launch.sh', /is one word, no command line; .* --qemu "\$\(cat \.\/launch\.sh\)"/],
    // What a guest object says that is not known to leave the measurement alone.
    [`${NAMED} -object sev-snp-guest,id=a,secure-avic=on`, /no property "secure-avic"/],
    [`${NAMED} -object sev-snp-guest,id=a,sekure-tsc=on`, /no property "sekure-tsc"/],
    [`${NAMED} -object sev-snp-guest,id=a,igvm-file=x`, /IGVM/],
    [`${NAMED} -object sev-snp-guest,id=a,init-flags=1`, /init-flags: restricts interrupts/],
    [`${NAMED} -object sev-guest,id=a,secure-tsc=on`, /no property "secure-tsc"/],
    [`${NAMED} -object sev-guest,id=a,debug-swap=on`, /needs SEV-ES/],
    [`${NAMED} -object sev-guest,id=a,policy=5,debug-swap=on,legacy-vm-type=on`, /excludes debug-swap=on/],
    [`${NAMED} -object sev-guest,id=a,policy=5,legacy-vm-type=x`, /"x" is not on or off/],
    [`${BASE} -global sev-guest.legacy-vm-type=off`, /-global: .*may change what is measured/],
    // Flash that is not the bytes of one file.
    [`${BASE} -pflash f`, /-bios: stands beside a flash drive/],
    [`qemu -cpu EPYC ${GUEST} -drive if=pflash,format=qcow2,file=f`, /holds the firmware as qcow2/],
    [`qemu -cpu EPYC ${GUEST} -drive if=pflash,driver=vmdk,file=f`, /holds the firmware as vmdk/],
    [`qemu -cpu EPYC ${GUEST} -machine pflash0=f -blockdev node-name=f,driver=qcow2,file=g`, /as qcow2/],
    [
      `qemu -cpu EPYC ${GUEST} -machine pflash0=f -blockdev driver=raw,offset=4096,node-name=f,file=g`,
      /offset=/,
    ],
    [
      `qemu -cpu EPYC ${GUEST} -drive if=pflash,file=f,unit=0 -drive if=pflash,file=g,index=0`,
      /unit 0 is given twice/,
    ],
    [`qemu -cpu EPYC ${GUEST} -drive if=pflash,file=f,unit=1`, /-bios: is missing/],
    [`qemu -cpu EPYC ${GUEST} -drive if=pflash,file=f,unit=x`, /"x" is no unit/],
    [`qemu -cpu EPYC ${GUEST} -drive if=pflash`, /names no file/],
    [`qemu -cpu EPYC ${GUEST} -pflash f -pflash g -pflash h`, /unit=2: is no flash of a PC without svsm=on/],
    // Topologies.
    [`${BASE} -smp cpus=4,sockets=1,cores=2,threads=1`, /the topology makes 2 vCPUs and not 4/],
    [`${BASE} -smp 4,sockets=3`, /the topology makes 3 vCPUs and not 4/],
    [`${BASE} -smp 2,maxcpus=1`, /2 vCPUs are more than maxcpus=1/],
    [`${BASE} -smp 2 -device EPYC-v4-x86_64-cpu`, /3 vCPUs are more than maxcpus=2/],
    [`${BASE} -smp 1,maxcpus=2 -device EPYC-v4-x86_64-cpu,model=2`, /model of one vCPU differs/],
  ])('%s is refused', (line, message) => {
    expect(() => parseQemu(line)).toThrow(message);
    expect(() => parseQemu(line)).toThrow(InputError);
  });

  it.each([
    ['policy=5', 'QEMU-before-6.10', 1],
    ['policy=5,legacy-vm-type=auto', 'QEMU-before-6.10', 0],
    ['policy=5,legacy-vm-type=on', 'QEMU-before-6.10', 0],
    ['policy=5,legacy-vm-type=off', 'QEMU', 0],
    ['policy=5,debug-swap=on', 'QEMU', 0],
    ['policy=5,debug-swap=on,legacy-vm-type=auto', 'QEMU', 0],
  ])('of an SEV-ES guest with %s starts vCPUs as %s', (object, vmmType, notes) => {
    const launch = parseQemu(`${NAMED} -object sev-guest,id=a,${object}`);
    expect(launch).toMatchObject({ mode: 'seves', vmmType });
    expect(launch.notes).toHaveLength(notes);
  });

  it('with svsm=on names firmware, variables and SVSM', () => {
    const flash = ['-drive if=pflash,unit=2,file=S', '-drive if=pflash,unit=0,file=C'].join(' ');
    const line = `qemu -cpu EPYC-v4 ${GUEST},svsm=on`;
    const vars = '-drive if=pflash,unit=1,file=V';
    expect(parseQemu(`${line} ${flash} ${vars}`)).toMatchObject({
      mode: 'snp:svsm',
      ovmf: 'C',
      svsm: { image: 'S', vars: 'V' },
    });
    expect(() => parseQemu(`${line} ${flash}`)).toThrow(/goes with three flash drives/);
    expect(() => parseQemu(`${line} -bios x`)).toThrow(/goes with three flash drives/);
    expect(() => parseQemu(`${line},kernel-hashes=on ${flash} ${vars} -kernel k`)).toThrow(/kernel-hashes/);
    expect(() => parseQemu(`${line},debug-swap=on ${flash} ${vars}`)).toThrow(/with debug-swap/);
  });

  it('begins behind the words of sudo and its like', () => {
    const words = 'LC_ALL=C sudo -E taskset -c 0-3 /usr/bin/';
    expect(parseQemu(`${words}${BASE} -smp 2`)).toMatchObject({ vcpus: 2, unknown: [] });
    expect(parseQemu(`A=1 B=2 ${BASE.replace('qemu-system-x86_64', '/opt/vmm')} -smp 2`).vcpus).toBe(2);
    expect(parseQemu(BASE.replace('qemu-system-x86_64', '')).vcpus).toBe(1);
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
