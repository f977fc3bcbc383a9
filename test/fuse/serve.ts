// SPDX-License-Identifier: Apache-2.0
/** Serves the test tree on a folder, and its device at further places, until a signal: serve.js FOLDER [PLACE...] */
import { serveTree } from '../../src/devices/fuse/server.ts';
import { testTree } from '../../src/devices/fuse/testing.ts';
import { EnvironmentError } from '../../src/lib/errors.ts';
import { shutdownSignal } from '../../src/os/shutdown.ts';

const [folder = '', ...places] = process.argv.slice(2);
try {
  const signal = shutdownSignal();
  const served = await serveTree(folder, { root: testTree(), onFault: (error) => console.error(error) });
  for (const place of places) {
    await served.bind('device', place);
  }
  console.log('ready');
  await signal;
  await served.close();
  console.log('closed');
} catch (error) {
  console.log(error instanceof EnvironmentError ? error.code : String(error));
  process.exitCode = 3;
}
