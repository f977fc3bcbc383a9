// SPDX-License-Identifier: Apache-2.0
/**
 * The key service of a running host for those who serve its clients elsewhere, in a network namespace say:
 * they ask over the control socket, so faults and rates are those of the one service, whichever door a
 * client comes through.
 */
import * as v from 'valibot';
import { DEFAULT_LIMITS, type KdsAnswer, type KdsAnswerer } from '../kds/index.ts';
import { fromHex, toHex } from '../lib/bytes.ts';
import { EnvironmentError, InputError } from '../lib/errors.ts';
import { controlRequest } from './control-client.ts';

const REQUEST = 'POST /v1/kds';
const hex = v.pipe(v.string(), v.regex(/^([0-9a-f]{2})*$/));

/** A KdsRequest; its body in hexadecimal. */
const Request = v.strictObject({
  method: v.string(),
  target: v.string(),
  source: v.string(),
  port: v.picklist(['public', 'provider']),
  csp: v.nullable(v.string()),
  body: v.optional(hex, ''),
});

/** A KdsAnswer in the same way. */
const Answer = v.object({
  status: v.pipe(v.number(), v.integer(), v.minValue(100), v.maxValue(599)),
  headers: v.record(v.string(), v.string()),
  body: hex,
  delivery: v.nullable(v.object({ kind: v.string(), value: v.number() })),
});

/** Room for the longest body a client may send. */
export const KDS_REQUEST_LIMIT_BYTES = 2 * DEFAULT_LIMITS.bodyBytes + 64 * 1024;

/**
 * Answers the document of a request with that of an answer.
 *
 * Errors   OPTION_INVALID
 */
export async function answerKdsDocument(kds: KdsAnswerer, document: unknown) {
  const parsed = v.safeParse(Request, document);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new InputError('OPTION_INVALID', issue.message, { where: v.getDotPath(issue) ?? 'request' });
  }
  const { body, ...request } = parsed.output;
  const answer = await kds.answer({ ...request, body: fromHex(body) });
  return { ...answer, body: toHex(answer.body) };
}

/**
 * The service behind a control socket, for the clients of one guest: each guest counts as a client of its
 * own, whatever its address is where it runs.
 *
 * Errors   of `answer`: CONTROL_UNREACHABLE and what else the host says
 */
export function remoteKds(socket: string, guest: string): KdsAnswerer {
  const [method = '', path = ''] = REQUEST.split(' ');
  return {
    async answer({ body, source, ...request }): Promise<KdsAnswer> {
      const document = { ...request, source: `${guest} ${source}`, body: toHex(body) };
      const parsed = v.safeParse(Answer, await controlRequest(socket, method, path, document));
      if (!parsed.success) {
        throw new EnvironmentError('CONTROL_UNREACHABLE', 'the answer is not of this softsnp', {
          where: socket,
        });
      }
      const answer = parsed.output;
      return { ...answer, body: fromHex(answer.body), delivery: answer.delivery as KdsAnswer['delivery'] };
    },
  };
}
