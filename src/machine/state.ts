// SPDX-License-Identifier: Apache-2.0
/** What a host keeps from one start to the next, as one JSON document. */
import * as v from 'valibot';
import type { ProductLine } from '../abi/product.ts';
import { chipIdOf, cspSecret, SECRET_SIZE } from '../keys/index.ts';
import { fromHex, toHex } from '../lib/bytes.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';

export const STATE_VERSION = 1;

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

const StateSchema = v.strictObject({
  softsnp_state: v.literal(STATE_VERSION),
  product: v.picklist(['Milan', 'Genoa', 'Turin']),
  seed: v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  chip_secret: hexOf(SECRET_SIZE),
  chip_id: hexOf(64),
  csp: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  csp_secret: hexOf(SECRET_SIZE),
  platform: v.unknown(),
});

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

export function encodeHostState(state: HostState): Uint8Array {
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
  return new TextEncoder().encode(`${JSON.stringify(document, null, 2)}\n`);
}

/**
 * The state a folder holds.
 *
 * Errors   STATE_INVALID naming the field: damaged files are refused, never replaced by new secrets
 */
export function decodeHostState(bytes: Uint8Array, where: string): HostState {
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new InputError('STATE_INVALID', 'not a JSON document', { where, cause });
  }
  const parsed = v.safeParse(StateSchema, json);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new InputError('STATE_INVALID', `${v.getDotPath(issue) ?? 'document'}: ${issue.message}`, {
      where,
    });
  }
  const document = parsed.output;
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
