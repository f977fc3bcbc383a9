// SPDX-License-Identifier: Apache-2.0
/** The console page in Chromium, as `softsnp console` serves it: real files, mouse, and keyboard alone. */
import { type ChildProcess, spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { AttestationReportV3 } from '../../src/abi/attestation-report.ts';
import { HAVE_VECTORS, INDEX, vector } from '../verify/vectors.ts';
import { type Browser, HAVE_CHROMIUM, startChromium } from './chromium.ts';

const SOFTSNP = fileURLToPath(new URL('../../bin/softsnp.js', import.meta.url));

const GENOA = {
  report: 'openpcc-openpcc/report-v3-genoa-vcek-a9e9196c94d2.bin',
  leaf: 'openpcc-openpcc/vcek-genoa-3941d081fb81.der',
  ask: 'virtee-sev/ask-genoa-5464738c1546.der',
  ark: 'virtee-sev/ark-genoa-4c6598d19c18.der',
  crl: 'openpcc-openpcc/crl-ark-genoa-2024-10-23.der',
} as const;
/** A time at which all of them were valid. */
const THEN = '2025-10-01T00:00:00';

/** Runs softsnp to its end. */
function softsnp(...argv: string[]): Promise<number | null> {
  const child = spawn(process.execPath, [SOFTSNP, ...argv], { stdio: 'ignore' });
  return new Promise((resolve) => child.on('exit', resolve));
}

describe.skipIf(!HAVE_CHROMIUM)('the console page', () => {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-console-'));
  const soft = join(folder, 'soft');
  let server: ChildProcess;
  let url: string;
  let browser: Browser;
  let page: Page;
  /** What the page asked for, and what went wrong in it. */
  const requests: string[] = [];
  const complaints: string[] = [];

  beforeAll(async () => {
    // Also builds dist/ first, so that two processes do not both begin to.
    expect(await softsnp('attest', '--seed', '7', '--out', soft)).toBe(0);
    server = spawn(process.execPath, [SOFTSNP, 'console', '--port', '0'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    url = await new Promise((resolve) => {
      server.stdout!.on('data', (data) => {
        const [, address] = /^softsnp console ready http=(\S+)/m.exec(String(data)) ?? [];
        if (address !== undefined) {
          resolve(address);
        }
      });
    });
    browser = await startChromium();
  });

  afterAll(async () => {
    await browser?.close();
    if (server !== undefined) {
      const ended = new Promise((resolve) => server.on('exit', resolve));
      server.kill('SIGTERM');
      expect(await ended).toBe(0);
    }
    rmSync(folder, { recursive: true, force: true });
  });

  beforeEach(async () => {
    requests.length = 0;
    complaints.length = 0;
    page = await browser.context.newPage();
    page.on('request', (request) => requests.push(request.url()));
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('console', (message) => complaints.push(message.text()));
    await page.goto(url);
  });

  afterEach(async () => {
    expect(complaints).toEqual([]);
    expect(requests.filter((request) => !request.startsWith(url))).toEqual([]);
    await page.close();
  });

  const verdict = () => page.locator('.verdict-title');
  const says = (text: string) =>
    verdict()
      .and(page.getByText(text, { exact: true }))
      .waitFor();
  const codes = () => page.locator('.finding code').allTextContents();
  const soften = (name: string): string => join(soft, name);

  /** A file of the vectors under its own name. */
  function file(name: string, change: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes): string {
    mkdirSync(folder, { recursive: true });
    const path = join(folder, name.split('/').at(-1)!);
    writeFileSync(path, change(vector(name)));
    return path;
  }

  const genoa = (): string[] => Object.values(GENOA).map((name) => file(name));

  /** Trusts softsnp's root the way the page wants it. */
  async function trustTestRoot(): Promise<void> {
    await page.locator('.trust summary').click();
    await page.locator('#root-file').setInputFiles(soften('ark.pem'));
    await page.locator('#trust-root').check();
  }

  /** Drops files and folders of this machine. */
  async function drop(...paths: readonly string[]): Promise<void> {
    const session = await page.context().newCDPSession(page);
    const { x, y } = (await page.locator('.dropzone').boundingBox())!;
    const data = { items: [], files: [...paths], dragOperationsMask: 1 };
    for (const type of ['dragEnter', 'dragOver', 'drop'] as const) {
      await session.send('Input.dispatchDragEvent', { type, x: x + 9, y: y + 9, data });
    }
    await session.detach();
  }

  const paste = (text: string) =>
    page.evaluate(`(() => {
      const clipboardData = new DataTransfer();
      clipboardData.setData('text/plain', ${JSON.stringify(text)});
      document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData, bubbles: true }));
    })()`);

  describe.skipIf(!HAVE_VECTORS)('on genuine evidence', () => {
    it('accepts it, draws its chain up to the pinned root and shows every field', async () => {
      await page.locator('#evidence-files').setInputFiles(genoa());
      await page.locator('#time').fill(THEN);
      await says('Accepted');
      expect(await page.locator('svg.chain').getAttribute('data-anchor')).toBe('amd');
      expect(await page.locator('svg.chain desc').textContent()).toMatch(
        /REPORT version 3, signed by VCEK SEV-VCEK, signed by ASK SEV-Genoa, signed by ARK ARK-Genoa.*pinned by SHA-256.*Not revoked/,
      );
      expect(await page.locator('.check-ok').count()).toBe(7);
      const fields = page.locator('.fields tbody tr');
      expect(await fields.count()).toBe(Object.keys(AttestationReportV3.fields).length);
      const measurement = await page.locator('[data-field=measurement] .value').textContent();
      expect(measurement).toBe(Buffer.from(vector(GENOA.report).subarray(0x90, 0xc0)).toString('hex'));
      expect(await page.title()).toBe('Accepted as of 2025-10-01 00:00:00 UTC · softsnp console');
    });

    it('follows the clock until somebody sets a time, and says then what time the verdict is of', async () => {
      await page.addInitScript(CLOCK);
      await page.reload();
      await page.evaluate(`setTime('${THEN}Z')`);
      await page.locator('#evidence-files').setInputFiles(genoa());
      await says('Accepted');
      expect(await page.locator('.as-of').count()).toBe(0);
      expect(await page.title()).toBe('Accepted · softsnp console');
      expect(await page.locator('#now').getAttribute('aria-pressed')).toBe('true');
      // The list runs out on the third of November while the page stays as it is.
      await page.evaluate("setTime('2025-11-30T00:00:00Z'); goOn()");
      await says('Refused');
      expect(await codes()).toEqual(['CRL_STALE']);
      expect(await page.locator('#time').inputValue()).toContain('2025-11-30');
      await page.locator('#time').fill(THEN);
      await says('Accepted');
      expect(await page.locator('.verdict-words').innerText()).toContain('as of 2025-10-01 00:00:00 UTC');
      await page.evaluate('goOn()');
      expect(await verdict().textContent()).toBe('Accepted');
      await page.locator('#now').click();
      await says('Refused');
      expect(await page.locator('.as-of').count()).toBe(0);
      // A page that slept judges again as soon as it is seen.
      await page.evaluate(`setTime('${THEN}Z')`);
      await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
      await says('Accepted');
    });

    it('says of certificates without a report which list cleared them', async () => {
      await page.locator('#evidence-files').setInputFiles(genoa().slice(1));
      await page.locator('#time').fill(THEN);
      await says('Certificates are good');
      const words = await page.locator('svg.chain desc').textContent();
      expect(words).toContain('Revocation: Not revoked, CRL 4, to 2025-11-03.');
      await page.locator('#evidence-files').setInputFiles(file(GENOA.report));
      await says('Accepted');
      expect(await page.locator('svg.chain desc').textContent()).toContain(
        'Revocation: Not revoked, CRL 4, to 2025-11-03.',
      );
    });

    it('finds the certificates of the report among a whole collection, whatever order they come in', async () => {
      const collection = INDEX.filter(
        ({ file: name }) => /\/(vcek|vlek|ask|asvk|ark)-.*\.der$/.test(name) && name !== GENOA.leaf,
      ).map(({ file: name }) => file(name));
      expect(collection.length).toBeGreaterThan(53);
      await page.locator('#time').fill(THEN);
      await page.locator('#evidence-files').setInputFiles(collection);
      await says('Certificates refused');
      expect(await codes()).not.toContain('CERT_TOO_MANY');
      expect(await page.locator('svg.chain').count()).toBe(8);
      await page.getByRole('button', { name: /^Show the other \d+ chains$/ }).click();
      expect(await page.locator('svg.chain').count()).toBeGreaterThan(8);
      await page.locator('#evidence-files').setInputFiles(genoa());
      await says('Accepted');
      expect(await page.locator('.check-ok').count()).toBe(7);
    });

    it('reads all files of a folder, and says what of it was not read', async () => {
      const inside = join(folder, 'evidence');
      mkdirSync(join(inside, 'older'), { recursive: true });
      for (let i = 0; i < 110; i++) {
        writeFileSync(join(inside, `line-${i}.log`), `${i}\n`);
      }
      writeFileSync(join(inside, 'report.log'), Buffer.alloc((1 << 20) + 1, 'a'));
      for (const path of genoa()) {
        copyFileSync(path, join(inside, `zz-${path.split('/').at(-1)}`));
      }
      await page.locator('#time').fill(THEN);
      await drop(inside);
      await says('Accepted');
      expect(await page.locator('.notes').innerText()).toMatch(
        /Folders inside evidence were not read: older\..*\s+Left out: report\.log \(not read: larger than 1 MiB\)\./,
      );
      expect(await page.locator('.items .item').count()).toBe(5);
      await page.getByText('111 files are not used').click();
      const large = page.locator('.item', { hasText: 'report.log' });
      expect(await large.locator('.item-contents').innerText()).toContain('1,048,577 bytes');
      expect(await large.locator('select').isDisabled()).toBe(true);
    });

    it('lets nothing that only sounds like a report take the place of one, and says which of two it took', async () => {
      await page.locator('#time').fill(THEN);
      await page.locator('#evidence-files').setInputFiles(genoa());
      await says('Accepted');
      writeFileSync(join(folder, 'report.txt'), 'Reports are kept for 30 days.\n\n');
      await page.locator('#evidence-files').setInputFiles(join(folder, 'report.txt'));
      const notes = page.locator('.notes');
      await notes.getByText('report.txt is no report, whatever its name says').waitFor();
      expect(await verdict().textContent()).toBe('Accepted');
      const other = file('virtee-sev/report-v2-milan-vcek-120d77b213c8.bin');
      await page.locator('#evidence-files').setInputFiles([file(GENOA.report), other]);
      await says('Refused');
      const [mine, theirs] = [GENOA.report, other].map((path) => path.split('/').at(-1)!);
      await notes.getByText(`${theirs} is the report now, in the place of ${mine}.`).waitFor();
      await page.getByLabel(`${mine} is taken for`).selectOption('report');
      await says('Accepted');
      await notes.getByText(`${mine} is the report now, in the place of ${theirs}.`).waitFor();
    });

    it('judges at the time that is asked for', async () => {
      await page.locator('#evidence-files').setInputFiles(genoa());
      await page.locator('#time').fill('2026-10-01T00:00:00');
      await says('Refused');
      expect(await codes()).toEqual(['CRL_STALE']);
      await page.locator('#crl-mode').selectOption('if-present');
      await says('Accepted');
      await page.locator('#time').fill('2020-01-01T00:00:00');
      await says('Refused');
      expect(await codes()).toContain('CERT_NOT_YET_VALID');
    });

    it('says why a report with a changed byte is refused, and which check said so', async () => {
      const [report, ...certificates] = genoa();
      const changed = file(GENOA.report, (bytes) => bytes.with(0x90, bytes[0x90]! ^ 1));
      expect(changed).toBe(report);
      await page.locator('#evidence-files').setInputFiles([changed, ...certificates]);
      await page.locator('#time').fill(THEN);
      await says('Refused');
      expect(await page.locator('.check-bad').getAttribute('data-check')).toBe('signature');
      expect(await page.locator('.why code').allTextContents()).toEqual(['REPORT_CHANGED']);
      expect(await page.locator('svg.chain desc').textContent()).toContain('NOT signed by VCEK');
    });

    it('says whose certificate it is when it is of another chip', async () => {
      const certificates = ['virtee-sev/vcek-milan-3bbfb6ee259f.der', GENOA.ask, GENOA.ark].map((name) =>
        file(name),
      );
      await page.locator('#evidence-files').setInputFiles([file(GENOA.report), ...certificates]);
      await says('Refused');
      expect(await page.locator('.why code').allTextContents()).toContain('CERT_OF_ANOTHER_CHIP');
      expect(
        await page
          .locator('.field-bad')
          .evaluateAll((rows) => rows.map((row) => row.getAttribute('data-field'))),
      ).toEqual(['reported_tcb', 'chip_id']);
    });

    it('takes files that are dropped, text that is pasted, and a report of another form', async () => {
      const [report, ...certificates] = genoa();
      const dropped = certificates.map((path) => ({
        name: path.split('/').at(-1)!,
        data: readFileSync(path).toString('base64'),
      }));
      const transfer = await page.evaluateHandle(`(() => {
        const transfer = new DataTransfer();
        for (const { name, data } of ${JSON.stringify(dropped)}) {
          transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name));
        }
        return transfer;
      })()`);
      await page.dispatchEvent('main', 'drop', { dataTransfer: transfer });
      await page.locator('#time').fill(THEN);
      await says('Certificates are good');
      await paste(readFileSync(report!).toString('hex'));
      await says('Accepted');
      expect(await page.locator('.item-contents').last().textContent()).toContain('hexadecimal');
    });
  });

  it('edits the policy in place: every keystroke is judged, and an unreadable one gives no verdict', async () => {
    await page.locator('#evidence-files').setInputFiles([soften('report.bin'), soften('certs.bin')]);
    await page.locator('#crl-mode').selectOption('skip');
    await trustTestRoot();
    await says('Accepted under a test root');
    await page.locator('#policy').fill('{ "vmpl": 3 }');
    await says('Refused');
    expect(await codes()).toContain('POLICY_MISMATCH');
    expect(await page.locator('.check-bad').getAttribute('data-check')).toBe('policy');
    await page.locator('#policy').fill('{ "vmpl": 3');
    await says('No verdict');
    await page.locator('#policy').fill('{ "vmpls": 0 }');
    await says('No verdict');
    expect(await page.locator('#policy-state').textContent()).toContain('vmpls');
    await page.getByRole('button', { name: 'Reset' }).click();
    await page.getByRole('button', { name: 'measurement', exact: true }).click();
    await says('Accepted under a test root');
    const policy = JSON.parse(await page.locator('#policy').inputValue()) as Record<string, unknown>;
    expect(policy['measurement']).toBe(
      readFileSync(soften('report.bin')).subarray(0x90, 0xc0).toString('hex'),
    );
  });

  it('trusts a test root only when it is brought on its own and the box is ticked, and then says so loudly', async () => {
    const certificates = ['vcek.pem', 'ask.pem', 'ark.pem'].map(soften);
    await page.locator('#evidence-files').setInputFiles([soften('report.bin'), ...certificates]);
    await page.locator('#crl-mode').selectOption('skip');
    await says('Refused');
    expect(await codes()).toContain('ROOT_UNTRUSTED');
    expect(await page.locator('.why code').allTextContents()).toEqual(['SOFTSNP_ROOT']);
    expect(await page.locator('svg.chain').getAttribute('data-anchor')).toBe('untrusted');
    await page.locator('.trust summary').click();
    expect(await page.locator('#trust-root').count()).toBe(0);
    await page.locator('#root-file').setInputFiles(soften('vcek.pem'));
    await page.getByText('There is no root certificate in this file.').waitFor();
    await page.locator('#root-file').setInputFiles(soften('ark.pem'));
    await page.locator('#trust-root').waitFor();
    expect(await page.locator('.trust').textContent()).toContain('softsnp TEST ROOT, NOT AMD');
    expect(await verdict().textContent()).toBe('Refused');
    await page.locator('#trust-root').check();
    await says('Accepted under a test root');
    expect(await page.locator('svg.chain').getAttribute('data-anchor')).toBe('test');
    expect(await page.getByRole('alert').textContent()).toContain('TEST ROOT TRUSTED');
    await page.locator('#trust-root').uncheck();
    await says('Refused');
    expect(await page.getByRole('alert').count()).toBe(0);
  });

  it('reads outblob and auxblob of configfs-tsm', async () => {
    writeFileSync(join(folder, 'outblob'), readFileSync(soften('report.bin')));
    writeFileSync(join(folder, 'auxblob'), readFileSync(soften('certs.bin')));
    await page
      .locator('#evidence-files')
      .setInputFiles(['outblob', 'auxblob'].map((name) => join(folder, name)));
    await page.locator('#crl-mode').selectOption('skip');
    await trustTestRoot();
    await says('Accepted under a test root');
    await page.locator('#hex-toggle').click();
    expect(await page.locator('.hex tbody tr').count()).toBe(0x4a0 / 16);
  });

  it('shows what is wrong with a truncated report and an error page saved as a certificate', async () => {
    writeFileSync(join(folder, 'short.bin'), readFileSync(soften('report.bin')).subarray(0, 1000));
    writeFileSync(join(folder, 'vcek.der'), '<html><body>404 Not Found</body></html>');
    await page
      .locator('#evidence-files')
      .setInputFiles([join(folder, 'short.bin'), join(folder, 'vcek.der')]);
    await says('Refused');
    expect(await page.locator('.why code').allTextContents()).toEqual([
      'REPORT_IS_TRUNCATED',
      'CERT_IS_ERROR_PAGE',
    ]);
  });

  it('is worked with the keyboard alone, and the focus is always seen', async () => {
    const press = (key: string, times = 1) =>
      Array.from({ length: times }).reduce<Promise<void>>(
        (done) => done.then(() => page.keyboard.press(key)),
        Promise.resolve(),
      );
    const focused = () =>
      page.evaluate('document.activeElement.id || document.activeElement.textContent.trim()');
    const isOutlined = () =>
      page.evaluate(`(() => {
        const seen = [document.activeElement, document.activeElement.closest('label')];
        return seen.some((e) => e && getComputedStyle(e).outlineStyle !== 'none' && parseFloat(getComputedStyle(e).outlineWidth) >= 2);
      })()`);
    const tabTo = async (name: string) => {
      for (let i = 0; i < 40; i++) {
        await press('Tab');
        expect(await isOutlined(), String(await focused())).toBe(true);
        if ((await focused()) === name) {
          return;
        }
      }
      expect.unreachable(`${name} is not reached`);
    };
    // From the first listener on Chromium hands choosers over: a key pressed before that would open a real one.
    page.on('filechooser', () => {});
    const choose = async (...names: string[]) => {
      const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.keyboard.press('Space')]);
      await chooser.setFiles(names.map(soften));
    };

    await press('Tab');
    expect(await focused()).toBe('Skip to the results');
    await tabTo('evidence-files');
    await choose('report.bin', 'certs.bin');
    await says('Refused');
    expect(await page.locator('.verdict-words').getAttribute('aria-live')).toBe('polite');
    await tabTo('crl-mode');
    await press('ArrowDown', 2);
    await tabTo('Another root, for tests');
    await press('Enter');
    await tabTo('root-file');
    await choose('ark.pem');
    await page.locator('#trust-root').waitFor();
    await tabTo('trust-root');
    await press('Space');
    await says('Accepted under a test root');
    await tabTo('policy');
    await press('Control+a');
    await page.keyboard.type('{ "vmpl": 2 }');
    await says('Refused');
    await tabTo('Reset');
    await press('Enter');
    await says('Accepted under a test root');
    await tabTo('Certificates in full');
    await press('Enter');
    expect(await page.locator('.certificates .rows').count()).toBe(3);
    await tabTo('hex-toggle');
    await press('Space');
    await page.locator('.hex').waitFor();
  });

  it.each([
    ['enlarged twice', 640, 450],
    ['on a phone', 390, 844],
    ['enlarged four times', 320, 256],
    ['in a window of usual size', 1280, 900],
  ])(
    'shows the verdict beside whatever is being read or edited, and covers nothing with it: %s',
    async (_, width, height) => {
      await page.setViewportSize({ width, height });
      await page.reload();
      await page.locator('#evidence-files').setInputFiles([soften('report.bin'), soften('certs.bin')]);
      await says('Refused');
      const inSight = () =>
        page.evaluate(`(() => {
        const { top, bottom } = document.querySelector('.verdict-title').getBoundingClientRect();
        return scrollY >= 0 && top >= 0 && bottom <= innerHeight;
      })()`);
      expect(await inSight()).toBe(true);
      const policy = page.locator('#policy');
      if (!(await policy.isVisible())) {
        await page.locator('#policy-title').click();
      }
      await policy.fill('{ "vmpl": 3 }');
      await page.mouse.move(width - 20, height - 20);
      await page.locator('[data-check=policy].check-bad').waitFor();
      await page.getByRole('button', { name: 'Reset' }).focus();
      expect(await inSight()).toBe(true);
      // One verdict, spoken once.
      expect(await page.getByText('Refused', { exact: true }).count()).toBe(1);
      const covered = await (async () => {
        const names: unknown[] = [];
        for (let i = 0; i < 25; i++) {
          await page.keyboard.press('Shift+Tab');
          names.push(
            await page.evaluate(`(() => {
            const focused = document.activeElement;
            const band = document.querySelector('.verdict');
            const isBelow = focused.getBoundingClientRect().bottom > band.getBoundingClientRect().bottom + 8;
            return focused === document.body || band.contains(focused) || focused.closest('.skip, header') || isBelow
              ? null : focused.id || focused.outerHTML.slice(0, 60);
          })()`),
          );
        }
        return names.filter((name) => name !== null);
      })();
      expect(covered).toEqual([]);
    },
  );

  it('fits a window of 360 pixels, the verdict within reach', async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    await page.reload();
    await page.locator('#evidence-files').setInputFiles([soften('report.bin'), soften('certs.bin')]);
    await says('Refused');
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360);
    await page.locator('#hex-toggle').click();
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360);
    const { y } = (await page.locator('.verdict').boundingBox())!;
    expect(y).toBeLessThan(740);
  });

  it('has all of itself in landmarks, and its files under names of their own', async () => {
    await page.locator('#evidence-files').setInputFiles([soften('report.bin'), soften('certs.bin')]);
    await says('Refused');
    for (const text of ['one', 'two', 'three']) {
      await paste(text);
    }
    await page.getByLabel('Remove pasted text (3)', { exact: true }).waitFor();
    expect(await page.getByLabel('Remove pasted text', { exact: true }).count()).toBe(1);
    expect(await page.evaluate(OUTSIDE_LANDMARKS)).toEqual([]);
  });

  it('says what a drawing is, and does not take it for a page of the key service', async () => {
    writeFileSync(join(folder, 'chain.svg'), '<svg xmlns="http://www.w3.org/2000/svg"></svg>');
    await page.locator('#evidence-files').setInputFiles([soften('report.bin'), join(folder, 'chain.svg')]);
    await says('Refused');
    expect(await page.locator('.item.ignored .item-contents').innerText()).toContain(
      'an XML document: ignored',
    );
    expect(await page.locator('.why code').allTextContents()).not.toContain('CERT_IS_ERROR_PAGE');
  });

  it('shows the names of all fields beside the bytes', async () => {
    await page.locator('#evidence-files').setInputFiles(soften('report.bin'));
    await says('Refused');
    await page.locator('#hex-toggle').click();
    const cut = await page
      .locator('.hex')
      .evaluate(
        (hex) => [hex, ...hex.querySelectorAll('.names')].filter((e) => e.scrollWidth > e.clientWidth).length,
      );
    expect(cut).toBe(0);
    expect(
      await page.locator('.hex tr', { hasText: '0x180' }).locator('.names span').allTextContents(),
    ).toEqual(['reported_tcb,', 'cpuid_fam_id,', 'cpuid_mod_id,', 'cpuid_step']);
  });

  it('advises in words of its own, without options of the command line', async () => {
    await page
      .locator('#evidence-files')
      .setInputFiles(['report.bin', 'vcek.pem', 'ask.pem', 'ark.pem'].map(soften));
    await page.locator('#time').fill('2000-01-01T00:00:00');
    await says('Refused');
    expect(await codes()).toEqual(
      expect.arrayContaining(['ROOT_UNTRUSTED', 'CERT_NOT_YET_VALID', 'CRL_MISSING']),
    );
    const advice = await page.locator('.action, .source').allTextContents();
    expect(advice.filter((text) => /--|src\/|docs\/|\{/.test(text))).toEqual([]);
    expect(await page.locator('.why .action').allTextContents()).toEqual([
      expect.stringContaining('Another root, for tests'),
    ]);
    expect(await page.locator('.finding', { hasText: 'CRL_MISSING' }).textContent()).toMatch(
      /vcek\/v1\/\w+\/crl/,
    );
  });

  it('says how it is to be opened when it is opened as a file', async () => {
    const built = join(dirname(SOFTSNP), '..', 'console', 'dist', 'index.html');
    await page.goto(pathToFileURL(built).href);
    await page.getByText('This page has not started.').waitFor();
    expect(await page.locator('main').innerText()).toContain('npx softsnp console');
    // The browser complains of the program that it does not load: that is why.
    complaints.length = 0;
    requests.length = 0;
    await page.goto(url);
    await says('No evidence yet');
    expect(await page.getByText('This page has not started.').count()).toBe(0);
  });

  it.each(['light', 'dark'] as const)('has texts of contrast 4.5 and above in %s', async (colorScheme) => {
    // Without motion the colours are there at once, and not a tenth of a second later.
    await page.emulateMedia({ reducedMotion: 'reduce' });
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.locator('#evidence-files').setInputFiles([soften('report.bin'), soften('certs.bin')]);
    await says('Refused');
    expect(await page.evaluate(FAINT_TEXTS)).toEqual([]);
    await page.locator('#crl-mode').selectOption('skip');
    await trustTestRoot();
    await says('Accepted under a test root');
    expect(await page.evaluate(FAINT_TEXTS)).toEqual([]);
  });

  it('may connect to nothing, whatever runs in it', async () => {
    const refused = await page.evaluate(`Promise.all([
      fetch('/').then(() => 'sent', () => 'refused'),
      new Promise((resolve) => {
        const image = new Image();
        image.onload = () => resolve('sent');
        image.onerror = () => resolve('refused');
        image.src = 'https://example.com/?report';
      }),
    ])`);
    expect(refused).toEqual(['refused', 'refused']);
    // The browser complains about both: that is the point.
    expect(complaints.every((text) => text.includes('Content Security Policy'))).toBe(true);
    complaints.length = 0;
    requests.length = 0;
  });
});

