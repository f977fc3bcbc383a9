// SPDX-License-Identifier: Apache-2.0
/** AMD's extensions of endorsement certificates with contents that are none, or twice. */
import type { TcbComponent } from '../../abi/tcb-version.ts';
import { concat, fromHex } from '../../lib/bytes.ts';
import { ARC, type Cases, twice, type VectorCase, valued } from './case.ts';
import { int, tlv } from './der.ts';

const SPLS: readonly (readonly [name: string, suffix: string, component: TcbComponent])[] = [
  ['bl-spl', '3.1', 'boot_loader'],
  ['tee-spl', '3.2', 'tee'],
  ['snp-spl', '3.3', 'snp'],
  ['ucode-spl', '3.8', 'microcode'],
  ['fmc-spl', '3.9', 'fmc'],
];

const OTHERS: readonly (readonly [name: string, suffix: string])[] = [
  ['struct-version', '1'],
  ['product', '2'],
  ['spl4', '3.4'],
  ['spl5', '3.5'],
  ['spl6', '3.6'],
  ['spl7', '3.7'],
  ['hwid', '4'],
];

/** Components of the TCB that are no bytes, and extensions that come twice. */
export function* splCases(cases: Cases): Generator<VectorCase> {
  const { product, tcb } = cases.forge;
  const isTurin = product === 'Turin';
  const has = (suffix: string): boolean => suffix !== (isTurin ? '3.4' : '3.9');
  for (const [spl, suffix, component] of SPLS.filter(([, suffix]) => has(suffix))) {
    const right = tcb[component];
    for (const [title, what, value] of [
      ['256', '256', int(256)],
      ['negative', '-1', fromHex('0201ff')],
      ['padded', 'the right value behind a zero byte', tlv(0x02, Uint8Array.of(0), int(right).subarray(2))],
      ['raw', 'the right value as a bare byte', Uint8Array.of(right)],
    ] as const) {
      yield cases.case(
        `leaf-${spl}-${title}`,
        `${spl}: ${what}.`,
        { leaf: { extensions: valued(`${ARC}.${suffix}`, value) } },
        ['CERT_EXTENSION_INVALID', 'TCB_MISMATCH'],
      );
    }
  }
  for (const [name, suffix] of [...SPLS, ...OTHERS].filter(([, suffix]) => has(suffix))) {
    yield cases.case(
      `leaf-${name}-twice`,
      `${name} twice.`,
      { leaf: { extensions: twice(`${ARC}.${suffix}`) } },
      ['CERT_EXTENSION_DUPLICATE'],
    );
  }
}

/** hwID of wrong sizes, cut from the chip's own id and what may follow it. */
export function* hwIdCases(cases: Cases, sizes: readonly number[]): Generator<VectorCase> {
  const { chipId } = cases.forge;
  for (const size of sizes) {
    const hwId = concat(chipId, chipId).slice(0, size);
    const isStart = size <= 64 && hwId.every((byte, i) => byte === chipId[i]);
    const rest = isStart ? chipId.subarray(size) : chipId;
    yield cases.case(`leaf-hwid-${size}`, `hwID of ${size} bytes.`, { leaf: { hwId } }, [
      'CERT_EXTENSION_INVALID',
      ...(rest.some((byte) => byte !== 0) ? (['CHIP_ID_MISMATCH'] as const) : []),
    ]);
  }
}

/** What looks odd in a Genoa certificate. */
export function* genoaCases(cases: Cases): Generator<VectorCase> {
  yield* hwIdCases(cases, [0, 8, 63, 65, 66]);
}
