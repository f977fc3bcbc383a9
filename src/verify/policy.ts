// SPDX-License-Identifier: Apache-2.0
/**
 * What the relying party wants of a report beyond being genuine: a JSON document, checked against the
 * schema below, and the comparison of a report with it. docs/reference/policy.md describes every field.
 */
import * as v from 'valibot';
import { PlatformInfo } from '../abi/attestation-report.ts';
import { GuestPolicy } from '../abi/guest-policy.ts';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import {
  decodeTcb,
  formatTcb,
  type TcbComponent,
  type TcbParts,
  tcbAtMost,
  tcbComponents,
} from '../abi/tcb-version.ts';
import { equalBytes, fromHex, isZero, startsWith, toHex } from '../lib/bytes.ts';
import { InputError } from '../lib/errors.ts';
import { parseJson } from '../lib/json.ts';
import { nearestName } from '../lib/nearest.ts';
import type { KnownCertificate } from './cache.ts';
import { type Finding, finding } from './findings.ts';
import type { Report } from './report.ts';

/** Longest list in a policy: every check is a walk over one. */
const MAX_LIST = 4096;

const ANY_HEX = /^(0x)?([0-9a-fA-F]{2})*$/;

const hexOf = (...sizes: readonly number[]) => {
  const exactly = new RegExp(`^(0x)?(${sizes.map((size) => `[0-9a-fA-F]{${2 * size}}`).join('|')})$`);
  const wrongSize = `not ${sizes.join(' or ')} bytes`;
  return v.pipe(
    v.string('not text of hexadecimal digits'),
    // First, so that nothing walks over megabytes of digits.
    v.maxLength(2 + 2 * Math.max(...sizes), wrongSize),
    v.regex(exactly, ({ input }) => (ANY_HEX.test(input) ? wrongSize : 'not hexadecimal digits')),
    v.transform((text) => fromHex(text)),
  );
};

const listOrOne = <S extends v.GenericSchema>(schema: S, least: number) =>
  v.union([
    v.pipe(
      v.array(schema),
      v.minLength(least, 'an empty list allows nothing'),
      v.maxLength(MAX_LIST, `more than ${MAX_LIST} values`),
    ),
    v.pipe(
      schema,
      v.transform((value) => [value]),
    ),
  ]);

/** One value or a list of values. */
const listOf = <S extends v.GenericSchema>(schema: S) => listOrOne(schema, 0);

/** One value or a list of values, any of which will do. */
const oneOf = <S extends v.GenericSchema>(schema: S) => listOrOne(schema, 1);

/** An object with these fields and no others; valibot would take a list for one without fields. */
const object = <E extends v.ObjectEntries>(entries: E) => {
  const names = Object.keys(entries);
  const schema = v.strictObject(entries, ({ expected, input }) =>
    expected === 'never' ? unknownField(String(input), names) : 'not an object',
  );
  const run = schema['~run'];
  const withoutLists: typeof run = (dataset, config) =>
    run.call(schema, Array.isArray(dataset.value) ? { ...dataset, value: null } : dataset, config);
  return Object.assign(schema, { '~run': withoutLists });
};

function unknownField(name: string, known: readonly string[]): string {
  const nearest = nearestName(name, known, 3);
  if (nearest !== null) {
    return `an unknown field; did you mean ${nearest}?`;
  }
  return known.length > 12 ? 'an unknown field' : `an unknown field; known here: ${known.join(', ')}`;
}

/** Whether something may, must or must not be. */
const Wanted = v.picklist(['any', 'required', 'forbidden'], 'not "any", "required" or "forbidden"');
export type Wanted = v.InferOutput<typeof Wanted>;

const whole = (max: number) => {
  const wrong = `not a whole number from 0 to ${max}`;
  return v.pipe(v.number(wrong), v.integer(wrong), v.minValue(0, wrong), v.maxValue(max, wrong));
};
const byte = whole(255);
const u32 = whole(0xffffffff);

const u64 = v.pipe(
  v.string('not text'),
  v.regex(/^0x[0-9a-fA-F]{1,16}$/, 'not 0x and up to 16 hexadecimal digits'),
  v.transform((text) => BigInt(text)),
);

const Version = v.pipe(
  v.string('not text'),
  v.regex(/^\d{1,3}\.\d{1,3}$/, 'not of the form major.minor'),
  v.transform((text) => text.split('.').map(Number) as [major: number, minor: number]),
);

