// SPDX-License-Identifier: Apache-2.0
/** The platform's legacy certificates: which command gives, changes and refuses which. [SEV-TOOL] src/tests.cpp */
import { describe, expect, it } from 'vitest';
import {
  askCsr,
  askExport,
  contents,
  importBuffer,
  isSignedBy,
  Owner,
  signersOf,
} from '../../test/firmware/sev-owner.ts';
import { TestHost } from '../../test/firmware/test-host.ts';
import { SevUserDataStatus } from '../abi/dev-sev.ts';
import { SevCertAlgo, SevCertificate, SevCertUsage } from '../abi/sev-certificate.ts';
import { SevRet, type SevStatus, sevRetName } from '../abi/sev-status.ts';
import { SevDataInit, SevDataPdhCertExport, SevDataPekCsr } from '../abi/snp-commands.ts';
import { asid, spaOf } from '../lib/addresses.ts';
import { isZero, toHex } from '../lib/bytes.ts';
import { seededRandom } from '../os/node-crypto.ts';

const { OCA, PEK, PDH, CEK, INVALID } = SevCertUsage;

/** A host whose SNP and legacy SEV are up. */
function up(overrides = {}, random = seededRandom(1)): TestHost {
  const host = TestHost.up('Milan', overrides, random);
  host.done('SEV_CMD_INIT', SevDataInit.encode({}));
  return host;
}

const isOwned = (host: TestHost): boolean => {
  const page = host.firmwarePage();
  host.psp.command(4, spaOf(page));
  return (SevUserDataStatus.decode(host.hw.hostRead(spaOf(page), 12)).flags & 1) === 1;
};

function take(host: TestHost, owner = new Owner()): SevStatus {
  const { csr } = askCsr(host);
  return host.issue('SEV_CMD_PEK_CERT_IMPORT', importBuffer(host, owner.sign(csr), owner.certificate));
}

const keys = (host: TestHost): Record<'pdh' | 'pek' | 'oca' | 'cek', string> => {
  const { pdh, pek, oca, cek } = askExport(host).chain;
  const key = (certificate: Uint8Array): string => toHex(SevCertificate.get(certificate, 'qx'));
  return { pdh: key(pdh), pek: key(pek), oca: key(oca), cek: key(cek) };
};

/** Which keys a command changes. */
function changed(host: TestHost, run: () => void): string[] {
  const before = keys(host);
  run();
  const after = keys(host);
  return (Object.keys(before) as (keyof typeof before)[]).filter((name) => before[name] !== after[name]);
}

describe('PDH_CERT_EXPORT', () => {
  it('gives the certificates of a real platform: algorithms, curve, places of the signatures', () => {
    const { status, lengths, chain } = askExport(up());
    expect([sevRetName(status), lengths]).toEqual(['SEV_RET_SUCCESS', [2084, 6252]]);
    const { ECDSA_SHA256, ECDH_SHA256 } = SevCertAlgo;
    const rows = {
      pdh: [PDH, ECDH_SHA256],
      pek: [PEK, ECDSA_SHA256],
      oca: [OCA, ECDSA_SHA256],
      cek: [CEK, ECDSA_SHA256],
    };
    for (const [name, [pubkey_usage, pubkey_algo]] of Object.entries(rows)) {
      expect(contents(chain[name as keyof typeof rows])).toMatchObject({
        ...{ version: 1, api_major: 1, api_minor: 55, pubkey_usage, pubkey_algo },
        curve: 2,
      });
    }
    const signers = Object.values(chain).map(signersOf);
    expect(signers).toEqual([[PEK], [OCA, CEK], [OCA], []]);
  });

  it('gives a chain that verifies but for the CEK, which only the key service signs', () => {
    const { pdh, pek, oca, cek } = askExport(up()).chain;
    expect(isSignedBy(pdh, pek)).toBe(true);
    expect(isSignedBy(pek, oca)).toBe(true);
    expect(isSignedBy(pek, cek)).toBe(true);
    expect(isSignedBy(oca, oca)).toBe(true);
    const changed = pdh.slice();
    changed[0x20]! ^= 1;
    expect(isSignedBy(changed, pek)).toBe(false);
  });

  it.each([[[0, 0]], [[2083, 6252]], [[2084, 6251]], [[2084, 0]]] as const)(
    'with room for %j bytes is INVALID_LEN, says both lengths and writes nothing else',
    (rooms) => {
      const { status, lengths, chain } = askExport(up(), rooms);
      expect([sevRetName(status), lengths]).toEqual(['SEV_RET_INVALID_LEN', [2084, 6252]]);
      expect(Object.values(chain).every((bytes) => isZero(bytes))).toBe(true);
    },
  );

  it('under SNP writes to firmware pages alone, every one of them', () => {
    const host = up();
    const first = host.alloc(2);
    host.makeFirmware(first);
    const command = host.alloc();
    const buffer = SevDataPdhCertExport.encode({
      pdh_cert_address: spaOf(host.firmwarePage()),
      pdh_cert_len: 2084,
      cert_chain_address: spaOf(first),
      cert_chain_len: 6252,
    });
    host.hw.memory.write(spaOf(command), buffer, asid(0));
    host.makeFirmware(command);
    expect(sevRetName(host.psp.command(8, spaOf(command)))).toBe('SEV_RET_INVALID_PAGE_STATE');
    expect(host.hw.hostRead(spaOf(first), 16)).toEqual(new Uint8Array(16));
  });
});

