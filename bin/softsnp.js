#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
import { ensureBuilt } from './build.js';

/** What keeps softsnp from being loaded, by the code of Node's exception. */
const TROUBLES = {
  RESOURCES_EXHAUSTED: {
    codes: ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC'],
    action: 'Raise the limit of open files (ulimit -n), memory or disk space.',
  },
  INSTALLATION_INCOMPLETE: {
    codes: ['ERR_MODULE_NOT_FOUND'],
    action:
      'Install again: npm ci in a clone, elsewhere a package that npm run pack made. Where few files may be open at once, raise that limit (ulimit -n).',
  },
};

/** Ends for something outside of softsnp, before there is code that could say it better. */
function giveUp(error) {
  const [name, trouble] = Object.entries(TROUBLES).find(([, { codes }]) => codes.includes(error?.code)) ?? [];
  if (trouble === undefined) {
    throw error;
  }
  process.stderr.write(`softsnp: cannot be loaded: ${error.message} [${name}]\n  ${trouble.action}\n`);
  process.exit(3);
}

async function load() {
  try {
    await ensureBuilt();
    return await import('../dist/cli/main.js');
  } catch (error) {
    return giveUp(error);
  }
}

const { main } = await load();
await main(process.argv.slice(2));
