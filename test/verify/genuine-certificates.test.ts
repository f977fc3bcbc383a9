// SPDX-License-Identifier: Apache-2.0
/** AMD's own revocation lists, the twin SEV-Genoa, re-issued certificates and certificate tables of real hosts. */
import { describe, expect, it } from 'vitest';
import { VCEK_GUID, VLEK_GUID } from '../../src/abi/cert-table.ts';
import { encodeCertificateTable } from '../../src/certs/table.ts';
import { explain, parsePolicy, VerifyCache, verifyEvidence } from '../../src/verify/index.ts';
import { bitsOf, crypto, errorsOf, flipped, judge, LONG } from './soft.ts';
import { HAVE_VECTORS, INDEX, vector, whenValidMs } from './vectors.ts';

const MILAN = {
  report: 'virtee-sev/report-v2-milan-vcek-120d77b213c8.bin',
  leaf: 'virtee-sev/vcek-milan-3bbfb6ee259f.der',
  ask: 'virtee-sev/ask-milan-67d303bd3905.der',
  ark: 'virtee-sev/ark-milan-69d063b45344.der',
} as const;
const GENOA = {
  report: 'openpcc-openpcc/report-v3-genoa-vcek-a9e9196c94d2.bin',
  leaf: 'openpcc-openpcc/vcek-genoa-3941d081fb81.der',
  ask: 'virtee-sev/ask-genoa-5464738c1546.der',
  revokedAsk: 'enarx-steward/ask-genoa-54467b96b8ba.der',
  ark: 'virtee-sev/ark-genoa-4c6598d19c18.der',
} as const;
const TURIN = {
  report: 'project-oak-oak/report-v5-turin-vcek-3f44a09b769a.bin',
  leaf: 'project-oak-oak/vcek-turin-148898157249.der',
  ask: 'virtee-sev/ask-turin-5b77ef5fe7a7.der',
  ark: 'virtee-sev/ark-turin-1f084161a44b.der',
} as const;
const ASVK_MILAN = 'google-go-sev-guest/asvk-milan-c5e081f59b7e.der';
const CRL_MILAN_2023 = 'ufcg-lsd-spire-amd-sev-snp-node-attestor/crl-ark-milan-2023-05-09.der';
const CRL_GENOA_2024 = 'openpcc-openpcc/crl-ark-genoa-2024-10-23.der';

describe.skipIf(!HAVE_VECTORS)('genuine revocation lists', () => {
  it('clear a Milan chain while they are current, and not a day longer', () => {
    const evidence = {
      report: vector(MILAN.report),
      certificates: [MILAN.leaf, MILAN.ask, MILAN.ark].map(vector),
      crls: [vector(CRL_MILAN_2023)],
    };
    const during = judge(evidence, { atMs: Date.UTC(2023, 11, 1), crl: 'require' });
    expect(errorsOf(during)).toEqual([]);
    expect(during.chain.crl?.number).toBe(4n);
    expect(errorsOf(judge(evidence, { atMs: Date.UTC(2024, 6, 1), crl: 'require' }))).toEqual(['CRL_STALE']);
    expect(
      errorsOf(judge(evidence, { atMs: Date.UTC(2023, 11, 1), crl: 'require', crlMinimumNumber: 5n })),
    ).toEqual(['CRL_ROLLBACK']);
  });

  it.each([
    ['first', [GENOA.revokedAsk, GENOA.ask]],
    ['last', [GENOA.ask, GENOA.revokedAsk]],
  ] as const)('let the valid path be found when the revoked SEV-Genoa comes %s', (_, asks) => {
    const result = judge(
      {
        report: vector(GENOA.report),
        certificates: [GENOA.leaf, ...asks, GENOA.ark].map(vector),
        crls: [vector(CRL_GENOA_2024)],
      },
      {
        atMs: Date.UTC(2025, 9, 1),
        crl: 'require',
      },
    );
    expect(errorsOf(result)).toEqual([]);
    expect(result.chain.intermediate?.certificate.serial).toBe('020002');
  });

  it('refuse the revoked SEV-Genoa where it is the only one, and say that it was replaced', () => {
    const evidence = {
      report: vector(GENOA.report),
      certificates: [GENOA.leaf, GENOA.revokedAsk, GENOA.ark].map(vector),
      crls: [vector(CRL_GENOA_2024)],
    };
    const result = judge(evidence, { atMs: Date.UTC(2025, 0, 1), crl: 'require' });
    expect(errorsOf(result)).toEqual(expect.arrayContaining(['CERT_REVOKED', 'CERT_SIGNATURE_MISMATCH']));
    expect(explain(evidence, result, crypto).map(({ code }) => code)).toContain('INTERMEDIATE_REPLACED');
  });
});

