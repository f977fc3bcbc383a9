// SPDX-License-Identifier: Apache-2.0
/** The forms in which files hold ID blocks and ID auths. */
import { IdAuth, IdBlock } from '../abi/id-block.ts';
import { fromHex } from '../lib/bytes.ts';
import { decodedText } from '../lib/text.ts';

/** Raw bytes, or their hex or base64 text; null when the file is none of them. */
export function blockBytes(raw: Uint8Array): Uint8Array | null {
  if (raw.length === IdBlock.size || raw.length === IdAuth.size) {
    return raw;
  }
  const text = decodedText(raw)?.replace(/\s+/g, '') ?? '';
  if (/^(0x)?([0-9a-fA-F]{2})+$/.test(text)) {
    return fromHex(text);
  }
  return /^[A-Za-z0-9+/]+=*$/.test(text) ? Uint8Array.from(Buffer.from(text, 'base64')) : null;
}