describe('PEK_CSR', () => {
  it('gives the PEK without signatures', () => {
    const host = up();
    const { status, length, csr } = askCsr(host);
    expect([sevRetName(status), length]).toEqual(['SEV_RET_SUCCESS', 2084]);
    const { pek } = askExport(host).chain;
    expect(csr.subarray(0, 0x414)).toEqual(pek.subarray(0, 0x414));
    const { sig1, sig2 } = contents(csr);
    for (const { usage, algo, signature } of [sig1, sig2]) {
      expect([usage, algo, toHex(signature)]).toEqual([INVALID, 0, '00'.repeat(512)]);
    }
  });

  it.each([0, 1, 2083])('with room for %i bytes is INVALID_LEN and says the length', (room) => {
    const { status, length } = askCsr(up(), room);
    expect([sevRetName(status), length]).toEqual(['SEV_RET_INVALID_LEN', 2084]);
  });

  it('is INVALID_ADDRESS outside memory, INVALID_PAGE_STATE outside the firmware’s pages', () => {
    const host = up();
    const ask = (address: bigint, command = host.alloc()): string => {
      host.hw.memory.write(spaOf(command), SevDataPekCsr.encode({ address, len: 2084 }), asid(0));
      host.makeFirmware(command);
      return sevRetName(host.psp.command(6, spaOf(command)));
    };
    expect(ask(1n << 60n)).toBe('SEV_RET_INVALID_ADDRESS');
    expect(ask(spaOf(host.alloc()))).toBe('SEV_RET_INVALID_PAGE_STATE');
    expect(sevRetName(host.issue('SEV_CMD_PEK_CSR', SevDataPekCsr.encode({})))).toBe(
      'SEV_RET_INVALID_PAGE_STATE',
    );
  });
});

describe('keys', () => {
  it('change with the commands that say so, the CEK with none', () => {
    const host = up();
    expect(changed(host, () => host.done('SEV_CMD_PDH_GEN'))).toEqual(['pdh']);
    expect(changed(host, () => host.done('SEV_CMD_PEK_GEN'))).toEqual(['pdh', 'pek', 'oca']);
    expect(changed(host, () => expect(take(host)).toBe(0))).toEqual(['pdh', 'oca']);
    const reset = (): void => {
      host.done('SEV_CMD_SHUTDOWN');
      host.done('SEV_CMD_FACTORY_RESET');
      host.done('SEV_CMD_INIT', SevDataInit.encode({}));
    };
    expect(changed(host, reset)).toEqual(['pdh', 'pek', 'oca']);
  });

  it('stay through SHUTDOWN and INIT of legacy SEV', () => {
    const host = up();
    const again = (): void => {
      host.done('SEV_CMD_SHUTDOWN');
      host.done('SEV_CMD_INIT', SevDataInit.encode({}));
    };
    expect(changed(host, again)).toEqual([]);
  });

  it('are of the chip: the same random numbers give another chip other ones', () => {
    const one = keys(up());
    const other = keys(up({ secret: new Uint8Array(48).fill(0x77) }));
    expect(Object.values(one).filter((key) => Object.values(other).includes(key))).toEqual([]);
    expect(keys(up())).toEqual(one);
  });
});

