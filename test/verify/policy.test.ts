// SPDX-License-Identifier: Apache-2.0
/** The policy document: what each field demands, at the exact boundary, and what is no policy. */
import { describe, expect, it } from 'vitest';
import { PRODUCT_LINES } from '../../src/abi/product.ts';
import { encodeTcb, tcbComponents } from '../../src/abi/tcb-version.ts';
import type { ReportChanges } from '../../src/cli/vectors/forge.ts';
import { toHex, writeU32, writeU64 } from '../../src/lib/bytes.ts';
import { InputError } from '../../src/lib/errors.ts';
import {
  type FindingCode,
  type PolicyDocument,
  parsePolicy,
  parsePolicyText,
} from '../../src/verify/index.ts';
import { errorsOf, forge, judge } from './soft.ts';
import { authorities, HAVE_VECTORS, INDEX, vector, whenValidMs } from './vectors.ts';

const milan = forge('Milan');
const trust = [milan.authority.ark];
const certificates = [milan.leaf(), ...milan.chain()];
const vlek = [milan.leaf('VLEK'), ...milan.chain('VLEK')];
const v5 = milan.report({
  version: 5,
  fields: {
    guest_svn: 4,
    family_id: new Uint8Array(16).fill(1),
    image_id: new Uint8Array(16).fill(2),
    host_data: new Uint8Array(32).fill(3),
    id_key_digest: new Uint8Array(48).fill(4),
    author_key_digest: new Uint8Array(48).fill(5),
    key_info: { author_key_en: 1, mask_chip_key: 0, signing_key: 0 },
    committed_tcb: encodeTcb({ ...milan.tcb }, 'Milan'),
  },
  before: (bytes) => {
    writeU64(bytes, 0x08, 0x30133n);
    writeU64(bytes, 0x40, 0x25n);
    writeU32(bytes, 0x30, 2);
  },
});
const plain = milan.report();

const verdict = (document: PolicyDocument, report = v5, certs = certificates): FindingCode[] =>
  errorsOf(judge({ report, certificates: certs }, { trust, policy: parsePolicy(document) }));

const filled = (size: number, value: number): string => toHex(new Uint8Array(size).fill(value));

