// SPDX-License-Identifier: Apache-2.0
/** Reference pages made from the tables in the source; `vitest -u` writes them anew. */
import { readFileSync } from 'node:fs';
import { toJsonSchema } from '@valibot/to-json-schema';
import { describe, expect, it } from 'vitest';
import { CAUSES, FINDINGS, PolicySchema, VERIFY_STEPS } from '../../src/verify/index.ts';

const EXIT = { evidence: 2, missing: 3, revocation: 4, policy: 5 } as const;

function findingsPage(): string {
  const lines = [
    '# Findings of the verifier',
    '',
    'Made from `src/verify/findings.ts`. A finding has a code that never changes its meaning, the place it is about,',
    'what was expected and found, where the rule comes from, and what to do. An error refuses the evidence; its kind',
    'decides the exit code of `softsnp verify`.',
    '',
  ];
  for (const step of VERIFY_STEPS) {
    lines.push(
      `## ${step}`,
      '',
      '| code | severity | exit | what is wrong | what to do | source |',
      '|---|---|---|---|---|---|',
    );
    for (const [code, row] of Object.entries(FINDINGS).filter(([, { step: at }]) => at === step)) {
      const exit = row.severity === 'error' ? String(EXIT[row.kind]) : '–';
      lines.push(
        `| \`${code}\` | ${row.severity} | ${exit} | ${row.meaning} | ${row.action} | ${row.source} |`,
      );
    }
    lines.push('');
  }
  return `${lines.join('\n').trimEnd()}\n`;
}

function causesPage(): string {
  const lines = [
    '# It did not verify. Why?',
    '',
    '`softsnp verify report FILE` does not stop at "the signature is wrong": it looks for the cause by trying, and',
    'prints it below the checks with what showed it and what cures it.',
    '',
    '```',
    'why   The certificate is for CURRENT_TCB; reports are signed by the key of REPORTED_TCB. [CERT_OF_CURRENT_TCB]',
    '      Certificate and current_tcb both say 4,1,25,219 (boot_loader,tee,snp,microcode).',
    '      -> Fetch https://kdsintf.amd.com/vcek/v1/Milan/…?blSPL=04&teeSPL=01&snpSPL=24&ucodeSPL=219',
    '```',
    '',
    'In a program: `explain(evidence, result, crypto)` of `softsnp/verify` gives the same as objects, and',
    '`explainCertificates(certificates, result)` for certificates alone. The verdict is never touched by it: evidence that',
    'was refused stays refused. Files are told by their name and form; nothing of what is in them is ever printed.',
    '',
    'Each cause below is made to happen by a test of `test/verify/why.test.ts` (this page is made from the table in',
    '`src/verify/causes.ts`). What the findings themselves mean: [findings](../reference/findings.md).',
    '',
    '| code | cause | cure |',
    '|---|---|---|',
    ...Object.entries(CAUSES).map(([code, { cause, cure }]) => `| \`${code}\` | ${cause} | ${cure} |`),
    '',
    '## Still no cause?',
    '',
    '- `softsnp show report FILE` and `softsnp show certs PATH` print both sides field by field: compare REPORTED_TCB',
    '  with the TCB of the certificate and CHIP_ID with its hwID yourself.',
    '- `--json` prints every finding with expected and actual value.',
    '- Files of up to 64 MiB get a verdict whatever is in them, a folder that much in all; for larger ones, and for more',
    '  than 4096 files in a folder, there is none: exit code 1. In a folder, files above 1 MiB that are not named as',
    '  certificates (.pem, .der, .crt, .cer, .cert, .crl) are not read at all.',
    '- Of several certificate tables the one under `--table` is judged, else the one beside the report; certificates and',
    '  lists of the others are taken out of them. A table that is given up for another is named on the error stream.',
    '- Evidence of softsnp is accepted only with `--trust softsnp`; evidence of hardware only without.',
  ];
  return `${lines.join('\n')}\n`;
}

describe('the pages made from tables', () => {
  it('findings', async () => {
    await expect(findingsPage()).toMatchFileSnapshot('../../docs/reference/findings.md');
  });

  it('causes', async () => {
    await expect(causesPage()).toMatchFileSnapshot('../../docs/howto/did-not-verify.md');
  });
});

/** What a policy file looks like, for editors and for other programs that write one. */
const policyJsonSchema = (): string => {
  const schema = toJsonSchema(PolicySchema, {
    typeMode: 'input',
    // Lengths of lists and the sum of two fields are checked by parsePolicy; transformations have no shape.
    errorMode: 'ignore',
  });
  const document = {
    ...schema,
    title: 'Policy of softsnp verify',
    description:
      'What is wanted of an SEV-SNP attestation report beyond being genuine: docs/reference/policy.md',
  };
  return `${JSON.stringify(document, null, 2)}\n`;
};

describe('docs/reference/policy.schema.json', () => {
  it('is made from the schema that policies are checked with', async () => {
    await expect(policyJsonSchema()).toMatchFileSnapshot('../../docs/reference/policy.schema.json');
  });

  it('allows no field that parsePolicy refuses', () => {
    const { properties, additionalProperties } = JSON.parse(policyJsonSchema());
    expect(Object.keys(properties)).toEqual(Object.keys(PolicySchema.entries));
    expect(additionalProperties).toBe(false);
    expect(properties.minimum_tcb.properties.Milan.properties.reported.properties).not.toHaveProperty('fmc');
    expect(properties.minimum_tcb.properties.Turin.properties.reported.properties).toHaveProperty('fmc');
    expect(JSON.stringify(properties.guest_policy.properties.debug.enum)).toBe(
      '["any","required","forbidden"]',
    );
  });
});

describe('docs/reference/policy.md', () => {
  const page = readFileSync(new URL('../../docs/reference/policy.md', import.meta.url), 'utf8');

  it('has a row for every field of the schema', () => {
    const fields = Object.keys(PolicySchema.entries);
    expect(fields.length).toBeGreaterThan(25);
    expect(fields.filter((field) => !page.includes(`| \`${field}\` |`))).toEqual([]);
  });

  it('shows an example that is a policy', async () => {
    const { parsePolicy } = await import('../../src/verify/index.ts');
    const examples = [...page.matchAll(/```json\n([\s\S]*?)```/g)].map((match) => match[1]!);
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) {
      expect(() => parsePolicy(JSON.parse(example))).not.toThrow();
    }
  });
});
