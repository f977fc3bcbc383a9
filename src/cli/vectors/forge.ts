// SPDX-License-Identifier: Apache-2.0
/**
 * Makes evidence that is wrong in exactly one respect, properly signed under softsnp's test roots: what a
 * verifier must refuse although every signature is good. Written as raw DER, because most of it is what
 * a library refuses to write.
 */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { type AttestationReportV5, type ReportVersion, reportLayout } from '../../abi/attestation-report.ts';
import type { ProductLine } from '../../abi/product.ts';
import { encodeTcb, type TcbParts } from '../../abi/tcb-version.ts';
import { fromPem, toPem } from '../../certs/pem.ts';
import { TEST_ROOT_COMMENT } from '../../certs/test-root.ts';
import { type CertificateAuthority, embeddedAuthority } from '../../kds/authority.ts';
import { CA_ROWS, type CaRole, caName } from '../../kds/ca-certificate.ts';
import { GENOA } from '../../kds/embedded/genoa.ts';
import { MILAN } from '../../kds/embedded/milan.ts';
import { TURIN } from '../../kds/embedded/turin.ts';
import { keyIdentifier, OID } from '../../kds/x509.ts';
import { chipIdOf, descend, endorsementKey, HWID_SIZE, topStick } from '../../keys/index.ts';
import { fromHex, reversed, utf8 } from '../../lib/bytes.ts';
import type { MachineCrypto, Random, SigningKey } from '../../lib/crypto.ts';
import { invariant } from '../../lib/errors.ts';
import { int, name, oid, tlv, utcTime, validity } from './der.ts';
import { SIGNINGS, type Signing, signRsa } from './signing.ts';

const EMBEDDED = { Milan: MILAN, Genoa: GENOA, Turin: TURIN } as const;

/** CPUID family, model and stepping of a part of each line. */
export const CPUID_OF: Readonly<Record<ProductLine, readonly [family: number, model: number, step: number]>> =
  {
    Milan: [0x19, 0x01, 1],
    Genoa: [0x19, 0x11, 1],
    Turin: [0x1a, 0x02, 1],
  };

/** When everything made here is verified: within the validity of all test authorities. */
export const VECTOR_TIME_MS = Date.UTC(2026, 0, 1);
const LEAF_FROM_MS = Date.UTC(2025, 6, 1);

/** Key size in which no authority of AMD's comes. Public test key, worth nothing. */
const RSA_2048 = `
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDKudESVukMEBoj9fg+iiqy9xtVeAY9zX/bUucbeMJ2SXVaeiPH
u4nXP0djVnZPUqIeBW8rFclPDEdydBPnpLK4T/wqX2CxjqLCB7YNNkmT7So39jwlWMdRJOep5XkUbvZgscX3XJmTwG6BoOBeZCcE
z0G6fLBrhQ4yflcT2EUy43v/162VD+XwMah6+Vhk6cqTy0+52+RVR1iDbaY4kFyj1RR8wIZIFmgBgPzu148eD66cgbdPh3YG9lNR
zr3+FUC+8vHqim6UsmcNoKc8L9P/QMhzT/EoOwf/izh/G3EJybQVjx2UpAVwRAOM9f150vD0yqKHJhTFOo4Lr00hzim/AgMBAAEC
ggEAFZrtEbfKeXsj1g5KSRv/hfg45Qh4HdEPXcf9kltx2hplE+Hte0Vc4OBBEvCthjGnzmxE10IopLCJ0sRVNLxEQclgdgGZNAMg
DG6287yD5eyCMdmfulk2UMsOl3g5ybgzsMVxdDXdtjXtcQo8r0KcN/KArkfIo4TYKQB29kn3wf704lHJv2aBMLksk3Q+S/mK9XwA
ZQAYlgcl7EXdT+mP/byRGV7QCGS1w9SypoQEK1p5/vuCHCmWLdYMxCuKPa/FS1XpAin2eH/UKmlhQCqW0JYllETXCO6s65BlKwDA
DoG1vngmVpNzIi6VMlO+gVibC2RsXI00kiEVoD5yX053WQKBgQDv2u/OzmYeIa6K/V5MZBdSBXSi+WkMMb+ytHUzpqQGeHTgV6d1
pJ9jq17slgcF6g/tIn4w+L6V+F1jcqsLsnIjSlLUwKBF/p2qed30ohYZVy1V5py7fBcfiRV+NthDl6Fpg/pC41nYD1y4GDT/9JIi
K8nkvmzt61UDKpmXl0nSSQKBgQDYXxXd47N9d4WwMBxBouMv2sdsMCqB2qM7Biikf7+DluAupjpsIljmqikVYPtk9V9srq7yDgD1
oUEdF8ZYeFD1gBcYDEg48/lVMJOz/jkRWg/1mqGIL4znoRf2OzeTJb7LwzHTdrVXfM53kh1hGi/XdB3e7/Bmq1xJm3XmTE4bxwKB
gBmprybNZpequuYcHc7Glsgr1ULqtJadbAlOzYttNPeMQ9UNC9nGd1dOqqVdl/rGBFY27pGGy714CWXuiuaBfTzRYvNoeL2EdJIc
3+agwQSNE0ixl+tnZ4H0RNxwOcthmd+UQ16MvLwlSKJZ1LHeFRSa4ssapMT//OSN1kkl4rwhAoGAVok48qSV7dE2q6+iLXIbENGc
Pp3I8mRiMkIVUS0yiEt4X8/lv8fA7IgTpFREVy13u7zlhTOqmJKkuyD+F/YO0xEmq1yGKhkRmEu0VyGO62ysw1rTzebOoPkh3z3x
zS0kcNQhgmSQxGvLG7FZhLN3fOEY7UfjSvywDVRaw/+yoZMCgYEAqcVRoTG4dqnZcXxPtSyGogo9eu/LWjY3GgghQLbbCoSSEQJR
zTuV+C7JiHBMr9nuvl1Sc3TCpzI/gNmvmQMb9cjhmHLurpESR7MP79jWjmmlah2sIug5oPNrV4mDbqCR/vApZCrQTWJFwOfya1+S
z2sYzk9qlCGZHZ7fLv46odI=
`;