const COMPONENT_MINIMUMS = {
  boot_loader: v.optional(byte),
  tee: v.optional(byte),
  snp: v.optional(byte),
  microcode: v.optional(byte),
};

/** The four TCBs of a report. */
const TCB_FIELDS = ['reported', 'committed', 'current', 'launch'] as const;
type TcbField = (typeof TCB_FIELDS)[number];

/** The four TCBs of a report in components. */
export type ReportTcbs = Readonly<Record<TcbField, TcbParts>>;

export function tcbsOf(report: Report, product: ProductLine): ReportTcbs {
  return {
    reported: decodeTcb(report.reported_tcb, product),
    committed: decodeTcb(report.committed_tcb, product),
    current: decodeTcb(report.current_tcb, product),
    launch: decodeTcb(report.launch_tcb, product),
  };
}

const tcbMinimums = <E extends v.ObjectEntries>(components: E) => {
  const minimum = v.optional(object(components));
  return object({ reported: minimum, committed: minimum, current: minimum, launch: minimum });
};
/** Only Turin has an FMC: what is demanded of one elsewhere would be a demand without effect. */
const TcbMinimums = tcbMinimums(COMPONENT_MINIMUMS);
const TurinTcbMinimums = tcbMinimums({ fmc: v.optional(byte), ...COMPONENT_MINIMUMS });

type GuestPolicyBit = Exclude<keyof Report['policy'], 'abi_minor' | 'abi_major'>;
const GUEST_POLICY_BITS = Object.keys(GuestPolicy.bits).filter(
  (bit) => bit !== 'abi_minor' && bit !== 'abi_major',
) as GuestPolicyBit[];
/** Bit 6 is set in genuine reports, but nobody has said what it means: nothing to demand. */
type PlatformBit = Exclude<keyof Report['platform_info'], 'bit_6'>;
const PLATFORM_BITS = Object.keys(PlatformInfo.bits).filter((bit) => bit !== 'bit_6') as PlatformBit[];

const wantedEach = <K extends string>(keys: readonly K[]) =>
  Object.fromEntries(keys.map((key) => [key, v.optional(Wanted, 'any')])) as Record<
    K,
    v.OptionalSchema<typeof Wanted, 'any'>
  >;

const product = v.picklist(PRODUCT_LINES as ProductLine[], `not one of ${PRODUCT_LINES.join(', ')}`);

/** Schema of the policy file. Fields that are left out demand nothing, except that DEBUG and MIGRATE_MA are forbidden. */
export const PolicySchema = object({
  /** Where an editor finds the JSON Schema; means nothing here. */
  $schema: v.optional(v.string('not text')),
  measurement: v.optional(oneOf(hexOf(48))),
  host_data: v.optional(oneOf(hexOf(32))),
  report_data: v.optional(oneOf(hexOf(64))),
  family_id: v.optional(oneOf(hexOf(16))),
  image_id: v.optional(oneOf(hexOf(16))),
  report_id: v.optional(oneOf(hexOf(32))),
  report_id_ma: v.optional(oneOf(hexOf(32))),
  id_key_digest: v.optional(oneOf(hexOf(48))),
  author_key_digest: v.optional(oneOf(hexOf(48))),
  /** An ID block of one of these ID keys, or of any ID key that one of these author keys signed. */
  id_block_signers: v.optional(
    v.pipe(
      object({ id_keys: v.optional(oneOf(hexOf(48))), author_keys: v.optional(oneOf(hexOf(48))) }),
      v.check(
        ({ id_keys, author_keys }) => id_keys !== undefined || author_keys !== undefined,
        'without keys nobody may sign',
      ),
    ),
  ),
  vmpl: v.optional(oneOf(u32)),
  minimum_guest_svn: v.optional(u32),
  minimum_report_version: v.optional(u32),
  /** An ID block was given at launch. */
  id_block: v.optional(Wanted, 'any'),
  /** The ID block's key was signed by an author key. */
  author_key: v.optional(Wanted, 'any'),
  guest_policy: v.optional(
    object({
      ...wantedEach(GUEST_POLICY_BITS),
      debug: v.optional(Wanted, 'forbidden'),
      // A migration agent may take the guest's memory with it: as much as a debugger can.
      migrate_ma: v.optional(Wanted, 'forbidden'),
      minimum_abi: v.optional(Version),
    }),
    {},
  ),
  platform_info: v.optional(object(wantedEach(PLATFORM_BITS)), {}),
  /** By product line, because the numbers of one mean nothing on another. */
  minimum_tcb: v.optional(
    v.pipe(
      object({
        Milan: v.optional(TcbMinimums),
        Genoa: v.optional(TcbMinimums),
        Turin: v.optional(TurinTcbMinimums),
      }),
      v.check((lines) => Object.keys(lines).length > 0, 'without a product line nothing is demanded'),
    ),
  ),
  minimum_firmware: v.optional(object({ version: v.optional(Version), build: v.optional(byte) })),
  /** Current firmware that is not committed yet. */
  provisional_firmware: v.optional(Wanted, 'any'),
  launch_mit_vector: v.optional(u64),
  current_mit_vector: v.optional(u64),
  signing_key: v.optional(oneOf(v.picklist(['VCEK', 'VLEK'], 'not VCEK or VLEK'))),
  product: v.optional(oneOf(product)),
  /** A report without CHIP_ID, signed by a VCEK. */
  masked_chip_id: v.optional(Wanted, 'any'),
  allowed_chips: v.optional(oneOf(hexOf(8, 64))),
  allowed_csps: v.optional(oneOf(v.pipe(v.string('not text'), v.minLength(1, 'empty')))),
  distrust: v.optional(
    object({
      chips: v.optional(listOf(hexOf(8, 64)), []),
      products: v.optional(listOf(product), []),
      /** SHA-256 of certificates anywhere in the chain. */
      certificates: v.optional(listOf(hexOf(32)), []),
    }),
  ),
});

