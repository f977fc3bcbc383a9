// SPDX-License-Identifier: Apache-2.0
/** `softsnp idblock`: make, show and check ID blocks. */
import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from 'node:crypto';
import { type ArgsDef, defineCommand } from 'citty';
import { GuestPolicy } from '../abi/guest-policy.ts';
import { IdAuth, IdBlock } from '../abi/id-block.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { checkIdBlock, createIdBlock, encodePublicKey, readIdBlock } from '../launch/idblock.ts';
import { concat, fromHex, toHex } from '../lib/bytes.ts';
import type { SigningKey } from '../lib/crypto.ts';
import { InputError } from '../lib/errors.ts';
import { nodeCrypto } from '../os/node-crypto.ts';
import { blockBytes } from './idblock-files.ts';
import { EXIT_DIFFERENT, writeOutFile } from './measure-launch.ts';
import { fileLabel, fileOption, integerOption, wordOption } from './options.ts';
import { EXIT_OK, type Output, processOutput, type Verb } from './run.ts';

const crypto = nodeCrypto({ deterministic: false });
const FILE_LIMIT_BYTES = 2 ** 16;
/** Bytes of a family or image id. */
const ID_SIZE = 16;

const JSON_ARG = {
  json: { type: 'boolean', description: 'Print one JSON object' },
} as const satisfies ArgsDef;
const MEASUREMENT_ARG = {
  type: 'string',
  valueHint: 'HEX|BASE64',
  description: 'Launch digest of the guest, as softsnp measure snp prints it',
} as const;

/** `softsnp idblock`, writing to `output`. */
export function idblockVerb(output: Output): Verb {
  return defineCommand({
    meta: { name: 'idblock', description: 'Make, show and check ID blocks' },
    subCommands: { create: createVerb(output), show: showVerb(output), check: checkVerb(output) },
  });
}

export const idblockCommand: Verb = idblockVerb(processOutput);

function createVerb(output: Output): Verb {
  return defineCommand({
    meta: {
      name: 'create',
      description: 'Sign an ID block; prints it as properties of QEMU -object sev-snp-guest',
    },
    args: {
      measurement: { ...MEASUREMENT_ARG, required: true },
      'id-key': {
        type: 'string',
        alias: 'idkey',
        valueHint: 'FILE',
        description: 'P-384 private key that signs the block, PEM or DER',
        required: true,
      },
      'author-key': {
        type: 'string',
        alias: 'authorkey',
        valueHint: 'FILE',
        description: 'P-384 private key that signs the ID key (optional)',
      },
      'family-id': {
        type: 'string',
        valueHint: 'HEX',
        description: '16 bytes of your choice (default zeros)',
      },
      'image-id': {
        type: 'string',
        valueHint: 'HEX',
        description: '16 bytes of your choice (default zeros)',
      },
      'guest-svn': { type: 'string', valueHint: 'N', description: 'Version of the guest (default 0)' },
      policy: { type: 'string', valueHint: 'WORD', description: 'Guest policy (default 0x30000)' },
      'block-file': {
        type: 'string',
        valueHint: 'FILE',
        description: 'Also write the 96 bytes of the ID block',
      },
      'auth-file': {
        type: 'string',
        valueHint: 'FILE',
        description: 'Also write the 4096 bytes of the ID auth',
      },
      ...JSON_ARG,
    },
    run: ({ args }) => {
      const made = createIdBlock(crypto.sha384, {
        launchDigest: digestOption(args.measurement),
        idKey: signingKey('id-key', args['id-key']),
        ...(args['author-key'] === undefined
          ? {}
          : { authorKey: signingKey('author-key', args['author-key']) }),
        ...(args['family-id'] === undefined ? {} : { familyId: idOption('family-id', args['family-id']) }),
        ...(args['image-id'] === undefined ? {} : { imageId: idOption('image-id', args['image-id']) }),
        ...(args['guest-svn'] === undefined
          ? {}
          : { guestSvn: integerOption('guest-svn', args['guest-svn'], 0, 0xffff_ffff) }),
        ...(args.policy === undefined ? {} : { policy: wordOption('policy', args.policy) }),
      });
      if (args['block-file'] !== undefined) {
        writeOutFile(args['block-file'], made.idBlock);
      }
      if (args['auth-file'] !== undefined) {
        writeOutFile(args['auth-file'], made.idAuth);
      }
      if (args.json === true) {
        print(output, {
          id_block: base64(made.idBlock),
          id_auth: base64(made.idAuth),
          id_key_digest: toHex(made.idKeyDigest),
          author_key_digest: made.authorKeyDigest === null ? null : toHex(made.authorKeyDigest),
        });
        return EXIT_OK;
      }
      // The lines of snp-create-id-block.
      output.stdout(`id-block=${base64(made.idBlock)},id-auth=${base64(made.idAuth)}\n`);
      output.stdout(`id_key_hash: ${base64(made.idKeyDigest)}\n`);
      if (made.authorKeyDigest !== null) {
        output.stdout(`author_key: ${base64(made.authorKeyDigest)}\n`);
      }
      return EXIT_OK;
    },
  });
}