export interface RawExtension {
  readonly oid: string;
  readonly value: Uint8Array;
  readonly critical?: boolean;
}

const extensionDer = ({ oid: type, value, critical }: RawExtension): Uint8Array =>
  tlv(0x30, oid(type), ...(critical ? [fromHex('0101ff')] : []), tlv(0x04, value));

const NONE = new Uint8Array(0);

/** Parts of a certificate that differ from what the key service would issue. */
export interface CertificateChanges {
  readonly version?: Uint8Array;
  readonly serial?: Uint8Array;
  readonly issuer?: Uint8Array;
  readonly subject?: Uint8Array;
  readonly validity?: Uint8Array;
  readonly spki?: Uint8Array;
  readonly extensions?: (issued: readonly RawExtension[]) => readonly RawExtension[];
  readonly signing?: Signing;
  /** AlgorithmIdentifier outside the signed part, where it is to differ. */
  readonly outerAlgorithm?: Uint8Array;
  /** Who signs; left out, who should. */
  readonly signer?: KeyObject;
}

export interface LeafChanges extends CertificateChanges {
  readonly tcb?: TcbParts;
  readonly hwId?: Uint8Array;
  readonly csp?: string;
  readonly productName?: string;
  readonly structVersion?: number;
}

export type ReportFields = Partial<AttestationReportV5>;

export interface ReportChanges {
  readonly version?: ReportVersion;
  readonly fields?: ReportFields;
  /** Changes the bytes before they are signed. */
  readonly before?: (bytes: Uint8Array) => void;
  /** Changes the bytes after they are signed. */
  readonly after?: (bytes: Uint8Array) => void;
  readonly kind?: 'VCEK' | 'VLEK';
  /** TCB whose key signs; left out, the reported one. */
  readonly keyTcb?: TcbParts;
}

const ARC = '1.3.6.1.4.1.3704.1';
const TEST_COMMENT = tlv(0x16, utf8(TEST_ROOT_COMMENT));

const KEYS = new Map<string, KeyObject>();

function privateKeyOf(base64: string): KeyObject {
  let key = KEYS.get(base64);
  if (key === undefined) {
    key = createPrivateKey(toPem(fromBase64(base64), 'PRIVATE KEY'));
    KEYS.set(base64, key);
  }
  return key;
}

const fromBase64 = (text: string): Uint8Array => fromPem(`-----BEGIN X-----${text}-----END X-----`, 'X')[0]!;

/** One platform of one product line and the authorities that certify it. */
export class Forge {
  readonly product: ProductLine;
  readonly authority: CertificateAuthority;
  readonly chipId: Uint8Array;
  /** REPORTED_TCB and every other TCB of the platform. */
  readonly tcb: TcbParts;
  readonly #crypto: MachineCrypto;
  readonly #random: Random;
  readonly #secret: Uint8Array;
  readonly #keys = new Map<string, SigningKey>();

