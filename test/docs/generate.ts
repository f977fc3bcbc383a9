// SPDX-License-Identifier: Apache-2.0
/**
 * Renders docs/reference/ from the declarations. `test/abi/reference.test.ts` fails when a page is not what
 * this gives; UPDATE_DOCS=1 makes it write the pages.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { SEV_RET_NO_FW_CALL, SEV_RET_TABLE } from '../../src/abi/sev-status.ts';
import { SOURCES, type Source } from '../../src/abi/sources.ts';
import { ERROR_CODES, type ErrorCodeRow } from '../../src/lib/error-codes.ts';
import { invariant } from '../../src/lib/errors.ts';
import type { Codec, FieldTable, Layout } from '../../src/lib/struct.ts';
import { codeTables, constants, layouts, type Word, words } from '../abi/declarations.ts';

const NOTICE =
  '<!-- Generated from src by test/docs/generate.ts; UPDATE_DOCS=1 npx vitest run test/abi/reference.test.ts -->';

/** Sections of the layout page, in reading order; files not named follow in order of name. */
const LAYOUT_SECTIONS: Readonly<Record<string, string>> = {
  'attestation-report.ts': 'Attestation report',
  'guest-policy.ts': 'Guest policy',
  'tcb-version.ts': 'TCB version',
  'guest-message.ts': 'Guest messages',
  'id-block.ts': 'ID block and ID authentication',
  'page-info.ts': 'Launch digest',
  'secrets-page.ts': 'Secrets page',
  'cpuid-page.ts': 'CPUID page',
  'vmsa.ts': 'VMSA page',
  'snp-commands.ts': 'Firmware commands',
  'firmware-image.ts': 'Firmware image',
  'rmp-entry.ts': 'Reverse map table',
  'msrs.ts': 'Model-specific registers',
  'ghcb.ts': 'GHCB page',
  'ghcb-msr.ts': 'GHCB MSR protocol',
  'psc.ts': 'Page state change',
  'cert-table.ts': 'Certificate table',
  'kvm-sev.ts': 'KVM: memory encryption commands',
  'kvm-structs.ts': 'KVM: other structures',
  'kvm-run.ts': 'KVM: kvm_run',
  'dev-sev.ts': '/dev/sev',
  'dev-sev-guest.ts': '/dev/sev-guest',
  'sev-certificate.ts': 'Certificates of legacy SEV',
  'fuse.ts': '/dev/fuse',
};

/** Tables whose numbers are results, in reading order; the other tables are numbers of another kind. */
const RESULT_TABLES = [
  'GhcbResponse',
  'GhcbMalformed',
  'SnpGuestVmmErr',
  'PscResult',
  'TermReasonSet',
  'TermReasonGen',
  'TermReasonLinux',
  'RmpResult',
  'NpfErrorCode',
  'KvmExit',
  'KvmExitV15',
  'KvmExitV10',
  'KvmSystemEvent',
  'KvmInternalError',
  'KvmHypercallErr',
  'Errno',
];

interface SourceFile {
  readonly name: string;
  readonly intro: string;
  readonly exports: readonly string[];
  /** Exported name -> paragraphs of its docstring. */
  readonly docs: ReadonlyMap<string, string>;
  /** "Table.MEMBER" -> its docstring. */
  readonly members: ReadonlyMap<string, string>;
}

/** Text of a comment: its paragraphs, without those that only cite the source. */
const commentText = (raw: string): string =>
  raw
    .split('\n')
    .map((line) => line.replace(/^\s*\*? ?/, ''))
    .join('\n')
    .split(/\n\s*\n/)
    .map((paragraph) => paragraph.trim().replace(/\s+/g, ' '))
    .filter((paragraph) => paragraph !== '' && !/^Source /.test(paragraph))
    .join('\n\n');