/** What `softsnp show key` and `softsnp show id-block` take: one kind of file each. */
export function showVerbs(output: Output): { readonly key: Verb; readonly block: Verb } {
  const key = 'Show the digest of a P-384 key as reports carry it';
  const block = 'Show an ID block or an ID auth';
  return {
    key: fileVerb(output, 'key', key, 'Key or certificate (PEM or DER)', ['key']),
    block: fileVerb(output, 'id-block', block, 'ID block or ID auth (raw, hex or base64)', ['block', 'auth']),
  };
}

type FileKind = 'block' | 'auth' | 'key';

function showVerb(output: Output): Verb {
  return fileVerb(
    output,
    'show',
    'Show an ID block, an ID auth, or the digest of a key as reports carry it',
    'ID block, ID auth (raw, hex or base64), or key or certificate (PEM or DER)',
    ['block', 'auth', 'key'],
  );
}

function fileVerb(
  output: Output,
  name: string,
  description: string,
  what: string,
  kinds: readonly FileKind[],
): Verb {
  return defineCommand({
    meta: { name, description },
    args: {
      file: { type: 'positional', description: `${what}; "-" is standard input`, required: true },
      second: { type: 'positional', description: 'Another of them', required: false },
      ...JSON_ARG,
    },
    run: ({ args }) => {
      const shown = Object.assign(
        {},
        ...[args.file, args.second].flatMap((path) => (path === undefined ? [] : [showFile(path, kinds)])),
      ) as Record<string, string | number | null>;
      if (args.json === true) {
        print(output, shown);
      } else {
        for (const [field, value] of Object.entries(shown)) {
          output.stdout(`${field.padEnd(18)}  ${value ?? 'none'}\n`);
        }
      }
      return EXIT_OK;
    },
  });
}

const FILE_KINDS: Readonly<Record<FileKind, string>> = {
  block: `no ID block (${IdBlock.size} bytes)`,
  auth: `no ID auth (${IdAuth.size} bytes)`,
  key: 'no P-384 key',
};

const IDBLOCK_CURE = 'softsnp idblock create writes an ID block and its ID auth, raw or in base64.';

const FILE_CURES: Readonly<Record<FileKind, string>> = {
  block: IDBLOCK_CURE,
  auth: IDBLOCK_CURE,
  key: 'A key is PEM or DER, on P-384, alone or in a certificate; other certificates: softsnp show certs.',
};

function showFile(path: string, kinds: readonly FileKind[]): Record<string, string | number | null> {
  const raw = fileOption('FILE', path, FILE_LIMIT_BYTES);
  const bytes = blockBytes(raw);
  if (kinds.includes('block') && bytes?.length === IdBlock.size) {
    const block = readIdBlock(crypto.sha384, bytes, new Uint8Array(IdAuth.size));
    return {
      launch_digest: toHex(block.launchDigest),
      family_id: toHex(block.familyId),
      image_id: toHex(block.imageId),
      version: block.version,
      guest_svn: block.guestSvn,
      policy: policyText(block.policy),
    };
  }
  if (kinds.includes('auth') && bytes?.length === IdAuth.size) {
    const auth = readIdBlock(crypto.sha384, new Uint8Array(IdBlock.size), bytes);
    return {
      id_key_algo: auth.idKeyAlgo,
      id_key_digest: toHex(auth.idKeyDigest),
      auth_key_algo: auth.authorKeyAlgo,
      author_key_digest: auth.authorKeyDigest === null ? null : toHex(auth.authorKeyDigest),
    };
  }
  const point = kinds.includes('key') ? publicPoint(raw) : null;
  if (point === null) {
    const isLocked = kinds.includes('key') && isEncryptedKey(raw);
    throw new InputError(
      'OPTION_INVALID',
      isLocked
        ? 'is a key under a passphrase; openssl ec takes it off, and openssl ec -pubout gives the public half'
        : `is ${kinds.map((kind) => FILE_KINDS[kind]).join(' and ')}`,
      { where: fileLabel(path), action: [...new Set(kinds.map((kind) => FILE_CURES[kind]))].join(' ') },
    );
  }
  return { key_digest: toHex(crypto.sha384(encodePublicKey(point))) };
}

function checkVerb(output: Output): Verb {
  return defineCommand({
    meta: {
      name: 'check',
      description: 'Check an ID block as SNP_LAUNCH_FINISH does. Exit code 2 when it would be refused',
    },
    args: {
      block: {
        type: 'positional',
        description: 'ID block (raw, hex or base64); "-" is standard input',
        required: true,
      },
      auth: {
        type: 'positional',
        description: 'ID auth (raw, hex or base64); "-" is standard input',
        required: true,
      },
      measurement: MEASUREMENT_ARG,
      policy: { type: 'string', valueHint: 'WORD', description: 'Policy the guest is launched with' },
      ...JSON_ARG,
    },
    run: ({ args }) => {
      const findings = checkIdBlock(crypto, blockFile('BLOCK', args.block), blockFile('AUTH', args.auth), {
        ...(args.measurement === undefined ? {} : { launchDigest: digestOption(args.measurement) }),
        ...(args.policy === undefined ? {} : { policy: wordOption('policy', args.policy) }),
      });
      if (args.json === true) {
        const named = findings.map((finding) => ({ ...finding, status: sevRetName(finding.status) }));
        print(output, { ok: findings.length === 0, findings: named });
      } else if (findings.length === 0) {
        output.stdout('the firmware would accept it\n');
      } else {
        for (const { code, message, status } of findings) {
          output.stdout(`${code}: ${message} (${sevRetName(status)})\n`);
        }
      }
      return findings.length === 0 ? EXIT_OK : EXIT_DIFFERENT;
    },
  });
}

