// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type BitString,
  Constructed,
  fromBER,
  type IA5String,
  type Integer,
  type ObjectIdentifier,
  type OctetString,
  Sequence,
  type UTCTime,
} from 'asn1js';
import { afterAll, describe, expect, it } from 'vitest';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import type { TcbParts } from '../abi/tcb-version.ts';
import { toPem } from '../certs/pem.ts';
import { chipIdOf, descend, endorsementKey, topStick } from '../keys/index.ts';
import { toHex } from '../lib/bytes.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import { CA_ROLES, CA_ROWS, caTbsCertificate } from './ca-certificate.ts';
import { embeddedAuthority, issueCrl, issueVcek, issueVlek, TEST_ROOT_COMMENT } from './index.ts';
import { yearsAfter } from './x509.ts';

const crypto = nodeCrypto({ deterministic: true });
const chipSecret = seededRandom(1).bytes(48);
const notBeforeMs = Date.UTC(2026, 0, 2, 3, 4, 5);

function issued(product: ProductLine, kind: 'VCEK' | 'VLEK', seed = 7) {
  const authority = embeddedAuthority(product);
  const tcb = { fmc: product === 'Turin' ? 1 : 0, boot_loader: 3, tee: 0, snp: 23, microcode: 213 };
  const chipId = chipIdOf(crypto, chipSecret, product);
  const key = endorsementKey(crypto, descend(crypto, topStick(crypto, chipSecret, product), tcb)!, kind);
  const request = { authority, tcb, publicPoint: key.publicPoint, notBeforeMs, random: seededRandom(seed) };
  return {
    authority,
    key,
    chipId,
    issuer: kind === 'VCEK' ? authority.ask : authority.asvk,
    certificate:
      kind === 'VCEK'
        ? issueVcek({ ...request, chipId })
        : issueVlek({ ...request, csp: 'CN=softsnp.example' }),
  };
}

const children = (node: unknown): Sequence[] => (node as Sequence).valueBlock.value as Sequence[];
const parsed = (der: Uint8Array): Sequence => fromBER(der).result as Sequence;
const encoded = (node: Sequence): Uint8Array => new Uint8Array(node.toBER());

/** The signed part of a certificate or list, as bytes of the original. */
function tbsOf(der: Uint8Array): Uint8Array {
  const [tbs] = children(parsed(der));
  return (tbs as unknown as { valueBeforeDecodeView: Uint8Array }).valueBeforeDecodeView;
}

/** The signed part without its last extension, which is the remark that AMD does not make. */
function tbsWithoutRemark(tbs: Uint8Array): Uint8Array {
  // New nodes, because a parsed one keeps the length of its length.
  const fields = children(parsed(tbs));
  const [extensions] = children(fields.at(-1));
  const kept = new Sequence({ value: children(extensions).slice(0, -1) });
  const { tagNumber } = fields.at(-1)!.idBlock;
  const tagged = new Constructed({ idBlock: { tagClass: 3, tagNumber }, value: [kept] });
  return encoded(new Sequence({ value: [...fields.slice(0, -1), tagged] }));
}

interface LeafFields {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly publicPoint: Uint8Array;
  /** extnValue by the OID's last arcs under AMD's. */
  readonly amd: ReadonlyMap<string, Uint8Array>;
  readonly extensionOids: readonly string[];
}

function leafFields(der: Uint8Array): LeafFields {
  const fields = children(children(parsed(der))[0]);
  const [notBefore, notAfter] = children(fields[4]) as unknown as UTCTime[];
  const extensions = children(children(fields.at(-1))[0]).map((extension) => {
    const [type, value] = children(extension) as unknown as [ObjectIdentifier, OctetString];
    return [type.valueBlock.toString(), new Uint8Array(value.valueBlock.valueHexView)] as const;
  });
  const point = children(fields[6])[1] as unknown as BitString;
  return {
    notBeforeMs: notBefore!.toDate().getTime(),
    notAfterMs: notAfter!.toDate().getTime(),
    publicPoint: new Uint8Array(point.valueBlock.valueHexView),
    amd: new Map(extensions.map(([type, value]) => [type.replace('1.3.6.1.4.1.3704.1.', ''), value])),
    extensionOids: extensions.map(([type]) => type),
  };
}

const integerIn = (der: Uint8Array | undefined): number =>
  der === undefined ? 0 : (fromBER(der).result as Integer).valueBlock.valueDec;
const textIn = (der: Uint8Array): string => (fromBER(der).result as IA5String).valueBlock.value;

const tcbIn = (amd: ReadonlyMap<string, Uint8Array>): TcbParts => ({
  fmc: integerIn(amd.get('3.9')),
  boot_loader: integerIn(amd.get('3.1')),
  tee: integerIn(amd.get('3.2')),
  snp: integerIn(amd.get('3.3')),
  microcode: integerIn(amd.get('3.8')),
});

