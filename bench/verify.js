// SPDX-License-Identifier: Apache-2.0
/** The verifier and the measurement beside the bare primitive and beside other people's programs. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, homedir, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { gzipSync } from 'node:zlib';
import { ARK_GUID, ASK_GUID, VCEK_GUID } from '../dist/abi/cert-table.js';
import { encodeCertificateTable, toPem } from '../dist/certs/index.js';
import { nodeVerifyCrypto } from '../dist/os/verify-crypto.js';
import { VerifyCache, verifyEvidence } from '../dist/verify/index.js';
import {
  bareVerifications,
  median,
  mustBe,
  platformEvidence,
  seconds,
  WARM_UP_ROUNDS,
  warmRatio,
} from './verify-warm.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const cache =
  process.env.SOFTSNP_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'softsnp');
const softsnp = join(root, 'bin', 'softsnp.js');

const BARE = 'node:crypto P-384 verifications per second';
const WARM = 'certificates, list and keys cached, each report new';

function warm() {
  const { ratio, perSecond } = warmRatio();
  return {
    verify_warm_ratio: { value: ratio, unit: 'ratio', ratio_to: BARE, floor: 0.9, note: WARM },
    verify_warm_per_s: { value: perSecond, unit: '1/s' },
  };
}

async function warmWorkers() {
  const count = availableParallelism();
  const found = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise((resolve, reject) => {
          const worker = new Worker(new URL('./verify-warm.js', import.meta.url), {
            workerData: { bench: 'verify-warm' },
          });
          worker.once('message', resolve);
          worker.once('error', reject);
        }),
    ),
  );
  return {
    verify_warm_ratio_workers: {
      value: median(found.map(({ ratio }) => ratio)),
      unit: 'ratio',
      ratio_to: BARE,
      floor: 0.9,
      note: `${count} workers at once, each beside its own bare ones`,
    },
    verify_warm_workers_per_s: {
      value: found.reduce((sum, { perSecond }) => sum + perSecond, 0),
      unit: '1/s',
    },
  };
}

/** Remembers what a provider was asked to verify. */
function recording(provider) {
  const jobs = [];
  return {
    jobs,
    crypto: {
      sha256Hex: (data) => provider.sha256Hex(data),
      verifyRsaPss(...args) {
        jobs.push((fresh) => fresh.verifyRsaPss(...args));
        return provider.verifyRsaPss(...args);
      },
      verifyEcdsaP384(...args) {
        jobs.push((fresh) => fresh.verifyEcdsaP384(...args));
        return provider.verifyEcdsaP384(...args);
      },
    },
  };
}

function cold() {
  const { options, certificates, crls, reports } = platformEvidence('Milan', 1);
  const evidence = { report: reports[0], certificates, crls };
  const once = (crypto) =>
    mustBe(true, verifyEvidence(evidence, { ...options, crypto, cache: new VerifyCache() }).ok);
  const { jobs, crypto } = recording(nodeVerifyCrypto());
  once(crypto);
  const COUNT = 100;
  const repeated = (work) => () => {
    for (let i = 0; i < COUNT; i++) {
      work(nodeVerifyCrypto());
    }
  };
  const ours = repeated(once);
  const bare = repeated((fresh) => {
    for (const job of jobs) {
      mustBe(true, job(fresh));
    }
  });
  const ratios = [];
  const rates = [];
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    ours();
  }
  bare();
  for (let round = 0; round < 11; round++) {
    const time = seconds(ours);
    ratios.push(seconds(bare) / time);
    rates.push(COUNT / time);
  }
  return {
    verify_cold_ratio: {
      value: median(ratios),
      unit: 'ratio',
      ratio_to: `the ${jobs.length} signatures it checks`,
      floor: 0.7,
      note:
        'nothing cached, keys imported from DER in both: the time of exactly the signature checks one verification ' +
        'makes (RSA-PSS 4096 of the certificates and the list, P-384 of the report), by the same provider without ' +
        'a verifier around, over the time of the verification with all its decoding and judging; the process is warm',
    },
    verify_cold_per_s: { value: median(rates), unit: '1/s' },
  };
}

/** @tinfoilsh/verifier in this process, on Genoa, the one line it knows; it caches nothing. */
async function tinfoil() {
  const dist = join(cache, 'npm', 'node_modules', '@tinfoilsh', 'verifier', 'dist', 'sev');
  const name = 'tinfoil_verify_ratio';
  if (!existsSync(dist)) {
    return { [name]: { value: null, unit: 'ratio', note: '@tinfoilsh/verifier is not installed' } };
  }
  const load = (file) => import(pathToFileURL(join(dist, file)).href);
  const { Report } = await load('report.js');
  const { CertificateChain } = await load('cert-chain.js');
  const { verifyAttestation } = await load('verify.js');
  const platform = platformEvidence('Genoa', 20);
  const [leaf, ask, ark] = platform.certificates;
  const bare = bareVerifications(platform);
  const ratios = [];
  for (let round = 0; round < 7; round++) {
    const start = process.hrtime.bigint();
    for (const bytes of platform.reports) {
      const report = new Report(bytes);
      const pinned = await CertificateChain.fromReport(report, leaf);
      const { constructor: Certificate } = pinned.ark;
      const chain = new CertificateChain(Certificate.parse(ark), Certificate.parse(ask), pinned.vcek);
      mustBe(true, await verifyAttestation(chain, report));
    }
    const time = Number(process.hrtime.bigint() - start) / 1e9;
    const bareTime = seconds(bare);
    if (round > 0) {
      ratios.push(bareTime / time);
    }
  }
  return {
    [name]: {
      value: median(ratios),
      unit: 'ratio',
      ratio_to: BARE,
      note: 'chain each time, no revocation list',
    },
  };
}