const isEncryptedKey = (raw: Uint8Array): boolean =>
  /-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: 4,ENCRYPTED/.test(Buffer.from(raw).toString('latin1'));

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

function print(output: Output, value: unknown): void {
  output.stdout(`${JSON.stringify(value, null, 2)}\n`);
}

/** 16 bytes, all of them: filled up with zeros they would be another family or image. */
function idOption(name: string, text: string): Uint8Array {
  const bytes = fromHex(text, `--${name}`);
  if (bytes.length !== ID_SIZE) {
    throw new InputError('OPTION_INVALID', `${bytes.length} bytes given, it has ${ID_SIZE}`, {
      where: `--${name}`,
    });
  }
  return bytes;
}

/** A launch digest as measurement tools print it. */
function digestOption(text: string): Uint8Array {
  const digest = /^(0x)?[0-9a-fA-F]{96}$/.test(text)
    ? fromHex(text)
    : /^[A-Za-z0-9+/]{64}$/.test(text)
      ? Uint8Array.from(Buffer.from(text, 'base64'))
      : null;
  if (digest === null) {
    throw new InputError('OPTION_INVALID', 'is neither 96 hexadecimal digits nor 48 bytes in base64', {
      where: '--measurement',
    });
  }
  return digest;
}

function blockFile(name: string, path: string): Uint8Array {
  const bytes = blockBytes(fileOption(name, path, FILE_LIMIT_BYTES));
  if (bytes === null) {
    throw new InputError('OPTION_INVALID', 'is neither raw bytes nor hex nor base64', {
      where: fileLabel(path),
      action: IDBLOCK_CURE,
    });
  }
  return bytes;
}

function policyText(policy: bigint): string {
  const bits = Object.entries(GuestPolicy.fromWord(policy)).filter(([, value]) => value !== 0);
  return `0x${policy.toString(16)} (${bits.map(([name, value]) => (value === 1 ? name : `${name}=${value}`)).join(', ')})`;
}

const KEY_CURE = 'openssl ecparam -name secp384r1 -genkey -noout -out id-key.pem makes one that fits.';

/**
 * A P-384 private key from a file.
 *
 * Errors   OPTION_INVALID for another curve, a public key, or a key under a passphrase
 */
function signingKey(option: string, path: string): SigningKey {
  const raw = Buffer.from(fileOption(option, path, FILE_LIMIT_BYTES));
  const key = firstKey([
    () => createPrivateKey(raw),
    () => createPrivateKey({ key: raw, format: 'der', type: 'pkcs8' }),
    () => createPrivateKey({ key: raw, format: 'der', type: 'sec1' }),
  ]);
  if (key === null) {
    throw new InputError(
      'OPTION_INVALID',
      `${path} holds no private key, or one under a passphrase (openssl ec takes it off)`,
      { where: `--${option}`, action: KEY_CURE },
    );
  }
  const jwk = key.asymmetricKeyType === 'ec' ? key.export({ format: 'jwk' }) : {};
  if (jwk.crv !== 'P-384' || jwk.d === undefined) {
    throw new InputError('OPTION_INVALID', `${path} holds a key that is not on P-384`, {
      where: `--${option}`,
      action: KEY_CURE,
    });
  }
  return crypto.p384Key(Uint8Array.from(Buffer.from(jwk.d, 'base64url')));
}

/** The point of a public key, of the public half of a private one, or of the key of a certificate. */
function publicPoint(raw: Uint8Array): Uint8Array | null {
  const key = firstKey([
    () => createPublicKey(Buffer.from(raw)),
    () => createPublicKey({ key: Buffer.from(raw), format: 'der', type: 'spki' }),
    () => new X509Certificate(raw).publicKey,
    () => createPublicKey(createPrivateKey({ key: Buffer.from(raw), format: 'der', type: 'pkcs8' })),
    () => createPublicKey(createPrivateKey({ key: Buffer.from(raw), format: 'der', type: 'sec1' })),
  ]);
  const jwk = key?.asymmetricKeyType === 'ec' ? key.export({ format: 'jwk' }) : {};
  if (jwk.crv !== 'P-384' || jwk.x === undefined || jwk.y === undefined) {
    return null;
  }
  return concat(Uint8Array.of(4), Buffer.from(jwk.x, 'base64url'), Buffer.from(jwk.y, 'base64url'));
}

function firstKey(attempts: readonly (() => KeyObject)[]): KeyObject | null {
  for (const attempt of attempts) {
    try {
      return attempt();
    } catch {
      // Not in this form; the next may be right.
    }
  }
  return null;
}
