// SPDX-License-Identifier: Apache-2.0
/**
 * softsnp's verdicts beside those of go-sev-guest, snpguest and @tinfoilsh/verifier. The tables of
 * docs/interop-verifiers.md are what is found here; UPDATE_DOCS=1 writes them anew.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { HAVE_VECTORS } from '../verify/vectors.ts';
import { root, withFolderAsync } from './tools.ts';
import { EXPLANATIONS, type Explanation } from './verifiers/explanations.ts';
import { installedPeers, type Peer } from './verifiers/peers.ts';
import { SETS, type SetName, SUBJECTS, softsnpAccepts } from './verifiers/subjects.ts';

const DOCS = join(root, 'docs', 'interop-verifiers.md');
const peers = await installedPeers();
const sets = SETS.filter((name) => name !== 'genuine' || HAVE_VECTORS);
/** What a tool without a clock option compares with; softsnp is asked about the same moment. */
const NOW_MS = Date.now();

interface Disagreement {
  readonly name: string;
  readonly peerAccepts: boolean;
  readonly said: string;
}

interface Comparison {
  bothAccept: number;
  bothRefuse: number;
  readonly unasked: Map<string, number>;
  readonly disagreements: Disagreement[];
}

async function compare(peer: Peer, set: SetName): Promise<Comparison> {
  const found: Comparison = { bothAccept: 0, bothRefuse: 0, unasked: new Map(), disagreements: [] };
  await withFolderAsync(async (folder) => {
    for (const subject of SUBJECTS[set]()) {
      const answer = await peer.ask(subject, folder);
      if ('unasked' in answer) {
        found.unasked.set(answer.unasked, (found.unasked.get(answer.unasked) ?? 0) + 1);
        continue;
      }
      const ours = softsnpAccepts(subject, peer.clock === 'own' ? NOW_MS : subject.options.atMs);
      if (ours !== answer.accepts) {
        found.disagreements.push({ name: subject.name, peerAccepts: answer.accepts, said: answer.said });
      } else if (ours) {
        found.bothAccept += 1;
      } else {
        found.bothRefuse += 1;
      }
    }
  });
  return found;
}

const explains =
  (disagreement: Disagreement) =>
  (explanation: Explanation): boolean =>
    explanation.peerAccepts === disagreement.peerAccepts && explanation.cases.test(disagreement.name);

function markdown(peer: Peer, found: Comparison): string {
  const { bothAccept, bothRefuse, unasked, disagreements } = found;
  const reasons = [...unasked].map(([reason, count]) => `${count}: it ${reason}`);
  const lines = [
    '| both accept | both refuse | softsnp alone accepts | softsnp alone refuses | not asked |',
    '| ---: | ---: | ---: | ---: | --- |',
    `| ${[
      bothAccept,
      bothRefuse,
      disagreements.filter(({ peerAccepts }) => !peerAccepts).length,
      disagreements.filter(({ peerAccepts }) => peerAccepts).length,
      reasons.length === 0 ? '0' : reasons.join('; '),
    ].join(' | ')} |`,
  ];
  const rows = EXPLANATIONS[peer.id].flatMap((explanation) => {
    const own = disagreements.filter(
      (disagreement) => EXPLANATIONS[peer.id].find(explains(disagreement)) === explanation,
    );
    const names = own.map(({ name }) => `\`${name}\``).join(', ');
    return own.length === 0
      ? []
      : [
          `| [${explanation.id}](#${explanation.id}) | ${explanation.peerAccepts ? 'accepts' : 'refuses'} | ${own.length} | ${names} |`,
        ];
  });
  if (rows.length > 0) {
    lines.push('', '| why | it | cases | which |', '| --- | --- | ---: | --- |', ...rows);
  }
  return lines.join('\n');
}

/** The part of the page between the marks of one comparison. */
function generatedPart(page: string, key: string): { before: string; part: string; after: string } {
  const begin = `<!-- generated: ${key} -->\n`;
  const end = `\n<!-- end: ${key} -->`;
  const from = page.indexOf(begin) + begin.length;
  const to = page.indexOf(end);
  expect(page, `marks of ${key}`).toContain(begin);
  expect(to).toBeGreaterThanOrEqual(from - 1);
  return { before: page.slice(0, from), part: page.slice(from, to), after: page.slice(to) };
}

describe.each(peers)('$title', (peer) => {
  const seen = new Set<Explanation>();

  it.each(sets)('differs from softsnp on %s evidence only where the page explains it', async (set) => {
    const found = await compare(peer, set);
    const unexplained = found.disagreements.filter(
      (disagreement) => !EXPLANATIONS[peer.id].some(explains(disagreement)),
    );
    expect(unexplained).toEqual([]);
    for (const disagreement of found.disagreements) {
      seen.add(EXPLANATIONS[peer.id].find(explains(disagreement))!);
    }
    const page = readFileSync(DOCS, 'utf8');
    const { before, part, after } = generatedPart(page, `${peer.id} ${set}`);
    const fresh = markdown(peer, found);
    if (process.env['UPDATE_DOCS'] === '1') {
      writeFileSync(DOCS, `${before}${fresh}${after}`);
    } else {
      expect(part).toBe(fresh);
    }
  });

  it.skipIf(sets.length < SETS.length)('no longer differs where an explanation fits nothing', () => {
    expect(EXPLANATIONS[peer.id].filter((explanation) => !seen.has(explanation))).toEqual([]);
  });
});

describe('docs/interop-verifiers.md', () => {
  it('explains every difference under a heading of its own', () => {
    const page = readFileSync(DOCS, 'utf8');
    const headings = [...page.matchAll(/^#### (.+)$/gm)].map(([, heading]) => heading);
    const ids = Object.values(EXPLANATIONS).flatMap((rows) => rows.map(({ id }) => id));
    expect(headings).toEqual(ids);
  });
});
