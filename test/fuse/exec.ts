// SPDX-License-Identifier: Apache-2.0
/** Runs a command where the test tree is at the usual places of devices: exec.js [--net] COMMAND [ARGUMENT...] */
import { serveTree } from '../../src/devices/fuse/server.ts';
import { testTree } from '../../src/devices/fuse/testing.ts';
import { utf8 } from '../../src/lib/bytes.ts';
import { EnvironmentError } from '../../src/lib/errors.ts';
import { arrivedInNamespaces, enterNamespaces, raiseLoopback } from '../../src/os/namespaces.ts';
import { privateFolder } from '../../src/os/private-folder.ts';
import { PrivateTree } from '../../src/os/private-tree.ts';
import { endAs, runCommand } from '../../src/os/run-command.ts';

const network = process.argv[2] === '--net';
const command = process.argv.slice(network ? 3 : 2);
try {
  if (!arrivedInNamespaces()) {
    enterNamespaces({ network, fuse: true });
  }
  if (network) {
    raiseLoopback();
  }
  const tree = new PrivateTree(privateFolder());
  const served = await serveTree(tree.folder(), {
    root: testTree(),
    onFault: (error) => console.error(error),
  });
  tree.show('/dev/sev-guest', 'file', `${served.target}/device`);
  tree.show('/dev/cpu/0/msr', 'file', `${served.target}/cell`);
  // There already, in a folder that is made anew for others.
  tree.show('/dev/full', 'file', `${served.target}/text`);
  tree.show('/sys/kernel/config', 'folder', `${served.target}/folders`);
  tree.show('/etc/hosts', 'file', tree.file(utf8('127.0.0.1 kdsintf.amd.com\n')));
  await tree.apply();
  const end = await runCommand(command);
  await served.close();
  endAs(end);
} catch (error) {
  console.log(error instanceof EnvironmentError ? `${error.code}: ${error.message}` : error);
  process.exit(3);
}
