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
import { coldVerifications } from './verify-cold.js';
import { bareVerifications, median, mustBe, platformEvidence, seconds, warmRatio } from './verify-warm.js';

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

/** The same in one worker for each core, all at once. */
function inWorkers(bench) {
  const start = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(`./${bench}.js`, import.meta.url), { workerData: { bench } });
      worker.once('message', resolve);
      worker.once('error', reject);
    });
  return Promise.all(Array.from({ length: availableParallelism() }, start));
}

const total = (found) => found.reduce((sum, { perSecond }) => sum + perSecond, 0);

async function warmWorkers() {
  const found = await inWorkers('verify-warm');
  return {
    verify_warm_ratio_workers: {
      value: median(found.map(({ ratio }) => ratio)),
      unit: 'ratio',
      ratio_to: BARE,
      floor: 0.9,
      note: `${found.length} workers at once, each beside its own bare ones`,
    },
    verify_warm_workers_per_s: { value: total(found), unit: '1/s' },
  };
}

const coldRatio = (jobs) => `the ${jobs} signatures it checks`;
const COLD =
  'nothing cached, keys imported from DER in both: the time of exactly the signature checks one verification ' +
  'makes (RSA-PSS 4096 of the certificates and the list, P-384 of the report), by the same provider without ' +
  'a verifier around, over the time of the verification with all its decoding and judging; the process is warm';

function cold() {
  const { ratio, perSecond, jobs } = coldVerifications();
  return {
    verify_cold_ratio: { value: ratio, unit: 'ratio', ratio_to: coldRatio(jobs), floor: 0.7, note: COLD },
    verify_cold_per_s: { value: perSecond, unit: '1/s' },
  };
}

async function coldWorkers() {
  const found = await inWorkers('verify-cold');
  return {
    verify_cold_ratio_workers: {
      value: median(found.map(({ ratio }) => ratio)),
      unit: 'ratio',
      ratio_to: coldRatio(found[0].jobs),
      floor: 0.7,
      note: `${found.length} workers at once, each beside its own bare ones`,
    },
    verify_cold_workers_per_s: { value: total(found), unit: '1/s' },
  };
}

/**
 * go-sev-guest in a process of its own that is warm: what `go-verify` does it says itself.
 *
 * It verifies cold too, but less: no revocation list.
 */
function goSevGuest() {
  const names = ['go_sev_guest_per_s', 'go_sev_guest_workers_per_s'];
  const program = join(cache, 'go', 'verify');
  if (!existsSync(program)) {
    return absent(names, '1/s', 'bench/go-verify is not built: .ci/run does');
  }
  return withFolder((folder) => {
    const { attestation, bundle } = evidenceFiles(folder);
    const { per_s, workers_per_s } = JSON.parse(must(program, [attestation, bundle, '2']));
    const note = 'go-sev-guest in process, chain and report each time from bytes, no revocation list';
    return {
      go_sev_guest_per_s: { value: per_s, unit: '1/s', note },
      go_sev_guest_workers_per_s: {
        value: workers_per_s,
        unit: '1/s',
        note: `${availableParallelism()} goroutines at once`,
      },
    };
  });
}

/** @tinfoilsh/verifier in this process, on Genoa, the one line it knows; it caches nothing. */
async function tinfoil() {
  const dist = join(cache, 'npm', 'node_modules', '@tinfoilsh', 'verifier', 'dist', 'sev');
  if (!existsSync(dist)) {
    return absent(['tinfoil_verify_ratio', 'tinfoil_per_s'], '', '@tinfoilsh/verifier is not installed');
  }
  const load = (file) => import(pathToFileURL(join(dist, file)).href);
  const { Report } = await load('report.js');
  const { CertificateChain } = await load('cert-chain.js');
  const { verifyAttestation } = await load('verify.js');
  const platform = platformEvidence('Genoa', 20);
  const [leaf, ask, ark] = platform.certificates;
  const bare = bareVerifications(platform);
  const ratios = [];
  const rates = [];
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
      rates.push(platform.reports.length / time);
    }
  }
  const note = 'in process, chain and report each time from bytes, no revocation list; WebCrypto';
  return {
    tinfoil_verify_ratio: { value: median(ratios), unit: 'ratio', ratio_to: BARE, note },
    tinfoil_per_s: { value: median(rates), unit: '1/s' },
  };
}

/** What stands where a peer is missing. */
const absent = (names, unit, note) =>
  Object.fromEntries(names.map((name) => [name, { value: null, unit, note }]));

