// SPDX-License-Identifier: Apache-2.0
/** The TLS authorities of a key service in a folder, so that a root once trusted stays the same. */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  issueClientCertificate,
  isUsableKeyPair,
  makeTlsAuthority,
  makeTlsIdentity,
  type TlsAuthorityKind,
  type TlsIdentity,
  type TlsKeyPair,
} from '../kds/tls.ts';
import { utf8 } from '../lib/bytes.ts';
import type { Random } from '../lib/crypto.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { errnoCode } from '../os/errno.ts';
import { replaceFile } from '../os/state-dir.ts';

const DAY_MS = 86_400_000;
/** An authority must outlast the certificates it is going to issue. */
const AUTHORITY_LEAST_MS = 400 * DAY_MS;
const CLIENT_LEAST_MS = 30 * DAY_MS;

export interface TlsFiles {
  readonly identity: TlsIdentity;
  /** Path of the root for trust stores. */
  readonly root: string;
}

/**
 * What the folder holds, completed: root.pem for trust stores, client-NAME.pem and client-NAME.key for each
 * cloud provider, and the authorities behind them, each in one file with its key.
 *
 * Errors   STATE_UNWRITABLE with the errno
 */
export function tlsFiles(folder: string, csps: readonly string[], nowMs: number, random: Random): TlsFiles {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const server = authorityOf(folder, 'server', nowMs, random);
    const client = authorityOf(folder, 'client', nowMs, random);
    replaceFile(folder, 'root.pem', utf8(server.certificate), 0o644);
    for (const csp of csps) {
      provideClient(folder, client, csp, nowMs, random);
    }
    return { identity: makeTlsIdentity({ server, client }, nowMs, random), root: join(folder, 'root.pem') };
  } catch (error) {
    if (error instanceof Error && 'code' in error && 'syscall' in error) {
      throw new EnvironmentError('STATE_UNWRITABLE', `cannot keep the TLS files: ${errnoCode(error)}`, {
        where: folder,
        cause: error,
      });
    }
    throw error;
  }
}

function authorityOf(folder: string, kind: TlsAuthorityKind, nowMs: number, random: Random): TlsKeyPair {
  const name = `${kind}-root.key`;
  const kept = keyPairOf(textOf(folder, name));
  if (kept !== null && isUsableKeyPair(kept, nowMs, AUTHORITY_LEAST_MS)) {
    return kept;
  }
  const fresh = makeTlsAuthority(kind, nowMs, random);
  // One file for both, so that no crash leaves a certificate with another one's key.
  replaceFile(folder, name, utf8(fresh.certificate + fresh.privateKey));
  return fresh;
}

function provideClient(
  folder: string,
  authority: TlsKeyPair,
  csp: string,
  nowMs: number,
  random: Random,
): void {
  const name = `client-${csp.slice('CN='.length).replace(/[^A-Za-z0-9.-]/g, '_')}`;
  const kept = { certificate: textOf(folder, `${name}.pem`), privateKey: textOf(folder, `${name}.key`) };
  if (isUsableKeyPair(kept, nowMs, CLIENT_LEAST_MS, authority)) {
    return;
  }
  const fresh = issueClientCertificate(authority, csp, nowMs, random);
  replaceFile(folder, `${name}.key`, utf8(fresh.privateKey));
  replaceFile(folder, `${name}.pem`, utf8(fresh.certificate), 0o644);
}

function textOf(folder: string, name: string): string {
  try {
    return readFileSync(join(folder, name), 'latin1');
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') {
      return '';
    }
    throw error;
  }
}

function keyPairOf(text: string): TlsKeyPair | null {
  const at = text.indexOf('-----BEGIN PRIVATE KEY-----');
  return at < 0 ? null : { certificate: text.slice(0, at), privateKey: text.slice(at) };
}
