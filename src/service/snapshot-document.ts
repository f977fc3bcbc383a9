// SPDX-License-Identifier: Apache-2.0
/**
 * A snapshot of a host as one JSON document, described in docs/reference/control-api.md.
 *
 * It carries a tag under the host's own secrets. So a document that was damaged, edited or made on another
 * host is refused as a whole, and a part that is read later can be relied on.
 */
import * as v from 'valibot';
import { SevCertificate } from '../abi/sev-certificate.ts';
import { TSM_INBLOB_MAX } from '../devices/configfs-tsm/device.ts';
import { type FaultRule, formatFaultRule, parseFaultRule } from '../kds/index.ts';
import { launchDigest } from '../launch/digest.ts';
import { equalBytes, fromHex, toHex, utf8 } from '../lib/bytes.ts';
import { EnvironmentError, InputError, invariant } from '../lib/errors.ts';
import type { Host } from '../machine/index.ts';
import { formatBlobFault, parseBlobFault } from './blob-faults.ts';
import { GUEST_NAME, type GuestSpec, type KeptGuest } from './served-guest.ts';
import type { HostSnapshot } from './staged-machine.ts';

const SNAPSHOT_VERSION = 1;
/** As many configfs-tsm entries as one guest can have fill it; everything else is some kilobytes a guest. */
export const SNAPSHOT_LIMIT_BYTES = 16 << 20;

const hexOf = (size: number) => v.pipe(v.string(), v.regex(/^[0-9a-f]*$/), v.length(2 * size));
const word64 = v.pipe(v.string(), v.regex(/^0x[0-9a-f]{1,16}$/));
const word32 = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));
const version = v.pipe(v.string(), v.maxLength(11));

const SevIdentitySchema = v.strictObject({
  owned: v.boolean(),
  oca: hexOf(SevCertificate.size),
  pek: hexOf(SevCertificate.size),
  pdh: hexOf(SevCertificate.size),
  pek_nonce: hexOf(32),
  pdh_nonce: hexOf(32),
});

const PlatformSchema = v.strictObject({
  product: v.picklist(['Milan', 'Genoa', 'Turin']),
  current_tcb: word64,
  committed_tcb: word64,
  reported_tcb: word64,
  firmware_version: version,
  committed_version: version,
  mask_chip_id: v.boolean(),
  mask_chip_key: v.boolean(),
  mitigations_supported: word64,
  mitigations_verified: word64,
  sev_identity: v.nullable(SevIdentitySchema),
});

/** What the firmware knows of a guest, without its keys. */
const ContextSchema = v.strictObject({
  policy: word64,
  host_data: hexOf(32),
  family_id: hexOf(16),
  image_id: hexOf(16),
  guest_svn: word32,
  id_key_digest: hexOf(48),
  author_key_en: v.boolean(),
  author_key_digest: hexOf(48),
  vcek_dis: v.boolean(),
  gosvw: hexOf(16),
  tsc_scale: word64,
  report_id: hexOf(32),
  vmrk: hexOf(32),
  launch_tcb: word64,
  launch_mit_vector: word64,
  msg_counts: v.pipe(v.array(word64), v.length(4)),
});

const GuestSchema = v.strictObject({
  name: v.pipe(v.string(), v.regex(GUEST_NAME)),
  options: v.record(v.string(), v.string()),
  measurement: hexOf(48),
  context: ContextSchema,
  driver: v.nullable(
    v.strictObject({ msg_seqnos: v.pipe(v.array(word32), v.length(4)), vmpck_disabled: v.boolean() }),
  ),
  faults: v.array(v.string()),
  tsm: v.array(
    v.strictObject({
      name: v.pipe(v.string(), v.minLength(1), v.maxLength(1024), v.regex(/^(?!\.{1,2}$)[^/\0]*$/)),
      privlevel: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3)),
      inblob: v.pipe(v.string(), v.regex(/^([0-9a-f]{2})*$/), v.maxLength(2 * TSM_INBLOB_MAX)),
      generation: word64,
    }),
  ),
  requests_served: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  ended: v.nullable(v.string()),
});

const BODY = {
  softsnp_snapshot: v.literal(SNAPSHOT_VERSION),
  product: v.picklist(['Milan', 'Genoa', 'Turin']),
  chip_id: hexOf(64),
  report_version: v.picklist([2, 3, 4, 5]),
  platform: PlatformSchema,
  legacy_sev: v.picklist(['UNINIT', 'INIT']),
  vlek: v.nullable(hexOf(432)),
  kds_faults: v.array(v.string()),
  guests: v.array(GuestSchema),
};
const BodySchema = v.strictObject(BODY);
const DocumentSchema = v.strictObject({ ...BODY, mac: hexOf(48) });

export type SnapshotBody = v.InferOutput<typeof BodySchema>;
type GuestBody = v.InferOutput<typeof GuestSchema>;
export type SnapshotDocument = v.InferOutput<typeof DocumentSchema>;

