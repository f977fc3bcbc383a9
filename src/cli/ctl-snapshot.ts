// SPDX-License-Identifier: Apache-2.0
/** softsnp ctl snapshot: what programs see of a running host, into a file and back. */
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  openSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type ArgsDef, defineCommand } from 'citty';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { controlRequest } from '../service/control-client.ts';
import { SNAPSHOT_LIMIT_BYTES, type SnapshotDocument } from '../service/snapshot-document.ts';
import { COMMON, group, printAnswer } from './ctl-request.ts';
import { findControlSocket } from './find-host.ts';
import { fileOption } from './options.ts';
import { EXIT_OK, type Verb } from './run.ts';

const PATH = '/v1/snapshot';
/** In a file the document is spread over lines. */
const FILE_LIMIT_BYTES = 2 * SNAPSHOT_LIMIT_BYTES;
/** How a snapshot begins, spread over lines or not. */
const BEGINNING = /^\{\s*"softsnp_snapshot":/;

const argsOf = (description: string) =>
  ({ ...COMMON, file: { type: 'positional', required: true, description } }) as const satisfies ArgsDef;

const saveCommand: Verb = defineCommand({
  meta: {
    name: 'save',
    description:
      'Save what programs see of the host and its guests. The file is for its owner alone: it holds secrets of the guests',
  },
  args: argsOf('File to write; an earlier snapshot there is replaced, any other file is left alone'),
  run: async ({ args }) => {
    const path = placeFor(args.file);
    const document = (await controlRequest(await findControlSocket(args), 'GET', PATH)) as SnapshotDocument;
    const text = `${JSON.stringify(document, null, 2)}\n`;
    writeWhole(path, text);
    const guests = document.guests.map(({ name }) => name);
    printAnswer(args, { file: path, bytes: Buffer.byteLength(text), guests });
    return EXIT_OK;
  },
});

const restoreCommand: Verb = defineCommand({
  meta: {
    name: 'restore',
    description:
      'Make the host and its guests what they were when the snapshot was saved, all of it or nothing. Guests that run now end',
  },
  args: argsOf('File that softsnp ctl snapshot save wrote'),
  run: async ({ args }) => {
    const answer = await controlRequest(await findControlSocket(args), 'PUT', PATH, readDocument(args.file));
    printAnswer(args, answer);
    return EXIT_OK;
  },
});

export const snapshotCommand: Verb = group('snapshot', 'Save a host and put it back', {
  save: saveCommand,
  restore: restoreCommand,
});

function readDocument(file: string): unknown {
  const bytes = fileOption('FILE', file, FILE_LIMIT_BYTES);
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new InputError('SNAPSHOT_INVALID', 'not a whole JSON document', { where: file, cause });
  }
  const size = Buffer.byteLength(JSON.stringify(document));
  if (size > SNAPSHOT_LIMIT_BYTES) {
    throw new InputError('SNAPSHOT_INVALID', `${size} bytes, more than ${SNAPSHOT_LIMIT_BYTES}`, {
      where: file,
    });
  }
  return document;
}

/**
 * Where the file goes, links followed.
 *
 * Errors   OPTION_INVALID for anything that is there and is no snapshot
 */
function placeFor(file: string): string {
  let replaceable: boolean;
  let path: string;
  try {
    if (statSync(file, { throwIfNoEntry: false }) === undefined) {
      return resolve(file);
    }
    path = realpathSync(file);
    replaceable = statSync(path).isFile() && isSnapshotOrEmpty(path);
  } catch (error) {
    throw unwritable(file, error);
  }
  if (!replaceable) {
    throw new InputError('OPTION_INVALID', 'something is there that is no snapshot', {
      where: file,
      action: 'Nothing was written. Choose a name that is free, or that of an earlier snapshot.',
    });
  }
  return path;
}

function isSnapshotOrEmpty(path: string): boolean {
  const fd = openSync(path, 'r');
  try {
    const start = Buffer.alloc(64);
    const length = readSync(fd, start);
    return length === 0 || BEGINNING.test(start.toString('latin1', 0, length));
  } finally {
    closeSync(fd);
  }
}

/** The whole file or nothing, whatever is at the path; others never see its contents. */
function writeWhole(path: string, text: string): void {
  const aside = join(dirname(path), `.softsnp-${randomUUID()}.new`);
  try {
    writeFileSync(aside, text, { mode: 0o600, flag: 'wx', flush: true });
    renameSync(aside, path);
  } catch (error) {
    rmSync(aside, { force: true });
    throw unwritable(path, error);
  }
}

const unwritable = (path: string, cause: unknown): EnvironmentError =>
  new EnvironmentError('FILE_UNWRITABLE', `cannot write: ${errnoCode(cause)}`, { where: path, cause });
