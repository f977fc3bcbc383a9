#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
import { ensureBuilt } from './build.js';

/** Ends for something this machine has too little of, before there is code that could say it better. */
function giveUp(error) {
  const lacks = ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC'].includes(error?.code);
  if (!lacks) {
    throw error;
  }
  process.stderr.write(
    `softsnp: cannot be loaded: ${error.message} [RESOURCES_EXHAUSTED]\n  Raise the limit of open files (ulimit -n), memory or disk space.\n`,
  );
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
