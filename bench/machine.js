// SPDX-License-Identifier: Apache-2.0
/** A machine to measure, and how to. */
import { cpuSigOf, defaultImage, parseOvmf, planLaunch } from '../dist/launch/index.js';
import { Host, newHostState } from '../dist/machine/index.js';
import { nodeCrypto, systemRandom } from '../dist/os/node-crypto.js';
import { systemClock } from '../dist/os/system-clock.js';

export const sleep = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** A host with one guest that has not run yet. */
export function launched(memoryBytes, blob = () => null) {
  const crypto = nodeCrypto({ deterministic: false });
  const state = newHostState(crypto, systemRandom, 'Milan', { seed: null });
  const host = new Host({ crypto, random: systemRandom, clock: systemClock }, state);
  const plan = planLaunch({ ovmf: parseOvmf(defaultImage()), vcpus: 1, cpuSig: cpuSigOf('EPYC-Milan-v2') });
  const answer = host.launch({ name: 'bench', plan, memoryBytes, policy: 0x30000n, blob: blob(host) });
  if (!answer.ok) {
    throw new TypeError(`launch refused: ${answer.step} errno ${answer.errno}`);
  }
  return { host, guest: answer.guest };
}