describe('a policy', () => {
  const met: readonly (readonly [string, PolicyDocument])[] = [
    ['nothing', {}],
    ['measurement', { measurement: filled(48, 0xd1) }],
    ['one of several measurements', { measurement: [filled(48, 0), filled(48, 0xd1)] }],
    ['a 0x prefix', { measurement: `0x${filled(48, 0xd1)}` }],
    ['host_data', { host_data: filled(32, 3) }],
    ['report_data', { report_data: filled(64, 0x5a) }],
    ['family_id and image_id', { family_id: filled(16, 1), image_id: filled(16, 2) }],
    ['report_id and report_id_ma', { report_id: filled(32, 0x11), report_id_ma: filled(32, 0xff) }],
    ['key digests', { id_key_digest: filled(48, 4), author_key_digest: filled(48, 5) }],
    ['vmpl', { vmpl: 2 }],
    ['one of two VMPLs', { vmpl: [0, 2] }],
    ['minimum_guest_svn at the boundary', { minimum_guest_svn: 4 }],
    ['minimum_report_version at the boundary', { minimum_report_version: 5 }],
    ['id_block and author_key', { id_block: 'required', author_key: 'required' }],
    ['guest policy bits', { guest_policy: { smt: 'required', migrate_ma: 'forbidden', debug: 'forbidden' } }],
    ['guest policy ABI at the boundary', { guest_policy: { minimum_abi: '1.51' } }],
    [
      'platform bits',
      { platform_info: { smt_en: 'required', alias_check_complete: 'required', tsme_en: 'forbidden' } },
    ],
    [
      'minimum TCB at the boundary',
      { minimum_tcb: { Milan: { reported: { boot_loader: 4, tee: 1, snp: 24, microcode: 219 } } } },
    ],
    ['minimum firmware at the boundary', { minimum_firmware: { version: '1.55', build: 29 } }],
    ['a minimum version below, whatever the build', { minimum_firmware: { version: '1.54', build: 200 } }],
    ['committed firmware', { provisional_firmware: 'forbidden' }],
    ['mitigation bits', { launch_mit_vector: '0x3f', current_mit_vector: '0x1' }],
    ['signing key', { signing_key: 'VCEK' }],
    ['product', { product: ['Milan', 'Genoa'] }],
    ['chip', { allowed_chips: toHex(milan.chipId) }],
    ['a chip id that is not masked', { masked_chip_id: 'forbidden' }],
    [
      'distrust of others',
      { distrust: { products: ['Turin'], chips: [filled(64, 9)], certificates: [filled(32, 9)] } },
    ],
  ];
  it.each(met)('is met: %s', (_, document) => {
    expect(verdict(document)).toEqual([]);
  });

  const unmet: readonly (readonly [string, PolicyDocument, FindingCode])[] = [
    ['measurement', { measurement: filled(48, 0xd2) }, 'POLICY_MISMATCH'],
    ['host_data', { host_data: filled(32, 0) }, 'POLICY_MISMATCH'],
    ['report_data', { report_data: filled(64, 0) }, 'POLICY_MISMATCH'],
    ['image_id', { image_id: filled(16, 1) }, 'POLICY_MISMATCH'],
    ['author_key_digest', { author_key_digest: filled(48, 4) }, 'POLICY_MISMATCH'],
    ['vmpl', { vmpl: 0 }, 'POLICY_MISMATCH'],
    ['minimum_guest_svn one above', { minimum_guest_svn: 5 }, 'POLICY_MISMATCH'],
    ['minimum_report_version one above', { minimum_report_version: 6 }, 'POLICY_MISMATCH'],
    ['id_block', { id_block: 'forbidden' }, 'POLICY_BIT_FORBIDDEN'],
    ['author_key', { author_key: 'forbidden' }, 'POLICY_BIT_FORBIDDEN'],
    ['smt', { guest_policy: { smt: 'forbidden' } }, 'POLICY_BIT_FORBIDDEN'],
    ['single_socket', { guest_policy: { single_socket: 'required' } }, 'POLICY_BIT_REQUIRED'],
    ['minimum_abi one above', { guest_policy: { minimum_abi: '1.52' } }, 'POLICY_MISMATCH'],
    ['minimum_abi of a higher major', { guest_policy: { minimum_abi: '2.0' } }, 'POLICY_MISMATCH'],
    ['alias check', { platform_info: { alias_check_complete: 'forbidden' } }, 'POLICY_BIT_FORBIDDEN'],
    [
      'ciphertext hiding',
      { platform_info: { ciphertext_hiding_dram_en: 'required' } },
      'POLICY_BIT_REQUIRED',
    ],
    [
      'minimum TCB one above',
      { minimum_tcb: { Milan: { reported: { snp: 25 } } } },
      'POLICY_TCB_BELOW_MINIMUM',
    ],
    [
      'minimum committed TCB',
      { minimum_tcb: { Milan: { committed: { microcode: 220 } } } },
      'POLICY_TCB_BELOW_MINIMUM',
    ],
    ['minimum current TCB', { minimum_tcb: { Milan: { current: { tee: 2 } } } }, 'POLICY_TCB_BELOW_MINIMUM'],
    [
      'minimum launch TCB',
      { minimum_tcb: { Milan: { launch: { boot_loader: 5 } } } },
      'POLICY_TCB_BELOW_MINIMUM',
    ],
    ['minimum TCBs of other lines only', { minimum_tcb: { Genoa: {} } }, 'POLICY_MISMATCH'],
    [
      'minimum build one above',
      { minimum_firmware: { version: '1.55', build: 30 } },
      'POLICY_FIRMWARE_BELOW_MINIMUM',
    ],
    ['minimum version one above', { minimum_firmware: { version: '1.56' } }, 'POLICY_FIRMWARE_BELOW_MINIMUM'],
    ['minimum build alone', { minimum_firmware: { build: 30 } }, 'POLICY_FIRMWARE_BELOW_MINIMUM'],
    ['mitigation bits', { current_mit_vector: '0x40' }, 'POLICY_MISMATCH'],
    ['signing key', { signing_key: ['VLEK'] }, 'POLICY_MISMATCH'],
    ['product', { product: 'Turin' }, 'POLICY_MISMATCH'],
    ['chip', { allowed_chips: [filled(64, 9)] }, 'POLICY_CHIP_NOT_ALLOWED'],
    ['cloud', { allowed_csps: 'CN=cloud.example' }, 'POLICY_MISMATCH'],
    ['distrusted product', { distrust: { products: 'Milan' } }, 'POLICY_DISTRUSTED'],
    ['distrusted chip', { distrust: { chips: toHex(milan.chipId) } }, 'POLICY_DISTRUSTED'],
  ];
  it.each(unmet)('is not met: %s', (_, document, code) => {
    const errors = verdict(document);
    expect(errors).toContain(code);
    expect(new Set(errors).size).toBe(1);
  });

  it('demands mitigations of a report that knows none', () => {
    expect(verdict({ current_mit_vector: '0x1' }, plain)).toEqual(['POLICY_MISMATCH']);
  });

  it('forbids a migration agent unless it says otherwise', () => {
    const movable = milan.report({ before: (bytes) => writeU64(bytes, 8, 0x70000n) });
    expect(verdict({}, movable)).toEqual(['POLICY_BIT_FORBIDDEN']);
    expect(verdict({ guest_policy: { migrate_ma: 'any' } }, movable)).toEqual([]);
    expect(verdict({ guest_policy: { smt: 'required' } }, movable)).toEqual(['POLICY_BIT_FORBIDDEN']);
  });

  it('trusts an ID block by its ID key or by its author key', () => {
    const idKey = filled(48, 4);
    const authorKey = filled(48, 5);
    const other = filled(48, 6);
    const signed = (authorKeyEn: number): Uint8Array =>
      milan.report({
        fields: {
          id_key_digest: new Uint8Array(48).fill(4),
          author_key_digest: new Uint8Array(48).fill(5),
          key_info: { author_key_en: authorKeyEn, mask_chip_key: 0, signing_key: 0 },
        },
      });
    const verdicts = (signers: NonNullable<PolicyDocument['id_block_signers']>): readonly FindingCode[][] =>
      [signed(1), signed(0), plain].map((report) => verdict({ id_block_signers: signers }, report));
    const no: FindingCode[] = ['POLICY_MISMATCH'];
    expect(verdicts({ id_keys: idKey })).toEqual([[], [], no]);
    expect(verdicts({ author_keys: [other, authorKey] })).toEqual([[], no, no]);
    expect(verdicts({ id_keys: other, author_keys: authorKey })).toEqual([[], no, no]);
    expect(verdicts({ id_keys: [other, idKey], author_keys: other })).toEqual([[], [], no]);
    expect(verdicts({ id_keys: other, author_keys: other })).toEqual([no, no, no]);
    // Zeros are what a report without an ID block has, and no key.
    expect(verdicts({ id_keys: filled(48, 0), author_keys: filled(48, 0) })).toEqual([no, no, no]);
  });

  it('takes an author key digest for nothing without AUTHOR_KEY_EN', () => {
    const digest = milan.report({ fields: { author_key_digest: new Uint8Array(48).fill(5) } });
    expect(verdict({ author_key_digest: filled(48, 5) }, digest)).toEqual(['POLICY_MISMATCH']);
    expect(verdict({ author_key_digest: filled(48, 0) }, plain)).toEqual([]);
  });

  it.each([
    ['a higher build', { committed_build: 30 }, ['FIRMWARE_RELATION']],
    ['a higher minor', { committed_minor: 56, committed_build: 0 }, ['FIRMWARE_RELATION']],
    ['a higher major', { committed_major: 2, committed_minor: 0 }, ['FIRMWARE_RELATION']],
    ['the same', {}, []],
    ['a higher build of a lower version', { committed_minor: 54, committed_build: 200 }, []],
  ] as const)('never accepts committed firmware above current: %s', (_, fields, errors) => {
    expect(verdict({}, milan.report({ fields }))).toEqual(errors);
  });

  it('names the file it came from', () => {
    expect(() => parsePolicy({ mesurement: '' }, 'p3.json')).toThrow(
      /^p3\.json, mesurement: an unknown field/,
    );
    expect(() => parsePolicy([], 'p3.json')).toThrow(/^p3\.json: not an object/);
  });

  it('may name its schema', () => {
    expect(verdict({ $schema: 'https://example/policy.schema.json' })).toEqual([]);
  });

  it('forbids debugging unless it says otherwise', () => {
    const debug = milan.report({ before: (bytes) => writeU64(bytes, 8, 0xb0000n) });
    expect(verdict({}, debug)).toEqual(['POLICY_BIT_FORBIDDEN']);
    expect(verdict({ guest_policy: { debug: 'any' } }, debug)).toEqual([]);
    expect(verdict({ guest_policy: { debug: 'required' } }, plain)).toEqual(['POLICY_BIT_REQUIRED']);
  });

  it('sees provisional firmware by TCB and by version', () => {
    const ahead = milan.report({ fields: { current_tcb: encodeTcb({ ...milan.tcb, snp: 25 }, 'Milan') } });
    expect(verdict({ provisional_firmware: 'forbidden' }, ahead)).toEqual(['POLICY_PROVISIONAL_FIRMWARE']);
    expect(verdict({ provisional_firmware: 'required' }, ahead)).toEqual([]);
    expect(verdict({ provisional_firmware: 'required' }, plain)).toEqual(['POLICY_PROVISIONAL_FIRMWARE']);
    const build = milan.report({ fields: { current_build: 30 } });
    expect(verdict({ provisional_firmware: 'forbidden' }, build)).toEqual(['POLICY_PROVISIONAL_FIRMWARE']);
  });

  it('knows a masked chip by its certificate', () => {
    const masked = milan.report({ fields: { chip_id: new Uint8Array(64) } });
    expect(verdict({ allowed_chips: toHex(milan.chipId) }, masked)).toEqual([]);
    expect(verdict({ masked_chip_id: 'forbidden' }, masked)).toEqual(['POLICY_BIT_FORBIDDEN']);
    expect(verdict({ distrust: { chips: toHex(milan.chipId) } }, masked)).toEqual(['POLICY_DISTRUSTED']);
  });

  it('knows a cloud by the VLEK, which names no chip', () => {
    const report = milan.report({ kind: 'VLEK' });
    expect(verdict({ allowed_csps: 'CN=cloud.example', signing_key: 'VLEK' }, report, vlek)).toEqual([]);
    expect(verdict({ allowed_csps: 'CN=other.example' }, report, vlek)).toEqual(['POLICY_MISMATCH']);
    expect(verdict({ allowed_chips: toHex(milan.chipId) }, report, vlek)).toEqual([
      'POLICY_CHIP_NOT_ALLOWED',
    ]);
  });

  it('takes 8 bytes for a chip of Turin', () => {
    const turin = forge('Turin');
    const result = judge(
      { report: turin.report(), certificates: [turin.leaf(), ...turin.chain()] },
      {
        trust: [turin.authority.ark],
        policy: parsePolicy({ allowed_chips: toHex(turin.chipId.subarray(0, 8)) }),
      },
    );
    expect(errorsOf(result)).toEqual([]);
  });

  it('distrusts a certificate anywhere in the chain', () => {
    const { chain } = judge({ report: plain, certificates }, { trust });
    for (const known of [chain.leaf, chain.intermediate, chain.root]) {
      expect(verdict({ distrust: { certificates: known!.fingerprint } }, plain)).toEqual([
        'POLICY_DISTRUSTED',
      ]);
    }
  });

  it('reports everything it is not met in', () => {
    const errors = verdict({
      measurement: filled(48, 0),
      vmpl: 0,
      guest_policy: { smt: 'forbidden' },
      minimum_tcb: { Milan: { reported: { snp: 255, tee: 255 } } },
    });
    expect(errors).toEqual([
      'POLICY_MISMATCH',
      'POLICY_MISMATCH',
      'POLICY_BIT_FORBIDDEN',
      'POLICY_TCB_BELOW_MINIMUM',
      'POLICY_TCB_BELOW_MINIMUM',
    ]);
  });
});

