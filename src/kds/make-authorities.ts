// SPDX-License-Identifier: Apache-2.0
/**
 * Makes the embedded test authorities anew: nine RSA-4096 keys and their certificates. Run once; doing it
 * again changes the roots that users of softsnp have told their verifiers to trust.
 *
 *     node bin/build.js && node dist/kds/make-authorities.js src/kds/embedded
 */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PRODUCT_LINES, type ProductLine } from '../abi/product.ts';
import { CA_ROLES, CA_TRAILER, type CaRole, caName, caTbsCertificate } from './ca-certificate.ts';
import { PSS_SALT_SIZE, signPss } from './pss.ts';
import { signed } from './x509.ts';

const spkiOf = (key: KeyObject): Uint8Array =>
  Uint8Array.from(createPublicKey(key).export({ format: 'der', type: 'spki' }));

/** Base64 in lines of 100, as the body of a template literal. */
const base64 = (bytes: Uint8Array): string =>
  `\`\n${Buffer.from(bytes)
    .toString('base64')
    .replace(/.{100}(?=.)/g, '$&\n')}\n\``;

function embeddedSource(product: ProductLine): string {
  const keys = Object.fromEntries(
    CA_ROLES.map((role) => [role, generateKeyPairSync('rsa', { modulusLength: 4096 }).privateKey]),
  ) as Record<CaRole, KeyObject>;
  const entries = CA_ROLES.map((role) => {
    const tbs = caTbsCertificate(product, role, spkiOf(keys[role]), spkiOf(keys.ARK));
    const signature = signPss(keys.ARK, tbs, Uint8Array.from(randomBytes(PSS_SALT_SIZE)));
    const privateKey = Uint8Array.from(keys[role].export({ format: 'der', type: 'pkcs8' }));
    return `  /** ${caName(product, role)} */
  ${role}: {
    privateKey: ${base64(privateKey)},
    certificate: ${base64(signed(tbs, CA_TRAILER, signature))},
  },
`;
  });
  return `// SPDX-License-Identifier: Apache-2.0
/**
 * PUBLIC TEST KEYS. NOT SECRET, NOT AMD'S. Everybody has these private keys: whatever they certify proves
 * nothing about any hardware. Never tell a verifier that guards something to trust them.
 *
 * Made once by src/kds/make-authorities.ts.
 */
export const ${product.toUpperCase()} = Object.freeze({
${entries.join('')}});
`;
}

const [, , folder] = process.argv;
if (folder === undefined) {
  process.stderr.write('usage: node dist/kds/make-authorities.js FOLDER\n');
  process.exit(1);
}
mkdirSync(folder, { recursive: true });
for (const product of PRODUCT_LINES) {
  writeFileSync(join(folder, `${product.toLowerCase()}.ts`), embeddedSource(product));
}