function readSource(name: string): SourceFile {
  const text = readFileSync(new URL(`../../src/abi/${name}`, import.meta.url), 'utf8');
  const docs = new Map<string, string>();
  const members = new Map<string, string>();
  for (const [, raw, exported] of text.matchAll(/\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\nexport const (\w+)/g)) {
    docs.set(exported!, commentText(raw!));
  }
  for (const [, table, body] of text.matchAll(
    /export const (\w+) = Object\.freeze\(\{\n([\s\S]*?)\n\} as const\)/g,
  )) {
    for (const [, raw, member] of body!.matchAll(/\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*(\w+):/g)) {
      members.set(`${table}.${member}`, commentText(raw!));
    }
  }
  const head = /^\/\/ SPDX[^\n]*\n\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n(?!export)/.exec(text);
  const exports = [...text.matchAll(/^export const (\w+)/gm)].map(([, exported]) => exported!);
  return { name, intro: head === null ? '' : commentText(head[1]!), exports, docs, members };
}

const sourceFiles: readonly SourceFile[] = readdirSync(new URL('../../src/abi/', import.meta.url))
  .filter((file) => file.endsWith('.ts') && file !== 'index.ts' && !file.endsWith('.test.ts'))
  .sort()
  .map(readSource);

const declaredIn: ReadonlyMap<string, SourceFile> = new Map(
  sourceFiles.flatMap((file) => file.exports.map((name) => [name, file] as const)),
);

/** The file that declares an exported name. */
function fileOf(exported: string): SourceFile {
  const file = declaredIn.get(exported);
  invariant(file !== undefined, `${exported} is declared in no file of src/abi`);
  return file;
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n\n', ' ');

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [
    `| ${head.join(' | ')} |`,
    `|${head.map(() => '---').join('|')}|`,
    ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
  ].join('\n');
}

const anchor = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-');

const link = (name: string): string => `[${name}](#${anchor(name)})`;

const hexOffset = (offset: number, size: number): string =>
  `0x${offset
    .toString(16)
    .toUpperCase()
    .padStart(Math.max(2, (size - 1).toString(16).length), '0')}`;

const bitRange = (lo: number, width: number): string =>
  width === 1 ? `bit ${lo}` : `bits ${lo + width - 1}:${lo}`;

/** Rows of the bits of a word: named ones and the ranges between them. */
function bitRows(word: Word, prefix = ''): { range: string; field: string; note: string }[] {
  const named = Object.entries(word.bits).map(([name, [lo, width]]) => ({
    lo,
    width,
    field: `\`${prefix}${name}\``,
    note: '',
  }));
  const rest: { lo: number; width: number; field: string; note: string }[] = [];
  for (const [mask, note] of [
    [word.reservedZeros, word.reserved === 'mbz' ? 'must be zero' : 'not judged'],
    [word.reservedOnes, word.reserved === 'mbz' ? 'must be one' : 'not judged'],
  ] as const) {
    for (let bit = 0; bit < 8 * word.size; bit++) {
      if (((mask >> BigInt(bit)) & 1n) === 0n) {
        continue;
      }
      const last = rest.at(-1);
      if (last !== undefined && last.note === note && last.lo + last.width === bit) {
        rest[rest.length - 1] = { ...last, width: last.width + 1 };
      } else {
        rest.push({ lo: bit, width: 1, field: '*reserved*', note });
      }
    }
  }
  return [...named, ...rest]
    .sort((a, b) => a.lo - b.lo)
    .map(({ lo, width, field, note }) => ({ range: bitRange(lo, width), field, note }));
}

function typeCell(codec: Codec<unknown>): string {
  if (codec.layout !== undefined) {
    return codec.count === undefined
      ? link(codec.layout.name)
      : `${link(codec.layout.name)} × ${codec.count}`;
  }
  const word = words.find(({ value }) => (value as unknown) === codec);
  return word === undefined ? codec.type : link(word.name);
}

function layoutRows(layout: Layout<FieldTable>): string[][] {
  const judged = layout.source.gaps !== 'ignore';
  const fields = Object.entries(layout.fields).map(([name, [offset, codec, note]]) => ({
    offset,
    rows: [
      [hexOffset(offset, layout.size), String(codec.size), typeCell(codec), `\`${name}\``, note ?? ''],
      ...(codec.bits === undefined || words.some(({ value }) => (value as unknown) === codec)
        ? []
        : bitRows(codec as Word, `${name}.`).map(({ range, field, note: why }) => [
            '',
            '',
            range,
            field,
            why,
          ])),
    ],
  }));
  const gaps = layout.gaps.map(([from, to]) => ({
    offset: from,
    rows: [
      [
        hexOffset(from, layout.size),
        String(to - from),
        '',
        '*reserved*',
        judged ? 'must be zero' : 'not judged',
      ],
    ],
  }));
  return [...fields, ...gaps].sort((a, b) => a.offset - b.offset).flatMap(({ rows }) => rows);
}