describe('PEK_CERT_IMPORT', () => {
  it('gives the platform to its owner: the chain goes through the owner’s OCA, and the status says so', () => {
    const host = up();
    const owner = new Owner();
    expect(isOwned(host)).toBe(false);
    expect(sevRetName(take(host, owner))).toBe('SEV_RET_SUCCESS');
    expect(isOwned(host)).toBe(true);
    const { pdh, pek, oca, cek } = askExport(host).chain;
    expect(oca).toEqual(owner.certificate);
    expect(isSignedBy(pek, oca) && isSignedBy(pek, cek) && isSignedBy(pdh, pek)).toBe(true);
    expect(signersOf(pek)).toEqual([OCA, CEK]);
  });

  it('takes an owner who signs with SHA-384', () => {
    const host = up();
    expect(sevRetName(take(host, new Owner(5, 'sha384')))).toBe('SEV_RET_SUCCESS');
    const { pek, oca } = askExport(host).chain;
    expect(isSignedBy(pek, oca)).toBe(true);
  });

  it('takes an OCA with anything behind its key, as sevctl makes them', () => {
    const host = up();
    const owner = new Owner();
    const unsigned = owner.unsigned.slice().fill(0xa5, 0xa4, 0x414);
    const { csr } = askCsr(host);
    const oca = owner.sign(unsigned);
    expect(sevRetName(host.issue('SEV_CMD_PEK_CERT_IMPORT', importBuffer(host, owner.sign(csr), oca)))).toBe(
      'SEV_RET_SUCCESS',
    );
    expect(askExport(host).chain.oca).toEqual(oca);
  });

  it('is ALREADY_OWNED until PEK_GEN or FACTORY_RESET gives the platform back to itself', () => {
    const host = up();
    take(host);
    expect(sevRetName(take(host, new Owner(2)))).toBe('SEV_RET_ALREADY_OWNED');
    host.done('SEV_CMD_PDH_GEN');
    expect(isOwned(host)).toBe(true);
    host.done('SEV_CMD_PEK_GEN');
    expect(isOwned(host)).toBe(false);
    expect(sevRetName(take(host, new Owner(2)))).toBe('SEV_RET_SUCCESS');
    host.done('SEV_CMD_SHUTDOWN');
    host.done('SEV_CMD_FACTORY_RESET');
    expect(isOwned(host)).toBe(false);
  });

  const owner = new Owner();
  const other = new Owner(3);
  const changedAt = (bytes: Uint8Array, at: number): Uint8Array => {
    const out = bytes.slice();
    out[at]! ^= 1;
    return out;
  };
  const ADDRESS = SevRet.SEV_RET_INVALID_ADDRESS;
  const LENGTH = SevRet.SEV_RET_INVALID_LEN;
  const CERTIFICATE = SevRet.SEV_RET_INVALID_CERTIFICATE;
  const SIGNATURE = SevRet.SEV_RET_BAD_SIGNATURE;
  type Pair = readonly [pek: Uint8Array, oca: Uint8Array];
  type Row = readonly [what: string, status: SevStatus, pair: (csr: Uint8Array) => Pair];

  it.each<Row>([
    ['a shorter PEK', LENGTH, (csr): Pair => [owner.sign(csr).subarray(1), owner.certificate]],
    ['a longer OCA', LENGTH, (csr): Pair => [owner.sign(csr), new Uint8Array(2085)]],
    ['zeros', CERTIFICATE, (): Pair => [new Uint8Array(2084), new Uint8Array(2084)]],
    [
      'the OCA and the PEK in each other’s place',
      CERTIFICATE,
      (csr): Pair => [owner.certificate, owner.sign(csr)],
    ],
    ['another version', CERTIFICATE, (csr): Pair => [changedAt(owner.sign(csr), 1), owner.certificate]],
    [
      'another platform’s PEK',
      CERTIFICATE,
      (): Pair => [owner.sign(askCsr(up({}, seededRandom(9))).csr), owner.certificate],
    ],
    [
      'an OCA on another curve',
      CERTIFICATE,
      (csr): Pair => [owner.sign(csr), changedAt(owner.certificate, 0x10)],
    ],
    ['an unsigned PEK', CERTIFICATE, (csr): Pair => [csr, owner.certificate]],
    [
      'a PEK with two signatures',
      CERTIFICATE,
      (csr): Pair => [owner.sign(owner.sign(csr)), owner.certificate],
    ],
    ['a PEK that somebody else signed', SIGNATURE, (csr): Pair => [other.sign(csr), owner.certificate]],
    [
      'a PEK whose signature is of another usage',
      SIGNATURE,
      (csr): Pair => [owner.sign(csr, CEK), owner.certificate],
    ],
    ['a changed PEK', SIGNATURE, (csr): Pair => [changedAt(owner.sign(csr), 4), owner.certificate]],
    ['a changed signature', SIGNATURE, (csr): Pair => [changedAt(owner.sign(csr), 0x41c), owner.certificate]],
    [
      'a signature too large for the curve',
      SIGNATURE,
      (csr): Pair => [changedAt(owner.sign(csr), 0x41c + 60), owner.certificate],
    ],
    [
      'an OCA that is not signed by itself',
      SIGNATURE,
      (csr): Pair => [owner.sign(csr), changedAt(owner.certificate, 4)],
    ],
  ])('of %s is refused, and the platform stays as it was', (_, expected, pair) => {
    const host = up();
    const { csr } = askCsr(host);
    const before = host.psp.exportState();
    const [pek, oca] = pair(csr);
    expect(sevRetName(host.issue('SEV_CMD_PEK_CERT_IMPORT', importBuffer(host, pek, oca)))).toBe(
      sevRetName(expected),
    );
    expect(host.psp.exportState()).toEqual(before);
  });

  it('of addresses outside memory is INVALID_ADDRESS', () => {
    const host = up();
    for (const name of ['pek_cert_address', 'oca_cert_address'] as const) {
      const buffer = importBuffer(host, new Uint8Array(2084), new Uint8Array(2084), { [name]: 1n << 60n });
      expect(host.issue('SEV_CMD_PEK_CERT_IMPORT', buffer)).toBe(ADDRESS);
    }
  });
});