describe('a minimum TCB', () => {
  it.each(PRODUCT_LINES)('is met at its value and above, in each part of each TCB: %s', (product) => {
    const soft = forge(product);
    const evidence = { report: soft.report(), certificates: [soft.leaf(), ...soft.chain()] };
    for (const tcb of ['reported', 'committed', 'current', 'launch']) {
      for (const component of tcbComponents(product)) {
        for (const step of [-1, 0, 1]) {
          const minimum = { [component]: soft.tcb[component] + step };
          const policy = parsePolicy({ minimum_tcb: { [product]: { [tcb]: minimum } } });
          const result = judge(evidence, { trust: [soft.authority.ark], policy });
          expect(errorsOf(result), `${tcb} ${component} ${step}`).toEqual(
            step > 0 ? ['POLICY_TCB_BELOW_MINIMUM'] : [],
          );
        }
      }
    }
  });
});

describe('the check for aliased memory', () => {
  const policy = parsePolicy({ platform_info: { alias_check_complete: 'required' } });

  it.each([
    [0x1n, ['POLICY_BIT_REQUIRED']],
    [0x3n, ['POLICY_BIT_REQUIRED']],
    [0x24n, []],
    [0x25n, []],
    [0x27n, []],
    [0x65n, []],
  ] as const)('can be demanded of PLATFORM_INFO %s', (info, errors) => {
    const report = milan.report({ before: (bytes) => writeU64(bytes, 0x40, info) });
    expect(errorsOf(judge({ report, certificates }, { trust, policy }))).toEqual(errors);
  });

  it.skipIf(!HAVE_VECTORS)('was complete on 22 of the machines that made the genuine reports', () => {
    const wanted = parsePolicy({
      guest_policy: { debug: 'any' },
      platform_info: { alias_check_complete: 'required' },
    });
    const verdicts = INDEX.filter(({ file }) => /\/report-/.test(file)).map(({ file, leaf }) => {
      const evidence = { report: vector(file), certificates: [vector(leaf![0]!), ...authorities()] };
      return errorsOf(judge(evidence, { atMs: whenValidMs(leaf![0]!), policy: wanted })).join();
    });
    expect(verdicts.filter((errors) => errors === '')).toHaveLength(22);
    expect(verdicts.filter((errors) => errors === 'POLICY_BIT_REQUIRED')).toHaveLength(26);
  });
});

