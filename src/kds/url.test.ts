// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { formatKdsTarget, hwidOfChipId, isRefusal, type KdsName, parseKdsTarget } from './url.ts';

const ID = { Milan: 'a1'.repeat(64), Genoa: 'b2'.repeat(64), Turin: '1e550a8ee5cf9f4d' } as const;
const SPL = 'blSPL=03&teeSPL=00&snpSPL=23&ucodeSPL=213';
const query = (product: ProductLine): string => (product === 'Turin' ? `fmcSPL=01&${SPL}` : SPL);
const vcek = (product: ProductLine): string => `/vcek/v1/${product}/${ID[product]}?${query(product)}`;

const statusOf = (target: string): number => {
  const parsed = parseKdsTarget(target);
  return isRefusal(parsed) ? parsed.status : 200;
};

describe.each(PRODUCT_LINES)('a target of %s', (product) => {
  it('names a VCEK by chip and TCB, in one spelling whatever it came in', () => {
    const canonical = vcek(product);
    const spellings = [
      canonical,
      canonical.replace(ID[product], ID[product].toUpperCase()),
      canonical.replaceAll('=0', '='),
      canonical.replace('blSPL=03', 'blSPL=003'),
      `${canonical.split('?')[0]}?${query(product).split('&').reverse().join('&')}`,
    ].filter((target) => !target.includes('=&'));
    for (const spelling of spellings) {
      const name = parseKdsTarget(spelling);
      expect(name).toEqual({
        type: 'vcek',
        product,
        hwid: ID[product],
        tcb: { fmc: product === 'Turin' ? 1 : 0, boot_loader: 3, tee: 0, snp: 23, microcode: 213 },
      });
      expect(formatKdsTarget(name as KdsName)).toBe(canonical);
    }
  });

  it('names chains and lists of both kinds, and what providers get', () => {
    for (const path of ['vcek', 'vlek']) {
      for (const type of ['cert_chain', 'crl']) {
        const target = `/${path}/v1/${product}/${type}`;
        expect(parseKdsTarget(target)).toEqual({ type, path, product });
        expect(formatKdsTarget(parseKdsTarget(target) as KdsName)).toBe(target);
        expect(statusOf(`${target}?`)).toBe(400);
        expect(statusOf(`${target}?${query(product)}`)).toBe(400);
      }
    }
    for (const resource of ['cert', 'hash_sticks']) {
      const target = `/vlek/v1/${product}/${resource}?${query(product)}`;
      expect(formatKdsTarget(parseKdsTarget(target) as KdsName)).toBe(target);
    }
  });

  it('refuses a query that is not exactly its SPLs', () => {
    const path = vcek(product).split('?')[0]!;
    const pairs = query(product).split('&');
    const bad = [
      '',
      '?',
      `?${query(product)}&`,
      `?${query(product)}&blSPL=3`,
      `?${query(product)}&format=pem`,
      `?${query(product)}&spl4=0`,
      ...pairs.map((_, i) => `?${pairs.filter((_pair, at) => at !== i).join('&')}`),
      ...['256', '-1', '', '1.5', '0x3', '0003', '3e0', '+3', ' 3', '3=3', '03,00'].map(
        (value) => `?${query(product).replace('blSPL=03', `blSPL=${value}`)}`,
      ),
      `?${query(product).replace('blSPL', 'blspl')}`,
      `?${query(product).replace('blSPL', '__proto__')}`,
      `?${product === 'Turin' ? SPL : `fmcSPL=0&${SPL}`}`,
      `?${query(product).replace('=03', '%3D03')}`,
    ];
    for (const tail of bad) {
      expect([tail, statusOf(path + tail)]).toEqual([tail, 400]);
    }
  });
});

