// SPDX-License-Identifier: Apache-2.0
/** A network in which kdsintf.amd.com is the key service of a host, for programs that know no other. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { KDS_HOST, type KdsAnswerer, type KdsServer, startKdsServer } from '../kds/index.ts';
import { utf8 } from '../lib/bytes.ts';
import { raiseLoopback } from '../os/namespaces.ts';
import { systemRandom } from '../os/node-crypto.ts';
import type { PrivateTree } from '../os/private-tree.ts';
import { putFile } from '../os/shared-folder.ts';
import { systemClock } from '../os/system-clock.ts';
import { type TlsFiles, tlsFiles } from './kds-tls-files.ts';

const LOOPBACK = '127.0.0.1';
const HOSTS_FILE = '/etc/hosts';
/** Where distributions keep the roots that their programs trust, in one file. */
const TRUST_BUNDLES: readonly string[] = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];
const TLS_FOLDER = 'tls';
const BUNDLE_FILE = 'bundle.pem';
/** Proxies of the outer network, which is not there. Programs read either case. */
const PROXY_VARIABLE = /^(?:https?|all|ftp|no)_proxy$/i;

/** The key service that takes AMD's place. */
export interface KdsToIntercept {
  readonly kds: KdsAnswerer;
  /** State folder of its host: keeps the TLS files. */
  readonly folder: string;
  /** The cloud provider that gets a client certificate. */
  readonly csp: string;
  readonly onFault: (error: unknown, request: string) => void;
}

/** A service that is reached under AMD's name. */
export interface InterceptedKds {
  readonly server: KdsServer;
  /** The environment of the command: what tells its TLS library whom to trust, and no proxy. */
  readonly environment: (outer: NodeJS.ProcessEnv) => NodeJS.ProcessEnv;
}

/**
 * Starts the service in a network namespace of our own and asks the tree to send the name there.
 *
 * Clients trust what they trusted before and the TLS root of this state folder. The seeded clock is not
 * asked here: TLS clients go by the real time.
 *
 * Errors   NAMESPACE_UNAVAILABLE, LISTEN_FAILED, STATE_UNWRITABLE, TLS_ROOT_INVALID; then nothing listens
 */
export async function interceptKds(tree: PrivateTree, intercepted: KdsToIntercept): Promise<InterceptedKds> {
  const { kds, csp, onFault } = intercepted;
  raiseLoopback();
  const folder = join(intercepted.folder, TLS_FOLDER);
  const tls = tlsFiles(folder, [csp], systemClock.nowMs(), systemRandom);
  for (const warning of tls.warnings) {
    onFault(warning, 'TLS');
  }
  const trusted = trust(tree, folder, tls);
  tree.show(HOSTS_FILE, 'file', tree.file(utf8(withOurHost(textOf(HOSTS_FILE)))));
  const server = await startKdsServer({
    service: kds,
    identity: tls.identity,
    http: { host: LOOPBACK, port: 80 },
    tls: { host: LOOPBACK, port: 443 },
    provider: { host: LOOPBACK, port: 444 },
    onFault,
  });
  return { server, environment: (outer) => ({ ...withoutProxies(outer), ...trusted }) };
}

function withoutProxies(outer: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(outer).filter(([name]) => !PROXY_VARIABLE.test(name)));
}

function withOurHost(hosts: string): string {
  const others = hosts.split('\n').filter((line) => !line.split(/\s+/).includes(KDS_HOST));
  return `${LOOPBACK} ${KDS_HOST}\n${others.join('\n')}`;
}

function trust(tree: PrivateTree, folder: string, { identity }: TlsFiles): Readonly<Record<string, string>> {
  const path = join(folder, BUNDLE_FILE);
  const known = TRUST_BUNDLES.map((bundle) => [bundle, textOf(bundle)] as const).filter(
    ([, pem]) => pem !== '',
  );
  for (const [bundle, pem] of known) {
    tree.show(bundle, 'file', tree.file(utf8(`${pem}\n${identity.root}`)));
  }
  putFile(folder, BUNDLE_FILE, utf8(`${known[0]?.[1] ?? ''}\n${identity.root}`), 0o644);
  return {
    SSL_CERT_FILE: path,
    CURL_CA_BUNDLE: path,
    REQUESTS_CA_BUNDLE: path,
    NODE_EXTRA_CA_CERTS: path,
  };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Every distribution has some of these files and lacks the others.
    return '';
  }
}
