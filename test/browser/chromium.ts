// SPDX-License-Identifier: Apache-2.0
/** The distribution's Chromium, with a profile that is thrown away. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type BrowserContext, chromium } from 'playwright-core';

const CANDIDATES = [process.env['SOFTSNP_CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser'];
const EXECUTABLE = CANDIDATES.find((path) => path !== undefined && existsSync(path));

export const HAVE_CHROMIUM = EXECUTABLE !== undefined;

if (!HAVE_CHROMIUM) {
  console.warn(
    'SKIPPED: tests in a browser; no /usr/bin/chromium (apt-get install chromium, or SOFTSNP_CHROMIUM)',
  );
}

export interface Browser {
  readonly context: BrowserContext;
  close(): Promise<void>;
}

export async function startChromium(): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), 'softsnp-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: EXECUTABLE!,
    headless: true,
    viewport: { width: 1280, height: 900 },
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  return {
    context,
    async close() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