/** A policy as people write it. */
export type PolicyDocument = v.InferInput<typeof PolicySchema>;
/** A policy ready for use. */
export type Policy = v.InferOutput<typeof PolicySchema>;

/**
 * Checks a policy document.
 *
 * Shape    `file` is where it came from, for the error
 * Errors   POLICY_INVALID naming the JSON path; unknown fields are refused, so that a misspelt demand is
 *          never a demand forgotten
 */
export function parsePolicy(document: unknown, file?: string): Policy {
  const result = v.safeParse(PolicySchema, document, { abortEarly: true });
  if (result.success) {
    return result.output;
  }
  const { message, path } = deepest(result.issues[0], []);
  const place = path.join('.');
  throw new InputError('POLICY_INVALID', message, {
    where: file === undefined ? ['policy', ...path].join('.') : place === '' ? file : `${file}, ${place}`,
  });
}

/**
 * Reads and checks the text of a policy.
 *
 * Shape    JSON; `file` is where it came from, for the error
 * Errors   POLICY_INVALID as of `parsePolicy`; also for an object that has a name twice, of which JSON keeps the last
 */
export function parsePolicyText(text: string, file?: string): Policy {
  return parsePolicy(parseJson(text, 'POLICY_INVALID', { where: file ?? 'policy' }), file);
}

interface Place {
  readonly message: string;
  readonly path: readonly string[];
}

/** A union says only that no branch fits; the branch that got furthest says why. */
function deepest(issue: v.BaseIssue<unknown>, above: readonly string[]): Place {
  const path = [...above, ...(issue.path ?? []).map(({ key }) => String(key))];
  const inner = issue.issues ?? [];
  // "Not a list" is no news about a single value, nor "not text" about a list.
  const telling = inner.find(
    ({ kind, input }) => kind === 'validation' || typeof input !== typeof issue.input,
  );
  const next = telling ?? inner.find(({ type }) => type !== 'array') ?? inner[0];
  return next === undefined ? { message: issue.message, path } : deepest(next, path);
}

/** Whether a policy has what only parsing puts there: a document as people write it demands little as it stands. */
export const isParsedPolicy = (policy: Policy | null): boolean =>
  policy?.id_block !== undefined &&
  policy.guest_policy?.debug !== undefined &&
  policy.platform_info?.smt_en !== undefined;

/** What is demanded when nothing is: no debugging and no migration agent. */
export const DEFAULT_POLICY: Policy = parsePolicy({});

export interface PolicySubject {
  readonly report: Report;
  /** Null when it could not be told; demands that need it then fail. */
  readonly product: ProductLine | null;
  /** The TCBs of the report; null with `product`. */
  readonly tcbs: ReportTcbs | null;
  readonly leaf: KnownCertificate | null;
  /** Fingerprints of the certificates of the chain. */
  readonly fingerprints: readonly string[];
}

