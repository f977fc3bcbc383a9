// SPDX-License-Identifier: Apache-2.0
/** What verification is told beside the evidence: time, revocation list, product line, trusted root. */
import { useState } from 'preact/hooks';
import { PRODUCT_LINES, type ProductLine } from '../../src/abi/product.ts';
import { takeChosen } from './drop.tsx';
import type { RootCandidate } from './evidence.ts';
import { Folding } from './folding.tsx';
import type { Settings } from './judge.ts';

/** 'now' follows the clock; null while what stands in the field is no time. */
export type TimeChoice = 'now' | number | null;

/** Roots somebody brought, and whether they ticked the box. */
export interface RootChoice {
  readonly candidates: readonly RootCandidate[];
  readonly isTrusted: boolean;
  /** The file had no root in it. */
  readonly hasFailed: boolean;
}

export const NO_CHOICE: RootChoice = { candidates: [], isTrusted: false, hasFailed: false };

/** The roots to trust instead of AMD's: only those brought for it, and only while the box is ticked. */
export const trustOf = ({ candidates, isTrusted }: RootChoice): readonly Uint8Array[] | null =>
  isTrusted && candidates.length > 0 ? candidates.map(({ der }) => der) : null;

const fieldText = (atMs: number): string => new Date(atMs).toISOString().slice(0, 19);

export function SettingsPanel(props: {
  time: TimeChoice;
  nowMs: number;
  crl: Settings['crl'];
  product: ProductLine | null;
  root: RootChoice;
  onTime: (time: TimeChoice) => void;
  onCrl: (crl: Settings['crl']) => void;
  onProduct: (product: ProductLine | null) => void;
  onRoot: (root: RootChoice) => void;
  onRootFiles: (files: readonly File[]) => void;
}) {
  return (
    <Folding id="settings" title="Verification">
      <TimeField time={props.time} nowMs={props.nowMs} onTime={props.onTime} />
      <div class="pair">
        <label>
          Revocation list
          <select
            id="crl-mode"
            value={props.crl}
            onChange={(event) => props.onCrl(event.currentTarget.value as Settings['crl'])}
          >
            <option value="require">required</option>
            <option value="if-present">if present</option>
            <option value="skip">not looked at</option>
          </select>
        </label>
        <label>
          Product line
          <select
            id="product"
            value={props.product ?? ''}
            onChange={(event) => props.onProduct((event.currentTarget.value || null) as ProductLine | null)}
          >
            <option value="">as the report says</option>
            {PRODUCT_LINES.map((product) => (
              <option key={product}>{product}</option>
            ))}
          </select>
        </label>
      </div>
      <TrustField root={props.root} onRoot={props.onRoot} onRootFiles={props.onRootFiles} />
    </Folding>
  );
}

function TimeField({
  time,
  nowMs,
  onTime,
}: {
  time: TimeChoice;
  nowMs: number;
  onTime: (time: TimeChoice) => void;
}) {
  const [text, setText] = useState('');
  // A field that changed under the fingers of whoever is setting it would take the digit just typed.
  const [isHeld, setHeld] = useState(false);
  const hold = (): void => {
    if (time === 'now') {
      setText(fieldText(nowMs));
    }
    setHeld(true);
  };
  const choose = (next: string): void => {
    setText(next);
    const atMs = Date.parse(`${next}Z`);
    onTime(Number.isNaN(atMs) ? null : atMs);
  };
  return (
    <div class="time">
      <label for="time">Time of verification (UTC)</label>
      <div class="joined">
        <input
          id="time"
          type="datetime-local"
          step={1}
          value={time === 'now' && !isHeld ? fieldText(nowMs) : text}
          aria-invalid={time === null}
          onFocus={hold}
          onBlur={() => setHeld(false)}
          onInput={(event) => choose(event.currentTarget.value)}
        />
        <button type="button" id="now" aria-pressed={time === 'now'} onClick={() => onTime('now')}>
          Now
        </button>
      </div>
    </div>
  );
}

function TrustField({
  root,
  onRoot,
  onRootFiles,
}: {
  root: RootChoice;
  onRoot: (root: RootChoice) => void;
  onRootFiles: (files: readonly File[]) => void;
}) {
  const { candidates, isTrusted, hasFailed } = root;
  const names = candidates.map(({ subject }) => subject).join(', ');
  return (
    <div class={isTrusted ? 'trust loud' : 'trust'}>
      <p class="trust-state">
        <span class="label">Trusted root</span>
        {isTrusted ? <strong>{names}, NOT AMD</strong> : <strong>AMD’s, pinned by SHA-256</strong>}
      </p>
      <details>
        <summary>Another root, for tests</summary>
        <p class="hint">
          Roots that come with the evidence are never trusted. Bring the test root itself, here.
        </p>
        <label class="filebutton">
          <input
            type="file"
            id="root-file"
            onChange={(event) => takeChosen(event.currentTarget, onRootFiles)}
          />
          Choose a root certificate
        </label>
        {hasFailed && <p class="wrong">There is no root certificate in this file.</p>}
        {candidates.map(({ name, subject, comment }) => (
          <p class="hint" key={name}>
            {name}: {subject}
            {comment === null ? '' : `. It says of itself: “${comment}”.`}
          </p>
        ))}
        {candidates.length > 0 && (
          <label class="tick">
            <input
              type="checkbox"
              id="trust-root"
              checked={isTrusted}
              onChange={(event) => onRoot({ ...root, isTrusted: event.currentTarget.checked })}
            />
            <span>
              Trust <b>{names}</b> instead of AMD. I know that a report accepted under it{' '}
              <b>proves nothing about hardware</b>.
            </span>
          </label>
        )}
      </details>
    </div>
  );
}

export function TestRootBanner() {
  return (
    <div class="hazard" role="alert">
      <strong>TEST ROOT TRUSTED</strong>
      <span>Not AMD. What is accepted here proves nothing about hardware.</span>
    </div>
  );
}
