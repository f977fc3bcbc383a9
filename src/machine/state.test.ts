// SPDX-License-Identifier: Apache-2.0
/** The state document, damaged in every way a disk knows. */
import { describe, expect, it } from 'vitest';
import { VirtualClock } from '../lib/clock.ts';
import { InputError } from '../lib/errors.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import { Host } from './host.ts';
import { decodeHostState, encodeHostState, type HostState, newHostState } from './state.ts';

const crypto = nodeCrypto({ deterministic: false });
const random = seededRandom(1);
const clock = new VirtualClock(0);
const fresh = newHostState(crypto, random, 'Milan', { seed: null });
const state = new Host({ crypto, random, clock }, fresh).state;
const whole = encodeHostState(crypto, state);
const text = new TextDecoder().decode(whole);

/** The document of version 1, as softsnp wrote it before there was a checksum. */
function versionOne(of: HostState): string {
  const { sha256: _, ...document } = JSON.parse(new TextDecoder().decode(encodeHostState(crypto, of)));
  return `${JSON.stringify({ ...document, softsnp_state: 1 }, null, 2)}\n`;
}

const decoded = (document: Uint8Array | string): HostState =>
  decodeHostState(
    crypto,
    typeof document === 'string' ? new TextEncoder().encode(document) : document,
    'state.json',
  );

/** Its code and message; what was read when it was not refused. */
function refusal(document: Uint8Array | string): unknown {
  try {
    return decoded(document);
  } catch (error) {
    return error instanceof InputError ? `${error.code}: ${error.message}` : error;
  }
}

describe('the state document', () => {
  it('gives back what was saved', () => {
    expect(decoded(whole)).toEqual(state);
    expect(decoded(encodeHostState(crypto, fresh))).toEqual(fresh);
  });

  it('is refused when a single bit of it is flipped', () => {
    const bytes = whole.slice();
    const accepted: string[] = [];
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      const answer = refusal(bytes);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      if (typeof answer !== 'string' || !answer.startsWith('STATE_')) {
        accepted.push(`bit ${bit & 7} of byte ${bit >> 3}: ${JSON.stringify(answer)}`);
      }
    }
    expect(accepted).toEqual([]);
  });

  it('is refused at every length but its own', () => {
    for (let length = 0; length < whole.length - 1; length++) {
      expect(refusal(whole.subarray(0, length)), `${length} bytes`).toMatch(/^STATE_INVALID: state\.json: /);
    }
    // The newline at the end says nothing.
    expect(decoded(whole.subarray(0, -1))).toEqual(state);
    expect(refusal(`${text}{`)).toMatch(/^STATE_INVALID/);
  });

  it('is refused by name when a newer softsnp wrote it', () => {
    for (const newer of ['"softsnp_state": 3', '"softsnp_state": 3, "tdx": true', '"softsnp_state": 40']) {
      expect(refusal(text.replace('"softsnp_state": 2', newer))).toBe(
        `STATE_VERSION_UNSUPPORTED: state.json: version ${/\d+/.exec(newer)![0]} is of a newer softsnp; this one reads up to 2`,
      );
    }
  });

  it.each(['0', '-1', '1.5', '"2"', 'null', '1e300', '[2]'])('is refused as version %s', (version) => {
    expect(refusal(text.replace('"softsnp_state": 2', `"softsnp_state": ${version}`))).toBe(
      'STATE_INVALID: state.json: softsnp_state: not a version of this document',
    );
  });

  it.each(['null', '[]', '2', '{}', '"state"', ''])('is refused when it is %s', (other) => {
    expect(refusal(other)).toMatch(/^STATE_INVALID: state\.json: /);
  });

  it('says that a changed document is not what was saved', () => {
    const digit = state.chipSecret[0]! >> 4 === 0 ? '1' : '0';
    const changed = text.replace(/("chip_secret": ")./, `$1${digit}`);
    expect(refusal(changed)).toBe('STATE_INVALID: state.json: sha256: the document is not what was saved');
  });

  it('is read whatever its white space, as an editor may leave it', () => {
    expect(decoded(JSON.stringify(JSON.parse(text)))).toEqual(state);
  });

  it('of version 1, which had no checksum, is the same host, and version 2 from the next save on', () => {
    for (const older of [state, fresh]) {
      const read = decoded(versionOne(older));
      expect(read).toEqual(older);
      expect(encodeHostState(crypto, read)).toEqual(encodeHostState(crypto, older));
    }
    expect(refusal(versionOne(state).replace('"seed"', '"sha256": "", "seed"'))).toMatch(/^STATE_INVALID/);
    expect(refusal(text.replace('"softsnp_state": 2', '"softsnp_state": 1'))).toMatch(/^STATE_INVALID/);
  });
});