function must(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) {
    throw new TypeError(`${command} failed: ${error?.message ?? stderr}`);
  }
  return stdout;
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

/** Evidence of one platform in the forms the programs take. */
function evidenceFiles(folder) {
  const { certificates, reports } = platformEvidence('Milan', 1);
  const [leaf, ask, ark] = certificates;
  const files = Object.fromEntries(
    ['certs', 'report', 'table', 'attestation', 'bundle'].map((name) => [name, join(folder, name)]),
  );
  mkdirSync(files.certs);
  writeFileSync(files.report, reports[0]);
  const table = encodeCertificateTable([
    { guid: VCEK_GUID, data: leaf },
    { guid: ASK_GUID, data: ask },
    { guid: ARK_GUID, data: ark },
  ]);
  writeFileSync(files.table, table);
  writeFileSync(files.attestation, Buffer.concat([reports[0], table]));
  writeFileSync(files.bundle, toPem(ask) + toPem(ark));
  for (const [name, der] of Object.entries({ vcek: leaf, ask, ark })) {
    writeFileSync(join(files.certs, `${name}.pem`), toPem(der));
  }
  return files;
}

/** One verification as a command, ours and theirs on the same evidence. */
function verifyCommands() {
  return withFolder((folder) => {
    const { certs, report, table, attestation, bundle } = evidenceFiles(folder);
    const ours = [
      'verify',
      'report',
      report,
      '--table',
      table,
      '--trust',
      join(certs, 'ark.pem'),
      '--no-crl',
    ];
    const commands = {
      softsnp_verify_process_s: () => must(process.execPath, [softsnp, ...ours]),
    };
    const check = join(cache, 'go', 'check');
    if (existsSync(check)) {
      const args = ['-in', attestation, '-inform', 'bin', '-network=false', '-product', 'Milan'];
      args.push('-workaround_kds_productname=true', '-guest_policy', '0x30000');
      commands.go_check_process_s = () => must(check, [...args, '-product_key_path', bundle]);
    }
    const snpguest = join(cache, 'cargo', 'bin', 'snpguest');
    if (existsSync(snpguest)) {
      commands.snpguest_process_s = () => {
        must(snpguest, ['verify', 'certs', certs]);
        must(snpguest, ['verify', 'attestation', certs, report]);
      };
    }
    const times = wholeProcesses(commands);
    const notes = { snpguest_process_s: 'two processes: certs, attestation' };
    const results = Object.fromEntries(
      Object.entries(times).map(([name, value]) => [
        name,
        { value, unit: 's', ...(notes[name] === undefined ? {} : { note: notes[name] }) },
      ]),
    );
    if (times.snpguest_process_s !== undefined) {
      results.snpguest_per_s = {
        value: 1 / times.snpguest_process_s,
        unit: '1/s',
        note: 'it is a program alone: processes after each other, most of which is their start',
      };
    }
    return results;
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
    python: () => must(join(cache, 'py', 'bin', 'python3'), ['-c', '0']),
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
    measure_over_bare_node: {
      value: (times.ours - times.node) / (times.theirs - times.python),
      unit: 'ratio',
      ratio_to: 'sev-snp-measure over bare python3 -c 0',
      note: 'the part of each process that is the program’s own',
    },
    measure_process_s: { value: times.ours, unit: 's' },
    measure_over_bare_node_s: { value: times.ours - times.node, unit: 's' },
    sev_snp_measure_over_bare_python_s: { value: times.theirs - times.python, unit: 's' },
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
  { names: ['verify_cold_ratio_workers', 'verify_cold_workers_per_s'], run: coldWorkers },
  { names: ['go_sev_guest_per_s', 'go_sev_guest_workers_per_s'], run: goSevGuest },
  { names: ['tinfoil_verify_ratio', 'tinfoil_per_s'], run: tinfoil },
  {
    names: ['softsnp_verify_process_s', 'go_check_process_s', 'snpguest_process_s', 'snpguest_per_s'],
    run: verifyCommands,
  },
  {
    names: [
      'measure_vs_sev_snp_measure',
      'node_start_vs_sev_snp_measure',
      'measure_over_bare_node',
      'measure_process_s',
      'measure_over_bare_node_s',
      'sev_snp_measure_over_bare_python_s',
    ],
    run: measureCommand,
  },
  { names: ['verify_bundle_gzip_bytes', 'verify_js_bundle_gzip_bytes'], run: bundleSizes },
];
