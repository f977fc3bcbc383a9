// SPDX-License-Identifier: Apache-2.0
/**
 * What a host keeps from one start to the next, as one JSON document.
 *
 * Version 2 ends with a checksum: a flipped bit in a secret would be another host, and nobody could tell.
 * Version 1 had none; it is read, and version 2 takes its place at the next save.
 */
import * as v from 'valibot';
import type { ProductLine } from '../abi/product.ts';
import { chipIdOf, cspSecret, SECRET_SIZE } from '../keys/index.ts';
import { fromHex, toHex, utf8 } from '../lib/bytes.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';

export const STATE_VERSION = 2;

/** The cloud provider whose VLEK a softsnp host loads. */
export const DEFAULT_CSP = 'CN=softsnp.example';

export interface HostState {
  readonly product: ProductLine;
  /** Seed the secrets came from; null when they are random. */
  readonly seed: number | null;
  readonly chipSecret: Uint8Array;
  /** 64 bytes. */
  readonly chipId: Uint8Array;
  readonly csp: string;
  readonly cspSecret: Uint8Array;
  /** What SecureProcessor.exportState gave; null before the first start. */
  readonly platform: unknown;
}

const hexOf = (size: number) => v.pipe(v.string(), v.regex(/^[0-9a-f]*$/), v.length(2 * size));

const MEMBERS = {
  product: v.picklist(['Milan', 'Genoa', 'Turin']),
  seed: v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  chip_secret: hexOf(SECRET_SIZE),
  chip_id: hexOf(64),
  csp: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  csp_secret: hexOf(SECRET_SIZE),
  platform: v.unknown(),
};

/** By version. */
const SCHEMAS = {
  1: v.strictObject({ softsnp_state: v.literal(1), ...MEMBERS }),
  2: v.strictObject({ softsnp_state: v.literal(2), ...MEMBERS, sha256: hexOf(32) }),
};

/** A new chip of the product with secrets from the random source. */
export function newHostState(
  crypto: MachineCrypto,
  random: Random,
  product: ProductLine,
  options: { readonly seed: number | null; readonly chipId?: Uint8Array },
): HostState {
  const chipSecret = random.bytes(SECRET_SIZE);
  const serviceSecret = random.bytes(SECRET_SIZE);
  return {
    product,
    seed: options.seed,
    chipSecret,
    chipId: options.chipId ?? chipIdOf(crypto, chipSecret, product),
    csp: DEFAULT_CSP,
    cspSecret: cspSecret(crypto, serviceSecret, DEFAULT_CSP),
    platform: null,
  };
}

export function encodeHostState(crypto: Pick<MachineCrypto, 'sha256'>, state: HostState): Uint8Array {
  const document = {
    softsnp_state: STATE_VERSION,
    product: state.product,
    seed: state.seed,
    chip_secret: toHex(state.chipSecret),
    chip_id: toHex(state.chipId),
    csp: state.csp,
    csp_secret: toHex(state.cspSecret),
    platform: state.platform,
  };
  const sha256 = checksum(crypto, document);
  return utf8(`${JSON.stringify({ ...document, sha256 }, null, 2)}\n`);
}

/** Of the document without its checksum and without white space between the members. */
const checksum = ({ sha256 }: Pick<MachineCrypto, 'sha256'>, document: object): string =>
  toHex(sha256(utf8(JSON.stringify(document))));

/**
 * The state a folder holds.
 *
 * Errors   STATE_INVALID naming the field, STATE_VERSION_UNSUPPORTED naming the version: what cannot be
 *          read is refused, never replaced by new secrets
 */
export function decodeHostState(
  crypto: Pick<MachineCrypto, 'sha256'>,
  bytes: Uint8Array,
  where: string,
): HostState {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new InputError('STATE_INVALID', 'not a JSON document', { where, cause });
  }
  const parsed = v.safeParse(SCHEMAS[versionOf(json, where)], json);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new InputError('STATE_INVALID', `${v.getDotPath(issue) ?? 'document'}: ${issue.message}`, {
      where,
    });
  }
  const document = parsed.output;
  if ('sha256' in document) {
    const { sha256, ...summed } = json as typeof document;
    if (sha256 !== checksum(crypto, summed)) {
      throw new InputError('STATE_INVALID', 'sha256: the document is not what was saved', { where });
    }
  }
  return {
    product: document.product,
    seed: document.seed,
    chipSecret: fromHex(document.chip_secret),
    chipId: fromHex(document.chip_id),
    csp: document.csp,
    cspSecret: fromHex(document.csp_secret),
    platform: document.platform ?? null,
  };
}

function versionOf(json: unknown, where: string): keyof typeof SCHEMAS {
  const version =
    typeof json === 'object' && json !== null ? (json as Partial<Numbered>).softsnp_state : null;
  if (version === 1 || version === STATE_VERSION) {
    return version;
  }
  if (Number.isSafeInteger(version) && (version as number) > STATE_VERSION) {
    const message = `version ${version} is of a newer softsnp; this one reads up to ${STATE_VERSION}`;
    throw new InputError('STATE_VERSION_UNSUPPORTED', message, { where });
  }
  throw new InputError('STATE_INVALID', 'softsnp_state: not a version of this document', { where });
}

interface Numbered {
  readonly softsnp_state: unknown;
}
