// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { defineCommand } from 'citty';
import { runCli, type Verb } from './run.ts';
import { watchStreams } from './streams.ts';

const packageJson = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

/** Verbs are loaded when they are called: `softsnp attest` does not read the code of the others. */
export const softsnpCommand: Verb = defineCommand({
  meta: {
    name: 'softsnp',
    description: 'AMD SEV-SNP in software: a host, a guest, evidence and its verification',
  },
  subCommands: {
    attest: () => import('./attest.ts').then(({ attestCommand }) => attestCommand as Verb),
    exec: () => import('./exec.ts').then(({ execCommand }) => execCommand as Verb),
    up: () => import('./up.ts').then(({ upCommand }) => upCommand as Verb),
    ctl: () => import('./ctl.ts').then(({ ctlCommand }) => ctlCommand as Verb),
    host: () => import('./host.ts').then(({ hostCommand }) => hostCommand as Verb),
    guest: () => import('./guest.ts').then(({ guestCommand }) => guestCommand as Verb),
    kds: () => import('./kds.ts').then(({ kdsCommand }) => kdsCommand as Verb),
    measure: () => import('./measure.ts').then(({ measureCommand }) => measureCommand as Verb),
    idblock: () => import('./idblock.ts').then(({ idblockCommand }) => idblockCommand as Verb),
    verify: () => import('./verify.ts').then(({ verifyCommand }) => verifyCommand as Verb),
    vectors: () => import('./vectors.ts').then(({ vectorsCommand }) => vectorsCommand as Verb),
    console: () => import('./console.ts').then(({ consoleCommand }) => consoleCommand as Verb),
    show: () => import('./show.ts').then(({ showCommand }) => showCommand as Verb),
  },
});

export async function main(argv: readonly string[]): Promise<void> {
  watchStreams(process);
  process.exitCode = await runCli(softsnpCommand, argv, packageJson.version);
}
