// SPDX-License-Identifier: Apache-2.0
/** The bytes of a report, sixteen a line, each run coloured and named after its field. */
import { REPORT_SIGNED_SIZE } from '../../src/abi/attestation-report.ts';
import { toHex } from '../../src/lib/bytes.ts';
import type { FieldRow } from './report.tsx';

const LINE = 16;
/** Bytes beyond a report, when something else was given for one, are not worth a page. */
const MAX_LINES = 0x4a0 / LINE;

interface Run {
  readonly field: string | null;
  readonly shade: 'none' | 'a' | 'b';
  readonly text: string;
}

export function HexView({ bytes, rows }: { bytes: Uint8Array; rows: readonly FieldRow[] }) {
  const owners = ownersOf(bytes.length, rows);
  const lines = Math.min(MAX_LINES, Math.ceil(bytes.length / LINE));
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must be reachable by keyboard.
    <section class="hex" tabIndex={0} aria-label="Bytes of the report">
      <table>
        <thead>
          <tr>
            <th scope="col">offset</th>
            <th scope="col">bytes</th>
            <th scope="col">fields that begin here</th>
          </tr>
        </thead>
        <tbody>
          {Array.from({ length: lines }, (_, line) => {
            const at = line * LINE;
            const begin = rows.filter(({ offset }) => offset >= at && offset < at + LINE);
            return (
              <tr key={at} class={at === REPORT_SIGNED_SIZE ? 'unsigned-from' : undefined}>
                <td class="offset">0x{at.toString(16).padStart(3, '0')}</td>
                <td class="bytes">
                  {runsOf(bytes, owners, at, rows).map(({ field, shade, text }, i) => (
                    <span key={`${i}`} class={`run-${shade}`} title={field ?? 'reserved'}>
                      {text}
                    </span>
                  ))}
                </td>
                <td class="names">
                  {begin.map(({ name }, i) => (
                    <span key={name}>{i < begin.length - 1 ? `${name},` : name}</span>
                  ))}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

/** For each byte the index of its field, or -1. */
function ownersOf(length: number, rows: readonly FieldRow[]): Int16Array {
  const owners = new Int16Array(length).fill(-1);
  for (const [i, { offset, size }] of rows.entries()) {
    owners.fill(i, offset, offset + size);
  }
  return owners;
}

function runsOf(
  bytes: Uint8Array,
  owners: Int16Array,
  at: number,
  rows: readonly FieldRow[],
): readonly Run[] {
  const runs: Run[] = [];
  const end = Math.min(at + LINE, bytes.length);
  for (let from = at; from < end; ) {
    const owner = owners[from]!;
    let to = from + 1;
    while (to < end && owners[to] === owner) {
      to++;
    }
    runs.push({
      field: rows[owner]?.name ?? null,
      shade: owner < 0 ? 'none' : owner % 2 === 0 ? 'a' : 'b',
      text: toHex(bytes.subarray(from, to)).replace(/(..)(?!$)/g, '$1 '),
    });
    from = to;
  }
  return runs;
}
