// SPDX-License-Identifier: Apache-2.0
/** The other verifiers: how each is given a subject, and what it says. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { vi } from 'vitest';
import { ARK_GUID, ASK_GUID, VCEK_GUID, VLEK_GUID } from '../../../src/abi/cert-table.ts';
import { toPem } from '../../../src/certs/pem.ts';
import { embeddedAuthority } from '../../../src/kds/authority.ts';
import { concat, fromHex, readU64, writeU32 } from '../../../src/lib/bytes.ts';
import { run, tool } from '../tools.ts';
import type { Subject } from './subjects.ts';

/** A verdict with the tool's own words, or why the tool cannot be asked. */
export type Answer = { readonly accepts: boolean; readonly said: string } | { readonly unasked: string };

/** A verifier that is compared with softsnp. */
export interface Peer {
  readonly id: 'go-sev-guest' | 'snpguest' | 'tinfoil';
  readonly title: string;
  /** Whether the tool judges at the subject's time, at its own, or looks at no time at all. */
  readonly clock: 'pinned' | 'own' | 'none';
  ask(subject: Subject, folder: string): Answer | Promise<Answer>;
}

interface Chain {
  readonly kind: 'vcek' | 'vlek';
  readonly leaf: Uint8Array;
  readonly intermediate: Uint8Array;
  readonly root: Uint8Array;
}

/** Leaf, intermediate and root, or why there is no such triple. */
function chainOf({ evidence: { table, certificates = [] } }: Subject): Chain | { readonly unasked: string } {
  const [leaf, intermediate, root] = certificates;
  if (table !== undefined) {
    return { unasked: 'takes no certificate table from a file' };
  }
  if (certificates.length !== 3) {
    return { unasked: 'takes exactly a leaf, an intermediate and a root' };
  }
  // The host says which of the two it is; SEV-VLEK is the common name, SEV-VLEK-Milan would be the issuer.
  const kind = /SEV-VLEK(?!-)/.test(Buffer.from(leaf!).toString('latin1')) ? 'vlek' : 'vcek';
  return { kind, leaf: leaf!, intermediate: intermediate!, root: root! };
}

const isAboutLists = ({ evidence, options }: Subject): boolean =>
  (evidence.crls?.length ?? 0) > 0 || options.crl !== 'skip';

const NO_LISTS = { unasked: 'takes no revocation list from a file' } as const;

/** What a tool says first; snpguest adds a backtrace. */
const firstLine = (text: string): string => text.trim().split('\n')[0] ?? '';

/** A table of whatever contents, as a host may make one. */
function tableOf(entries: readonly (readonly [guid: string, data: Uint8Array])[]): Uint8Array {
  const header = new Uint8Array(24 * (entries.length + 1));
  let offset = header.length;
  for (const [i, [guid, data]] of entries.entries()) {
    header.set(fromHex(guid.replaceAll('-', '')), 24 * i);
    writeU32(header, 24 * i + 16, offset);
    writeU32(header, 24 * i + 20, data.length);
    offset += data.length;
  }
  return concat(header, ...entries.map(([, data]) => data));
}

/** Policies of genuine guests differ; what is compared on them is whether AMD signed. */
const anyPolicy = ({ options }: Subject): boolean => options.policy !== undefined;

/**
 * go-sev-guest's check.
 *
 * Differs  its ASK is part of the trust store: that of the subject goes there, next to the trusted root
 */
function goCheck(path: string): Peer {
  return {
    id: 'go-sev-guest',
    title: 'go-sev-guest `check` 0.15.0',
    clock: 'own',
    ask(subject, folder) {
      if (isAboutLists(subject)) {
        return NO_LISTS;
      }
      const { evidence, options, product } = subject;
      const chain = chainOf(subject);
      if ('unasked' in chain && evidence.table === undefined) {
        return chain;
      }
      const table =
        'unasked' in chain
          ? evidence.table!
          : tableOf([
              [chain.kind === 'vcek' ? VCEK_GUID : VLEK_GUID, chain.leaf],
              [ASK_GUID, chain.intermediate],
              [ARK_GUID, chain.root],
            ]);
      const input = join(folder, 'attestation.bin');
      writeFileSync(input, concat(evidence.report, table));
      const args = ['-in', input, '-inform', 'bin', '-network=false', '-product', options.product ?? product];
      // What AMD certifies as Milan-B0 says stepping 1 in its reports.
      args.push('-workaround_kds_productname=true');
      args.push('-guest_policy', anyPolicy(subject) ? `${readU64(evidence.report, 8)}` : '0x30000');
      if (options.trust !== undefined && options.trust !== 'amd') {
        const bundle = join(folder, 'bundle.pem');
        const intermediate = 'unasked' in chain ? embeddedAuthority(product).ask : chain.intermediate;
        writeFileSync(bundle, `${toPem(intermediate)}${toPem(options.trust[0]!)}`);
        args.push('-product_key_path', bundle);
      }
      const { status, stdout, stderr } = run(path, args);
      return { accepts: status === 0, said: firstLine(`${stdout}${stderr}`) };
    },
  };
}