describe('the state folder', () => {
  it('keeps keys and owner, and no private key', () => {
    const host = up();
    take(host);
    const before = keys(host);
    const state = JSON.parse(JSON.stringify(host.psp.exportState()));
    const next = new TestHost('Milan', {}, seededRandom(99));
    next.psp.importState(state);
    next.init();
    next.done('SEV_CMD_INIT', SevDataInit.encode({}));
    expect(keys(next)).toEqual(before);
    expect(isOwned(next)).toBe(true);
    expect(changed(next, () => next.done('SEV_CMD_PDH_GEN'))).toEqual(['pdh']);
    const { pdh, pek } = askExport(next).chain;
    expect(isSignedBy(pdh, pek)).toBe(true);
  });

  it('has none before a program asks, and may be older than these keys', () => {
    const host = up();
    expect(host.psp.exportState().sev_identity).toBeNull();
    askExport(host);
    expect(host.psp.exportState().sev_identity).not.toBeNull();
    const { sev_identity: _, ...older } = host.psp.exportState();
    const next = new TestHost();
    next.psp.importState(older);
    expect(next.psp.exportState()).toEqual({ ...older, sev_identity: null });
  });

  it('is refused when the certificates are not those of this chip’s keys', () => {
    const host = up();
    askExport(host);
    const good = host.psp.exportState();
    const kept = good.sev_identity!;
    const other = up({ secret: new Uint8Array(48).fill(1) });
    askExport(other);
    for (const [i, sev_identity] of [
      7,
      { ...kept, owned: 1 },
      { ...kept, pek: kept.pek.slice(2) },
      { ...kept, pdh: kept.pek },
      { ...kept, oca: `02${kept.oca.slice(2)}` },
      { ...kept, oca: kept.pek },
      { ...kept, pek_nonce: '00' },
      { ...kept, pek_nonce: kept.pdh_nonce },
      { ...kept, pdh_nonce: undefined },
      other.psp.exportState().sev_identity,
    ].entries()) {
      const next = new TestHost();
      expect(() => next.psp.importState({ ...good, sev_identity }), `state ${i}`).toThrow(
        expect.objectContaining({ code: 'STATE_INVALID' }),
      );
      expect(next.psp.exportState().sev_identity).toBeNull();
    }
  });
});
