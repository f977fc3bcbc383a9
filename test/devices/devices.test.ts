// SPDX-License-Identifier: Apache-2.0
/** The devices under a real kernel: clients are other programs, built from the kernel's own headers. */
import { execFile, spawnSync } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ARK_GUID, VCEK_GUID } from '../../src/abi/cert-table.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { guestVerb } from '../../src/cli/guest.ts';
import { hostVerb } from '../../src/cli/host.ts';
import { type Output, runCli, type Verb } from '../../src/cli/run.ts';
import { Tsm } from '../../src/devices/configfs-tsm/device.ts';
import { ReportGroup, tsmPlaces } from '../../src/devices/configfs-tsm/files.ts';
import { sevGuestProvider } from '../../src/devices/configfs-tsm/provider.ts';
import { fixedDirectory } from '../../src/devices/fuse/filesystem.ts';
import { type ServedTree, serveTree } from '../../src/devices/fuse/server.ts';
import { guestMsrs, hostMsrs } from '../../src/devices/msr/device.ts';
import { msrPlaces } from '../../src/devices/msr/files.ts';
import { SevDevice } from '../../src/devices/sev/device.ts';
import { sevPlaces } from '../../src/devices/sev/files.ts';
import { sevGuestPlaces } from '../../src/devices/sev-guest/files.ts';
import { TestGuest } from '../../src/devices/testing.ts';
import { TestHost } from '../../src/kvm/testing.ts';
import { type OpenDevice, openDevice } from '../../src/os/device-file.ts';
import { ffiAvailable } from '../../src/os/libc.ts';
import { comparable, SEV_ANSWERS, SEV_GUEST_ANSWERS, tsmAnswers } from './client-answers.ts';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const folder = mkdtempSync(join(tmpdir(), 'softsnp-devices-'));
const client = join(folder, 'client');
const mount = join(folder, 'mnt');

function obstacle(): string | null {
  if (!ffiAvailable()) {
    return 'koffi is not installed';
  }
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return '/dev/fuse is missing or not accessible';
  }
  if (process.geteuid?.() !== 0) {
    return 'mounting outside a namespace needs root';
  }
  const headers = '#include <linux/sev-guest.h>\n#include <linux/psp-sev.h>\n';
  const probe = spawnSync('cc', ['-xc', '-fsyntax-only', '-'], { input: headers });
  return probe.status === 0
    ? null
    : 'cc or the kernel headers linux/sev-guest.h, linux/psp-sev.h are missing';
}

const missing = obstacle();
if (missing !== null) {
  process.stderr.write(`SKIPPED: devices under a real kernel: ${missing}\n`);
}

const exec = promisify(execFile);

/** What the client printed, line by line. */
async function run(...args: string[]): Promise<string[]> {
  const { stdout } = await exec(client, args, { timeout: 20_000 });
  return stdout.split('\n').slice(0, -1);
}

let served: ServedTree | null = null;
let guest: TestGuest;
const faults: unknown[] = [];

beforeAll(() => {
  if (missing !== null) {
    return;
  }
  mkdirSync(mount);
  const source = join(root, 'test', 'devices', 'client.c');
  const cc = spawnSync('cc', ['-O1', '-Wall', '-pthread', '-o', client, source], { encoding: 'utf8' });
  expect(cc.stderr).toBe('');
});

beforeEach(async () => {
  if (missing !== null) {
    return;
  }
  guest = new TestGuest();
  const device = new SevDevice({ process: new TestHost().kernel.spawn('clients') });
  const places = {
    ...sevGuestPlaces({ driver: guest.driver }),
    ...sevPlaces(device),
    ...tsmPlaces(new ReportGroup(new Tsm(sevGuestProvider(guest.driver)))),
    ...msrPlaces(guestMsrs(1n), hostMsrs(1n << 40n)),
  };
  // /dev/sev-guest is dev-sev-guest here: where a place is shown is decided elsewhere.
  const flat = Object.entries(places).map(([path, node]) => [path.slice(1).replaceAll('/', '-'), node]);
  served = await serveTree(mount, {
    root: fixedDirectory(Object.fromEntries(flat)),
    onFault: (error) => faults.push(error),
  });
});

afterEach(async () => {
  await served?.close();
  served = null;
  expect(faults.splice(0)).toEqual([]);
});

afterAll(() => rmSync(folder, { recursive: true }));

const SEV_GUEST = join(mount, 'dev-sev-guest');
const SEV = join(mount, 'dev-sev');

describe.skipIf(missing !== null)('/dev/sev-guest under a real kernel', () => {
  it('answers the edge cases of every ioctl as the driver does', async () => {
    guest.certs = new Uint8Array(0x1800).fill(0x77);
    expect(comparable(await run('sev-guest', SEV_GUEST))).toEqual(SEV_GUEST_ANSWERS);
  });

  it('says each time how much is needed while the blob grows, up to the most a guest may offer', async () => {
    guest.before = async () => {
      const size = Math.min(guest.certs.length + 0x1000, 0x4000);
      guest.certs = new Uint8Array(size).fill(0x77);
    };
    expect(await run('grow', SEV_GUEST)).toEqual([
      '0x0: 0x1000 needed',
      '0x1000: 0x2000 needed',
      '0x2000: 0x3000 needed',
      '0x3000: 0x4000 needed',
      '0x4000: enough, last byte 0x77',
    ]);
    guest.before = async () => {
      guest.certs = new Uint8Array(0x4001);
    };
    expect(await run('grow', SEV_GUEST)).toEqual(['0x0: 0x5000 needed', '0x5000: EINVAL']);
  });

  it('gives 16 clients at once each its own report', async () => {
    guest.certs = new Uint8Array(0x1800).fill(0x77);
    const ends = await Promise.all(Array.from({ length: 16 }, () => run('hammer', SEV_GUEST, '25')));
    expect(ends.flat()).toEqual([]);
    await expect.poll(() => served!.server.session.openCount).toBe(0);
  });
});

