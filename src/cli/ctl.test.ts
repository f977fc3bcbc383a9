// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ctlCommand } from './ctl.ts';
import { findControlSocket } from './find-host.ts';
import { CONTROL_SOCKET, defaultStateDir } from './host-state.ts';
import { runCli } from './run.ts';

let home: string;
let servers: Server[];
/** What was asked of the hosts, and what they are to say. */
let asked: string[];
let answer: unknown;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'softsnp-ctl-'));
  vi.stubEnv('XDG_STATE_HOME', home);
  servers = [];
  asked = [];
  answer = {};
});

afterEach(async () => {
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  rmSync(home, { recursive: true, force: true });
});

/** Something that listens where softsnp up would for a chip of the product. */
async function host(product: 'Milan' | 'Genoa' | 'Turin'): Promise<string> {
  const folder = defaultStateDir(product);
  mkdirSync(folder, { recursive: true });
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += String(chunk);
    });
    request.on('end', () => {
      asked.push(`${product}: ${request.method} ${request.url} ${body}`.trim());
      response.end(JSON.stringify(answer));
    });
  });
  servers.push(server);
  const path = join(folder, CONTROL_SOCKET);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return path;
}

async function ctl(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const said = { stdout: '', stderr: '' };
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    said.stdout += String(text);
    return true;
  });
  const code = await runCli(ctlCommand, argv, '0', {
    stdout: () => undefined,
    stderr: (text) => {
      said.stderr += text;
    },
  });
  return { code, ...said };
}

describe('the host that softsnp ctl asks', () => {
  it('is the one that runs, of whichever product line', async () => {
    await host('Genoa');
    expect((await ctl('tcb')).code).toBe(0);
    expect(asked).toEqual(['Genoa: GET /v1/tcb']);
  });

  it('is not one that was killed and left its socket', async () => {
    mkdirSync(defaultStateDir('Milan'), { recursive: true });
    writeFileSync(join(defaultStateDir('Milan'), CONTROL_SOCKET), '');
    const genoa = await host('Genoa');
    expect(await findControlSocket({})).toBe(genoa);
  });

  it('has to be named when there are several', async () => {
    const [milan, turin] = [await host('Milan'), await host('Turin')];
    const { code, stderr } = await ctl('tcb');
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringContaining(`--chip or --state: hosts run on ${milan} and ${turin}; say which`),
    });
    expect((await ctl('tcb', '--chip', 'turin')).code).toBe(0);
    expect((await ctl('tcb', '--state', defaultStateDir('Milan'))).code).toBe(0);
    expect(asked.filter((request) => !request.includes('HEAD'))).toEqual([
      'Turin: GET /v1/tcb',
      'Milan: GET /v1/tcb',
    ]);
  });

  it('is looked for where softsnp up would have it, and told by its path', async () => {
    const { code, stderr } = await ctl('tcb');
    expect(code).toBe(3);
    expect(stderr).toContain(`${join(home, 'softsnp', 'milan', CONTROL_SOCKET)}: no host answers: ENOENT`);
  });
});

describe('softsnp ctl', () => {
  beforeEach(async () => {
    await host('Milan');
  });

  it.each([
    [['config', 'set'], 'softsnp ctl config set: nothing to set'],
    [['config', 'set', '--mask-chip-id', 'yes'], 'is not one of on, off'],
    [['tcb', '--firmware', '1.55.40'], '--firmware: needs --set'],
  ])('refuses %j and asks nothing', async (argv, message) => {
    expect(await ctl(...argv)).toMatchObject({ code: 1, stderr: expect.stringContaining(message) });
    expect(asked).toEqual([]);
  });

  it('shows faults as they are given', async () => {
    answer = [{ rule: 'vcek=500*2' }, { rule: 'certs=busy', guest: 'a' }];
    expect((await ctl('fault', 'list')).stdout).toBe('vcek=500*2\ncerts=busy --guest a\n');
    expect((await ctl('fault', 'list', '--json')).stdout).toBe(`${JSON.stringify(answer)}\n`);
    answer = [];
    expect((await ctl('fault', 'clear')).stdout).toBe('no faults\n');
  });

  it('says that a guest is gone', async () => {
    expect((await ctl('guest', 'remove', 'a')).stdout).toBe('guest a removed\n');
    expect((await ctl('guest', 'remove', 'a', '--json')).stdout).toBe('{}\n');
  });

  it('makes each verb the request that the control API documents', async () => {
    await ctl('fault', 'add', 'certs=grow:4096*1', '--guest', 'a');
    await ctl('config', 'set', '--reported-tcb', '3,0,23,200', '--mask-chip-key', 'off');
    await ctl('config', 'reset');
    await ctl('vlek', 'load');
    await ctl('vlek', 'remove');
    await ctl('tcb', '--set', '5,0,25,220', '--firmware', '1.55.40');
    await ctl('guest', 'add', 'b', '--smp', '2', '--key', 'vlek', '--certs', 'x.blob');
    expect(asked).toEqual([
      'Milan: POST /v1/faults {"rule":"certs=grow:4096*1","guest":"a"}',
      'Milan: PATCH /v1/config {"reported_tcb":"3,0,23,200","mask_chip_key":false}',
      'Milan: DELETE /v1/config',
      'Milan: PUT /v1/vlek {}',
      'Milan: DELETE /v1/vlek',
      'Milan: PUT /v1/tcb {"tcb":"5,0,25,220","version":"1.55.40"}',
      `Milan: POST /v1/guests {"name":"b","options":{"smp":"2","certs":"${join(process.cwd(), 'x.blob')}","key":"vlek"}}`,
    ]);
  });
});
