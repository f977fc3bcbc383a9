// SPDX-License-Identifier: Apache-2.0
/** Certificate tables. */
import { ARK_GUID, ASK_GUID, VCEK_GUID, VLEK_GUID } from '../../abi/cert-table.ts';
import { encodeCertificateTable } from '../../certs/table.ts';
import { concat, fromHex, toHex, utf8, writeU32 } from '../../lib/bytes.ts';
import type { FindingCode } from '../../verify/findings.ts';
import type { Cases, VectorCase } from './case.ts';

export function* tableCases(cases: Cases): Generator<VectorCase> {
  const { forge } = cases;
  const { ask, ark } = forge.authority;
  const leaf = forge.leaf();
  const entries = [
    { guid: VCEK_GUID, data: leaf },
    { guid: ASK_GUID, data: ask },
    { guid: ARK_GUID, data: ark },
  ];
  const good = encodeCertificateTable(entries);
  const edited = (change: (table: Uint8Array) => void): Uint8Array => {
    const table = good.slice();
    change(table);
    return table;
  };
  const row = (
    title: string,
    what: string,
    table: Uint8Array,
    expected: readonly FindingCode[],
  ): VectorCase => cases.case(`table-${title}`, what, { table }, expected);
  yield row('good', 'VCEK, ASK and ARK.', good, []);
  yield row(
    'padded',
    'The same, padded to whole pages.',
    concat(good, new Uint8Array(-good.length & 0xfff)),
    [],
  );
  // Of a table that contradicts itself nothing is used.
  const invalid: readonly FindingCode[] = ['CERT_TABLE_INVALID', 'INTERMEDIATE_MISSING', 'LEAF_MISSING'];
  yield row(
    'offset-wraps',
    'Offset 0xFFFFFFFE and length 3.',
    edited((t) => {
      writeU32(t, 16, 0xfffffffe);
      writeU32(t, 20, 3);
    }),
    invalid,
  );
  yield row(
    'offset-max',
    'Offset 0xFFFFFFFF and length 1.',
    edited((t) => {
      writeU32(t, 16, 0xffffffff);
      writeU32(t, 20, 1);
    }),
    invalid,
  );
  yield row(
    'offset-half',
    'Offset and length 0x80000000: their sum is 0 in 32 bits.',
    edited((t) => {
      writeU32(t, 16, 0x80000000);
      writeU32(t, 20, 0x80000000);
    }),
    invalid,
  );
  yield row(
    'into-header',
    'An entry that points into the header.',
    edited((t) => writeU32(t, 16, 24)),
    invalid,
  );
  yield row(
    'overlap',
    'Two entries with the same contents.',
    edited((t) => t.copyWithin(40, 16, 24)),
    invalid,
  );
  yield row('no-terminator', 'Cut off before the zero entry.', good.subarray(0, 72), invalid);
  yield row('empty', 'Only the zero entry.', new Uint8Array(24), ['LEAF_MISSING', 'INTERMEDIATE_MISSING']);
  yield row('no-bytes', 'No bytes.', new Uint8Array(0), invalid);
  yield row('23-zeros', 'A byte less than the zero entry.', new Uint8Array(23), invalid);
  yield row('25-zeros', 'The zero entry and a byte.', new Uint8Array(25), [
    'INTERMEDIATE_MISSING',
    'LEAF_MISSING',
  ]);
  yield row('all-ff', 'Bytes of FF.', new Uint8Array(16384).fill(0xff), invalid);
  yield row(
    'guid-little-endian',
    'The GUIDs in EFI byte order: nothing is recognised.',
    edited((t) => {
      for (let i = 0; i < 72; i += 24) {
        swapGuid(t.subarray(i, i + 16));
      }
    }),
    ['INTERMEDIATE_MISSING', 'LEAF_MISSING'],
  );
  yield row(
    'vcek-guid-little-endian',
    'The GUID of the VCEK alone in EFI byte order.',
    edited((t) => swapGuid(t.subarray(0, 16))),
    ['LEAF_MISSING'],
  );
  const unknown = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      guid: `00112233-4455-6677-8899-aabbccddee${toHex(Uint8Array.of(i))}`,
      data: Uint8Array.of(i),
    }));
  yield row(
    'unknown-guid',
    'An entry that nobody knows beside the three.',
    encodeCertificateTable([...entries, ...unknown(1)]),
    [],
  );
  yield row(
    '16-entries',
    'The three, and thirteen that nobody knows.',
    encodeCertificateTable([...entries, ...unknown(13)]),
    [],
  );
  yield row('17-entries', 'One more.', rawTable([...entries, ...unknown(14)]), invalid);
  yield row(
    'vcek-twice',
    'Two different certificates under the GUID of the VCEK.',
    rawTable([...entries, { guid: VCEK_GUID, data: forge.leaf('VCEK', { productName: 'Milan-B1' }) }]),
    invalid,
  );
  yield row(
    'vlek-in-vcek-slot',
    'A VLEK under the GUID of the VCEK.',
    encodeCertificateTable([
      { guid: VCEK_GUID, data: forge.leaf('VLEK') },
      { guid: ASK_GUID, data: forge.authority.asvk },
      { guid: ARK_GUID, data: ark },
    ]),
    ['CERT_SLOT_MISMATCH', 'CERT_KIND_MISMATCH', 'SIGNATURE_MISMATCH'],
  );
  yield row(
    'ask-in-ark-slot',
    'ASK and ARK have changed places.',
    encodeCertificateTable([
      { guid: VCEK_GUID, data: leaf },
      { guid: ASK_GUID, data: ark },
      { guid: ARK_GUID, data: ask },
    ]),
    ['CERT_SLOT_MISMATCH'],
  );
  yield row(
    'vcek-in-vlek-slot',
    'A VCEK under the GUID of the VLEK.',
    encodeCertificateTable([
      { guid: VLEK_GUID, data: leaf },
      { guid: ASK_GUID, data: ask },
      { guid: ARK_GUID, data: ark },
    ]),
    ['CERT_SLOT_MISMATCH'],
  );
  yield row(
    'garbage-leaf',
    'Something that is no certificate under the GUID of the VCEK.',
    rawTable([{ guid: VCEK_GUID, data: utf8('not a certificate') }, ...entries.slice(1)]),
    ['CERT_MALFORMED', 'LEAF_MISSING'],
  );
  yield row('many-entries', 'A hundred thousand entries.', manyEntries(100_000), invalid);
}

/** Turns a GUID in textual order into EFI's, where the first three numbers are little-endian. */
function swapGuid(guid: Uint8Array): void {
  guid.subarray(0, 4).reverse();
  guid.subarray(4, 6).reverse();
  guid.subarray(6, 8).reverse();
}

/** A table of whatever entries, without the checks of an honest writer. */
function rawTable(entries: readonly { readonly guid: string; readonly data: Uint8Array }[]): Uint8Array {
  const header = new Uint8Array(24 * (entries.length + 1));
  let offset = header.length;
  entries.forEach(({ guid, data }, i) => {
    header.set(fromHex(guid.replaceAll('-', '')), 24 * i);
    writeU32(header, 24 * i + 16, offset);
    writeU32(header, 24 * i + 20, data.length);
    offset += data.length;
  });
  return concat(header, ...entries.map(({ data }) => data));
}

function manyEntries(count: number): Uint8Array {
  const table = new Uint8Array(24 * count + 24 + 1);
  const guid = fromHex(VCEK_GUID.replaceAll('-', ''));
  for (let i = 0; i < count; i++) {
    table.set(guid, 24 * i);
    writeU32(table, 24 * i + 16, table.length - 1);
    writeU32(table, 24 * i + 20, 1);
  }
  return table;
}