function must(command, args) {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) {
    throw new TypeError(`${command} failed: ${error?.message ?? stderr}`);
  }
}

/** Median whole-process times in turns; the first round only warms the disk. */
function wholeProcesses(commands) {
  const times = Object.fromEntries(Object.keys(commands).map((name) => [name, []]));
  for (let round = 0; round < 12; round++) {
    for (const [name, work] of Object.entries(commands)) {
      const time = seconds(work);
      if (round > 0) {
        times[name].push(time);
      }
    }
  }
  return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]));
}

function withFolder(work) {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-bench-'));
  try {
    return work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** One verification as a command, ours and theirs on the same evidence. */
function verifyCommands() {
  return withFolder((folder) => {
    const { certificates, reports } = platformEvidence('Milan', 1);
    const [leaf, ask, ark] = certificates;
    const path = (name) => join(folder, name);
    const certs = path('certs');
    mkdirSync(certs);
    writeFileSync(path('report.bin'), reports[0]);
    const table = encodeCertificateTable([
      { guid: VCEK_GUID, data: leaf },
      { guid: ASK_GUID, data: ask },
      { guid: ARK_GUID, data: ark },
    ]);
    writeFileSync(path('table.bin'), table);
    writeFileSync(path('attestation.bin'), Buffer.concat([reports[0], table]));
    writeFileSync(path('bundle.pem'), toPem(ask) + toPem(ark));
    for (const [name, der] of Object.entries({ vcek: leaf, ask, ark })) {
      writeFileSync(join(certs, `${name}.pem`), toPem(der));
    }
    const report = ['verify', 'report', path('report.bin'), '--table', path('table.bin')];
    const commands = {
      softsnp_verify_process_s: () =>
        must(process.execPath, [softsnp, ...report, '--trust', path('certs/ark.pem'), '--no-crl']),
    };
    const check = join(cache, 'go', 'check');
    if (existsSync(check)) {
      const args = ['-in', path('attestation.bin'), '-inform', 'bin', '-network=false', '-product', 'Milan'];
      args.push('-workaround_kds_productname=true', '-guest_policy', '0x30000');
      commands.go_check_process_s = () => must(check, [...args, '-product_key_path', path('bundle.pem')]);
    }
    const snpguest = join(cache, 'cargo', 'bin', 'snpguest');
    if (existsSync(snpguest)) {
      commands.snpguest_process_s = () => {
        must(snpguest, ['verify', 'certs', certs]);
        must(snpguest, ['verify', 'attestation', certs, path('report.bin')]);
      };
    }
    const notes = { snpguest_process_s: 'two processes: certs, attestation' };
    return Object.fromEntries(
      Object.entries(wholeProcesses(commands)).map(([name, value]) => [
        name,
        { value, unit: 's', ...(notes[name] === undefined ? {} : { note: notes[name] }) },
      ]),
    );
  });
}

function measureCommand() {
  const peer = join(cache, 'py', 'bin', 'sev-snp-measure');
  const bios = ['/usr/share/ovmf/OVMF.fd', '/usr/share/OVMF/OVMF.fd'].find((path) => existsSync(path));
  const name = 'measure_vs_sev_snp_measure';
  if (!existsSync(peer) || bios === undefined) {
    return { [name]: { value: null, unit: 'ratio', note: 'sev-snp-measure or OVMF.fd is not installed' } };
  }
  const args = ['--mode', 'snp', '--vcpus', '1', '--vcpu-type', 'EPYC-Milan-v2', '--ovmf', bios];
  const times = wholeProcesses({
    ours: () => must(process.execPath, [softsnp, 'measure', ...args]),
    theirs: () => must(peer, args),
    node: () => must(process.execPath, ['-e', '0']),
  });
  const ratio_to = 'whole-process time of sev-snp-measure on the same image';
  return {
    [name]: {
      value: times.ours / times.theirs,
      unit: 'ratio',
      ratio_to,
      ceiling: 1 / 3,
      note: 'out of reach of any Node program, see the next line',
    },
    node_start_vs_sev_snp_measure: {
      value: times.node / times.theirs,
      unit: 'ratio',
      ratio_to,
      note: 'node -e 0: what a program without a single line takes',
    },
    measure_process_s: { value: times.ours, unit: 's' },
  };
}

async function gzippedSize(file) {
  const { rolldown } = await import('rolldown');
  const bundle = await rolldown({ input: join(root, 'dist', 'verify', file), platform: 'browser' });
  const { output } = await bundle.generate({ format: 'es', minify: true });
  await bundle.close();
  return gzipSync(output[0].code).length;
}

async function bundleSizes() {
  return {
    verify_bundle_gzip_bytes: { value: await gzippedSize('index.js'), unit: 'bytes', ceiling: 60_000 },
    verify_js_bundle_gzip_bytes: { value: await gzippedSize('js.js'), unit: 'bytes', ceiling: 25_000 },
  };
}

export const verifyBenches = [
  { names: ['verify_warm_ratio', 'verify_warm_per_s'], run: warm },
  { names: ['verify_warm_ratio_workers', 'verify_warm_workers_per_s'], run: warmWorkers },
  { names: ['verify_cold_ratio', 'verify_cold_per_s'], run: cold },
  { names: ['tinfoil_verify_ratio'], run: tinfoil },
  { names: ['softsnp_verify_process_s', 'go_check_process_s', 'snpguest_process_s'], run: verifyCommands },
  {
    names: ['measure_vs_sev_snp_measure', 'node_start_vs_sev_snp_measure', 'measure_process_s'],
    run: measureCommand,
  },
  { names: ['verify_bundle_gzip_bytes', 'verify_js_bundle_gzip_bytes'], run: bundleSizes },
];