describe.each(PRODUCT_LINES)('the test authority of %s', (product) => {
  const authority = embeddedAuthority(product);
  const ark = new X509Certificate(authority.ark);

  it('has an ARK signed by itself, and an ASK and ASVK signed by the ARK', () => {
    for (const [role, der] of [
      ['ARK', authority.ark],
      ['ASK', authority.ask],
      ['ASVK', authority.asvk],
    ] as const) {
      const certificate = new X509Certificate(der);
      expect(certificate.verify(ark.publicKey)).toBe(true);
      expect(certificate.checkIssued(ark)).toBe(true);
      expect(certificate.ca).toBe(true);
      expect(certificate.publicKey.asymmetricKeyDetails).toMatchObject({ modulusLength: 4096 });
      expect(Number.parseInt(certificate.serialNumber, 16)).toBe(CA_ROWS[product][role].serial);
    }
  });

  it('says what it is in an nsComment extension of every CA certificate', () => {
    for (const der of [authority.ark, authority.ask, authority.asvk]) {
      expect(leafFields(der).extensionOids.at(-1)).toBe('2.16.840.1.113730.1.13');
      expect(Buffer.from(der).includes(TEST_ROOT_COMMENT)).toBe(true);
    }
  });

  it('stores the certificates that its profile describes', () => {
    const spki = (der: Uint8Array): Uint8Array =>
      Uint8Array.from(new X509Certificate(der).publicKey.export({ format: 'der', type: 'spki' }));
    for (const role of CA_ROLES) {
      const der = { ARK: authority.ark, ASK: authority.ask, ASVK: authority.asvk }[role];
      const expected = caTbsCertificate(product, role, spki(der), spki(authority.ark));
      expect(toHex(tbsOf(der))).toBe(toHex(expected));
    }
  });

  it.each(['VCEK', 'VLEK'] as const)('issues a %s certificate that node:crypto verifies', (kind) => {
    const { certificate, issuer, key } = issued(product, kind);
    const leaf = new X509Certificate(certificate);
    const ca = new X509Certificate(issuer);
    expect(leaf.verify(ca.publicKey)).toBe(true);
    expect(leaf.checkIssued(ca)).toBe(true);
    expect(Number.parseInt(leaf.serialNumber, 16)).toBe(0);
    expect(leaf.subject).toBe(
      `OU=Engineering\nC=US\nL=Santa Clara\nST=CA\nO=Advanced Micro Devices\nCN=SEV-${kind}`,
    );
    expect(leaf.publicKey.asymmetricKeyDetails).toEqual({ namedCurve: 'secp384r1' });
    expect(toHex(leafFields(certificate).publicPoint)).toBe(toHex(key.publicPoint));
    expect(new Date(leaf.validFrom).getTime()).toBe(notBeforeMs);
    expect(new Date(leaf.validTo).getTime()).toBe(yearsAfter(notBeforeMs, kind === 'VCEK' ? 7 : 1));
    expect(Buffer.from(certificate).includes(TEST_ROOT_COMMENT)).toBe(true);
  });

  it('gives a VCEK its HWID raw, a VLEK its CSP_ID, and each the other product name', () => {
    const vcek = issued(product, 'VCEK');
    const { amd } = leafFields(vcek.certificate);
    const hwid = amd.get('4')!;
    expect(toHex(hwid)).toBe(toHex(vcek.chipId.subarray(0, product === 'Turin' ? 8 : 64)));
    expect(textIn(amd.get('2')!)).toBe({ Milan: 'Milan-B0', Genoa: 'Genoa', Turin: 'Turin' }[product]);
    expect(amd.has('5')).toBe(false);
    const vlek = leafFields(issued(product, 'VLEK').certificate).amd;
    expect(textIn(vlek.get('5')!)).toBe('CN=softsnp.example');
    expect(textIn(vlek.get('2')!)).toBe(product);
    expect(vlek.has('4')).toBe(false);
  });

  it('has no extension in an endorsement certificate that go-sev-guest refuses', () => {
    for (const kind of ['VCEK', 'VLEK'] as const) {
      const foreign = leafFields(issued(product, kind).certificate).extensionOids.filter(
        (type) => !type.startsWith('1.3.6.1.4.1.3704.1.'),
      );
      // It skips the authority key identifier and calls any other one "not an AMD KDS OID".
      expect(foreign).toEqual(['2.5.29.35']);
    }
  });

  it('issues the same bytes for the same randomness, and others for another', () => {
    expect(issued(product, 'VCEK', 1).certificate).toEqual(issued(product, 'VCEK', 1).certificate);
    expect(issued(product, 'VCEK', 1).certificate).not.toEqual(issued(product, 'VCEK', 2).certificate);
  });
});

