// SPDX-License-Identifier: Apache-2.0
/**
 * npm run bench [-- --json] [-- NAME...]: speeds as ratios to the raw primitive or a peer, taken in one run,
 * because machines differ and are shared. Floors are what the project promises; nothing here fails a build.
 */
import { benches } from './benches.js';
import { deviceBenches } from './devices.js';
import { verifyBenches } from './verify.js';

const wanted = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const json = process.argv.includes('--json');

const results = {};
for (const bench of [...benches, ...deviceBenches, ...verifyBenches]) {
  if (wanted.length > 0 && !bench.names.some((name) => wanted.includes(name))) {
    continue;
  }
  const measured = await bench.run();
  for (const [name, result] of Object.entries(measured)) {
    results[name] = result;
    if (!json) {
      const { value, unit, ratio_to, floor, ceiling, note } = result;
      const bound =
        floor === undefined ? (ceiling === undefined ? '' : `at most ${ceiling}`) : `at least ${floor}`;
      const shown = value === null ? 'not measured' : Number(value.toPrecision(4));
      process.stdout.write(
        `${name.padEnd(28)} ${String(shown).padStart(12)} ${unit.padEnd(10)} ${bound.padEnd(18)} ${ratio_to ?? ''}${note ? ` (${note})` : ''}\n`,
      );
    }
  }
}
if (json) {
  process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
}
