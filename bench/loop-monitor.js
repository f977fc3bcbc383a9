// SPDX-License-Identifier: Apache-2.0
/**
 * Loaded into a softsnp by bench/soak.js (node --import): every SOAK_EVERY_MS it writes a line of JSON to
 * SOAK_LOG, what the process has and how long its event loop kept others waiting.
 */
import { appendFileSync, readdirSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();
setInterval(() => {
  const { rss, heapUsed } = process.memoryUsage();
  const line = {
    ...{ seconds: process.uptime(), rss, heapUsed },
    descriptors: readdirSync('/proc/self/fd').length,
    // The monitor's own timer is in what it measures.
    p99Ms: delay.percentile(99) / 1e6 - 5,
    maxMs: delay.max / 1e6 - 5,
  };
  appendFileSync(process.env.SOAK_LOG, `${JSON.stringify(line)}\n`);
  delay.reset();
}, Number(process.env.SOAK_EVERY_MS)).unref();