/** A document that may be restored, in the terms of the host. */
export interface DecodedSnapshot {
  readonly snapshot: HostSnapshot;
  readonly kdsFaults: readonly FaultRule[];
}

/**
 * The document of a snapshot.
 *
 * Errors   SNAPSHOT_UNAVAILABLE when it is too large to be restored
 */
export function encodeSnapshot(
  host: Host,
  snapshot: HostSnapshot,
  kdsFaults: readonly FaultRule[],
): SnapshotDocument {
  const { chip } = host;
  const parsed = v.safeParse(BodySchema, {
    softsnp_snapshot: SNAPSHOT_VERSION,
    product: chip.product,
    chip_id: toHex(chip.chipId),
    report_version: chip.reportVersion,
    platform: snapshot.platform,
    legacy_sev: snapshot.legacySev ? 'INIT' : 'UNINIT',
    vlek: snapshot.vlek === null ? null : toHex(snapshot.vlek),
    kds_faults: kdsFaults.map(formatFaultRule),
    guests: snapshot.guests.map(guestBody),
  });
  invariant(parsed.success, `a snapshot that cannot be read: ${parsed.issues?.[0].message}`);
  const text = canonical(parsed.output);
  if (text.length > SNAPSHOT_LIMIT_BYTES) {
    throw new EnvironmentError(
      'SNAPSHOT_UNAVAILABLE',
      `it would have ${text.length} bytes, more than ${SNAPSHOT_LIMIT_BYTES}: too many faults or configfs-tsm entries`,
    );
  }
  return { ...parsed.output, mac: tagOf(host, parsed.output) };
}

/** Tag of a document on this host. */
export function tagOf(host: Host, body: SnapshotBody): string {
  return toHex(host.tagOf(utf8(canonical(body))));
}

function guestBody({ spec, launch, life, driver, faults, reports, served, ended }: KeptGuest): GuestBody {
  return {
    name: spec.name,
    options: spec.words,
    measurement: toHex(launch.launchDigest),
    context: {
      policy: hexWord(launch.policy),
      host_data: toHex(launch.hostData),
      family_id: toHex(launch.familyId),
      image_id: toHex(launch.imageId),
      guest_svn: launch.guestSvn,
      id_key_digest: toHex(launch.idKeyDigest),
      author_key_en: launch.authorKeyEn,
      author_key_digest: toHex(launch.authorKeyDigest),
      vcek_dis: launch.vcekDis,
      gosvw: toHex(launch.gosvw),
      tsc_scale: hexWord(launch.tscScale),
      report_id: toHex(life.reportId),
      vmrk: toHex(life.vmrk),
      launch_tcb: hexWord(life.launchTcb),
      launch_mit_vector: hexWord(life.launchMitVector),
      msg_counts: life.msgCounts.map(hexWord),
    },
    driver: driver && { msg_seqnos: [...driver.msgSeqnos], vmpck_disabled: driver.vmpckDisabled },
    faults: faults.map(formatBlobFault),
    tsm: [...reports].map(([name, { privlevel, inblob, generation }]) => ({
      ...{ name, privlevel },
      inblob: toHex(inblob),
      generation: hexWord(generation),
    })),
    requests_served: served,
    ended,
  };
}

/**
 * Reads a document for this host, and what its guests are launched from; changes nothing.
 *
 * Shape    specOf reads the guest of a name from complete words
 * Errors   SNAPSHOT_INVALID for what is no document of this version, or not as it was saved; SNAPSHOT_MISMATCH
 *          for one that this host cannot be
 */
export function decodeSnapshot(
  host: Host,
  document: unknown,
  specOf: (name: string, words: Readonly<Record<string, string>>) => GuestSpec,
): DecodedSnapshot {
  const body = authenticBody(host, document);
  const names = body.guests.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new InputError('SNAPSHOT_INVALID', 'two guests have this name', { where: `guest ${twice}` });
  }
  return {
    kdsFaults: readRules('kds_faults', body.kds_faults, parseFaultRule),
    snapshot: {
      platform: body.platform,
      vlek: body.vlek === null ? null : fromHex(body.vlek),
      legacySev: body.legacy_sev === 'INIT',
      guests: keptGuests(host, body.guests, specOf),
    },
  };
}

type SpecReader = Parameters<typeof decodeSnapshot>[2];

