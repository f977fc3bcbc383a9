// SPDX-License-Identifier: Apache-2.0
/**
 * The TLS authorities of a key service in a folder. A root once trusted stays the same: whatever the clock
 * says and whoever else starts on the folder, it is replaced only by people who remove its file.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  isKeyPair,
  issueClientCertificate,
  isTlsKey,
  makeTlsAuthority,
  makeTlsIdentity,
  makeTlsKey,
  type TlsAuthorityKind,
  type TlsIdentity,
  type TlsKeyPair,
  termOf,
} from '../kds/tls.ts';
import { utf8 } from '../lib/bytes.ts';
import type { Random } from '../lib/crypto.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { makeFolder } from '../os/make-folder.ts';
import { clearLeftovers, putFile, putFirstFile } from '../os/shared-folder.ts';

const DAY_MS = 86_400_000;
/** A client certificate with less time left than this is replaced by a new one for the same key. */
const CLIENT_LEAST_MS = 30 * DAY_MS;

const ROOT_FILE = 'root.pem';

export interface TlsFiles {
  readonly identity: TlsIdentity;
  /** Path of the root for trust stores. */
  readonly root: string;
  /** What people should know: a root that is not valid by this clock. */
  readonly warnings: readonly string[];
}

/**
 * What the folder holds, completed: root.pem for trust stores, client-NAME.pem and client-NAME.key for each
 * cloud provider, and the authorities behind them, each in one file with its key. Nothing is written where
 * nothing is missing, so that a folder may be read-only.
 *
 * Errors   STATE_UNWRITABLE with the errno; TLS_ROOT_INVALID for an authority that is damaged
 */
export function tlsFiles(folder: string, csps: readonly string[], nowMs: number, random: Random): TlsFiles {
  try {
    makeFolder(folder, 0o700);
    const server = authorityOf(folder, 'server', nowMs, random);
    const client = authorityOf(folder, 'client', nowMs, random);
    if (textOf(folder, ROOT_FILE) !== server.certificate) {
      putFile(folder, ROOT_FILE, utf8(server.certificate), 0o644);
    }
    for (const csp of csps) {
      provideClient(folder, client, csp, nowMs, random);
    }
    clearLeftovers(folder, nowMs);
    return {
      identity: makeTlsIdentity({ server, client }, nowMs, random),
      root: join(folder, ROOT_FILE),
      warnings: [
        ...warningOf(authorityFile(folder, 'server'), server, nowMs),
        ...warningOf(authorityFile(folder, 'client'), client, nowMs),
      ],
    };
  } catch (error) {
    if (error instanceof Error && 'code' in error && 'syscall' in error) {
      throw new EnvironmentError('STATE_UNWRITABLE', `cannot keep the TLS files: ${errnoCode(error)}`, {
        where: 'path' in error && typeof error.path === 'string' ? error.path : folder,
        cause: error,
      });
    }
    throw error;
  }
}

const authorityName = (kind: TlsAuthorityKind): string => `${kind}-root.key`;

const authorityFile = (folder: string, kind: TlsAuthorityKind): string => join(folder, authorityName(kind));

function authorityOf(folder: string, kind: TlsAuthorityKind, nowMs: number, random: Random): TlsKeyPair {
  const name = authorityName(kind);
  const kept = textOf(folder, name);
  if (kept !== null) {
    return authorityOfText(kept, authorityFile(folder, kind));
  }
  const fresh = makeTlsAuthority(kind, nowMs, random);
  // One file for both, so that no crash leaves a certificate with another one's key.
  return putFirstFile(folder, name, utf8(fresh.certificate + fresh.privateKey))
    ? fresh
    : authorityOfText(textOf(folder, name) ?? '', authorityFile(folder, kind));
}

function authorityOfText(text: string, where: string): TlsKeyPair {
  const at = Math.max(0, text.indexOf('-----BEGIN PRIVATE KEY-----'));
  const pair = { certificate: text.slice(0, at), privateKey: text.slice(at) };
  if (!isKeyPair(pair)) {
    throw new InputError('TLS_ROOT_INVALID', 'not a certificate and its private key', { where });
  }
  return pair;
}

function warningOf(path: string, authority: TlsKeyPair, nowMs: number): readonly string[] {
  const [fromMs, toMs] = termOf(authority);
  if (fromMs <= nowMs && nowMs <= toMs) {
    return [];
  }
  const [from, to, now] = [fromMs, toMs, nowMs].map((ms) => new Date(ms).toISOString().slice(0, 10));
  return [
    `${path}: the root is valid from ${from} to ${to} and today is ${now}: TLS with it will fail. Set the clock, or remove the file to have a new root made, which clients must then be told to trust`,
  ];
}

/** The key stays when the certificate is renewed, so that two processes cannot pair one's with the other's. */
function provideClient(
  folder: string,
  authority: TlsKeyPair,
  csp: string,
  nowMs: number,
  random: Random,
): void {
  const name = `client-${csp.slice('CN='.length).replace(/[^A-Za-z0-9.-]/g, '_')}`;
  const privateKey = clientKey(folder, `${name}.key`);
  const kept = { certificate: textOf(folder, `${name}.pem`) ?? '', privateKey };
  if (isKeyPair(kept, authority)) {
    const [fromMs, toMs] = termOf(kept);
    if (fromMs <= nowMs && nowMs + CLIENT_LEAST_MS <= toMs) {
      return;
    }
  }
  const { certificate } = issueClientCertificate(authority, csp, nowMs, random, privateKey);
  putFile(folder, `${name}.pem`, utf8(certificate), 0o644);
}

function clientKey(folder: string, name: string): string {
  const kept = textOf(folder, name);
  if (kept !== null && isTlsKey(kept)) {
    return kept;
  }
  const fresh = makeTlsKey();
  if (kept !== null) {
    putFile(folder, name, utf8(fresh));
    return fresh;
  }
  return putFirstFile(folder, name, utf8(fresh)) ? fresh : (textOf(folder, name) ?? fresh);
}

function textOf(folder: string, name: string): string | null {
  try {
    return readFileSync(join(folder, name), 'latin1');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') {
      return null;
    }
    throw error;
  }
}
