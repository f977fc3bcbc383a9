// SPDX-License-Identifier: Apache-2.0
/** Guests of a running host, from the words of a command line, a file or the control API. */
import { resolve } from 'node:path';
import * as v from 'valibot';
import type { MachineCrypto } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';
import { parseJson } from '../lib/json.ts';
import type { GuestKey, GuestSpec } from '../service/served-guest.ts';
import { GUEST_ARGS, type GuestArgs } from './machine-args.ts';
import { launchSettings, readGuestOptions } from './machine-options.ts';
import { choiceOption, fileOption, integerOption } from './options.ts';

/** Options of one guest by name, as they stand on a command line. */
export type GuestWords = Readonly<Record<string, string>>;

/** A guest before it is read: its name and the options that differ from the host's. */
export interface NamedGuest {
  readonly name: string;
  readonly words: GuestWords;
}

const PATHS: ReadonlySet<string> = new Set(
  Object.entries(GUEST_ARGS).flatMap(([name, { valueHint }]) => (valueHint === 'FILE' ? [name] : [])),
);
const GUEST_KEYS: readonly GuestKey[] = ['auto', 'vcek', 'vlek'];
const FILE_LIMIT_BYTES = 1 << 20;
const MAX_GUESTS = 64;

/** Those of a command line's options that are of a guest. */
export function guestWordsOf(args: Readonly<Record<string, unknown>>): GuestWords {
  const words: Record<string, string> = {};
  for (const name of Object.keys(GUEST_ARGS)) {
    const value = args[name];
    if (typeof value === 'string') {
      words[name] = value;
    }
  }
  return words;
}

/** Paths made absolute: they mean the same elsewhere and later. */
export function withAbsolutePaths(words: GuestWords): GuestWords {
  return Object.fromEntries(
    Object.entries(words).map(([name, value]) => [name, PATHS.has(name) ? resolve(value) : value]),
  );
}

/**
 * The guest these options describe.
 *
 * Shape    what `words` leaves out is as `defaults` say; key is auto, vcek or vlek
 * Errors   OPTION_INVALID, FILE_UNREADABLE, OVMF_*
 */
export function guestSpecOf(crypto: MachineCrypto, guest: NamedGuest, defaults: GuestWords): GuestSpec {
  const { key = 'auto', ...words } = guest.words;
  const unknown = Object.keys(words).find((name) => !(name in GUEST_ARGS));
  if (unknown !== undefined) {
    throw new InputError(
      'OPTION_INVALID',
      `no option of a guest; key, ${Object.keys(GUEST_ARGS).join(', ')}`,
      {
        where: JSON.stringify(unknown.slice(0, 80)),
      },
    );
  }
  const initial = Object.fromEntries(
    Object.entries(GUEST_ARGS).flatMap(([name, arg]) => ('default' in arg ? [[name, arg.default]] : [])),
  );
  const complete = withAbsolutePaths({ ...initial, ...defaults, ...words });
  const options = readGuestOptions({ _: [], ...complete } as unknown as GuestArgs);
  return {
    words: { ...complete, key },
    name: guest.name,
    settings: launchSettings(options, options.plan(crypto)),
    key: choiceOption('key', key, GUEST_KEYS),
    certs: options.certs,
  };
}

const GuestsFile = v.pipe(
  v.array(v.objectWithRest({ name: v.string() }, v.union([v.string(), v.number()]))),
  v.minLength(1),
  v.maxLength(MAX_GUESTS),
);

const GUESTS_CURE = 'The file is a list such as [{"name": "a", "smp": 2, "key": "vlek"}, {"name": "b"}].';

/**
 * What --guests means: so many guests alike, or those of a JSON file.
 *
 * Shape    a file holds [{"name": "a", "smp": 2, "key": "vlek", ...}, ...]
 * Errors   OPTION_INVALID, FILE_UNREADABLE
 */
export function guestsOption(text: string | undefined): readonly NamedGuest[] {
  if (text === undefined) {
    return [{ name: 'guest', words: {} }];
  }
  if (/^[0-9]+$/.test(text)) {
    const count = integerOption('guests', text, 0, MAX_GUESTS);
    return Array.from({ length: count }, (_, i) => ({ name: `guest-${i + 1}`, words: {} }));
  }
  const where = `--guests ${text}`;
  const file = new TextDecoder().decode(fileOption('guests', text, FILE_LIMIT_BYTES));
  const json = parseJson(file, 'OPTION_INVALID', { where, action: GUESTS_CURE });
  const parsed = v.safeParse(GuestsFile, json);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new InputError('OPTION_INVALID', `${v.getDotPath(issue) ?? 'document'}: ${issue.message}`, {
      where,
      action: GUESTS_CURE,
    });
  }
  return parsed.output.map(({ name, ...words }) => ({
    name,
    words: Object.fromEntries(Object.entries(words).map(([option, value]) => [option, String(value)])),
  }));
}
