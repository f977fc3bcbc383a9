#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
import { ensureBuilt } from './build.js';

await ensureBuilt();
const { main } = await import('../dist/cli/main.js');
await main(process.argv.slice(2));