describe('distrust', () => {
  it.each(PRODUCT_LINES)('of a product line or a chip is final: %s', (product) => {
    const soft = forge(product);
    const judged = (distrust: PolicyDocument['distrust'], changes: ReportChanges = {}): FindingCode[] => {
      const { kind = 'VCEK' } = changes;
      const evidence = { report: soft.report(changes), certificates: [soft.leaf(kind), ...soft.chain(kind)] };
      const policy = parsePolicy({ distrust });
      return errorsOf(judge(evidence, { trust: [soft.authority.ark], policy }));
    };
    const others = PRODUCT_LINES.filter((line) => line !== product);
    for (const changes of [{ version: 2 }, { version: 3 }, { version: 5 }, { kind: 'VLEK' }] as const) {
      expect(judged({ products: product }, changes)).toEqual(['POLICY_DISTRUSTED']);
      expect(judged({ products: others }, changes)).toEqual([]);
    }
    const chip = toHex(soft.chipId);
    expect(judged({ chips: chip })).toEqual(['POLICY_DISTRUSTED']);
    expect(judged({ chips: [filled(64, 9), chip] })).toEqual(['POLICY_DISTRUSTED']);
    // The first eight bytes are a chip of Turin, whose others are zero, and of the other lines no chip at all.
    expect(judged({ chips: chip.slice(0, 16) })).toEqual(product === 'Turin' ? ['POLICY_DISTRUSTED'] : []);
    // A VLEK names no chip; the report may.
    const named = { kind: 'VLEK', fields: { chip_id: soft.chipId } } as const;
    expect(judged({ chips: chip }, named)).toEqual(['POLICY_DISTRUSTED']);
    expect(judged({ chips: chip }, { kind: 'VLEK' })).toEqual([]);
  });
});