  constructor(product: ProductLine, crypto: MachineCrypto, random: Random) {
    this.product = product;
    this.authority = embeddedAuthority(product);
    this.#crypto = crypto;
    this.#random = random;
    this.#secret = random.bytes(48);
    this.chipId = chipIdOf(crypto, this.#secret, product);
    this.tcb = { fmc: product === 'Turin' ? 1 : 0, boot_loader: 4, tee: 1, snp: 24, microcode: 219 };
  }

  /** The endorsement key of a TCB of this platform. */
  key(kind: 'VCEK' | 'VLEK' = 'VCEK', tcb: TcbParts = this.tcb): SigningKey {
    const name = `${kind} ${Object.values(tcb).join(',')}`;
    let key = this.#keys.get(name);
    if (key === undefined) {
      const stick = descend(this.#crypto, topStick(this.#crypto, this.#secret, this.product), tcb);
      invariant(stick !== null, 'every TCB lies below the top');
      key = endorsementKey(this.#crypto, stick, kind);
      this.#keys.set(name, key);
    }
    return key;
  }

  /** Private key of an authority of this or another line. */
  authorityKey(role: CaRole, product: ProductLine = this.product): KeyObject {
    return privateKeyOf(EMBEDDED[product][role].privateKey);
  }

  /** ASK or ASVK, and ARK. */
  chain(kind: 'VCEK' | 'VLEK' = 'VCEK'): Uint8Array[] {
    return [kind === 'VCEK' ? this.authority.ask : this.authority.asvk, this.authority.ark];
  }

  /** A signed report of this platform. */
  report(changes: ReportChanges = {}): Uint8Array {
    const { version = 3, kind = 'VCEK', fields = {} } = changes;
    const [cpuid_fam_id, cpuid_mod_id, cpuid_step] = CPUID_OF[this.product];
    const word = encodeTcb(this.tcb, this.product);
    const bytes = reportLayout(version).encode({
      version,
      policy: {
        abi_minor: 0,
        abi_major: 0,
        smt: 1,
        migrate_ma: 0,
        debug: 0,
        single_socket: 0,
        cxl_allow: 0,
        mem_aes_256_xts: 0,
        rapl_dis: 0,
        ciphertext_hiding_dram: 0,
        page_swap_disable: 0,
      },
      signature_algo: 1,
      current_tcb: word,
      reported_tcb: word,
      committed_tcb: word,
      launch_tcb: word,
      key_info: { author_key_en: 0, mask_chip_key: 0, signing_key: kind === 'VCEK' ? 0 : 1 },
      report_data: new Uint8Array(64).fill(0x5a),
      measurement: new Uint8Array(48).fill(0xd1),
      report_id: new Uint8Array(32).fill(0x11),
      report_id_ma: new Uint8Array(32).fill(0xff),
      chip_id: kind === 'VCEK' ? this.chipId : new Uint8Array(64),
      current_build: 29,
      current_minor: 55,
      current_major: 1,
      committed_build: 29,
      committed_minor: 55,
      committed_major: 1,
      ...(version === 2 ? {} : { cpuid_fam_id, cpuid_mod_id, cpuid_step }),
      ...(version === 5 ? { launch_mit_vector: 0x3fn, current_mit_vector: 0x3fn } : {}),
      ...fields,
    });
    changes.before?.(bytes);
    this.signReport(bytes, kind, changes.keyTcb);
    changes.after?.(bytes);
    return bytes;
  }

  /** Signs a report in place. */
  signReport(bytes: Uint8Array, kind: 'VCEK' | 'VLEK' = 'VCEK', tcb: TcbParts = this.tcb): void {
    const { r, s } = this.key(kind, tcb).sign(bytes.subarray(0, 0x2a0));
    bytes.set(reversed(r), 0x2a0);
    bytes.set(reversed(s), 0x2e8);
  }

  /** A VCEK or VLEK certificate with changes. */
  leaf(kind: 'VCEK' | 'VLEK' = 'VCEK', changes: LeafChanges = {}): Uint8Array {
    const tcb = changes.tcb ?? this.tcb;
    const issuer: CaRole = kind === 'VCEK' ? 'ASK' : 'ASVK';
    return this.#certificate(
      {
        serial: int(0),
        issuer: caName(this.product, issuer),
        subject: `SEV-${kind}`,
        validity: validity(LEAF_FROM_MS, Date.UTC(2032, 6, 1)),
        spki: ecSpki(this.key(kind, tcb).publicPoint),
        extensions: this.#leafExtensions(kind, tcb, changes),
        signer: () => this.authorityKey(issuer),
      },
      changes,
    );
  }

  /** An ARK, ASK or ASVK of this line with changes; unchanged it equals the authority's own but for the salt. */
  ca(role: CaRole, changes: CertificateChanges = {}): Uint8Array {
    const { serial, notBefore } = CA_ROWS[this.product][role];
    const from = Date.parse(notBefore);
    return this.#certificate(
      {
        serial: int(serial),
        issuer: caName(this.product, 'ARK'),
        subject: caName(this.product, role),
        validity: validity(from, from + 25 * 365 * 86_400_000),
        spki: spkiOf(this.authorityKey(role)),
        extensions: this.#caExtensions(role),
        signer: () => this.authorityKey('ARK'),
      },
      changes,
    );
  }

  #certificate(
    issued: {
      readonly serial: Uint8Array;
      readonly issuer: string;
      readonly subject: string;
      readonly validity: Uint8Array;
      readonly spki: Uint8Array;
      readonly extensions: readonly RawExtension[];
      readonly signer: () => KeyObject;
    },
    changes: CertificateChanges,
  ): Uint8Array {
    const signing = changes.signing ?? SIGNINGS.amd;
    const extensions = changes.extensions?.(issued.extensions) ?? issued.extensions;
    const tbs = tlv(
      0x30,
      changes.version ?? tlv(0xa0, int(2)),
      changes.serial ?? issued.serial,
      signing.algorithm,
      changes.issuer ?? name(issued.issuer),
      changes.validity ?? issued.validity,
      changes.subject ?? name(issued.subject),
      changes.spki ?? issued.spki,
      extensions.length === 0 ? NONE : tlv(0xa3, tlv(0x30, ...extensions.map(extensionDer))),
    );
    return this.signed(tbs, changes.signer ?? issued.signer(), signing, changes.outerAlgorithm);
  }