describe('dates', () => {
  it('keep day and time over the years, and 29 February becomes the 28th', () => {
    const later = (text: string, years: number): string =>
      new Date(yearsAfter(Date.parse(text), years)).toISOString();
    expect(later('2024-02-29T01:22:08Z', 7)).toBe('2031-02-28T01:22:08.000Z');
    expect(later('2024-02-29T01:22:08Z', 4)).toBe('2028-02-29T01:22:08.000Z');
    expect(later('2025-12-31T23:59:59Z', 1)).toBe('2026-12-31T23:59:59.000Z');
  });

  it('from 2050 on are GeneralizedTime, and whole seconds always', () => {
    const { authority, key, chipId } = issued('Milan', 'VCEK');
    const certificate = issueVcek({
      authority,
      chipId,
      tcb: { fmc: 0, boot_loader: 0, tee: 0, snp: 0, microcode: 0 },
      publicPoint: key.publicPoint,
      notBeforeMs: Date.UTC(2049, 11, 31, 23, 59, 59, 999),
      random: seededRandom(1),
    });
    const text = Buffer.from(certificate);
    expect(text.includes('\x17\x0d491231235959Z')).toBe(true);
    expect(text.includes('\x18\x0f20561231235959Z')).toBe(true);
  });
});

const vectors = fileURLToPath(new URL('../../../shared/vectors/', import.meta.url));
const haveVectors = existsSync(vectors);
if (!haveVectors) {
  console.warn(`SKIPPED: genuine AMD certificates are not at ${vectors}`);
}