const sourceAnchor = (tag: string): string => `source-${anchor(tag)}`;

function citation(layout: Layout<FieldTable>): string {
  const { spec, at, c } = layout.source;
  const checked = c === undefined ? '' : ` Compared with \`struct ${c.struct}\` of \`<${c.header}>\`.`;
  return `${layout.size} bytes (0x${layout.size.toString(16)}). Source: [${spec}](#${sourceAnchor(spec)}) ${at}.${checked}`;
}

const paragraphs = (...parts: readonly (string | undefined)[]): string =>
  parts.filter((part) => part !== undefined && part !== '').join('\n\n');

function bibliography(): string {
  const rows = Object.entries(SOURCES as Readonly<Record<string, Source>>).map(
    ([tag, source]) =>
      `- <a id="${sourceAnchor(tag)}"></a>**${tag}**: [${source.title}](${source.url})${source.number === null ? '' : `, publication ${source.number}`}, revision ${source.revision}, ${source.date}`,
  );
  return paragraphs('## Sources', rows.join('\n'));
}

/** docs/reference/layouts.md. */
export function renderLayouts(): string {
  const order = Object.keys(LAYOUT_SECTIONS);
  const files = [...sourceFiles].sort((a, b) => {
    const [i, j] = [order.indexOf(a.name), order.indexOf(b.name)];
    return (i < 0 ? order.length : i) - (j < 0 ? order.length : j) || (a.name < b.name ? -1 : 1);
  });
  const sections = files.flatMap((file) => {
    const own = [
      ...words
        .filter(({ name }) => fileOf(name) === file)
        .map(({ name, value }) =>
          paragraphs(
            `### ${name}`,
            file.docs.get(name),
            `A word of ${8 * value.size} bits.`,
            table(
              ['Bits', 'Field', 'Note'],
              bitRows(value).map(({ range, field, note }) => [range.replace(/^bits? /, ''), field, note]),
            ),
          ),
        ),
      ...layouts
        .filter(({ name }) => fileOf(name) === file)
        .map(({ name, value }) =>
          paragraphs(
            `### ${name}`,
            file.docs.get(name),
            citation(value),
            table(['Offset', 'Bytes', 'Type', 'Field', 'Note'], layoutRows(value)),
          ),
        ),
    ];
    const names = [...words, ...layouts].filter(({ name }) => fileOf(name) === file).map(({ name }) => name);
    const title = LAYOUT_SECTIONS[file.name] ?? file.name;
    return own.length === 0
      ? []
      : [
          {
            title,
            names,
            text: paragraphs(`## ${title}`, file.intro, `Declared in \`src/abi/${file.name}\`.`, ...own),
          },
        ];
  });
  return `${paragraphs(
    NOTICE,
    '# Layouts',
    `${layouts.length} structures and ${words.length} bit words, as \`softsnp/abi\` declares them. Integers are little-endian and structures packed; offsets are in bytes from the start of the structure. *Reserved* says what happens to bytes and bits that have no name: where they *must be zero*, decoding refuses anything else and names the offset; where they are *not judged*, decoding neither looks at them nor keeps them.`,
    sections.map(({ title, names }) => `- ${link(title)}: ${names.map(link).join(', ')}`).join('\n'),
    ...sections.map(({ text }) => text),
    bibliography(),
  )}\n`;
}

const number = (value: number | bigint, width: number): string =>
  `0x${value.toString(16).toUpperCase().padStart(width, '0')}`;

function tableSection(name: string): string {
  const { value } = codeTables.find((entry) => entry.name === name)!;
  const file = fileOf(name);
  const wide = Object.values(value).some((v) => v > 9);
  const width = Math.max(...Object.values(value).map((v) => v.toString(16).length));
  const notes = Object.keys(value).map((member) => file.members.get(`${name}.${member}`) ?? '');
  const withNotes = notes.some((note) => note !== '');
  return paragraphs(
    `### ${name}`,
    file.docs.get(name),
    table(
      ['Value', ...(wide ? ['Decimal'] : []), 'Name', ...(withNotes ? ['Note'] : [])],
      Object.entries(value).map(([member, v], i) => [
        wide ? number(v, width) : String(v),
        ...(wide ? [String(v)] : []),
        `\`${member}\``,
        ...(withNotes ? [notes[i]!] : []),
      ]),
    ),
  );
}