/** Guests of the same words are read and measured once: images are large. */
function keptGuests(host: Host, guests: readonly GuestBody[], specOf: SpecReader): KeptGuest[] {
  const read = new Map<string, { readonly spec: GuestSpec; readonly measurement: Uint8Array }>();
  return guests.map((guest) => {
    const { name, options } = guest;
    const words = JSON.stringify(inOrder(options));
    const launch = read.get(words) ?? readLaunch(host, `guest ${name}`, () => specOf(name, options));
    read.set(words, launch);
    const measurement = fromHex(guest.measurement);
    if (!equalBytes(launch.measurement, measurement)) {
      throw new InputError(
        'SNAPSHOT_MISMATCH',
        'its launch has another measurement now: the image, kernel or RAM disk it is launched from has changed',
        { where: `guest ${name}` },
      );
    }
    return keptOf(guest, { ...launch.spec, name }, measurement);
  });
}

function authenticBody(host: Host, document: unknown): SnapshotBody {
  const found = (document as { softsnp_snapshot?: unknown } | null)?.softsnp_snapshot;
  if (typeof found === 'number' && found !== SNAPSHOT_VERSION) {
    throw new InputError('SNAPSHOT_INVALID', `version ${found}; this softsnp reads ${SNAPSHOT_VERSION}`, {
      where: 'softsnp_snapshot',
    });
  }
  const parsed = v.safeParse(DocumentSchema, document);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new InputError('SNAPSHOT_INVALID', issue.message, { where: v.getDotPath(issue) ?? 'snapshot' });
  }
  const { mac, ...body } = parsed.output;
  const { product, chipId, reportVersion } = host.chip;
  const mismatch = (where: string, message: string): InputError =>
    new InputError('SNAPSHOT_MISMATCH', message, { where });
  if (body.product !== product) {
    throw mismatch('product', `the snapshot is of a ${body.product} chip, this host has a ${product}`);
  }
  if (body.chip_id !== toHex(chipId)) {
    throw mismatch('chip_id', 'the snapshot is of another chip');
  }
  if (!equalBytes(fromHex(tagOf(host, body)), fromHex(mac))) {
    throw new InputError(
      'SNAPSHOT_INVALID',
      'the document is not as this chip saved it: it was damaged or edited, or the secrets are another chip’s',
      { where: 'mac' },
    );
  }
  if (body.report_version !== reportVersion) {
    throw mismatch(
      'report_version',
      `the snapshot is of firmware that makes reports of version ${body.report_version}, this one makes ${reportVersion}`,
    );
  }
  return body;
}

function keptOf({ name, context, ...guest }: GuestBody, spec: GuestSpec, measurement: Uint8Array): KeptGuest {
  return {
    spec,
    launch: {
      policy: BigInt(context.policy),
      launchDigest: measurement,
      hostData: fromHex(context.host_data),
      familyId: fromHex(context.family_id),
      imageId: fromHex(context.image_id),
      guestSvn: context.guest_svn,
      idKeyDigest: fromHex(context.id_key_digest),
      authorKeyEn: context.author_key_en,
      authorKeyDigest: fromHex(context.author_key_digest),
      vcekDis: context.vcek_dis,
      gosvw: fromHex(context.gosvw),
      tscScale: BigInt(context.tsc_scale),
    },
    life: {
      reportId: fromHex(context.report_id),
      vmrk: fromHex(context.vmrk),
      launchTcb: BigInt(context.launch_tcb),
      launchMitVector: BigInt(context.launch_mit_vector),
      msgCounts: context.msg_counts.map(BigInt),
    },
    driver: guest.driver && {
      msgSeqnos: guest.driver.msg_seqnos,
      vmpckDisabled: guest.driver.vmpck_disabled,
    },
    faults: readRules(`guest ${name}: faults`, guest.faults, parseBlobFault),
    reports: new Map(
      guest.tsm.map(({ name: entry, privlevel, inblob, generation }) => [
        entry,
        { privlevel, inblob: fromHex(inblob), generation: BigInt(generation) },
      ]),
    ),
    served: guest.requests_served,
    ended: guest.ended,
  };
}

function readRules<T>(where: string, rules: readonly string[], parse: (text: string) => T): readonly T[] {
  return rules.map((text) => {
    try {
      return parse(text);
    } catch (cause) {
      throw cause instanceof InputError
        ? new InputError('SNAPSHOT_INVALID', cause.message, { where, cause })
        : cause;
    }
  });
}

function readLaunch(host: Host, where: string, read: () => GuestSpec) {
  try {
    const spec = read();
    return { spec, measurement: launchDigest(host.deps.crypto.sha384, spec.settings.plan) };
  } catch (cause) {
    throw cause instanceof InputError || cause instanceof EnvironmentError
      ? new InputError('SNAPSHOT_MISMATCH', cause.message, { where, cause })
      : cause;
  }
}

const hexWord = (value: bigint): string => `0x${value.toString(16)}`;

/** The text the tag is of: members in the order of the schema, options in that of their names. */
function canonical({ guests, ...body }: SnapshotBody): string {
  const sorted = guests.map((guest) => ({
    ...guest,
    options: inOrder(guest.options),
  }));
  return JSON.stringify({ ...body, guests: sorted });
}

function inOrder(options: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1)));
}