describe.skipIf(!haveVectors)('beside AMD, byte for byte but for the remark and the signature,', () => {
  const files = haveVectors
    ? readdirSync(vectors, { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.der'))
    : [];
  const genuine = (pattern: RegExp): Uint8Array[] =>
    files.filter((f) => pattern.test(f)).map((f) => Uint8Array.from(readFileSync(join(vectors, f))));
  const productIn = (der: Uint8Array): ProductLine =>
    PRODUCT_LINES.find((product) => new X509Certificate(der).issuer.endsWith(`-${product}`))!;

  it('the CA certificates are built as ARK, ASK and ASVK of the three product lines are', () => {
    for (const product of PRODUCT_LINES) {
      const [ark] = genuine(new RegExp(`/ark-${product}-`, 'i'));
      const spki = (der: Uint8Array): Uint8Array =>
        Uint8Array.from(new X509Certificate(der).publicKey.export({ format: 'der', type: 'spki' }));
      for (const role of CA_ROLES) {
        const { serial } = CA_ROWS[product][role];
        const [theirs] = genuine(new RegExp(`/${role}-${product}-`, 'i')).filter(
          (der) => Number.parseInt(new X509Certificate(der).serialNumber, 16) === serial,
        );
        const ours = caTbsCertificate(product, role, spki(theirs!), spki(ark!));
        expect(toHex(tbsWithoutRemark(ours))).toBe(toHex(tbsOf(theirs!)));
      }
    }
  });

  it('endorsement certificates are built as every genuine one signed since November 2024', () => {
    const explicitTrailer = '304606092a864886f70d01010a3039';
    const current = genuine(/\/(vcek|vlek)-/).filter((der) => !toHex(der).includes(explicitTrailer));
    expect(current.length).toBeGreaterThan(20);
    for (const theirs of current) {
      const { amd, notBeforeMs: from, publicPoint, notAfterMs } = leafFields(theirs);
      const authority = embeddedAuthority(productIn(theirs));
      const request = { authority, tcb: tcbIn(amd), publicPoint, notBeforeMs: from, random: seededRandom(1) };
      const hwid = amd.get('4');
      const chipId = new Uint8Array(64);
      chipId.set(hwid ?? []);
      const ours =
        hwid === undefined
          ? issueVlek({ ...request, csp: textIn(amd.get('5')!) })
          : issueVcek({ ...request, chipId });
      expect(notAfterMs).toBe(leafFields(ours).notAfterMs);
      expect(toHex(tbsWithoutRemark(tbsOf(ours)))).toBe(toHex(tbsOf(theirs)));
      expect(signatureAlgorithm(ours)).toBe(signatureAlgorithm(theirs));
    }
  });

  it('endorsement certificates have the extensions of the older ones too, in their order', () => {
    const ours = new Map<string, readonly string[]>();
    for (const product of PRODUCT_LINES) {
      ours.set(`${product} HWID`, leafFields(issued(product, 'VCEK').certificate).extensionOids.slice(0, -1));
      ours.set(`${product} CSP`, leafFields(issued(product, 'VLEK').certificate).extensionOids.slice(0, -1));
    }
    for (const theirs of genuine(/\/(vcek|vlek)-/)) {
      const { amd, extensionOids } = leafFields(theirs);
      expect(extensionOids).toEqual(ours.get(`${productIn(theirs)} ${amd.has('4') ? 'HWID' : 'CSP'}`));
    }
  });

  it('revocation lists are built as the genuine ones', () => {
    const lists = genuine(/\/crl-ark-/);
    expect(lists.length).toBeGreaterThan(3);
    for (const theirs of lists) {
      const fields = children(children(parsed(theirs))[0]);
      const at = (node: unknown): number => (node as UTCTime).toDate().getTime();
      const extensions = children(children(fields.at(-1))[0]);
      const number = children(extensions[1])[1] as unknown as OctetString;
      const revoked = fields.length === 7 ? children(fields[5]) : [];
      const product: ProductLine = Buffer.from(theirs).includes('ARK-Milan') ? 'Milan' : 'Genoa';
      const [ark] = genuine(new RegExp(`/ark-${product}-`, 'i'));
      const ours = issueCrl({
        // Their ARK certificate, for the key identifier in the list.
        authority: { ...embeddedAuthority(product), ark: ark! },
        revokedSerials: revoked.map((entry) => ({
          serial: Number.parseInt(
            toHex((children(entry)[0] as unknown as Integer).valueBlock.valueHexView),
            16,
          ),
          revokedMs: at(children(entry)[1]),
        })),
        thisUpdateMs: at(fields[3]),
        nextUpdateMs: at(fields[4]),
        number: integerIn(number.valueBlock.valueHexView),
        random: seededRandom(1),
      });
      expect(toHex(tbsWithoutRemark(tbsOf(ours)))).toBe(toHex(tbsOf(theirs)));
    }
  });

  const signatureAlgorithm = (der: Uint8Array): string => toHex(encoded(children(parsed(der))[1]!));
});

const haveOpenssl = spawnSync('openssl', ['version']).status === 0;
if (!haveOpenssl) {
  console.warn('SKIPPED: openssl is not installed');
}

describe.skipIf(!haveOpenssl)('openssl', () => {
  const folder = mkdtempSync(join(tmpdir(), 'softsnp-kds-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const openssl = (...args: string[]): { status: number | null; text: string } => {
    const { status, stdout, stderr } = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' });
    return { status, text: stdout + stderr };
  };

  it.each(PRODUCT_LINES)('verifies the chains of %s and shows the remark in every certificate', (product) => {
    const authority = embeddedAuthority(product);
    for (const kind of ['VCEK', 'VLEK'] as const) {
      const { certificate, issuer } = issued(product, kind);
      writeFileSync(join(folder, 'ark.pem'), toPem(authority.ark));
      writeFileSync(join(folder, 'issuer.pem'), toPem(issuer));
      writeFileSync(join(folder, 'leaf.pem'), toPem(certificate));
      const at = `${notBeforeMs / 1000 + 1}`;
      expect(
        openssl('verify', '-attime', at, '-CAfile', 'ark.pem', '-untrusted', 'issuer.pem', 'leaf.pem').text,
      ).toBe('leaf.pem: OK\n');
      for (const name of ['ark.pem', 'issuer.pem', 'leaf.pem']) {
        expect(openssl('x509', '-noout', '-text', '-in', name).text).toMatch(
          /Netscape Comment:+\s*softsnp TEST ROOT, NOT AMD/,
        );
      }
    }
  });

  it('finds an ASK revoked that the ARK has put on the list, and no other', () => {
    const authority = embeddedAuthority('Milan');
    const crl = issueCrl({
      authority,
      revokedSerials: [{ serial: CA_ROWS.Milan.ASK.serial, revokedMs: notBeforeMs }],
      thisUpdateMs: notBeforeMs,
      nextUpdateMs: yearsAfter(notBeforeMs, 1),
      number: 300,
      random: seededRandom(1),
    });
    writeFileSync(join(folder, 'ark.pem'), toPem(authority.ark));
    writeFileSync(join(folder, 'ask.pem'), toPem(authority.ask));
    writeFileSync(join(folder, 'asvk.pem'), toPem(authority.asvk));
    writeFileSync(join(folder, 'crl.pem'), toPem(crl, 'X509 CRL'));
    const check = (name: string) =>
      openssl(
        'verify',
        '-attime',
        `${notBeforeMs / 1000 + 1}`,
        '-crl_check',
        '-CAfile',
        'ark.pem',
        '-CRLfile',
        'crl.pem',
        name,
      );
    expect(check('asvk.pem').text).toBe('asvk.pem: OK\n');
    expect(check('ask.pem').text).toContain('certificate revoked');
    expect(openssl('crl', '-noout', '-text', '-in', 'crl.pem').text).toMatch(/X509v3 CRL Number:\s+300/);
  });
});
