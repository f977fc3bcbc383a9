// SPDX-License-Identifier: Apache-2.0
/** The chips and cloud providers whose secrets a key service has, and the keys that follow from them. */
import * as v from 'valibot';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { formatTcb, parseTcbText, type TcbParts, tcbAtMost } from '../abi/tcb-version.ts';
import {
  CHIP_ID_SIZE,
  chipEndorsementKey,
  chipIdOf,
  chipWrappingKey,
  descend,
  type EndorsementKind,
  endorsementKey,
  HWID_SIZE,
  SECRET_SIZE,
  type Stick,
  topStick,
  wrapHashstick,
} from '../keys/index.ts';
import { fromHex, toHex } from '../lib/bytes.ts';
import type { MachineCrypto, Random } from '../lib/crypto.ts';
import { InputError, invariant } from '../lib/errors.ts';
import { hwidOfChipId } from './url.ts';

export interface FleetChip {
  readonly product: ProductLine;
  /** CHIP_ID of its reports, 64 bytes. */
  readonly chipId: Uint8Array;
  readonly secret: Uint8Array;
  /** Provider that may load its VLEKs into the chip; null for none. */
  readonly csp: string | null;
  /** The service has no certificates above it; null when it has one for every TCB. */
  readonly highestTcb: TcbParts | null;
}

export interface FleetProvider {
  /** As in the CSP_ID extension: CN= and the common name of the provider's client certificate. */
  readonly csp: string;
  readonly secret: Uint8Array;
}

/** An intermediate the roots' revocation lists name. */
export interface FleetRevocation {
  readonly product: ProductLine;
  readonly serial: number;
  readonly revokedMs: number;
}

/** What a host's state says of its chip; `HostState` of softsnp/machine fits. */
export interface HostSecrets {
  readonly product: ProductLine;
  readonly chipSecret: Uint8Array;
  readonly chipId: Uint8Array;
  readonly csp: string;
  readonly cspSecret: Uint8Array;
}

/** AMD's lists of Genoa name the intermediate it withdrew in 2022; lists of Milan and Turin are empty. */
export const AMD_REVOCATIONS: readonly FleetRevocation[] = Object.freeze([
  { product: 'Genoa', serial: 0x020001, revokedMs: Date.UTC(2022, 9, 31, 12) },
]);

/** Public points kept: computing one takes some milliseconds, up to 1275 hashes and a multiplication. */
const MAX_KNOWN_POINTS = 1024;

export class Fleet {
  readonly chips: readonly FleetChip[];
  readonly providers: readonly FleetProvider[];
  readonly revocations: readonly FleetRevocation[];
  readonly #crypto: MachineCrypto;
  readonly #chips = new Map<string, FleetChip>();
  readonly #providers = new Map<string, FleetProvider>();
  readonly #points = new Map<string, Uint8Array>();

  /**
   * @param where what an error is about: the file the chips come from
   *
   * Errors   FLEET_INVALID for two chips of one id, two providers of one name, an id no chip can have
   */
  constructor(
    crypto: MachineCrypto,
    parts: {
      readonly chips: readonly FleetChip[];
      readonly providers: readonly FleetProvider[];
      readonly revocations?: readonly FleetRevocation[];
    },
    where = 'fleet',
  ) {
    this.#crypto = crypto;
    this.chips = parts.chips;
    this.providers = parts.providers;
    this.revocations = parts.revocations ?? AMD_REVOCATIONS;
    const refuse = (message: string): never => {
      throw new InputError('FLEET_INVALID', message, { where });
    };
    for (const [i, chip] of parts.chips.entries()) {
      const hwid = hwidOfChipId(chip.product, chip.chipId) ?? refuse(`chips[${i}] has no id of its product`);
      if (this.#chips.has(hwid)) {
        refuse(`chips[${i}] has the id of an earlier one`);
      }
      this.#chips.set(hwid, chip);
    }
    for (const [i, provider] of parts.providers.entries()) {
      if (this.#providers.has(provider.csp)) {
        refuse(`providers[${i}] has the name of an earlier one`);
      }
      this.#providers.set(provider.csp, provider);
    }
  }

