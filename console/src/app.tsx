// SPDX-License-Identifier: Apache-2.0
import { useCallback, useEffect, useMemo, useState } from 'preact/hooks';
import { DEFAULT_POLICY, VerifyCache, webVerifyCrypto } from '../../src/verify/index.ts';
import { CertificateChains, ReportChain } from './chains.tsx';
import { Checks } from './checks.tsx';
import { useNow } from './clock.ts';
import { chosen, EvidencePanel, type Given, readFiles, useDropsAndPastes } from './drop.tsx';
import { type Collection, gather, NO_FILES, rootsOf, withItems } from './evidence.ts';
import { type Judgement, judge, readPolicy } from './judge.ts';
import { PolicyPanel } from './policy.tsx';
import { ReportPanel } from './report.tsx';
import {
  NO_CHOICE,
  type RootChoice,
  SettingsPanel,
  TestRootBanner,
  type TimeChoice,
  trustOf,
} from './settings.tsx';
import { Start } from './start.tsx';
import { Facts, Verdict, Why } from './verdict.tsx';

const DEFAULT_POLICY_TEXT = '{\n  "guest_policy": {\n    "debug": "forbidden"\n  }\n}\n';

/** One cache for the page: an edited policy never makes a certificate be checked again. */
const cache = new VerifyCache();
// Browsers have WebCrypto on https and on this machine only.
const crypto = globalThis.isSecureContext ? webVerifyCrypto(globalThis.crypto.subtle) : null;

/** The outcome of the last judging, or what kept it from happening. */
export type Outcome = Judgement | { readonly of: 'failure'; readonly message: string };

interface Shown {
  readonly outcome: Outcome;
  /** The time it is the outcome for, where that was set; null: the time of judging. */
  readonly asOfMs: number | null;
}

export function App() {
  const [collection, setCollection] = useState<Collection>(NO_FILES);
  const { items } = collection;
  const nowMs = useNow();
  const [time, setTime] = useState<TimeChoice>('now');
  const [crl, setCrl] = useState<'require' | 'if-present' | 'skip'>('require');
  const [product, setProduct] = useState<'Milan' | 'Genoa' | 'Turin' | null>(null);
  const [root, setRoot] = useState<RootChoice>(NO_CHOICE);
  const [policyText, setPolicyText] = useState(DEFAULT_POLICY_TEXT);
  const [{ outcome, asOfMs }, setShown] = useState<Shown>({ outcome: { of: 'nothing' }, asOfMs: null });

  const evidence = useMemo(() => gather(items), [items]);
  const reportName = items.findLast((item) => item.evidence.report !== undefined)?.name ?? null;
  const policy = useMemo(() => readPolicy(policyText), [policyText]);
  const trust = useMemo(() => trustOf(root), [root]);
  // While nobody has set a time, each tick of the clock is another one to judge at.
  const tick = time === 'now' ? nowMs : null;

  useEffect(() => {
    let superseded = false;
    const asOfMs = time === 'now' ? null : time;
    const show = (next: Outcome): void => {
      if (!superseded) {
        setShown({ outcome: next, asOfMs });
      }
    };
    if (crypto === null) {
      show({
        of: 'failure',
        message: 'This browser has no WebCrypto here. Open the page over https or from 127.0.0.1.',
      });
    } else if (time !== null) {
      // The clock and not the tick: evidence may have been made since.
      const settings = { atMs: asOfMs ?? Date.now(), crl, product, trust };
      // An unreadable policy shows no verdict; the other checks are worth reading all the same.
      const demanded = 'policy' in policy ? policy.policy : DEFAULT_POLICY;
      judge(evidence, settings, demanded, crypto, cache).then(show, (error: unknown) =>
        show({ of: 'failure', message: error instanceof Error ? error.message : String(error) }),
      );
    }
    return () => {
      superseded = true;
    };
  }, [evidence, policy, time, tick, crl, product, trust]);

  const add = useCallback(async ({ files, notes }: Given, where: 'evidence' | 'root') => {
    const read = await readFiles(files);
    if (where === 'root') {
      const candidates = read.items.flatMap(({ given }) => rootsOf(given.name, given.bytes));
      setRoot({ candidates, isTrusted: false, hasFailed: candidates.length === 0 });
    } else {
      setCollection(({ items: old }) => {
        const next = withItems(old, read.items);
        return { ...next, notes: [...notes, ...read.notes, ...next.notes] };
      });
    }
  }, []);
  const isDragging = useDropsAndPastes(add);

  const blocked =
    time === null
      ? 'The time of verification is not a time.'
      : 'wrong' in policy
        ? 'The policy cannot be read.'
        : null;

  return (
    <div class={isDragging ? 'page dragging' : 'page'}>
      <a class="skip" href="#results">
        Skip to the results
      </a>
      {trust !== null && <TestRootBanner />}
      <header>
        <div class="brand">
          <svg viewBox="0 0 32 32" aria-hidden="true">
            <path d="M16 3 28 7v9c0 7-5 11.500-12 13.500C9 27.500 4 23 4 16V7z" />
            <path class="tick" d="m10.500 16 4 4 7.500-8" />
          </svg>
          <h1>
            softsnp <span>console</span>
          </h1>
        </div>
        <p class="tagline">Is this SEV-SNP report genuine, and is it what you wanted?</p>
        <p
          class="private"
          title="The page's Content-Security-Policy forbids every connection (connect-src 'none')."
        >
          <span aria-hidden="true">●</span> Verified here. Nothing leaves this page.
        </p>
      </header>
      <Verdict outcome={outcome} asOfMs={asOfMs} blocked={blocked} />
      <div class="columns">
        <div class="inputs">
          <EvidencePanel collection={collection} onAdd={add} onChange={setCollection} />
          <SettingsPanel
            {...{ time, nowMs, crl, product, root }}
            onTime={setTime}
            onCrl={setCrl}
            onProduct={setProduct}
            onRoot={setRoot}
            onRootFiles={(files) => add(chosen(files), 'root')}
          />
          <PolicyPanel
            text={policyText}
            wrong={'wrong' in policy ? policy.wrong : null}
            report={outcome.of === 'report' ? outcome.result : null}
            onChange={setPolicyText}
            onReset={() => setPolicyText(DEFAULT_POLICY_TEXT)}
          />
        </div>
        <main id="results" tabIndex={-1}>
          {outcome.of === 'nothing' && <Start />}
          {outcome.of === 'report' && (
            <>
              {blocked === null && <Facts name={reportName} result={outcome.result} />}
              <Why why={outcome.why} />
              <ReportChain result={outcome.result} />
              <Checks result={outcome.result} isPolicyReadable={'policy' in policy} />
              <ReportPanel bytes={outcome.bytes} result={outcome.result} />
            </>
          )}
          {outcome.of === 'certificates' && (
            <>
              <Why why={outcome.why} />
              <CertificateChains result={outcome.result} />
            </>
          )}
        </main>
      </div>
    </div>
  );
}