describe('a target', () => {
  it('refuses a chip id of another length with 400, and the full-length id of Turin with 404', () => {
    for (const product of PRODUCT_LINES) {
      for (const digits of [1, 2, 15, 16, 17, 64, 127, 128, 129, 130]) {
        const right = ID[product].length === digits;
        const status = right ? 200 : product === 'Turin' && digits === 128 ? 404 : 400;
        const target = `/vcek/v1/${product}/${'0'.repeat(digits)}?${query(product)}`;
        expect([product, digits, statusOf(target)]).toEqual([product, digits, status]);
      }
    }
  });

  it('names the certificates of legacy SEV: a CEK by either form of an id, ASK and ARK by product line', () => {
    const { Milan, Turin } = ID;
    for (const [target, hwid] of [
      [`/cek/id/${Milan}`, Milan],
      [`/cek/id/${Milan.toUpperCase()}`, Milan],
      [`/cek/id/${Turin}`, Turin],
      [`/cek/id/${Turin}${'0'.repeat(112)}`, Turin],
    ] as const) {
      expect(parseKdsTarget(target)).toEqual({ type: 'cek', hwid });
      expect(formatKdsTarget({ type: 'cek', hwid })).toBe(`/cek/id/${hwid}`);
    }
    for (const product of PRODUCT_LINES) {
      const target = `/developer/eula/sev/ask_ark_${product.toLowerCase()}.cert`;
      expect(parseKdsTarget(target)).toEqual({ type: 'sev_ca', product });
      expect(formatKdsTarget({ type: 'sev_ca', product })).toBe(target);
      expect([statusOf(`${target}?`), statusOf(`/cek/id/${ID[product]}?x=1`)]).toEqual([400, 400]);
    }
    for (const digits of [1, 15, 17, 64, 127, 129]) {
      expect([digits, statusOf(`/cek/id/${'1'.repeat(digits)}`)]).toEqual([digits, 400]);
    }
  });

  it('knows nothing but its own paths, letter by letter', () => {
    const id = ID.Milan;
    const unknown = [
      '',
      '/',
      '//',
      '*',
      '/vcek',
      '/vcek/v1',
      '/vcek/v1/Milan',
      '/vcek/v1/Milan/',
      `/vcek/v1/Milan/${id}/?${SPL}`,
      `//vcek/v1/Milan/${id}?${SPL}`,
      `/vcek/v1//Milan/${id}?${SPL}`,
      `/vcek/v2/Milan/${id}?${SPL}`,
      `/VCEK/v1/Milan/${id}?${SPL}`,
      `/cek/${id}`,
      `/cek/id/${id}/`,
      `/cek/id/`,
      `/CEK/id/${id}`,
      '/developer/eula/sev/ask_ark_Milan.cert',
      '/developer/eula/sev/ask_ark_rome.cert',
      '/developer/eula/sev/ask_ark_constructor.cert',
      '/developer/eula/sev/',
      `/vcek/v1/milan/${id}?${SPL}`,
      `/vcek/v1/Milan-B0/${id}?${SPL}`,
      `/vcek/v1/Milan-B0/..`,
      `/vcek/v1/Bergamo/${id}?${SPL}`,
      `/vcek/v1/constructor/crl`,
      '/vcek/v1/Milan/../Milan/crl',
      '/vcek/v1/../v1/Milan/crl',
      '/vcek/v1/Milan/..',
      '/vcek/v1/Milan/Cert_Chain',
      '/vcek/v1/Milan/cert',
      `/vcek/v1/Milan/hash_sticks?${SPL}`,
      `/vlek/v1/Milan/${id}?${SPL}`,
      '/vlek/v1/Milan/cert_chain/',
      `/vcek/v1/Milan/${'g'.repeat(128)}?${SPL}`,
    ];
    for (const target of unknown) {
      expect([target, isRefusal(parseKdsTarget(target))]).toEqual([target, true]);
      expect([400, 404]).toContain(statusOf(target));
    }
    expect(statusOf('/vcek/v1/Milan-B0/..')).toBe(404);
    expect(statusOf(`/vcek/v1/Bergamo/${id}?${SPL}`)).toBe(404);
  });

  it('is never decoded: percent-encoding, fragments and full URLs are refused', () => {
    const target = vcek('Milan');
    for (const bad of [
      target.replace('a1', '%61%31'),
      target.replace('/vcek', '/%76cek'),
      target.replace('vcek/v1', 'vcek%2Fv1'),
      '/vcek/v1/Milan/%2e%2e',
      `${target}#x`,
      `https://kdsintf.amd.com${target}`,
      target.replace('&', ';'),
      `${target}\0`,
      `${target} `,
      target.replace('Milan', 'Mil\u0430n'),
      `/${'a'.repeat(100_000)}`,
    ]) {
      expect([bad.slice(0, 60), statusOf(bad)]).toEqual([bad.slice(0, 60), 400]);
    }
  });

  it('survives whatever is sent, and every accepted one comes back the same', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        '/',
        '?',
        '&',
        '=',
        'vcek',
        'vlek',
        'v1',
        ...PRODUCT_LINES,
        'crl',
        'cert_chain',
        'cert',
      ),
      fc.constantFrom(
        'blSPL',
        'teeSPL',
        'snpSPL',
        'ucodeSPL',
        'fmcSPL',
        '0',
        '255',
        '256',
        ID.Milan,
        ID.Turin,
      ),
      fc.string({ maxLength: 4 }),
    );
    const target = fc.oneof(
      fc.array(piece, { maxLength: 24 }).map((parts) => parts.join('')),
      fc.string(),
    );
    fc.assert(
      fc.property(target, (text) => {
        const parsed = parseKdsTarget(text);
        if (!isRefusal(parsed)) {
          expect(parseKdsTarget(formatKdsTarget(parsed))).toEqual(parsed);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('hwidOfChipId', () => {
  it('takes 64 bytes on Milan and Genoa, the first 8 on Turin, and no masked id', () => {
    const full = new Uint8Array(64).fill(0xa1);
    const short = new Uint8Array(64);
    short.set([0x1e, 0x55, 0x0a, 0x8e, 0xe5, 0xcf, 0x9f, 0x4d]);
    expect(hwidOfChipId('Milan', full)).toBe(ID.Milan);
    expect(hwidOfChipId('Turin', short)).toBe(ID.Turin);
    expect(hwidOfChipId('Turin', full)).toBeNull();
    expect(hwidOfChipId('Genoa', new Uint8Array(64))).toBeNull();
  });
});
