// SPDX-License-Identifier: Apache-2.0
/** The verifier's verbs as a person types them, with a clock and time limits of the test's own. */
import { defineCommand } from 'citty';
import { runCli, type Verb } from '../../src/cli/run.ts';
import { showVerb } from '../../src/cli/show.ts';
import { vectorsVerb } from '../../src/cli/vectors.ts';
import { type VerifyEnvironment, verifyVerb } from '../../src/cli/verify.ts';
import { AT_MS } from './soft.ts';

export interface Typed {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

const ENVIRONMENT: VerifyEnvironment = {
  clock: { nowMs: () => AT_MS, monotonicMs: () => performance.now() },
  kdsTiming: { deadlineMs: 10_000, attemptMs: 10_000, backoffMs: 50 },
};

/** Runs `softsnp` with these words. */
export async function typed(
  argv: readonly string[],
  environment: Partial<VerifyEnvironment> = {},
): Promise<Typed> {
  const texts = { out: '', err: '' };
  const output = {
    stdout: (text: string) => {
      texts.out += text;
    },
    stderr: (text: string) => {
      texts.err += text;
    },
  };
  const root: Verb = defineCommand({
    meta: { name: 'softsnp' },
    subCommands: {
      verify: verifyVerb(output, { ...ENVIRONMENT, ...environment }),
      show: showVerb(output),
      vectors: vectorsVerb(output),
    },
  });
  const code = await runCli(root, argv, '0', output);
  return { code, ...texts };
}
