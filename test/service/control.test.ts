// SPDX-License-Identifier: Apache-2.0
/** The control API over its socket. */
import { closeSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { toHex } from '../../src/lib/bytes.ts';
import { tryLock } from '../../src/os/ofd-lock.ts';
import { controlEvents, controlRequest } from '../../src/service/control-client.ts';
import {
  CONTROL_REQUESTS,
  type ControlServer,
  startControlServer,
} from '../../src/service/control-server.ts';
import { HostControl, type HostStatus } from '../../src/service/host-control.ts';
import { remoteKds } from '../../src/service/kds-door.ts';
import type { GuestKey } from '../../src/service/served-guest.ts';
import { askExtReport, guestSpec, judge, type ServiceHost, serviceHost } from './service-host.ts';

let host: ServiceHost;
let server: ControlServer;
const broken: unknown[] = [];

const start = (path: string): Promise<ControlServer> =>
  startControlServer({
    control: new HostControl({
      ...{ service: host.service, kds: host.kds },
      surroundings: () => ({ state: host.folder, pid: 1, devices: null, system: null, kds: null }),
      guestSpec: (name, { key }) => guestSpec(name, key === 'vlek' ? 'vlek' : 'auto'),
      keptSpec: (name, { key }) => guestSpec(name, key as GuestKey),
    }),
    path,
    onFault: (error) => broken.push(error),
  });

beforeEach(async () => {
  host = serviceHost();
  await host.add('a');
  server = await start(join(host.folder, 'control.sock'));
});

afterEach(async () => {
  await server.close();
  await host.close();
  expect(broken.splice(0)).toEqual([]);
});

const ask = (method: string, path: string, body?: unknown): Promise<unknown> =>
  controlRequest(server.path, method, path, body);

const refused = (method: string, path: string, body?: unknown): Promise<string> =>
  ask(method, path, body).then(
    () => 'accepted',
    ({ code, message }) => `${code}: ${message}`,
  );

/** What comes back for bytes that no HTTP library would send. */
const raw = (bytes: string): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect(server.path, () => socket.end(bytes));
    let text = '';
    socket.on('data', (chunk) => {
      text += String(chunk);
    });
    socket.on('close', () => resolve(text));
    socket.on('error', () => undefined);
  });

const reportOf = async () => judge(await askExtReport(host.service.guests.get('a')!))!;

describe('the control socket', () => {
  it('is for its owner alone', () => {
    expect(statSync(server.path).mode & 0o777).toBe(0o600);
  });

  it('works in a folder whose path is longer than an address can be', async () => {
    const folder = join(host.folder, 'x'.repeat(60), 'y'.repeat(60));
    mkdirSync(folder, { recursive: true });
    const deep = await start(join(folder, 'control.sock'));
    expect(await controlRequest(deep.path, 'GET', '/v1/tcb')).toHaveProperty('current');
    await deep.close();
  });

  it('takes the place of a socket that a killed host left', async () => {
    await server.close();
    writeFileSync(server.path, '');
    server = await start(server.path);
    expect(await ask('GET', '/v1/tcb')).toHaveProperty('current');
  });

  it('is CONTROL_UNREACHABLE when no host is there', async () => {
    for (const path of [join(host.folder, 'nothing'), join(host.folder, 'z'.repeat(120), 'control.sock')]) {
      await expect(controlRequest(path, 'GET', '/v1/status')).rejects.toMatchObject({
        code: 'CONTROL_UNREACHABLE',
      });
    }
  });

  it.each([
    ['GET', '/v1/nothing', undefined, /^CONTROL_UNKNOWN/],
    ['DELETE', '/v1/status', undefined, /^CONTROL_UNKNOWN/],
    ['PUT', '/v1/tcb', {}, /^OPTION_INVALID: tcb/],
    ['PUT', '/v1/tcb', { tcb: 'x' }, /./],
    ['PUT', '/v1/tcb', { tcb: '1,2,3,4', version: '1' }, /^OPTION_INVALID: version/],
    ['PATCH', '/v1/config', { mask_chip_id: 'on' }, /^OPTION_INVALID: mask_chip_id/],
    ['PATCH', '/v1/config', { other: 1 }, /^OPTION_INVALID/],
    ['PUT', '/v1/vlek', { wrapped: '00' }, /^OPTION_INVALID: wrapped: 1 bytes/],
    ['POST', '/v1/faults', { rule: 'nonsense' }, /^OPTION_INVALID/],
    ['POST', '/v1/faults', { rule: 'certs=busy', guest: 'b' }, /^GUEST_UNKNOWN/],
    ['POST', '/v1/guests', { name: 'a' }, /^OPTION_INVALID: "a"/],
    ['POST', '/v1/guests', { name: 'b', options: { smp: 2 } }, /^OPTION_INVALID: options.smp/],
    ['POST', '/v1/kds', { method: 'GET' }, /^OPTION_INVALID: target/],
    [
      'POST',
      '/v1/kds',
      { method: 'GET', target: '/', source: '', port: 'public', csp: null, body: 'x' },
      /^OPTION_INVALID: body/,
    ],
    ['DELETE', '/v1/guests/b', undefined, /^GUEST_UNKNOWN/],
    ['DELETE', '/v1/guests/%2e%2e', undefined, /^GUEST_UNKNOWN/],
    ['POST', '/v1/commit', 'x'.repeat(70_000), /^OPTION_INVALID: request: more than/],
  ] as const)('refuses %s %s %j', async (method, path, body, expected) => {
    expect(await refused(method, path, body)).toMatch(expected);
  });

  it.each([
    ['a body that is no JSON', 'POST /v1/commit HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n{', ' 400 '],
    ['a target that is no path', 'GET //[ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n', ' 404 '],
    ['a name that is no UTF-8', 'DELETE /v1/guests/%ff HTTP/1.1\r\nhost: x\r\n\r\n', ' 404 '],
    ['a request that is no HTTP', 'hello\r\n\r\n', ' 400 '],
  ])('survives %s', async (_, bytes, status) => {
    expect((await raw(bytes)).split('\r\n')[0]).toContain(status);
  });
});