  /** The one chip of a host, and its provider. */
  static ofHost(crypto: MachineCrypto, host: HostSecrets): Fleet {
    const { product, chipId, csp } = host;
    return new Fleet(crypto, {
      chips: [{ product, chipId, secret: host.chipSecret, csp, highestTcb: null }],
      providers: [{ csp, secret: host.cspSecret }],
    });
  }

  /** Null for an id the service never heard of, or of another product line. */
  chip(product: ProductLine, hwid: string): FleetChip | null {
    const chip = this.#chips.get(hwid);
    return chip?.product === product ? chip : null;
  }

  /** The same whatever the product line; an id of eight bytes may also be one of 64 that ends in zeros. */
  anyChip(hwid: string): FleetChip | null {
    return this.#chips.get(hwid) ?? this.#chips.get(hwid.padEnd(2 * CHIP_ID_SIZE, '0')) ?? null;
  }

  provider(csp: string): FleetProvider | null {
    return this.#providers.get(csp) ?? null;
  }

  /**
   * Uncompressed public point of the chip's VCEK for a TCB.
   *
   * Returns  null when the service has none for that TCB
   */
  vcekPoint(chip: FleetChip, tcb: TcbParts): Uint8Array | null {
    const { product, highestTcb } = chip;
    return highestTcb !== null && !tcbAtMost(tcb, highestTcb, product)
      ? null
      : this.#point('VCEK', toHex(chip.chipId), chip.secret, product, tcb);
  }

