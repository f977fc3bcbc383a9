// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ARK_GUID, ASK_GUID, CRL_GUID, VCEK_GUID, VLEK_GUID } from '../abi/cert-table.ts';
import { SnpDerivedKeyReq, SnpDerivedKeyReqV2, SnpReportReq } from '../abi/dev-sev-guest.ts';
import { encodeCertificateTable } from '../certs/table.ts';
import { sevGuestFile } from '../devices/sev-guest/files.ts';
import { TestGuest, testOpen } from '../devices/testing.ts';
import { concat, toHex } from '../lib/bytes.ts';
import { openDevice } from '../os/device-file.ts';
import { guestVerb } from './guest.ts';
import { runCli } from './run.ts';

const folder = mkdtempSync(join(tmpdir(), 'softsnp-guest-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What a verb printed and ended with. */
interface End {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(guest: TestGuest, ...argv: string[]): Promise<End> {
  const written = { out: '', err: '' };
  const output = {
    stdout: (text: string) => {
      written.out += text;
    },
    stderr: (text: string) => {
      written.err += text;
    },
  };
  const verb = guestVerb(output, testOpen(sevGuestFile(guest.driver)));
  const code = await runCli(verb, argv, '0', output);
  return { code, ...written };
}

/** The smallest DER structure with this content. */
const der = (...content: number[]): Uint8Array => Uint8Array.of(0x30, content.length, ...content);

function table(...guids: string[]): Uint8Array {
  const bytes = encodeCertificateTable(guids.map((guid, i) => ({ guid, data: der(i, i) })));
  return concat(bytes, new Uint8Array(4096 - bytes.length));
}

const lastRequest = (guest: TestGuest): Uint8Array => guest.calls.at(-1)!.req_data as Uint8Array;

describe('softsnp guest report', () => {
  it('prints every field of a report over the data given, filled up with zeros', async () => {
    const guest = new TestGuest();
    const { code, out } = await run(guest, 'report', '--report-data', '0a0b', '--vmpl', '2');
    expect(code).toBe(0);
    expect(out).toMatch(/^version +2$/m);
    expect(out).toMatch(/^vmpl +2$/m);
    expect(out).toMatch(new RegExp(`^report_data +0a0b${'00'.repeat(62)}$`, 'm'));
  });

  it('writes the report alone to --out and prints one object with --json', async () => {
    const path = join(folder, 'report.bin');
    const { out } = await run(new TestGuest(), 'report', '--out', path, '--json');
    const { report, fields } = JSON.parse(out);
    expect(toHex(readFileSync(path))).toBe(report);
    expect(report).toHaveLength(2 * 1184);
    expect(fields).toMatchObject({ version: 2, reported_tcb: '0x0' });
  });

  it('draws 64 bytes with --random', async () => {
    const guest = new TestGuest();
    await run(guest, 'report', '--random');
    const first = SnpReportReq.get(lastRequest(guest), 'user_data');
    await run(guest, 'report', '--random');
    expect(SnpReportReq.get(lastRequest(guest), 'user_data')).not.toEqual(first);
  });

  it.each([
    ['any', 0],
    ['vcek', 1],
    ['vlek', 2],
  ])('asks for the key %s with KEY_SEL %d', async (key, keySel) => {
    const guest = new TestGuest();
    expect((await run(guest, 'report', '--key', key)).code).toBe(0);
    expect(lastRequest(guest)[68]).toBe(keySel);
  });

  it('shows the bytes of a report of a version it does not know', async () => {
    const guest = new TestGuest();
    guest.reportSize = 8;
    expect((await run(guest, 'report')).out).toBe('8 bytes of an unknown version: 0200000000000000\n');
  });

  it.each([
    [['report', '--vmpl', '4']],
    [['report', '--report-data', '00'.repeat(65)]],
    [['report', '--report-data', '00', '--random']],
    [['report', '--key', 'vmrk']],
    [['key', '--fields', 'policy']],
    [['key', '--root', 'vlek']],
    [['key', '--fields', 'launch_mit_vector']],
    [['certificates', '--format', 'text']],
    [['report', 'word']],
  ])('ends with 1 for wrong usage: %j', async (argv) => {
    const guest = new TestGuest();
    expect((await run(guest, ...argv)).code).toBe(1);
    expect(guest.calls).toEqual([]);
  });

  it('ends with 3 and names the firmware status in the response', async () => {
    const guest = new TestGuest();
    guest.status = 0x16;
    const { code, err } = await run(guest, 'report');
    expect([code, err]).toEqual([
      3,
      expect.stringContaining('SEV_RET_INVALID_PARAM (0x16) [DEVICE_REFUSED]'),
    ]);
  });

  it.each([
    ['firmware status', 0x17n, 'EIO, firmware status SEV_RET_RESOURCE_LIMIT (0x17)'],
    ['hypervisor status', 0x1_0000_0000n, 'EIO, hypervisor status SNP_GUEST_VMM_ERR_INVALID_LEN'],
  ])('ends with 3 and names the %s of a refused request', async (_, value, text) => {
    const guest = new TestGuest();
    guest.refusals = [value];
    const { code, err } = await run(guest, 'report');
    expect([code, err]).toEqual([3, expect.stringContaining(text)]);
  });

  it('ends with 3 when the driver itself refuses, and when the hypervisor breaks the protocol', async () => {
    const guest = new TestGuest();
    guest.onExit = ({ put }) => put('sw_exit_info_1', 2n);
    expect((await run(guest, 'report')).err).toContain('the hypervisor broke the GHCB protocol');
    expect((await run(guest, 'report')).err).toContain('SNP_GET_REPORT: ENOTTY, by the driver');
  });

  it('ends with 3 for a device that is not there', async () => {
    const output = { stdout: () => undefined, stderr: () => undefined };
    const argv = ['report', '--device', join(folder, 'none')];
    expect(await runCli(guestVerb(output, openDevice), argv, '0', output)).toBe(3);
  });
});

describe('softsnp guest ext-report', () => {
  it('finds out how large the table is and gets it with the report', async () => {
    const guest = new TestGuest();
    guest.certs = concat(table(VCEK_GUID, ASK_GUID, ARK_GUID), new Uint8Array(0x1000));
    const [report, certs] = [join(folder, 'r'), join(folder, 'c')];
    const { code, out } = await run(guest, 'ext-report', '--out', report, '--certs', certs);
    expect(code).toBe(0);
    expect(out).toMatch(/^version +2$/m);
    expect(out).toContain(`${VCEK_GUID}  VCEK                 4 bytes at 96`);
    expect(Uint8Array.from(readFileSync(certs))).toEqual(guest.certs);
    expect(statSync(report).size).toBe(1184);
    expect(guest.calls.length).toBe(2);
  });

  it('is content with a host that has no certificates', async () => {
    const { code, out } = await run(new TestGuest(), 'ext-report', '--json');
    expect([code, JSON.parse(out).certificates]).toEqual([0, []]);
  });

  it('looks again when the table grew in between, and gives up when it goes on growing', async () => {
    const guest = new TestGuest();
    guest.certs = table(VCEK_GUID);
    let calls = 0;
    guest.before = async () => {
      calls += 1;
      if (calls === 2) {
        guest.certs = concat(table(VCEK_GUID), new Uint8Array(0x2000));
      }
    };
    expect((await run(guest, 'ext-report')).code).toBe(0);
    expect(calls).toBe(3);
    guest.before = async () => {
      guest.refusals = [0x1_0000_0000n];
    };
    const { code, err } = await run(guest, 'ext-report');
    expect([code, err]).toEqual([3, expect.stringContaining('have changed their size 8 times')]);
  });

  it('ends with 3 for a table no guest can get', async () => {
    const guest = new TestGuest();
    guest.certs = new Uint8Array(0x4001);
    const { code, err } = await run(guest, 'ext-report');
    expect([code, err]).toEqual([3, expect.stringContaining('20480 bytes, and no more than 16384')]);
  });
});

describe('softsnp guest key', () => {
  it('prints 64 digits', async () => {
    const { code, out } = await run(new TestGuest(), 'key');
    expect([code, out]).toEqual([0, expect.stringMatching(/^[0-9a-f]{64}\n$/)]);
  });

  it('asks for what the options say', async () => {
    const guest = new TestGuest();
    const how = ['--root', 'vmrk', '--fields', 'guest_policy,measurement, tcb-version', '--vmpl', '1'];
    await run(guest, 'key', ...how, '--guest-svn', '7', '--tcb', '0xd500000000000003');
    expect(SnpDerivedKeyReq.decode(lastRequest(guest))).toEqual({
      root_key_select: 1,
      rsvd: 0,
      guest_field_select: 0b101001n,
      vmpl: 1,
      guest_svn: 7,
      tcb_version: 0xd500000000000003n,
    });
  });

  it('asks in message version 2 for what depends on the launch mitigation vector', async () => {
    const guest = new TestGuest();
    const how = ['--fields', 'launch-mit-vector', '--launch-mit-vector', '0x5'];
    expect(await run(guest, 'key', ...how)).toMatchObject({ code: 0, err: '' });
    expect(guest.calls.at(-1)!.msg_version).toBe(2);
    expect(SnpDerivedKeyReqV2.decode(lastRequest(guest))).toMatchObject({
      guest_field_select: 0b1000000n,
      launch_mit_vector: 5n,
    });
  });

  it('writes the key to a file of mode 0600 and does not print it', async () => {
    const path = join(folder, 'key');
    const { out } = await run(new TestGuest(), 'key', '--out', path);
    expect(out).toBe('');
    expect([statSync(path).size, statSync(path).mode & 0o777]).toEqual([32, 0o600]);
  });

  it('ends with 3 for a status in the response', async () => {
    const guest = new TestGuest();
    guest.status = 0x27;
    expect((await run(guest, 'key')).err).toContain(
      'SNP_GET_DERIVED_KEY: the firmware answered SEV_RET_INVALID_KEY',
    );
  });
});

describe('softsnp guest certificates', () => {
  const written = async (certs: Uint8Array, ...argv: string[]): Promise<[End, string, string[]]> => {
    const guest = new TestGuest();
    guest.certs = certs;
    const out = mkdtempSync(join(folder, 'certs-'));
    const end = await run(guest, 'certificates', '--out', out, ...argv);
    return [end, out, readdirSync(out).sort()];
  };

  it('writes ark, ask and vcek in PEM, and a list as it is', async () => {
    const [end, out, files] = await written(table(VCEK_GUID, ASK_GUID, ARK_GUID, CRL_GUID));
    expect(files).toEqual(['ark.pem', 'ask.pem', 'crl.der', 'vcek.pem']);
    expect(readFileSync(join(out, 'vcek.pem'), 'utf8')).toMatch(
      /^-----BEGIN CERTIFICATE-----\nMAIAAA==\n-----END/,
    );
    expect(end.out.split('\n')).toHaveLength(5);
  });

  it('calls the intermediate of a VLEK asvk, and writes DER on request', async () => {
    const [, out, files] = await written(table(VLEK_GUID, ASK_GUID, ARK_GUID), '--format', 'der');
    expect(files).toEqual(['ark.der', 'asvk.der', 'vlek.der']);
    expect(Uint8Array.from(readFileSync(join(out, 'ark.der')))).toEqual(der(2, 2));
  });

  it('names entries it does not know by their GUID', async () => {
    const [, , files] = await written(table('00000000-0000-0000-0000-000000000001'));
    expect(files).toEqual(['00000000-0000-0000-0000-000000000001.bin']);
  });

  it('says so when there are none', async () => {
    expect((await run(new TestGuest(), 'certificates')).out).toBe('The host gives no certificates.\n');
  });

  it('ends with 1 for a folder that cannot be written to', async () => {
    const guest = new TestGuest();
    guest.certs = table(ARK_GUID);
    expect((await run(guest, 'certificates', '--out', join(folder, 'no', 'such'))).code).toBe(1);
  });
});