describe.skipIf(missing !== null)('clients that are killed in the middle of an ioctl', () => {
  it('leave no open file behind, and the guest and its firmware at the same count', async () => {
    guest.certs = new Uint8Array(0x1800).fill(0x77);
    // So that many die while they wait, and some before their memory is read, or after.
    guest.before = () => new Promise((resolve) => setTimeout(resolve, guest.calls.length % 2));
    expect(await run('kill', SEV_GUEST, '200')).toEqual([]);
    await served!.server.session.idle();
    await expect.poll(() => served!.server.session.openCount).toBe(0);
    expect(await run('hammer', SEV_GUEST, '10')).toEqual([]);
    const counts = guest.messages.map(({ msg_seqno }) => msg_seqno);
    expect(counts).toEqual(counts.map((_, i) => BigInt(2 * i + 1)));
    expect(counts.length).toBeGreaterThan(10);
  });
});

describe.skipIf(missing !== null)('/dev/sev under a real kernel', () => {
  it('answers the edge cases of its commands as the driver does', async () => {
    expect(await run('sev', SEV)).toEqual(SEV_ANSWERS);
  });
});

describe.skipIf(missing !== null)('configfs-tsm under a real kernel', () => {
  it('behaves as configfs and tsm do', async () => {
    guest.certs = new Uint8Array([...encodeCertificateTable([{ guid: ARK_GUID, data: Uint8Array.of(1) }])]);
    expect(await run('tsm', join(mount, 'sys-kernel-config'))).toEqual(tsmAnswers(guest.certs.length));
  });

  it('serves a shell that pipes its data in, one store for all of it', async () => {
    const report = join(mount, 'sys-kernel-config', 'tsm', 'report', 'shell');
    const script = `mkdir ${report} && cd ${report} && head -c 64 /dev/zero > inblob &&
      exec 3> inblob && head -c 32 /dev/urandom >&3 && head -c 32 /dev/urandom >&3 && exec 3>&- &&
      cat generation provider && wc -c < outblob && echo 1 > privlevel && cat generation && cd / && rmdir ${report}`;
    const { stdout } = await exec('sh', ['-c', script]);
    expect(stdout).toBe('2\nsev_guest\n1184\n3\n');
  });
});

describe.skipIf(missing !== null)('the files beside the devices', () => {
  it('are what clients look for', async () => {
    // Not as the child's working folder: this process would wait for the fork, and the fork for this process.
    const shell = async (line: string): Promise<string> =>
      (await exec('sh', ['-c', `cd ${mount} && ${line}`])).stdout.trim();
    expect(await shell('ls sys-devices-platform-sev-guest')).toBe('modalias\nuevent');
    expect(await shell('cat sys-module-sev_guest/parameters/vmpck_id')).toBe('-1');
    expect(await shell('cat sys-devices-system-cpu-sev/vmpl')).toBe('0');
    expect(await shell('cat sys-module-kvm_amd/parameters/*')).toBe('Y\nY\nY');
    const msr = (number: string): Promise<string> =>
      shell(
        `dd if=dev-cpu-0-msr bs=8 count=1 skip=$((${number})) iflag=skip_bytes status=none | od -An -tx8`,
      );
    expect(await msr('0xC0010131')).toBe('0000000000000007');
    expect(await msr('0xC0010010')).toBe('0000000003880000');
    expect(await msr('0xC0010132')).toMatch(/^0*[1-9a-f]/);
    await expect(shell('dd if=dev-cpu-0-msr bs=8 count=1')).rejects.toThrow('Input/output error');
  });
});

describe.skipIf(missing !== null)('the clients of softsnp, through the same system calls', () => {
  const verb = async (
    make: (output: Output, open: OpenDevice) => Verb,
    ...argv: string[]
  ): Promise<string> => {
    let text = '';
    const add = (more: string): void => {
      text += more;
    };
    const output = { stdout: add, stderr: add };
    expect([await runCli(make(output, openDevice), argv, '0', output), text]).toEqual([0, expect.anything()]);
    return text;
  };

  it('softsnp guest gets reports, keys and certificates', async () => {
    const table = encodeCertificateTable([{ guid: VCEK_GUID, data: Uint8Array.of(0x30, 0) }]);
    guest.certs = table;
    const out = join(folder, 'report.bin');
    const options = ['--device', SEV_GUEST];
    await verb(guestVerb, 'report', ...options, '--report-data', 'abcd', '--out', out);
    expect(readFileSync(out).subarray(0x50, 0x53).toString('hex')).toBe('abcd00');
    const json = JSON.parse(await verb(guestVerb, 'ext-report', ...options, '--json'));
    expect(json.certificates).toMatchObject([{ guid: VCEK_GUID, kind: 'VCEK', length: 2 }]);
    expect(await verb(guestVerb, 'key', ...options)).toMatch(/^[0-9a-f]{64}\n$/);
  });

  it('softsnp host shows and changes the platform', async () => {
    const options = ['--device', SEV];
    expect(await verb(hostVerb, 'status', ...options)).toMatch(/^state +INIT$/m);
    expect(await verb(hostVerb, 'identifier', ...options)).toMatch(/^[0-9a-f]{128}\n$/);
    await verb(hostVerb, 'config', 'set', ...options, '--mask-chip-id', 'on');
    expect(JSON.parse(await verb(hostVerb, 'status', ...options, '--json')).mask_chip_id).toBe(1);
    await verb(hostVerb, 'config', 'reset', ...options);
    await verb(hostVerb, 'commit', ...options);
  });
});
