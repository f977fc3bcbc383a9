// SPDX-License-Identifier: Apache-2.0
/** `softsnp kds fetch`: certificates and lists from a key service, judged before they are written. */
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import type { ProductLine } from '../abi/product.ts';
import { decodeTcb, parseTcbText, type TcbParts } from '../abi/tcb-version.ts';
import { toPem } from '../certs/pem.ts';
import { KdsClient } from '../kds/client.ts';
import { AMD_KDS, hwidOfChipId } from '../kds/url.ts';
import { CHIP_ID_SIZE, HWID_SIZE } from '../keys/index.ts';
import { fromHex, utf8 } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { systemClock } from '../os/system-clock.ts';
import { nodeVerifyCrypto } from '../os/verify-crypto.ts';
import { kdsJudge } from '../verify/kds-judge.ts';
import { decodeReport, productOfReport } from '../verify/report.ts';
import { reportFile, trustedRoots } from './evidence-files.ts';
import { CLIENT_ARGS, cacheOption, deadlineOption } from './kds-client-options.ts';
import { writeOutFile } from './measure-launch.ts';
import { choiceOption, productOption } from './options.ts';
import { EXIT_OK, type Output, type Verb } from './run.ts';

const COMMON_ARGS = {
  kds: { type: 'string', valueHint: 'URL', description: 'Key service', default: AMD_KDS },
  trust: {
    type: 'string',
    valueHint: 'ROOT',
    description: 'Trust this root instead of AMD’s: softsnp (the test roots), or a PEM or DER file',
  },
  ...CLIENT_ARGS,
  out: { type: 'string', valueHint: 'FILE', description: 'Write here instead of to standard output' },
  json: { type: 'boolean', description: 'Print one JSON object, with the certificates as PEM' },
  verbose: { type: 'boolean', alias: 'v', description: 'Say what failed on the way' },
} as const satisfies ArgsDef;

const FORMAT_ARG = {
  format: { type: 'string', valueHint: 'pem|der', description: 'Encoding; DER needs --out', default: 'pem' },
} as const satisfies ArgsDef;

const PRODUCT_ARG = {
  product: { type: 'string', valueHint: 'milan|genoa|turin', description: 'Product line' },
} as const satisfies ArgsDef;

const AUTHORITY_ARGS = {
  ...PRODUCT_ARG,
  vlek: { type: 'boolean', description: 'Those of VLEKs instead of VCEKs' },
  ...COMMON_ARGS,
} as const satisfies ArgsDef;

const CRL_ARGS = { ...AUTHORITY_ARGS, ...FORMAT_ARG } as const satisfies ArgsDef;

const VCEK_ARGS = {
  report: { type: 'string', valueHint: 'FILE', description: 'Report whose CHIP_ID and REPORTED_TCB to take' },
  ...PRODUCT_ARG,
  hwid: { type: 'string', valueHint: 'HEX', description: 'CHIP_ID, instead of --report' },
  tcb: {
    type: 'string',
    valueHint: 'BL,TEE,SNP,UCODE',
    description: 'REPORTED_TCB; on Turin FMC comes first',
  },
  ...FORMAT_ARG,
  ...COMMON_ARGS,
} as const satisfies ArgsDef;

type CommonArgs = ParsedArgs<typeof COMMON_ARGS>;

export function kdsFetchVerb(output: Output): Verb {
  const verb = <const A extends ArgsDef>(
    name: string,
    description: string,
    args: A,
    run: (args: ParsedArgs<A>) => Promise<number>,
  ): Verb => defineCommand({ meta: { name, description }, args, run: (context) => run(context.args) });
  return defineCommand({
    meta: {
      name: 'fetch',
      description:
        'Fetch from AMD’s key service or a softsnp one; what does not come from a trusted root is refused. Exit codes: 0 had, 1 usage, 2 refused, 3 not had',
    },
    subCommands: {
      vcek: verb('vcek', 'The certificate of a chip for one TCB', VCEK_ARGS, async (args) => {
        const format = formatOf(args);
        const { product, hwid, tcb } = vcekOf(args);
        const der = await clientOf(args, output).vcek(product, hwid, tcb);
        return write(args, output, toPem(der), format === 'der' ? der : null);
      }),
      ca: verb('ca', 'ASK or ASVK, and ARK', AUTHORITY_ARGS, async (args) => {
        const path = args.vlek === true ? 'vlek' : 'vcek';
        const { intermediate, ark } = await clientOf(args, output).chain(path, productOf(args));
        return write(args, output, toPem(intermediate) + toPem(ark), null);
      }),
      crl: verb('crl', 'The revocation list of the ARK', CRL_ARGS, async (args) => {
        const format = formatOf(args);
        const path = args.vlek === true ? 'vlek' : 'vcek';
        const der = await clientOf(args, output).crl(path, productOf(args));
        return write(args, output, toPem(der, 'X509 CRL'), format === 'der' ? der : null);
      }),
    },
  });
}

