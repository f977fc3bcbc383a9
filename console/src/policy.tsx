// SPDX-License-Identifier: Apache-2.0
/** The policy as JSON, edited in place; every keystroke is judged. */
import { decodeTcb, tcbComponents } from '../../src/abi/tcb-version.ts';
import { isZero, toHex } from '../../src/lib/bytes.ts';
import type { PolicyDocument, VerifyResult } from '../../src/verify/index.ts';
import { Folding } from './folding.tsx';
import { withDemand } from './judge.ts';

/** Demands that can be taken from the report at hand. */
const DEMANDS: readonly {
  readonly label: string;
  readonly demand: (result: VerifyResult) => PolicyDocument | null;
}[] = [
  { label: 'measurement', demand: ({ report }) => report && { measurement: toHex(report.measurement) } },
  { label: 'report_data', demand: ({ report }) => report && { report_data: toHex(report.report_data) } },
  { label: 'host_data', demand: ({ report }) => report && { host_data: toHex(report.host_data) } },
  {
    label: 'chip_id',
    demand: ({ report }) =>
      report === null || isZero(report.chip_id) ? null : { allowed_chips: toHex(report.chip_id) },
  },
  { label: 'reported_tcb', demand: minimumTcb },
];

function minimumTcb({ report, product }: VerifyResult): PolicyDocument | null {
  if (report === null || product === null) {
    return null;
  }
  const parts = decodeTcb(report.reported_tcb, product);
  const reported = Object.fromEntries(tcbComponents(product).map((name) => [name, parts[name]]));
  return { minimum_tcb: { [product]: { reported } } };
}

export function PolicyPanel({
  text,
  wrong,
  report,
  onChange,
  onReset,
}: {
  text: string;
  wrong: string | null;
  report: VerifyResult | null;
  onChange: (text: string) => void;
  onReset: () => void;
}) {
  const take = (demand: PolicyDocument): void => {
    const document = text.trim() === '' ? {} : (JSON.parse(text) as PolicyDocument);
    onChange(`${JSON.stringify(withDemand(document, demand), null, 2)}\n`);
  };
  return (
    <Folding id="policy" title="Policy">
      <textarea
        id="policy"
        aria-labelledby="policy-title"
        aria-describedby="policy-state"
        aria-invalid={wrong !== null}
        spellcheck={false}
        autocomplete="off"
        autocapitalize="off"
        rows={Math.min(24, Math.max(7, text.split('\n').length + 1))}
        value={text}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
      <p id="policy-state" class={wrong === null ? 'hint' : 'wrong'} role="status">
        {wrong ??
          'Judged as you type. What is left out is not demanded; debugging and migration agents are forbidden unless you allow them.'}
      </p>
      <fieldset class="demands">
        <legend>Demand what this report has</legend>
        {DEMANDS.map(({ label, demand }) => {
          const wanted = report === null ? null : demand(report);
          return (
            <button
              key={label}
              type="button"
              disabled={wanted === null || wrong !== null}
              onClick={() => wanted !== null && take(wanted)}
            >
              {label}
            </button>
          );
        })}
        <button type="button" class="quiet" onClick={onReset}>
          Reset
        </button>
      </fieldset>
    </Folding>
  );
}