/** Everything in which a report differs from what a policy wants. */
export function policyFindings(subject: PolicySubject, policy: Policy): Finding[] {
  const found: Finding[] = [];
  judgeRelations(found, subject);
  judgeValues(found, subject, policy);
  judgeSigners(found, subject, policy);
  judgeBits(found, subject, policy);
  judgeTcbs(found, subject, policy);
  judgeFirmware(found, subject, policy);
  judgeIdentity(found, subject, policy);
  return found;
}

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

interface Firmware {
  readonly major: number;
  readonly minor: number;
  readonly build: number;
}

const currentFirmware = (report: Report): Firmware => ({
  major: report.current_major,
  minor: report.current_minor,
  build: report.current_build,
});

const committedFirmware = (report: Report): Firmware => ({
  major: report.committed_major,
  minor: report.committed_minor,
  build: report.committed_build,
});

const firmwareText = ({ major, minor, build }: Firmware): string => `${major}.${minor}.${build}`;

/** A build number counts within its version: the first build of a newer version is newer. */
const isOlder = (a: Firmware, b: Firmware): boolean =>
  (a.major - b.major || a.minor - b.minor || a.build - b.build) < 0;

// The firmware keeps these orders at all times, whatever the policy.
const RELATIONS: readonly (readonly [lower: TcbField, upper: TcbField])[] = [
  ['reported', 'committed'],
  ['committed', 'current'],
  ['launch', 'current'],
];

function judgeRelations(found: Finding[], { report, product, tcbs }: PolicySubject): void {
  const current = currentFirmware(report);
  const committed = committedFirmware(report);
  if (isOlder(current, committed)) {
    found.push(
      finding('FIRMWARE_RELATION', {
        where: 'report.committed_version',
        expected: `at most ${firmwareText(current)}`,
        actual: firmwareText(committed),
      }),
    );
  }
  for (const [lower, upper] of RELATIONS) {
    if (product !== null && tcbs !== null && !tcbAtMost(tcbs[lower], tcbs[upper], product)) {
      found.push(
        finding('TCB_RELATION', {
          where: `report.${lower}_tcb`,
          expected: `at most ${upper}_tcb ${formatTcb(tcbs[upper], product)}`,
          actual: formatTcb(tcbs[lower], product),
        }),
      );
    }
  }
}

const BYTE_FIELDS = [
  'measurement',
  'host_data',
  'report_data',
  'family_id',
  'image_id',
  'report_id',
  'report_id_ma',
  'id_key_digest',
  'author_key_digest',
] as const;

function mismatch(field: string, expected: string, actual: string): Finding {
  return finding('POLICY_MISMATCH', {
    where: `report.${field}`,
    expected,
    actual,
    message: `The policy does not allow this ${field}.`,
  });
}

function judgeValues(found: Finding[], { report, product }: PolicySubject, policy: Policy): void {
  for (const field of BYTE_FIELDS) {
    const allowed = policy[field];
    if (allowed !== undefined && !allowed.some((value) => equalBytes(value, report[field]))) {
      found.push(mismatch(field, allowed.map(toHex).join(' or '), toHex(report[field])));
    }
  }
  if (policy.vmpl !== undefined && !policy.vmpl.includes(report.vmpl)) {
    found.push(mismatch('vmpl', policy.vmpl.join(' or '), String(report.vmpl)));
  }
  if (policy.minimum_guest_svn !== undefined && report.guest_svn < policy.minimum_guest_svn) {
    found.push(mismatch('guest_svn', `at least ${policy.minimum_guest_svn}`, String(report.guest_svn)));
  }
  if (policy.minimum_report_version !== undefined && report.version < policy.minimum_report_version) {
    found.push(mismatch('version', `at least ${policy.minimum_report_version}`, String(report.version)));
  }
  for (const field of ['launch_mit_vector', 'current_mit_vector'] as const) {
    const required = policy[field];
    const present = report[field];
    // A report before version 5 says nothing about mitigations, hence nothing that could satisfy.
    if (required !== undefined && (present === undefined || (present & required) !== required)) {
      found.push(
        mismatch(
          field,
          `bits ${hex(required)}`,
          present === undefined ? 'not in this version' : hex(present),
        ),
      );
    }
  }
  if (policy.product !== undefined && (product === null || !policy.product.includes(product))) {
    found.push(mismatch('product', policy.product.join(' or '), product ?? 'unknown'));
  }
}