/** snpguest: both of its checks, on a folder that holds what the evidence came with. */
function snpguest(path: string): Peer {
  return {
    id: 'snpguest',
    title: 'snpguest `verify` 0.11.0',
    clock: 'none',
    ask(subject, folder) {
      if (isAboutLists(subject)) {
        return NO_LISTS;
      }
      const chain = chainOf(subject);
      if ('unasked' in chain) {
        return chain;
      }
      const { evidence, product } = subject;
      const certs = join(folder, 'certs');
      rmSync(certs, { recursive: true, force: true });
      mkdirSync(certs);
      writeFileSync(join(certs, `${chain.kind}.der`), chain.leaf);
      writeFileSync(join(certs, `${chain.kind === 'vcek' ? 'ask' : 'asvk'}.der`), chain.intermediate);
      writeFileSync(join(certs, 'ark.der'), chain.root);
      const report = join(folder, 'report.bin');
      writeFileSync(report, evidence.report);
      const isV2 = evidence.report[0] === 2;
      const told = subject.options.product ?? (isV2 ? product : null);
      const model = told === null ? [] : ['-p', told.toLowerCase()];
      const certsCheck = run(path, ['verify', 'certs', certs]);
      const reportCheck = run(path, ['verify', 'attestation', ...model, certs, report]);
      const failed = [certsCheck, reportCheck].find(({ status }) => status !== 0);
      return { accepts: failed === undefined, said: firstLine(`${(failed ?? reportCheck).stderr}`) };
    },
  };
}

interface TinfoilModules {
  // biome-ignore lint/suspicious/noExplicitAny: the package's inner modules come without types here.
  readonly [name: string]: any;
}

/**
 * @tinfoilsh/verifier, by the modules its entry point calls: that one only takes what its own service hands out.
 *
 * Differs  its pinned roots give way to those of the subject where the subject brings its own
 */
async function tinfoil(packageJson: string): Promise<Peer> {
  const load = async (path: string): Promise<TinfoilModules> =>
    import(/* @vite-ignore */ pathToFileURL(join(dirname(packageJson), 'dist', path)).href);
  const { Report } = await load('sev/report.js');
  const { CertificateChain } = await load('sev/cert-chain.js');
  const { verifyAttestation } = await load('sev/verify.js');
  const { validateReport, defaultValidationOptions } = await load('sev/validation.js');
  return {
    id: 'tinfoil',
    title: '@tinfoilsh/verifier 1.1.0',
    clock: 'pinned',
    async ask(subject) {
      if (isAboutLists(subject)) {
        return NO_LISTS;
      }
      const chain = chainOf(subject);
      if ('unasked' in chain) {
        return chain;
      }
      if (subject.product !== 'Genoa' || chain.kind === 'vlek') {
        return { unasked: 'knows only VCEKs of Genoa' };
      }
      if ((subject.options.product ?? 'Genoa') !== 'Genoa') {
        return { unasked: 'cannot be told another product line' };
      }
      vi.useFakeTimers({ toFake: ['Date'], now: subject.options.atMs });
      try {
        const report = new Report(subject.evidence.report);
        const pinned = await CertificateChain.fromReport(report, chain.leaf);
        const { constructor: Certificate } = pinned.ark;
        const path =
          subject.options.trust === undefined || subject.options.trust === 'amd'
            ? pinned
            : new CertificateChain(
                Certificate.parse((subject.options.trust as readonly Uint8Array[])[0]),
                Certificate.parse(chain.intermediate),
                pinned.vcek,
              );
        const isSigned = await verifyAttestation(path, report);
        validateReport(report, path, {
          // What Tinfoil wants of its own hosts is left out; a guest that may be debugged is not.
          ...(anyPolicy(subject) ? {} : { guestPolicy: defaultValidationOptions.guestPolicy }),
          permitProvisionalFirmware: false,
          requireAuthorKey: false,
          requireIdBlock: false,
        });
        return { accepts: isSigned === true, said: '' };
      } catch (error) {
        return { accepts: false, said: String(error) };
      } finally {
        vi.useRealTimers();
      }
    },
  };
}

/** The verifiers that are installed. */
export async function installedPeers(): Promise<readonly Peer[]> {
  const check = tool('go/check', 'go-sev-guest check');
  const guest = tool('cargo/bin/snpguest', 'snpguest verify');
  const verifier = tool('npm/node_modules/@tinfoilsh/verifier/package.json', '@tinfoilsh/verifier');
  return [
    ...(check === null ? [] : [goCheck(check)]),
    ...(guest === null ? [] : [snpguest(guest)]),
    ...(verifier === null ? [] : [await tinfoil(verifier)]),
  ];
}
