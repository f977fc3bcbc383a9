// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { consoleVerb } from './console.ts';
import { runCli } from './run.ts';

const folder = mkdtempSync(join(tmpdir(), 'softsnp-console-'));
const page = join(folder, 'page');
mkdirSync(join(page, 'assets'), { recursive: true });
writeFileSync(join(page, 'index.html'), '<!doctype html><title>page</title>');
writeFileSync(join(page, 'assets', 'index-1.js'), 'export {};');
writeFileSync(join(page, '.stamp'), 'no part of the page');
writeFileSync(join(folder, 'secret.html'), 'beside the page');
afterAll(() => rmSync(folder, { recursive: true }));

interface Served {
  readonly url: string;
  end(): Promise<number>;
}

const open: Served[] = [];
afterEach(async () => {
  for (const served of open.splice(0)) {
    expect(await served.end()).toBe(0);
  }
});

/** Runs the verb until `end`; what it writes goes to `written`. */
async function serve(written = { out: '', err: '' }, ...argv: string[]): Promise<Served> {
  let signal: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    signal = resolve;
  });
  return new Promise((resolve, reject) => {
    const output = {
      stdout: (text: string) => {
        written.out += text;
        const [, url] = /^softsnp console ready http=(\S+)\n$/.exec(text) ?? [];
        const served = {
          url: url!,
          end: () => {
            signal();
            return exit;
          },
        };
        open.push(served);
        resolve(served);
      },
      stderr: (text: string) => {
        written.err += text;
      },
    };
    const verb = consoleVerb(
      output,
      async () => page,
      () => ended,
    );
    const exit = runCli(verb, ['--port', '0', ...argv], '0', output);
    exit.then((code) => reject(new TypeError(`ended with ${code}: ${written.err}`)), reject);
  });
}

/** A request whose path nobody tidies up on its way. */
function get(
  url: string,
  path: string,
  method = 'GET',
): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    request({ host: hostname, port, path, method }, (response) => {
      let body = '';
      response.on('data', (data) => {
        body += data;
      });
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    })
      .on('error', reject)
      .end();
  });
}

describe('softsnp console', () => {
  it('listens on the loopback interface and serves the page with a policy that lets nothing out', async () => {
    const { url } = await serve();
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
    const { status, headers, body } = await get(url, '/');
    expect(status).toBe(200);
    expect(body).toContain('<title>page</title>');
    expect(headers['content-security-policy']).toMatch(
      /^default-src 'self'; connect-src 'none'; .*frame-ancestors 'none'/,
    );
    expect(headers).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
    });
    const script = await get(url, '/assets/index-1.js?v=1');
    expect([script.status, script.headers['content-type']]).toEqual([200, 'text/javascript; charset=utf-8']);
  });

  it('serves the files of the page and no others, to readers only', async () => {
    const { url } = await serve();
    for (const path of [
      '/../secret.html',
      '/%2e%2e/secret.html',
      '/assets/../../secret.html',
      '/.stamp',
      '//',
      '*',
    ]) {
      const { status, headers } = await get(url, path);
      expect([path, status]).toEqual([path, 404]);
      expect(headers['content-security-policy']).toBeDefined();
    }
    expect((await get(url, '/', 'POST')).status).toBe(405);
    expect(await get(url, '/', 'HEAD')).toMatchObject({
      status: 200,
      body: '',
      headers: { 'content-length': '34' },
    });
  });

  it('says that a page from another machine needs https', async () => {
    const written = { out: '', err: '' };
    await serve(written, '--host', '0.0.0.0');
    expect(written.err).toContain('WebCrypto');
  });

  it('refuses a port that is none, and one that is taken', async () => {
    const { url } = await serve();
    const { port } = new URL(url);
    for (const [given, code, text] of [
      ['70000', 1, 'OPTION_INVALID'],
      [port, 3, 'LISTEN_FAILED'],
    ] as const) {
      let err = '';
      const output = {
        stdout: () => {},
        stderr: (line: string) => {
          err += line;
        },
      };
      const verb = consoleVerb(
        output,
        async () => page,
        () => new Promise(() => {}),
      );
      expect(await runCli(verb, ['--port', given], '0', output)).toBe(code);
      expect(err).toContain(text);
    }
  });
});
