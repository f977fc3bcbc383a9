// SPDX-License-Identifier: Apache-2.0
/** Digests of virtee's firmware fixtures: the values sev-snp-measure and virtee/sev agree on with each other. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { fromHex, toHex } from '../lib/bytes.ts';
import { launchDigest, ovmfHash } from './digest.ts';
import { kernelHashes } from './kernel-hashes.ts';
import { sevEsLaunchParts, sevLaunchDigest, sevLaunchParts } from './legacy.ts';
import { type OvmfImage, parseOvmf } from './ovmf.ts';
import { planLaunch, planSvsmLaunch } from './plan.ts';
import { VCPU_TYPES } from './vcpu-types.ts';
import type { VmmType } from './vmsa.ts';

const FOLDER = new URL(
  '../../../shared/vectors/virtee-sev-snp-measure/files/tests/fixtures/',
  import.meta.url,
);
const present = existsSync(FOLDER);
if (!present) {
  console.warn(`SKIPPED: fixture digests: ${FOLDER.pathname} is absent`);
}

const sha256 = (data: Uint8Array): Uint8Array => createHash('sha256').update(data).digest();
const sha384 = (data: Uint8Array): Uint8Array => createHash('sha384').update(data).digest();
const fixture = (name: string): OvmfImage =>
  parseOvmf(Uint8Array.from(readFileSync(new URL(name, FOLDER))), name);

const AMD_SEV = 'ovmf_AmdSev_suffix.bin';
const X64 = 'ovmf_OvmfX64_suffix.bin';
const EMPTY = new Uint8Array(0);
const CONSOLE = 'console=ttyS0 loglevel=7';
const OVMF_HASH =
  '086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74';

interface SnpCase {
  readonly ovmf?: string;
  readonly vcpus?: number;
  readonly append?: string | null;
  readonly features: bigint;
  readonly vmm?: VmmType;
  readonly seed?: string;
  readonly digest: string;
}

// append null: no kernel at all. Kernel and initrd are empty files, as upstream's /dev/null.
const SNP: readonly SnpCase[] = [
  {
    seed: OVMF_HASH,
    features: 0x21n,
    digest:
      '329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198',
  },
  {
    seed: OVMF_HASH,
    features: 1n,
    digest:
      'ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5',
  },
  {
    seed: OVMF_HASH,
    append: CONSOLE,
    features: 0x21n,
    digest:
      '803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977',
  },
  {
    seed: OVMF_HASH,
    append: CONSOLE,
    features: 1n,
    digest:
      '6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa',
  },
  {
    vmm: 'ec2',
    features: 0x21n,
    digest:
      '0ce9ccc06bab55eebe8abc234f3df6514883977a68a591b71052498ab52b2f1aa415db338033946ef93aa8278c0d67fb',
  },
  {
    vmm: 'ec2',
    features: 1n,
    digest:
      '0883bd0eeb716e65b7b977a321c278d1e51b33b5c655fab985443bbcc65c086b9c15e8a0bd8811050dec7e24964e5056',
  },
  {
    vmm: 'ec2-virtee',
    features: 1n,
    digest:
      '7d3756157c805bf6adf617064c8552e8c1688fa1c8756f11cbf56ba5d25c9270fb69c0505c1cbe1c5c66c0e34c6ed3be',
  },
  {
    vmm: 'ec2-virtee',
    features: 0x21n,
    digest:
      '6ae80856486b1396af8c82a40351d6ed76a20c785e9c7fa4ffa27c22d5d6313b4b3b458cd3c9968e6f89fb5d8450d7a6',
  },
  {
    vmm: 'gce',
    features: 1n,
    digest:
      '5da7106cf14cf46b1725ebab123eb9e53bd46a1e9f400cd0c08e7827b04b688ea8b4e403c8404efed4397ea5d5d0722e',
  },
  {
    vmm: 'gce',
    vcpus: 4,
    features: 1n,
    digest:
      '5c5debf100fc339f90276e761ee1f1658d08922c3b20e2a2e6c7a6c3370b2452a15a00eae11886a93d6fd1e7ab81e29d',
  },
  {
    append: CONSOLE,
    features: 0x21n,
    digest:
      '803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977',
  },
  {
    append: CONSOLE,
    features: 1n,
    digest:
      '6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa',
  },
  {
    append: null,
    features: 0x21n,
    digest:
      'e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b',
  },
  {
    append: null,
    features: 1n,
    digest:
      '19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d',
  },
  {
    vcpus: 4,
    features: 0x21n,
    digest:
      '4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78eafe7b422907be0b4698e2414a631942',
  },
  {
    vcpus: 4,
    features: 1n,
    digest:
      '5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5',
  },
  {
    ovmf: X64,
    append: null,
    features: 0x21n,
    digest:
      '28797ae0afaba4005a81e629acebfb59e6687949d6be44007cd5506823b0dd66f146aaae26ff291eed7b493d8a64c385',
  },
  {
    ovmf: X64,
    append: null,
    features: 1n,
    digest:
      'da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005',
  },
];

describe.skipIf(!present)('launch digests of the published fixtures', () => {
  it.each(SNP)(
    'SNP: $vmm $ovmf vcpus $vcpus features $features append $append',
    ({ ovmf = AMD_SEV, vcpus = 1, append = '', features, vmm, seed, digest }) => {
      const plan = planLaunch({
        ovmf: fixture(ovmf),
        vcpus,
        cpuSig: VCPU_TYPES['EPYC-v4'],
        guestFeatures: features,
        ...(vmm === undefined ? {} : { vmmType: vmm }),
        ...(append === null
          ? {}
          : { kernelHashes: kernelHashes(sha256, { kernel: EMPTY, initrd: EMPTY, append }) }),
      });
      const options = seed === undefined ? {} : { seed: fromHex(seed) };
      expect(toHex(launchDigest(sha384, plan, options))).toBe(digest);
    },
  );

  it('SNP: the hash of the OVMF pages alone', () => {
    expect(toHex(ovmfHash(sha384, fixture(AMD_SEV)))).toBe(OVMF_HASH);
  });

  it.each([
    [4, '27d154c27b7b359c935e250ec6fee72aa0ae8c1225e3b0e1cf46a9567e938066d7d6f94bbdc4a857818bdb79277a44b2'],
    [2, '9b94745036aafddf4f7f8b00c7513abb5b7703178cb95aaa57928bd963d68d3bfcb715d6019b9167ee2517b11b0d9be7'],
  ])('SVSM with %i vCPUs', (vcpus, digest) => {
    const plan = planSvsmLaunch({
      ovmf: fixture('svsm_ovmf.fd'),
      svsm: fixture('svsm.bin'),
      varsSizeBytes: 540672,
      vcpus,
      cpuSig: VCPU_TYPES['EPYC-v4'],
    });
    expect(toHex(launchDigest(sha384, plan))).toBe(digest);
  });

  it.each([
    [1, '13810ae661ea11e2bb205621f582fee268f0367c8f97bc297b7fadef3e12002c'],
    [4, '0dccbcaba8e90b261bd0d2e1863a2f9da714768b7b2a19363cd6ae35aa90de91'],
  ])('SEV-ES with %i vCPUs and an empty kernel', (vcpus, digest) => {
    const parts = sevEsLaunchParts({
      ovmf: fixture(AMD_SEV),
      vcpus,
      cpuSig: VCPU_TYPES['EPYC-v4'],
      kernelHashes: kernelHashes(sha256, { kernel: EMPTY, initrd: EMPTY }),
    });
    expect(toHex(sevLaunchDigest(sha256, parts))).toBe(digest);
  });

  it.each([
    [CONSOLE, '82a3ee5d537c3620628270c292ae30cb40c3c878666a7890ee7ef2a08fb535ff'],
    ['', '77f613d7bbcdf12a73782ea9e88b0172aeda50d1a54201cb903594ff52846898'],
  ])('SEV with an empty kernel and the command line %j', (append, digest) => {
    const parts = sevLaunchParts({
      ovmf: fixture(AMD_SEV),
      kernelHashes: kernelHashes(sha256, { kernel: EMPTY, append }),
    });
    expect(toHex(sevLaunchDigest(sha256, parts))).toBe(digest);
  });

  it('SEV without a kernel', () => {
    expect(toHex(sevLaunchDigest(sha256, sevLaunchParts({ ovmf: fixture(X64) })))).toBe(
      'b4c021e085fb83ceffe6571a3d357b4a98773c83c474e47f76c876708fe316da',
    );
  });

  it('refuses a kernel for an image that does not check kernel hashes', () => {
    const hashes = kernelHashes(sha256, { kernel: EMPTY });
    const refusal = expect.objectContaining({ code: 'OVMF_KERNEL_HASHES_UNSUPPORTED' });
    const options = { ovmf: fixture(X64), vcpus: 1, cpuSig: 0, kernelHashes: hashes };
    expect(() => planLaunch(options)).toThrow(refusal);
    expect(() => sevEsLaunchParts(options)).toThrow(refusal);
    expect(() => sevLaunchParts(options)).toThrow(refusal);
  });
});
