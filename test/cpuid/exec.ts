// SPDX-License-Identifier: Apache-2.0
/** Runs a command that sees the processor of a product line: exec.js Milan|Genoa|Turin COMMAND [ARGUMENT...] */
import { emulatedCpuid } from '../../src/devices/cpuid/answers.ts';
import { EnvironmentError } from '../../src/lib/errors.ts';
import { machineCode } from '../../src/os/machine-code.ts';
import { arrivedInNamespaces, enterNamespaces } from '../../src/os/namespaces.ts';
import { endAs, runCommand } from '../../src/os/run-command.ts';
import { cpuidDecoder } from '../../src/os/x86-decoder.ts';
import { isProduct, PROCESSORS } from './processors.ts';

const [product = '', ...command] = process.argv.slice(2);
try {
  if (!arrivedInNamespaces()) {
    enterNamespaces({ network: false, fuse: false });
  }
  const processor = PROCESSORS[isProduct(product) ? product : 'Milan'];
  const end = await runCommand(command, {
    cpuid: {
      answer: emulatedCpuid(processor, machineCode().cpuid),
      offsets: cpuidDecoder(),
      onUntold: (path, why) => console.error(`untold: ${path}: ${why}`),
    },
  });
  endAs(end);
} catch (error) {
  console.log(error instanceof EnvironmentError ? `${error.code}: ${error.message}` : error);
  process.exit(3);
}