describe.skipIf(!HAVE_VECTORS)('reports, leaves, intermediates and roots of three lines', () => {
  it('are accepted in 3 of 81 combinations', () => {
    const lines = [MILAN, GENOA, TURIN];
    const accepted: string[] = [];
    for (const a of lines) {
      for (const b of lines) {
        for (const c of lines) {
          for (const d of lines) {
            const certificates = [b.leaf, c.ask, d.ark].map(vector);
            const { ok, findings } = judge(
              { report: vector(a.report), certificates },
              { atMs: Date.UTC(2026, 2, 1), policy: parsePolicy({ guest_policy: { debug: 'any' } }) },
            );
            expect(ok, findings.map(({ code }) => code).join()).toBe(a === b && b === c && c === d);
            accepted.push(...(ok ? [a.report] : []));
          }
        }
      }
    }
    expect(accepted).toEqual(lines.map(({ report }) => report));
  });
});

describe.skipIf(!HAVE_VECTORS)('certificates issued anew for one key', () => {
  it('are accepted alike, and the cache holds their key once', () => {
    const pairs = INDEX.filter(({ file, leaf }) => /\/report-/.test(file) && leaf?.length === 2);
    expect(pairs.length).toBeGreaterThan(0);
    for (const { file, leaf } of pairs) {
      const cache = new VerifyCache();
      for (const cert of leaf!) {
        const certificates = [cert, MILAN.ask, MILAN.ark].map(vector);
        const result = verifyEvidence(
          { report: vector(file), certificates },
          { atMs: whenValidMs(cert), crl: 'skip', crypto, cache },
        );
        expect(errorsOf(result).filter((code) => code !== 'POLICY_BIT_FORBIDDEN')).toEqual([]);
      }
      expect(cache.endorsementKeys).toBe(1);
    }
  });
});

describe.skipIf(!HAVE_VECTORS)('the root of AMD', () => {
  it('is believed in its own bytes only: any bit of it flipped is refused', () => {
    const ark = vector(MILAN.ark);
    const report = vector(MILAN.report);
    const certificates = [MILAN.leaf, MILAN.ask].map(vector);
    const atMs = Date.UTC(2024, 0, 1);
    expect(judge({ report, certificates: [...certificates, ark] }, { atMs }).ok).toBe(true);
    for (const bit of bitsOf(ark.length).filter((_, i) => LONG || i % 3 === 0)) {
      const result = judge({ report, certificates: [...certificates, flipped(ark, bit)] }, { atMs });
      expect(result.ok, `bit ${bit}`).toBe(false);
    }
  });
});

describe.skipIf(!HAVE_VECTORS)('certificate tables', () => {
  it.each([
    [
      'veraison-services/certtable-8b0cc4a09022.bin',
      'veraison-services/report-v3-genoa-vcek-8d8bfb3e540d.bin',
    ],
    [
      'veraison-services/certtable-9e37aaf8f7b7.bin',
      'veraison-services/report-v3-milan-vcek-11b7048a5b1d.bin',
    ],
  ])('of a real host, PEM inside: %s', (table, report) => {
    const reports = [
      report,
      'veraison-services/report-v3-genoa-vcek-8d8bfb3e540d.bin',
      'veraison-services/report-v3-milan-vcek-11b7048a5b1d.bin',
    ];
    const verdicts = reports.map((file) =>
      judge({ report: vector(file), table: vector(table) }, { atMs: Date.UTC(2026, 0, 1) }),
    );
    expect(verdicts.some(({ ok }) => ok)).toBe(true);
    for (const { findings } of verdicts) {
      expect(findings.filter(({ step, severity }) => step === 'chain' && severity === 'error')).toEqual([]);
    }
  });

  it('of the shape AWS hands out: one VLEK, to which intermediate and root are missing', () => {
    const report = vector('confidential-containers-trustee/report-v3-milan-vlek-decdab949afc.bin');
    const vlek = 'confidential-containers-trustee/vlek-milan-296a7c99053e.der';
    const table = encodeCertificateTable([{ guid: VLEK_GUID, data: vector(vlek) }]);
    const options = { atMs: whenValidMs(vlek) };
    const alone = judge({ report, table }, options);
    expect(errorsOf(alone)).toEqual(['INTERMEDIATE_MISSING', 'ROOT_MISSING']);
    expect(alone.chain.leaf?.endorsement?.cspId).toMatch(/amazonaws/);
    const certificates = [ASVK_MILAN, MILAN.ark].map(vector);
    expect(errorsOf(judge({ report, table, certificates }, options))).toEqual([]);
    // The table as it was rebuilt holds another VLEK of AWS.
    const other = { report, table: vector('computed/aws-certtable-reconstructed.bin'), certificates };
    const result = judge(other, { atMs: Date.UTC(2024, 0, 1) });
    expect(result.chain.leaf?.role).toEqual({ kind: 'VLEK', product: 'Milan' });
    expect(errorsOf(result)).toEqual(['TCB_MISMATCH', 'SIGNATURE_MISMATCH']);
  });

  it('hold what a list of certificates holds', () => {
    const table = encodeCertificateTable([{ guid: VCEK_GUID, data: vector(MILAN.leaf) }]);
    const certificates = [MILAN.ask, MILAN.ark].map(vector);
    const result = judge(
      { report: vector(MILAN.report), table, certificates },
      { atMs: Date.UTC(2024, 0, 1) },
    );
    expect(errorsOf(result)).toEqual([]);
  });
});