  /** Uncompressed public point of the chip's CEK. */
  cekPoint({ secret, product }: FleetChip): Uint8Array {
    return chipEndorsementKey(this.#crypto, secret, product).publicPoint;
  }

  vlekPoint(provider: FleetProvider, product: ProductLine, tcb: TcbParts): Uint8Array {
    return this.#point('VLEK', provider.csp, provider.secret, product, tcb);
  }

  /**
   * The provider's hash stick for a TCB, sealed for one chip: 432 bytes, what SNP_VLEK_LOAD takes.
   *
   * Returns  null for a chip that is not the provider's
   */
  wrappedHashstick(
    provider: FleetProvider,
    chip: FleetChip,
    tcb: TcbParts,
    random: Random,
  ): Uint8Array | null {
    if (chip.csp !== provider.csp) {
      return null;
    }
    const wrappingKey = chipWrappingKey(this.#crypto, chip.secret);
    return wrapHashstick(this.#crypto, random, wrappingKey, this.#stick(provider.secret, chip.product, tcb));
  }

  #point(
    kind: EndorsementKind,
    owner: string,
    secret: Uint8Array,
    product: ProductLine,
    tcb: TcbParts,
  ): Uint8Array {
    const name = `${kind} ${product} ${formatTcb(tcb, product)} ${owner}`;
    let point = this.#points.get(name);
    if (point === undefined) {
      point = endorsementKey(this.#crypto, this.#stick(secret, product, tcb), kind).publicPoint;
      if (this.#points.size >= MAX_KNOWN_POINTS) {
        // A Map iterates in the order of insertion, so the first key is the one longest unused.
        this.#points.delete(this.#points.keys().next().value!);
      }
    } else {
      this.#points.delete(name);
    }
    this.#points.set(name, point);
    return point;
  }

  #stick(secret: Uint8Array, product: ProductLine, tcb: TcbParts): Stick {
    const stick = descend(this.#crypto, topStick(this.#crypto, secret, product), tcb);
    invariant(stick !== null, 'every TCB is below the top of a stick');
    return stick;
  }
}

export const FLEET_VERSION = 1;

const MAX_CHIPS = 100_000;
const MAX_PROVIDERS = 1000;
const MAX_REVOCATIONS = 1000;
/** A chip takes some 400 bytes. */
export const MAX_FLEET_BYTES = 64 << 20;

const hexOf = (...sizes: readonly number[]) =>
  v.pipe(
    v.string(),
    v.regex(/^[0-9a-fA-F]*$/, 'not hexadecimal'),
    v.check(
      (digits) => sizes.some((size) => digits.length === 2 * size),
      `not ${sizes.map((size) => 2 * size).join(' or ')} hexadecimal digits`,
    ),
  );

/** What CSP_ID can hold, and the name of a client certificate. */
const Csp = v.pipe(v.string(), v.regex(/^CN=[A-Za-z0-9.-]{1,61}$/, 'not CN= and a host name'));

const Product = v.picklist([...PRODUCT_LINES]);

/** The names are those of the state file of a host. */
const FleetSchema = v.strictObject({
  softsnp_fleet: v.literal(FLEET_VERSION),
  chips: v.pipe(
    v.array(
      v.strictObject({
        product: Product,
        chip_secret: hexOf(SECRET_SIZE),
        chip_id: v.optional(hexOf(CHIP_ID_SIZE, HWID_SIZE.Turin)),
        csp: v.optional(Csp),
        highest_tcb: v.optional(v.string()),
      }),
    ),
    v.maxLength(MAX_CHIPS),
  ),
  providers: v.optional(
    v.pipe(v.array(v.strictObject({ csp: Csp, csp_secret: hexOf(SECRET_SIZE) })), v.maxLength(MAX_PROVIDERS)),
    [],
  ),
  revoked: v.optional(
    v.pipe(
      v.array(
        v.strictObject({
          product: Product,
          serial: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(0x7fffffff)),
          date: v.pipe(v.string(), v.isoTimestamp()),
        }),
      ),
      v.maxLength(MAX_REVOCATIONS),
    ),
  ),
});

/**
 * Reads a fleet file (docs/reference/kds-http.md).
 *
 * Errors   FLEET_INVALID naming the field; the message never has a secret in it
 */
export function parseFleet(crypto: MachineCrypto, bytes: Uint8Array, where: string): Fleet {
  const refuse = (message: string): never => {
    throw new InputError('FLEET_INVALID', message, { where });
  };
  const parsed = v.safeParse(FleetSchema, jsonOf(bytes, refuse));
  if (!parsed.success) {
    const [issue] = parsed.issues;
    return refuse(`${v.getDotPath(issue) ?? 'document'}: ${problemOf(issue)}`);
  }
  const { chips, providers, revoked } = parsed.output;
  return new Fleet(
    crypto,
    {
      chips: chips.map(({ product, chip_secret, chip_id, csp, highest_tcb }, i) => {
        const secret = fromHex(chip_secret);
        if (csp !== undefined && !providers.some((provider) => provider.csp === csp)) {
          refuse(`chips.${i}.csp: not among the providers`);
        }
        return {
          product,
          secret,
          chipId: chip_id === undefined ? chipIdOf(crypto, secret, product) : chipIdOfDigits(chip_id),
          csp: csp ?? null,
          highestTcb: highest_tcb === undefined ? null : tcbOf(highest_tcb, product, i, refuse),
        };
      }),
      providers: providers.map(({ csp, csp_secret }) => ({ csp, secret: fromHex(csp_secret) })),
      ...(revoked === undefined
        ? {}
        : {
            revocations: revoked.map(({ product, serial, date }) => ({
              product,
              serial,
              revokedMs: Date.parse(date),
            })),
          }),
    },
    where,
  );
}

/** valibot quotes the input in its own messages, and the input may be a secret. */
function problemOf({ type, message, expected, received }: v.BaseIssue<unknown>): string {
  switch (type) {
    case 'regex':
    case 'check':
      return message;
    case 'strict_object':
      return expected === 'never'
        ? 'no such field'
        : received === 'undefined'
          ? 'is missing'
          : 'not an object';
    default:
      return received === 'undefined' ? 'is missing' : `not ${expected}`;
  }
}

function jsonOf(bytes: Uint8Array, refuse: (message: string) => never): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    // The parser's own message quotes the text around the fault.
    return refuse('not a JSON document');
  }
}

function chipIdOfDigits(digits: string): Uint8Array {
  const id = new Uint8Array(CHIP_ID_SIZE);
  id.set(fromHex(digits));
  return id;
}

function tcbOf(
  text: string,
  product: ProductLine,
  index: number,
  refuse: (message: string) => never,
): TcbParts {
  try {
    return parseTcbText(text, product);
  } catch (error) {
    if (error instanceof InputError) {
      return refuse(`chips.${index}.highest_tcb: ${error.message}`);
    }
    throw error;
  }
}