function judgeSigners(
  found: Finding[],
  { report }: PolicySubject,
  { author_key_digest, id_block_signers }: Policy,
): void {
  const { id_key_digest, author_key_digest: author } = report;
  const hasAuthor = report.key_info.author_key_en === 1;
  const isAmong = (digests: readonly Uint8Array[] | undefined, digest: Uint8Array): boolean =>
    digests?.some((listed) => equalBytes(listed, digest)) === true;
  // The digest alone says nothing: only with AUTHOR_KEY_EN has the firmware checked a signature of that key.
  if (isAmong(author_key_digest, author) && !isZero(author) && !hasAuthor) {
    found.push(mismatch('key_info.author_key_en', '1, for the author_key_digest to count', '0'));
  }
  if (id_block_signers !== undefined) {
    const { id_keys, author_keys } = id_block_signers;
    const hasBlock = !isZero(id_key_digest);
    if (!hasBlock || !(isAmong(id_keys, id_key_digest) || (hasAuthor && isAmong(author_keys, author)))) {
      found.push(
        finding('POLICY_MISMATCH', {
          where: 'report.id_key_digest',
          expected: [
            ...(id_keys ?? []).map((digest) => `ID key ${toHex(digest)}`),
            ...(author_keys ?? []).map((digest) => `author key ${toHex(digest)}`),
          ].join(' or '),
          actual: hasBlock
            ? `ID key ${toHex(id_key_digest)}, ${hasAuthor ? `author key ${toHex(author)}` : 'no author key'}`
            : 'no ID block',
          message: 'The policy does not trust who signed the ID block.',
        }),
      );
    }
  }
}

function wantedFindings(found: Finding[], wanted: Wanted, is: boolean, prefix: string, name: string): void {
  if (wanted === 'any' || is === (wanted === 'required')) {
    return;
  }
  const where = `${prefix}.${name}`;
  found.push(
    wanted === 'forbidden'
      ? finding('POLICY_BIT_FORBIDDEN', {
          where,
          expected: 'off',
          actual: 'on',
          message: `The policy forbids ${where}.`,
        })
      : finding('POLICY_BIT_REQUIRED', {
          where,
          expected: 'on',
          actual: 'off',
          message: `The policy requires ${where}.`,
        }),
  );
}

function judgeBits(found: Finding[], { report }: PolicySubject, policy: Policy): void {
  for (const bit of GUEST_POLICY_BITS) {
    wantedFindings(found, policy.guest_policy[bit], report.policy[bit] === 1, 'report.policy', bit);
  }
  for (const bit of PLATFORM_BITS) {
    const is = report.platform_info[bit] === 1;
    wantedFindings(found, policy.platform_info[bit], is, 'report.platform_info', bit);
  }
  wantedFindings(found, policy.id_block, !isZero(report.id_key_digest), 'report', 'id_block');
  wantedFindings(found, policy.author_key, report.key_info.author_key_en === 1, 'report', 'author_key');
  const minimum = policy.guest_policy.minimum_abi;
  if (minimum !== undefined) {
    const { abi_major, abi_minor } = report.policy;
    if (abi_major < minimum[0] || (abi_major === minimum[0] && abi_minor < minimum[1])) {
      found.push(mismatch('policy.abi', `at least ${minimum.join('.')}`, `${abi_major}.${abi_minor}`));
    }
  }
}

function judgeTcbs(found: Finding[], { product, tcbs }: PolicySubject, { minimum_tcb }: Policy): void {
  if (minimum_tcb === undefined) {
    return;
  }
  const minimums = product === null ? undefined : minimum_tcb[product];
  if (product === null || tcbs === null || minimums === undefined) {
    found.push(
      finding('POLICY_MISMATCH', {
        where: 'policy.minimum_tcb',
        expected: Object.keys(minimum_tcb).join(' or '),
        actual: product ?? 'unknown product line',
        message: 'The policy has minimum TCBs, but none for this product line.',
      }),
    );
    return;
  }
  for (const field of TCB_FIELDS) {
    const minimum: { readonly [part in TcbComponent]?: number | undefined } = minimums[field] ?? {};
    for (const component of tcbComponents(product)) {
      const actual = tcbs[field][component];
      if (actual < (minimum[component] ?? 0)) {
        found.push(
          finding('POLICY_TCB_BELOW_MINIMUM', {
            where: `report.${field}_tcb.${component}`,
            expected: `at least ${minimum[component]}`,
            actual: String(actual),
          }),
        );
      }
    }
  }
}