describe('the control API', () => {
  it('is described, request by request', () => {
    const page = readFileSync(new URL('../../docs/reference/control-api.md', import.meta.url), 'utf8');
    const described = [...page.matchAll(/^\| `([A-Z]+ [^`?]+)` /gm)].map((match) =>
      match[1]!.replace('NAME', '*'),
    );
    expect([...new Set(described)].sort()).toEqual([...CONTROL_REQUESTS].sort());
  });

  it('tells the status of host and guests', async () => {
    const status = await ask('GET', '/v1/status');
    expect(status).toMatchObject({
      product: 'Milan',
      chip_id: toHex(host.service.host.chip.chipId),
      tcb: { current: '4,0,24,219', committed: '4,0,24,219', reported: '4,0,24,219' },
      firmware: { running: '1.55.29', committed: '1.55.29' },
      signing_key: 'VCEK',
      places: ['/dev/sev', '/sys/module/kvm_amd/'],
      guests: [{ name: 'a', key: 'auto', vcpus: 1, requests: { served: 0, waiting: 0 }, ended: null }],
    });
  });

  it('updates the firmware provisionally, then commits it', async () => {
    const before = await reportOf();
    expect(await ask('PUT', '/v1/tcb', { tcb: '5,0,25,220', version: '1.55.40' })).toEqual({
      current: '5,0,25,220',
      committed: '4,0,24,219',
      reported: '4,0,24,219',
    });
    expect(await reportOf()).toEqual(before);
    expect(await ask('POST', '/v1/commit')).toMatchObject({ reported: '5,0,25,220' });
    expect((await reportOf()).tcb).toBe(0xdc19000000000005n);
    expect(await refused('PUT', '/v1/tcb', { tcb: '4,0,24,219' })).toBe(
      'MACHINE_REFUSED: SNP_DOWNLOAD_FIRMWARE_EX: EIO, firmware status SEV_RET_BAD_SVN',
    );
    expect(host.saved.length).toBe(2);
  });

  it('sets and resets the configuration', async () => {
    expect(
      await ask('PATCH', '/v1/config', { reported_tcb: '3,0,23,200', mask_chip_id: true }),
    ).toMatchObject({
      reported: '3,0,23,200',
    });
    expect(await ask('GET', '/v1/status')).toMatchObject({ mask_chip_id: true });
    expect(await ask('PATCH', '/v1/config', { mask_chip_id: false })).toMatchObject({
      reported: '3,0,23,200',
    });
    expect((await reportOf()).tcb).toBe(0xc817000000000003n);
    expect(await refused('PATCH', '/v1/config', { reported_tcb: '9,9,9,9' })).toBe(
      'MACHINE_REFUSED: SNP_SET_CONFIG: EIO, firmware status SEV_RET_INVALID_PARAM',
    );
    expect(await ask('DELETE', '/v1/config')).toMatchObject({ reported: '4,0,24,219' });
  });

  it('loads a VLEK and takes it away', async () => {
    expect(await ask('PUT', '/v1/vlek')).toEqual({ signing_key: 'VLEK' });
    expect((await reportOf()).key).toBe('VLEK');
    expect(await ask('DELETE', '/v1/vlek')).toEqual({ signing_key: 'VCEK' });
    expect(await ask('DELETE', '/v1/vlek')).toEqual({ signing_key: 'VCEK' });
    expect(await reportOf()).toEqual({ key: 'VCEK', tcb: 0xdb18000000000004n });
  });

  it('keeps the VLEK for guests that have its certificates', async () => {
    await ask('POST', '/v1/guests', { name: 'b', options: { key: 'vlek' } });
    const status = (await ask('GET', '/v1/status')) as HostStatus;
    expect(status.signing_key).toBe('VLEK');
    expect(status.guests.map(({ certs_for }) => certs_for)).toEqual(['VLEK', 'VLEK']);
    expect(await refused('DELETE', '/v1/vlek')).toBe(
      'OPTION_INVALID: guest b: has the certificates of the VLEK; remove it first',
    );
    await ask('DELETE', '/v1/guests/b');
    expect(await ask('DELETE', '/v1/vlek')).toEqual({ signing_key: 'VCEK' });
  });

  it('loads the hash stick that it is given, and no damaged one', async () => {
    const { keys, reportedTcb } = host.service.host;
    const wrapped = keys.wrappedHashstick(reportedTcb);
    wrapped[431]! ^= 1;
    expect(await refused('PUT', '/v1/vlek', { wrapped: toHex(wrapped) })).toMatch(
      /^MACHINE_REFUSED: SNP_VLEK_LOAD/,
    );
    wrapped[431]! ^= 1;
    expect(await ask('PUT', '/v1/vlek', { wrapped: toHex(wrapped) })).toEqual({ signing_key: 'VLEK' });
  });

  it('adds, lists and clears faults of guests and of the key service', async () => {
    await ask('POST', '/v1/faults', { rule: 'vcek=500*2' });
    expect(await ask('POST', '/v1/faults', { rule: 'certs=grow:4096', guest: 'a' })).toEqual([
      { rule: 'vcek=500*2' },
      { guest: 'a', rule: 'certs=grow:4096' },
    ]);
    expect(await ask('DELETE', '/v1/faults')).toEqual([]);
    expect(await ask('GET', '/v1/faults')).toEqual([]);
  });

  it('answers for the key service, with its faults, whoever serves it', async () => {
    const asked = { method: 'GET', target: '/vcek/v1/Milan/crl', source: 'a', port: 'public', csp: null };
    const kds = remoteKds(server.path, 'a');
    const direct = { ...asked, port: 'public' as const, source: '127.0.0.1', body: new Uint8Array(0) };
    const list = await kds.answer(direct);
    expect(list.status).toBe(200);
    expect(await ask('POST', '/v1/kds', asked)).toMatchObject({ status: 200, body: toHex(list.body) });
    await ask('POST', '/v1/faults', { rule: 'crl=503:7*1' });
    await ask('POST', '/v1/faults', { rule: 'crl=slow:20*1' });
    expect(await kds.answer(direct)).toMatchObject({ status: 503, headers: { 'retry-after': '7' } });
    expect(await ask('GET', '/v1/faults')).toEqual([{ rule: 'crl=slow:20*1' }]);
    expect(await kds.answer(direct)).toMatchObject({ status: 200, delivery: { kind: 'slow', value: 20 } });
    const sticks = { ...asked, method: 'POST', port: 'provider', csp: 'CN=softsnp.example' };
    const target = '/vlek/v1/Milan/hash_sticks?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219';
    const body = toHex(Buffer.from(JSON.stringify({ hwids: new Array(1024).fill('ab'.repeat(64)) })));
    expect(await ask('POST', '/v1/kds', { ...sticks, target, body })).toMatchObject({ status: 200 });
  });

  it('adds and removes guests', async () => {
    expect(await ask('POST', '/v1/guests', { name: 'b', options: { key: 'vlek' } })).toMatchObject({
      name: 'b',
      key: 'vlek',
    });
    await ask('DELETE', '/v1/guests/a');
    expect([...host.service.guests.keys()]).toEqual(['b']);
  });

  it('shows events that were, and follows those to come until the host ends', async () => {
    const lines: { type: string; n: number }[] = [];
    const followed = controlEvents(server.path, true, (line) => lines.push(JSON.parse(line)));
    await expect.poll(() => lines.length).toBe(1);
    await reportOf();
    await ask('POST', '/v1/commit');
    await ask('PUT', '/v1/vlek');
    await expect.poll(() => lines.filter(({ type }) => type === 'platform').length).toBe(1);
    await server.close();
    await followed;
    expect(lines.map(({ n }) => n)).toEqual(lines.map((_, i) => i + 1));
    expect(lines.filter(({ type }) => type === 'trace').length).toBe(7);
    expect(lines.at(-1)).toMatchObject({ type: 'platform', command: 'SNP_VLEK_LOAD', key: 'VLEK' });
  });

  it('refuses a change while a blob stays locked', async () => {
    const fd = openSync(host.service.guests.get('a')!.blob.name, 'r');
    tryLock(fd, 'read');
    expect(await refused('POST', '/v1/commit')).toMatch(/^BLOB_BUSY/);
    closeSync(fd);
    expect(await refused('POST', '/v1/commit')).toBe('accepted');
  });
});