  /** A signed structure around the bytes that are signed. */
  signed(
    tbs: Uint8Array,
    signer: KeyObject,
    signing: Signing = SIGNINGS.amd,
    outerAlgorithm: Uint8Array = signing.algorithm,
  ): Uint8Array {
    const salt = signing.saltLength === null ? null : this.#random.bytes(signing.saltLength);
    const signature = signRsa(signing, signer, tbs, salt);
    return tlv(0x30, tbs, outerAlgorithm, tlv(0x03, Uint8Array.of(0), signature));
  }

  #leafExtensions(kind: 'VCEK' | 'VLEK', tcb: TcbParts, changes: LeafChanges): readonly RawExtension[] {
    const isTurin = this.product === 'Turin';
    const number = (suffix: string, value: number): RawExtension => ({
      oid: `${ARC}.${suffix}`,
      value: int(value),
    });
    const spl: Readonly<Record<string, number>> = {
      '3.1': tcb.boot_loader,
      '3.2': tcb.tee,
      '3.3': tcb.snp,
      '3.8': tcb.microcode,
      '3.9': tcb.fmc,
    };
    const order = isTurin
      ? ['3.9', '3.1', '3.2', '3.3', '3.5', '3.6', '3.7', '3.8']
      : ['3.1', '3.2', '3.4', '3.5', '3.6', '3.7', '3.3', '3.8'];
    const productName = kind === 'VCEK' && this.product === 'Milan' ? 'Milan-B0' : this.product;
    return [
      number('1', changes.structVersion ?? (isTurin ? 1 : 0)),
      { oid: `${ARC}.2`, value: tlv(0x16, utf8(changes.productName ?? productName)) },
      ...order.map((suffix) => number(suffix, spl[suffix] ?? 0)),
      kind === 'VCEK'
        ? { oid: `${ARC}.4`, value: changes.hwId ?? this.chipId.slice(0, HWID_SIZE[this.product]) }
        : { oid: `${ARC}.5`, value: tlv(0x16, utf8(changes.csp ?? 'CN=cloud.example')) },
      this.#commentedKeyIdentifier(kind === 'VCEK' ? 'ASK' : 'ASVK'),
    ];
  }

  #keyId(role: CaRole): Uint8Array {
    return keyIdentifier(spkiOf(this.authorityKey(role)));
  }

  /** As the key service issues it: go-sev-guest would refuse a leaf with nsComment for that alone. */
  #commentedKeyIdentifier(issuer: CaRole): RawExtension {
    const comment = tlv(0xa0, oid(OID.nsComment), tlv(0xa0, TEST_COMMENT));
    const serial = int(CA_ROWS[this.product][issuer].serial).subarray(2);
    const value = tlv(0x30, tlv(0x80, this.#keyId(issuer)), tlv(0xa1, comment), tlv(0x82, serial));
    return { oid: OID.authorityKeyIdentifier, value };
  }

  #caExtensions(role: CaRole): readonly RawExtension[] {
    const path = role === 'ASVK' ? 'vlek' : 'vcek';
    const url = utf8(`https://kdsintf.amd.com/${path}/v1/${this.product}/crl`);
    const isRoot = role === 'ARK';
    return [
      { oid: '2.5.29.14', value: tlv(0x04, this.#keyId(role)) },
      ...(isRoot ? [] : [{ oid: '2.5.29.35', value: tlv(0x30, tlv(0x80, this.#keyId('ARK'))) }]),
      { oid: '2.5.29.19', critical: true, value: fromHex(isRoot ? '30030101ff' : '30060101ff020100') },
      { oid: '2.5.29.15', critical: true, value: fromHex(isRoot ? '03020106' : '03020104') },
      { oid: '2.5.29.31', value: tlv(0x30, tlv(0x30, tlv(0xa0, tlv(0xa0, tlv(0x86, url))))) },
      { oid: OID.nsComment, value: TEST_COMMENT },
    ];
  }

  /** A revocation list with changes. */
  crl(changes: CrlChanges = {}): Uint8Array {
    const {
      revoked = [],
      number = 7,
      entries = 0,
      thisUpdateMs = VECTOR_TIME_MS - 30 * 86_400_000,
    } = changes;
    const { nextUpdateMs = VECTOR_TIME_MS + 300 * 86_400_000 } = changes;
    const signing = changes.signing ?? SIGNINGS.amd;
    const tbs = tlv(
      0x30,
      int(1),
      signing.algorithm,
      name(changes.issuer ?? caName(this.product, 'ARK')),
      utcTime(thisUpdateMs),
      nextUpdateMs === null ? NONE : utcTime(nextUpdateMs),
      revoked.length + entries === 0
        ? NONE
        : tlv(
            0x30,
            ...revoked.map((serial) => tlv(0x30, int(serial), utcTime(thisUpdateMs))),
            revokedEntries(entries, thisUpdateMs),
          ),
      tlv(
        0xa0,
        tlv(
          0x30,
          ...(number === null ? [] : [extensionDer({ oid: '2.5.29.20', value: int(number) })]),
          ...(changes.extensions ?? []).map(extensionDer),
          extensionDer({ oid: OID.nsComment, value: TEST_COMMENT }),
        ),
      ),
    );
    return this.signed(tbs, changes.signer ?? this.authorityKey('ARK'), signing);
  }

  /** Fresh bytes of the seed's stream. */
  bytes(length: number): Uint8Array {
    return this.#random.bytes(length);
  }
}

export interface CrlChanges {
  readonly revoked?: readonly number[];
  /** Further entries, of serial numbers nobody has. */
  readonly entries?: number;
  readonly number?: number | null;
  readonly thisUpdateMs?: number;
  readonly nextUpdateMs?: number | null;
  readonly issuer?: string;
  readonly signer?: KeyObject;
  readonly signing?: Signing;
  readonly extensions?: readonly RawExtension[];
}

/** Entries of a revocation list, one after the other without the lists a million of them would take. */
function revokedEntries(count: number, dateMs: number): Uint8Array {
  const entry = tlv(0x30, fromHex('020420000000'), utcTime(dateMs));
  const out = new Uint8Array(entry.length * count);
  for (let i = 0; i < count; i++) {
    const at = i * entry.length;
    out.set(entry, at);
    out.set(Uint8Array.of(i >> 16, i >> 8, i), at + 5);
  }
  return out;
}

export const ecSpki = (point: Uint8Array, curve = '1.3.132.0.34'): Uint8Array =>
  tlv(0x30, tlv(0x30, oid('1.2.840.10045.2.1'), oid(curve)), tlv(0x03, Uint8Array.of(0), point));

export const spkiOf = (key: KeyObject): Uint8Array =>
  Uint8Array.from(createPublicKey(key).export({ type: 'spki', format: 'der' }));

/** An RSA key of 2048 bits. */
export const rsa2048 = (): KeyObject => privateKeyOf(RSA_2048);