describe('what is no policy', () => {
  const wrong: readonly (readonly [string, unknown, RegExp])[] = [
    ['null', null, /^policy: /],
    ['a list', [], /^policy: /],
    [
      'a misspelt field',
      { mesurement: filled(48, 0) },
      /^policy\.mesurement: an unknown field; did you mean measurement\?$/,
    ],
    [
      'an unknown field',
      { minimum_firmware: { svn: 3 } },
      /svn: an unknown field; known here: version, build$/,
    ],
    [
      'an FMC on Milan, which has none',
      { minimum_tcb: { Milan: { reported: { fmc: 3 } } } },
      /Milan\.reported\.fmc: an unknown field/,
    ],
    ['no signers', { id_block_signers: {} }, /nobody may sign/],
    ['a list for an object', { guest_policy: [] }, /guest_policy: not an object/],
    ['a number for a wish', { id_block: 1 }, /id_block: not "any", "required" or "forbidden"/],
    ['text for a number', { minimum_guest_svn: '1' }, /not a whole number from 0 to 4294967295/],
    ['an unknown bit', { guest_policy: { dbug: 'any' } }, /policy\.guest_policy\.dbug/],
    ['the reserved bit of PLATFORM_INFO', { platform_info: { bit_6: 'required' } }, /bit_6/],
    ['a boolean for a wish', { guest_policy: { debug: false } }, /policy\.guest_policy\.debug/],
    ['a short digest', { measurement: 'abcd' }, /not 48 bytes/],
    ['megabytes of digits', { measurement: '0'.repeat(1 << 24) }, /not 48 bytes/],
    ['megabytes of digits in a list', { allowed_chips: ['0'.repeat(1 << 24)] }, /not 8 or 64 bytes/],
    ['an odd digit', { measurement: 'abc' }, /not hexadecimal digits/],
    ['no hexadecimal', { measurement: ['zz'] }, /not hexadecimal digits/],
    ['an empty list', { measurement: [] }, /empty list/],
    ['a negative number', { minimum_guest_svn: -1 }, /minimum_guest_svn/],
    ['a fraction', { vmpl: 0.5 }, /vmpl/],
    ['a component above 255', { minimum_tcb: { Milan: { reported: { snp: 256 } } } }, /snp/],
    ['a product line that does not exist', { minimum_tcb: { Rome: {} } }, /Rome/],
    ['minimum TCBs of no line', { minimum_tcb: {} }, /without a product line/],
    ['a version without minor', { minimum_firmware: { version: '1' } }, /major\.minor/],
    ['a word without 0x', { launch_mit_vector: '63' }, /0x/],
    ['prototype pollution', JSON.parse('{"__proto__": {"vmpl": 0}}'), /./],
  ];
  it.each(wrong)('is refused with its path: %s', (name, document, message) => {
    if (name === 'prototype pollution') {
      expect(Object.keys(parsePolicyOr(document))).not.toContain('vmpl');
      return;
    }
    expect(() => parsePolicy(document)).toThrow(InputError);
    expect(() => parsePolicy(document)).toThrow(message);
  });
});

describe('the text of a policy', () => {
  it('is refused when it has a field twice, of which JSON keeps the last', () => {
    expect(parsePolicyText('{"vmpl":[0,3]}').vmpl).toEqual([0, 3]);
    expect(() => parsePolicyText('{"vmpl":3,"vmpl":0}', 'p.json')).toThrow('p.json: vmpl stands twice');
    const twice = '{"guest_policy":{"smt":"forbidden"},"guest_policy":{"cxl_allow":"forbidden"}}';
    expect(() => parsePolicyText(twice)).toThrow('guest_policy stands twice');
    expect(() => parsePolicyText('{"vmpl":')).toThrow(/^policy: not JSON/);
  });
});

function parsePolicyOr(document: unknown): object {
  try {
    return parsePolicy(document);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return {};
  }
}