function clientOf(args: CommonArgs, output: Output): KdsClient {
  const verbose = args.verbose === true;
  return new KdsClient({
    base: args.kds,
    judge: kdsJudge({
      crypto: nodeVerifyCrypto(),
      clock: systemClock,
      trust: args.trust === undefined ? 'amd' : trustedRoots(args.trust),
    }),
    clock: systemClock,
    cache: cacheOption(args.cache, output),
    timing: { deadlineMs: deadlineOption(args.deadline) },
    onTrouble: (url, why, waitMs) => {
      if (verbose) {
        const next = waitMs === null ? 'using what was kept' : `again in ${(waitMs / 1000).toFixed(1)} s`;
        output.stderr(`softsnp: ${url}: ${why}; ${next}\n`);
      }
    },
  });
}

function productOf({ product }: { readonly product?: string | undefined }): ProductLine {
  if (product === undefined) {
    throw new InputError('OPTION_INVALID', 'is needed', {
      where: '--product',
      action: 'Say which: --product milan, genoa or turin.',
    });
  }
  return productOption('product', product);
}

interface Wanted {
  readonly product: ProductLine;
  readonly hwid: string;
  readonly tcb: TcbParts;
}

function vcekOf(args: ParsedArgs<typeof VCEK_ARGS>): Wanted {
  if (args.report !== undefined) {
    if (args.hwid !== undefined || args.tcb !== undefined) {
      throw new InputError('OPTION_INVALID', 'says chip and TCB already', { where: '--report' });
    }
    return vcekOfReport(args.report, args.product);
  }
  if (args.hwid === undefined || args.tcb === undefined) {
    throw new InputError('OPTION_INVALID', 'give --report, or --product, --hwid and --tcb', {
      where: 'softsnp kds fetch vcek',
    });
  }
  const product = productOf(args);
  const given = fromHex(args.hwid, '--hwid');
  const chipId = new Uint8Array(CHIP_ID_SIZE);
  chipId.set(given.subarray(0, CHIP_ID_SIZE));
  const isLength = given.length === HWID_SIZE[product] || given.length === CHIP_ID_SIZE;
  const hwid = isLength ? hwidOfChipId(product, chipId) : null;
  if (hwid === null) {
    throw new InputError('OPTION_INVALID', `not the id of a ${product} chip`, { where: '--hwid' });
  }
  return { product, hwid, tcb: parseTcbText(args.tcb, product) };
}

function vcekOfReport(path: string, told: string | undefined): Wanted {
  const { report } = decodeReport(reportFile(path).report);
  if (report === null) {
    throw new InputError('OPTION_INVALID', `${path} holds no report of a known version`, {
      where: '--report',
      action: 'softsnp show report says what is wrong with it; --product, --hwid and --tcb do without.',
    });
  }
  const product = productOfReport(report) ?? (told === undefined ? null : productOption('product', told));
  if (product === null) {
    throw new InputError('OPTION_INVALID', 'the report does not name its product line', {
      where: '--product',
      action: 'Say which: --product milan, genoa or turin. Reports of version 2 do not tell.',
    });
  }
  const hwid = hwidOfChipId(product, report.chip_id);
  if (hwid === null) {
    throw new InputError('OPTION_INVALID', `CHIP_ID is masked, or not of a ${product} chip`, {
      where: '--report',
      action:
        'Where the host masks it, give --product, --hwid and --tcb; the operator of the host knows the chip.',
    });
  }
  return { product, hwid, tcb: decodeTcb(report.reported_tcb, product) };
}

function formatOf(args: { readonly format: string; readonly out?: string | undefined }): 'pem' | 'der' {
  const format = choiceOption('format', args.format, ['pem', 'der']);
  if (format === 'der' && args.out === undefined) {
    throw new InputError('OPTION_INVALID', 'DER is written to a file', { where: '--out' });
  }
  return format;
}

function write(args: CommonArgs, output: Output, pem: string, der: Uint8Array | null): number {
  if (args.out !== undefined) {
    writeOutFile(args.out, der ?? utf8(pem));
  }
  if (args.json === true) {
    output.stdout(`${JSON.stringify({ kds: args.kds, pem }, null, 2)}\n`);
  } else if (args.out === undefined) {
    output.stdout(pem);
  }
  return EXIT_OK;
}