/** A clock to be set, and timers of a minute or less that go on when they are told to, run in the page. */
const CLOCK = `
  const { now } = Date;
  let shift = 0;
  const ticks = [];
  Date.now = () => now() + shift;
  globalThis.setInterval = (tick, ms) => (ms <= 60_000 ? ticks.push(tick) : 0);
  globalThis.setTime = (text) => {
    shift = Date.parse(text) - now();
  };
  globalThis.goOn = () => {
    for (const tick of ticks) {
      tick();
    }
  };
`;

/** Texts that whoever goes from landmark to landmark does not come upon, run in the page. */
const OUTSIDE_LANDMARKS = `[...document.querySelectorAll('body *:not(script, noscript, svg *)')]
  .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim() !== ''))
  .filter((e) => !e.closest('header, main, section[aria-label], section[aria-labelledby], [role=alert], .skip'))
  .map((e) => e.textContent.trim().slice(0, 40))`;

/** Texts whose colour differs too little from what is behind them (WCAG 2.2, 1.4.3), run in the page. */
const FAINT_TEXTS = `(() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return { rgb: [r, g, b], a: a / 255 };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== 'none') {
        return null;
      }
      const { rgb, a } = rgba(style.backgroundColor);
      if (a === 1) {
        return rgb;
      }
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *:not(svg *)')]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim() !== ''))
    .filter((e) => !e.disabled && e.checkVisibility() && !['OPTION', 'NOSCRIPT'].includes(e.tagName))
    .flatMap((e) => {
      const ground = behind(e);
      if (ground === null) {
        return [];
      }
      const [a, b] = [luminance(rgba(getComputedStyle(e).color).rgb), luminance(ground)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      return ratio < 4.5 ? [e.className + ' "' + e.textContent.trim().slice(0, 30) + '" ' + ratio.toFixed(2)] : [];
    });
})()`;
