// SPDX-License-Identifier: Apache-2.0
/** What an owner of a platform does with its legacy certificates, and a reader of them that knows no firmware. */
import { createPublicKey, verify } from 'node:crypto';
import {
  SevCertAlgo,
  SevCertificate,
  type SevCertSignature,
  SevCertUsage,
} from '../../src/abi/sev-certificate.ts';
import type { SevStatus } from '../../src/abi/sev-status.ts';
import { SevDataPdhCertExport, SevDataPekCertImport, SevDataPekCsr } from '../../src/abi/snp-commands.ts';
import { addSevSignature, sevSignature, unsignedSevCertificate } from '../../src/keys/index.ts';
import { asid, PAGE_SIZE, type Pfn, pfn, type Spa, spaOf } from '../../src/lib/addresses.ts';
import { concat, fromHex, reversed } from '../../src/lib/bytes.ts';
import type { EcdsaHash } from '../../src/lib/crypto.ts';
import { crypto, type TestHost } from './test-host.ts';

const NONE = { major: 0, minor: 0 };
const ALGO = { sha256: SevCertAlgo.ECDSA_SHA256, sha384: SevCertAlgo.ECDSA_SHA384 } as const;

/** An owner's key, its certificate and its signature. */
export class Owner {
  readonly unsigned: Uint8Array;
  readonly certificate: Uint8Array;
  readonly #key;
  readonly #hash: EcdsaHash;

  constructor(seed = 1, hash: EcdsaHash = 'sha256') {
    this.#key = crypto.p384Key(fromHex(seed.toString(16).padStart(96, '0')));
    this.#hash = hash;
    const { publicPoint } = this.#key;
    const subject = { usage: SevCertUsage.OCA, algo: ALGO[hash], publicPoint, api: NONE };
    this.unsigned = unsignedSevCertificate(subject);
    this.certificate = this.sign(this.unsigned);
  }

  sign(certificate: Uint8Array, usage: number = SevCertUsage.OCA): Uint8Array {
    return addSevSignature(certificate, usage, ALGO[this.#hash], (bytes) =>
      sevSignature(this.#key.sign(bytes, this.#hash)),
    );
  }
}

/** The four certificates of a platform. */
export interface Chain {
  readonly pdh: Uint8Array;
  readonly pek: Uint8Array;
  readonly oca: Uint8Array;
  readonly cek: Uint8Array;
}

/** `pdh`, and the three of the chain as PDH_CERT_EXPORT gives them. */
export function chainOf(pdh: Uint8Array, chain: Uint8Array): Chain {
  const [pek, oca, cek] = [0, 1, 2].map((i) => chain.slice(2084 * i, 2084 * (i + 1))) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  return { pdh, pek, oca, cek };
}

export const contents = (certificate: Uint8Array): SevCertificate => SevCertificate.decode(certificate);

const isUsed = ({ usage }: SevCertSignature): boolean => usage !== SevCertUsage.INVALID;

/** Usages of the keys that signed, in the order of the places. */
export function signersOf(certificate: Uint8Array): number[] {
  const { sig1, sig2 } = contents(certificate);
  return [sig1, sig2].filter(isUsed).map(({ usage }) => usage);
}

const bigEndian = (field: Uint8Array): Uint8Array => reversed(field.subarray(0, 48));
const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url');

/** Whether one of the signatures is by the key of the other certificate. */
export function isSignedBy(certificate: Uint8Array, signer: Uint8Array): boolean {
  const { sig1, sig2 } = contents(certificate);
  const { qx, qy, pubkey_usage } = contents(signer);
  const x = base64url(bigEndian(qx));
  const y = base64url(bigEndian(qy));
  const key = createPublicKey({ key: { kty: 'EC', crv: 'P-384', x, y }, format: 'jwk' });
  return [sig1, sig2].some(({ usage, algo, signature }) => {
    const digest = algo === SevCertAlgo.ECDSA_SHA256 ? 'sha256' : 'sha384';
    const rs = concat(bigEndian(signature.subarray(0, 72)), bigEndian(signature.subarray(72, 144)));
    const signed = certificate.subarray(0, 0x414);
    return usage === pubkey_usage && verify(digest, signed, { key, dsaEncoding: 'ieee-p1363' }, rs);
  });
}

const pages = (host: TestHost, count: number, isSnpUp: boolean): Pfn => {
  const first = host.alloc(count);
  for (let i = 0; isSnpUp && i < count; i++) {
    host.makeFirmware(pfn(first + i));
  }
  return first;
};

/** A command whose buffer the firmware writes: its status and what is in the buffer then. */
function asked(
  host: TestHost,
  id: number,
  buffer: Uint8Array,
  isSnpUp: boolean,
): { status: SevStatus; buffer: Uint8Array } {
  const page = host.alloc();
  host.hw.memory.write(spaOf(page), buffer, asid(0));
  if (isSnpUp) {
    host.makeFirmware(page);
  }
  const status = host.psp.command(id, spaOf(page));
  return { status, buffer: host.hw.hostRead(spaOf(page), buffer.length) };
}

/** PEK_CSR. With SNP up everything the firmware writes to has to be its own. */
export function askCsr(host: TestHost, room = 2084, isSnpUp = true) {
  const at = room === 0 ? 0n : spaOf(pages(host, 1, isSnpUp));
  const { status, buffer } = asked(host, 6, SevDataPekCsr.encode({ address: at, len: room }), isSnpUp);
  return {
    status,
    length: SevDataPekCsr.decode(buffer).len,
    csr: room === 0 ? new Uint8Array(0) : host.hw.hostRead(at as Spa, room),
  };
}

/** PDH_CERT_EXPORT, SNP being up. */
export function askExport(host: TestHost, rooms: readonly [pdh: number, chain: number] = [2084, 6252]) {
  const [pdhAt, chainAt] = rooms.map((room) =>
    room === 0 ? 0n : spaOf(pages(host, Math.ceil(room / PAGE_SIZE), true)),
  ) as [Spa, Spa];
  const { status, buffer } = asked(
    ...([host, 8] as const),
    SevDataPdhCertExport.encode({
      pdh_cert_address: pdhAt,
      pdh_cert_len: rooms[0],
      cert_chain_address: chainAt,
      cert_chain_len: rooms[1],
    }),
    true,
  );
  const { pdh_cert_len, cert_chain_len } = SevDataPdhCertExport.decode(buffer);
  const read = (at: Spa, room: number) => (room === 0 ? new Uint8Array(0) : host.hw.hostRead(at, room));
  return {
    status,
    lengths: [pdh_cert_len, cert_chain_len],
    chain: chainOf(read(pdhAt, rooms[0]), read(chainAt, rooms[1])),
  };
}

/** The buffer of PEK_CERT_IMPORT. */
export function importBuffer(
  host: TestHost,
  pek: Uint8Array,
  oca: Uint8Array,
  more: Partial<SevDataPekCertImport> = {},
): Uint8Array {
  const put = (bytes: Uint8Array): bigint => {
    const page = host.alloc(Math.max(1, Math.ceil(bytes.length / PAGE_SIZE)));
    host.hw.memory.write(spaOf(page), bytes, asid(0));
    return spaOf(page);
  };
  return SevDataPekCertImport.encode({
    pek_cert_address: put(pek),
    pek_cert_len: pek.length,
    oca_cert_address: put(oca),
    oca_cert_len: oca.length,
    ...more,
  });
}