function leastFirmware({ minimum_firmware }: Policy): Firmware {
  const [major, minor] = minimum_firmware?.version ?? [0, 0];
  return { major, minor, build: minimum_firmware?.build ?? 0 };
}

function judgeFirmware(found: Finding[], { report, product }: PolicySubject, policy: Policy): void {
  const minimum = policy.minimum_firmware;
  const current = currentFirmware(report);
  const committed = committedFirmware(report);
  const least = leastFirmware(policy);
  for (const [which, firmware] of [
    ['current', current],
    ['committed', committed],
  ] as const) {
    // Without a version the build is demanded of every version.
    const isBelow = minimum?.version === undefined ? firmware.build < least.build : isOlder(firmware, least);
    if (isBelow) {
      found.push(
        finding('POLICY_FIRMWARE_BELOW_MINIMUM', {
          where: `report.${which}_version`,
          expected: `at least ${firmwareText(least)}`,
          actual: firmwareText(firmware),
        }),
      );
    }
  }
  const isProvisional =
    report.current_tcb !== report.committed_tcb ||
    current.major !== committed.major ||
    current.minor !== committed.minor ||
    current.build !== committed.build;
  const wanted = policy.provisional_firmware;
  if (wanted !== 'any' && isProvisional !== (wanted === 'required')) {
    const show = (firmware: Firmware, word: bigint): string =>
      `${firmwareText(firmware)}, TCB ${product === null ? hex(word) : formatTcb(decodeTcb(word, product), product)}`;
    found.push(
      finding('POLICY_PROVISIONAL_FIRMWARE', {
        where: 'report.committed_tcb',
        expected: wanted === 'forbidden' ? show(current, report.current_tcb) : 'uncommitted firmware',
        actual: show(committed, report.committed_tcb),
      }),
    );
  }
}

function judgeIdentity(
  found: Finding[],
  { report, product, leaf, fingerprints }: PolicySubject,
  policy: Policy,
): void {
  const kind = leaf?.role?.kind ?? null;
  const isMasked = isZero(report.chip_id);
  // The certificate knows the chip even where the host masks it in the report.
  const chip = leaf?.endorsement?.hwId ?? (isMasked ? null : report.chip_id);
  const isListed = (chips: readonly Uint8Array[]): boolean =>
    chip !== null && chips.some((listed) => sameChip(listed, chip));

  if (
    policy.signing_key !== undefined &&
    (kind === null || !policy.signing_key.some((name) => name === kind))
  ) {
    found.push(mismatch('key_info.signing_key', policy.signing_key.join(' or '), kind ?? 'no certificate'));
  }
  if (kind === 'VCEK') {
    wantedFindings(found, policy.masked_chip_id, isMasked, 'report', 'masked_chip_id');
  }
  if (policy.allowed_chips !== undefined && !isListed(policy.allowed_chips)) {
    found.push(
      finding('POLICY_CHIP_NOT_ALLOWED', {
        where: 'report.chip_id',
        actual: chip === null ? 'no chip is named' : toHex(chip),
      }),
    );
  }
  const csp = leaf?.endorsement?.cspId ?? null;
  if (policy.allowed_csps !== undefined && !policy.allowed_csps.some((allowed) => allowed === csp)) {
    found.push(mismatch('csp_id', policy.allowed_csps.join(' or '), csp ?? 'not signed by a VLEK'));
  }
  const { distrust } = policy;
  if (distrust !== undefined) {
    const distrusted = (where: string, actual: string): void => {
      found.push(finding('POLICY_DISTRUSTED', { where, actual }));
    };
    if (isListed(distrust.chips)) {
      distrusted('report.chip_id', toHex(chip!));
    }
    if (product !== null && distrust.products.includes(product)) {
      distrusted('product', product);
    }
    for (const fingerprint of fingerprints) {
      if (distrust.certificates.some((listed) => toHex(listed) === fingerprint)) {
        distrusted('chain', fingerprint);
      }
    }
  }
}

/** Chips by 8 or 64 bytes: Turin's have 8, zeros follow in the report. */
function sameChip(a: Uint8Array, b: Uint8Array): boolean {
  const [shorter, longer] = a.length < b.length ? [a, b] : [b, a];
  return startsWith(longer, shorter) && isZero(longer, shorter.length);
}
