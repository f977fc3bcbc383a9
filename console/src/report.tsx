// SPDX-License-Identifier: Apache-2.0
/** The decoded report: every field under its name in the specification, and where its bytes are. */
import { useState } from 'preact/hooks';
import { REPORT_SIGNED_SIZE, reportLayout } from '../../src/abi/attestation-report.ts';
import { decodeTcb, tcbComponents } from '../../src/abi/tcb-version.ts';
import { reversed, toHex } from '../../src/lib/bytes.ts';
import type { Finding, VerifyResult } from '../../src/verify/index.ts';
import type { Report } from '../../src/verify/report.ts';
import { HexView } from './hex.tsx';
import type { Tone } from './tones.ts';

/** One field: its name, place, value, and what the verifier says about it. */
export interface FieldRow {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly note: string | null;
  readonly value: string;
  /** Parts of a bit field or of a TCB; `on` is null for numbers that are neither on nor off. */
  readonly parts: readonly { readonly name: string; readonly value: string; readonly on: boolean | null }[];
  readonly tone: Tone | null;
}

const TCB_FIELDS: readonly string[] = ['current_tcb', 'reported_tcb', 'committed_tcb', 'launch_tcb'];

export function fieldRows(
  bytes: Uint8Array,
  report: Report,
  { product, findings }: Pick<VerifyResult, 'product' | 'findings'>,
): FieldRow[] {
  const { fields } = reportLayout(report.version)!;
  return Object.entries(fields)
    .sort(([, a], [, b]) => a[0] - b[0])
    .map(([name, [offset, codec, note = null]]) => {
      const value = report[name as keyof Report];
      const parts =
        TCB_FIELDS.includes(name) && product !== null && typeof value === 'bigint'
          ? Object.entries(decodeTcb(value, product))
              .filter(([part]) => (tcbComponents(product) as readonly string[]).includes(part))
              .map(([part, level]) => ({ name: part, value: String(level), on: null }))
          : 'bits' in codec && typeof value === 'object'
            ? bitParts(value as unknown as Readonly<Record<string, number>>, codec.bits as Bits)
            : [];
      return {
        name,
        offset,
        size: codec.size,
        note,
        value: valueText(name, value) ?? wordText(bytes.subarray(offset, offset + codec.size)),
        parts,
        tone: toneOf(name, findings),
      };
    });
}

type Bits = Readonly<Record<string, readonly [lo: number, width: number]>>;

const bitParts = (value: Readonly<Record<string, number>>, bits: Bits): FieldRow['parts'] =>
  Object.entries(bits).map(([name, [, width]]) => ({
    name,
    value: String(value[name]),
    on: width === 1 ? value[name] === 1 : null,
  }));

/** A bit field as the one number it is. */
const wordText = (bytes: Uint8Array): string => `0x${toHex(reversed(bytes)).replace(/^0+(?=.)/, '')}`;

/** Null for bit fields. */
function valueText(name: string, value: unknown): string | null {
  if (value instanceof Uint8Array) {
    return toHex(value);
  }
  if (typeof value === 'bigint') {
    return `0x${value.toString(16).padStart(16, '0')}`;
  }
  if (typeof value === 'number') {
    return name.startsWith('cpuid_') ? `0x${value.toString(16).padStart(2, '0')}` : String(value);
  }
  return null;
}

const SEVERITY_TONES = { error: 'bad', warning: 'warn' } as const;

/** The gravest thing said about a field: findings name it as report[0x180].reported_tcb or report.policy.debug. */
function toneOf(name: string, findings: readonly Finding[]): Tone | null {
  const about = findings.filter(
    ({ where }) => /^report(?:\[[^\]]*\])?\.([a-z_0-9]+)/.exec(where)?.[1] === name,
  );
  return about.some(({ severity }) => severity === 'error')
    ? SEVERITY_TONES.error
    : about.some(({ severity }) => severity === 'warning')
      ? SEVERITY_TONES.warning
      : null;
}

export function ReportPanel({ bytes, result }: { bytes: Uint8Array; result: VerifyResult }) {
  const [showsBytes, setShowsBytes] = useState(false);
  const { report } = result;
  const rows = report === null ? [] : fieldRows(bytes, report, result);
  return (
    <section class="panel" aria-labelledby="report-title">
      <div class="panel-head">
        <h2 id="report-title">Report</h2>
        <button
          type="button"
          id="hex-toggle"
          aria-pressed={showsBytes}
          onClick={() => setShowsBytes(!showsBytes)}
        >
          Hex view
        </button>
      </div>
      {report === null && (
        <p class="hint">The bytes are no report of a known version; the hex view shows them.</p>
      )}
      {showsBytes ? <HexView bytes={bytes} rows={rows} /> : rows.length > 0 && <FieldTable rows={rows} />}
    </section>
  );
}

const offsetText = (offset: number): string => `0x${offset.toString(16).padStart(3, '0')}`;

function FieldTable({ rows }: { rows: readonly FieldRow[] }) {
  return (
    <table class="fields">
      <caption class="unseen">Fields of the attestation report</caption>
      <thead>
        <tr>
          <th scope="col">offset</th>
          <th scope="col">field</th>
          <th scope="col">value</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(({ name, offset, note, value, parts, tone }) => (
          <tr key={name} class={tone === null ? undefined : `field-${tone}`} data-field={name}>
            <td class="offset">{offsetText(offset)}</td>
            <th scope="row">
              <code>{name}</code>
              {note !== null && <span class="note">{note}</span>}
              {offset >= REPORT_SIGNED_SIZE && <span class="tag">not signed</span>}
            </th>
            <td>
              <Value text={value} />
              {parts.length > 0 && (
                <ul class="bits">
                  {parts.map((part) => (
                    <li key={part.name} class={part.on === true ? 'bit on' : 'bit'}>
                      {part.name} <b>{part.value}</b>
                    </li>
                  ))}
                </ul>
              )}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Long bytes in groups, so that two values can be compared by eye; zeros in short. */
function Value({ text }: { text: string }) {
  if (!/^[0-9a-f]{32,}$/.test(text)) {
    return <code class="value">{text}</code>;
  }
  const size = text.length / 2;
  if (/^0+$/.test(text)) {
    return <code class="value zero">{size} zero bytes</code>;
  }
  return (
    <code class="value long">
      {text.match(/.{1,16}/g)!.map((group, i) => (
        <span key={`${i}`}>{group}</span>
      ))}
    </code>
  );
}