/** docs/reference/status-codes.md. */
export function renderStatusCodes(): string {
  const others = codeTables
    .map(({ name }) => name)
    .filter((name) => !RESULT_TABLES.includes(name) && name !== 'SevRet')
    .sort((a, b) => {
      const [i, j] = [fileOf(a).name, fileOf(b).name];
      return i < j ? -1 : i > j ? 1 : 0;
    });
  const single = constants
    .filter(({ name }) => /^[A-Z0-9_]+$/.test(name))
    .map(({ name, value }) => ({ name, value, file: fileOf(name) }))
    .sort((a, b) => (a.file.name < b.file.name ? -1 : a.file.name > b.file.name ? 1 : 0));
  return `${paragraphs(
    NOTICE,
    '# Status codes and numbers',
    'What the modelled machine answers is a number of one of these tables, never an exception: exceptions are in [errors.md](errors.md). Names are those of the specifications and of Linux.',
    '## Firmware status',
    'Comes back from every command, in `fw_error`, in the low half of SW_EXITINFO2 and as STATUS of guest message responses.',
    table(
      ['Value', 'Name', 'Meaning'],
      [
        ...SEV_RET_TABLE.map((row) => [number(row.value, 2), `\`${row.name}\``, row.meaning]),
        [
          number(SEV_RET_NO_FW_CALL, 8),
          '`SEV_RET_NO_FW_CALL`',
          'Linux’s own value: the firmware was never reached.',
        ],
      ],
    ),
    '## Other results',
    ...RESULT_TABLES.map(tableSection),
    '## Numbers by which one side asks the other',
    ...others.map(tableSection),
    '## Single numbers',
    table(
      ['Name', 'Value', 'What it is'],
      single.map(({ name, value, file }) => [
        `\`${name}\``,
        value > 9 ? `${number(value, 0)} (${value})` : String(value),
        file.docs.get(name) ?? '',
      ]),
    ),
  )}\n`;
}

/** docs/reference/errors.md. */
export function renderErrors(): string {
  const rows = Object.entries(ERROR_CODES as Readonly<Record<string, ErrorCodeRow>>);
  const kinds = {
    input: ['InputError', 'Malformed bytes, text or arguments from a caller or a peer.'],
    environment: ['EnvironmentError', 'The host lacks something: a file, a lock, a library, a permission.'],
    bug: ['BugError', 'A defect in softsnp itself.'],
  } as const;
  return `${paragraphs(
    NOTICE,
    '# Errors',
    'Every exception softsnp throws carries one of these codes in `code`, what it is about in `where`, and what to do in `action`. A code is never renamed or used for something else. What the modelled machine does wrong is not an exception but a result: see [status-codes.md](status-codes.md). *Exit* is the exit code of the command line when the error ends it.',
    ...Object.entries(kinds).flatMap(([kind, [name, meaning]]) => [
      `## ${name}`,
      meaning,
      table(
        ['Code', 'Exit', 'Action'],
        rows
          .filter(([, row]) => row.kind === kind)
          .map(([code, row]) => [`\`${code}\``, String(row.exit), row.action]),
      ),
    ]),
  )}\n`;
}

/** Every generated page: its path under docs/reference and its text. */
export const PAGES: Readonly<Record<string, () => string>> = {
  'layouts.md': renderLayouts,
  'status-codes.md': renderStatusCodes,
  'errors.md': renderErrors,
};
