// SPDX-License-Identifier: Apache-2.0
/** What the verbs of softsnp ctl have in common: which host they ask, and how the answer is printed. */
import { type ArgsDef, defineCommand, type ParsedArgs } from 'citty';
import { controlRequest } from '../service/control-client.ts';
import { FIND_ARGS, findControlSocket } from './find-host.ts';
import { EXIT_OK, processOutput, type Verb } from './run.ts';

export const COMMON = {
  ...FIND_ARGS,
  json: { type: 'boolean', description: 'Print the answer as JSON' },
} as const satisfies ArgsDef;

export type Common = ParsedArgs<typeof COMMON>;

export interface Request {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
}

/**
 * A verb that makes one request of its arguments and prints the answer.
 *
 * `textOf` is for people where a line for each value says too little or too much.
 */
export function asking<const A extends ArgsDef>(
  name: string,
  description: string,
  args: A,
  requestOf: (args: ParsedArgs<A & typeof COMMON>) => Request,
  textOf: (answer: unknown, args: ParsedArgs<A & typeof COMMON>) => string = (answer) => readable(answer, ''),
): Verb {
  return defineCommand({
    meta: { name, description },
    args: { ...COMMON, ...args },
    run: async ({ args: given }) => {
      const parsed = given as ParsedArgs<A & typeof COMMON>;
      const { method, path, body } = requestOf(parsed);
      const common = given as Common;
      const answer = await controlRequest(await findControlSocket(common), method, path, body);
      printAnswer(common, answer, () => textOf(answer, parsed));
      return EXIT_OK;
    },
  });
}

export const group = (name: string, description: string, subCommands: Record<string, Verb>): Verb =>
  defineCommand({ meta: { name, description }, subCommands });

export function printAnswer(
  { json }: Common,
  answer: unknown,
  text = (): string => readable(answer, ''),
): void {
  processOutput.stdout(json === true ? `${JSON.stringify(answer)}\n` : text());
}

/** One line for each value, its path before it. */
function readable(value: unknown, path: string): string {
  if (typeof value !== 'object' || value === null) {
    return `${path}${path === '' ? '' : ' '}${value === null ? '-' : String(value)}\n`;
  }
  if (Array.isArray(value) && value.every((item) => typeof item !== 'object')) {
    return `${path} ${value.length === 0 ? '-' : value.join(' ')}\n`;
  }
  return Object.entries(value)
    .map(([name, item]) => {
      const label = Array.isArray(value) && isNamed(item) ? item.name : name;
      return readable(item, path === '' ? label : `${path}.${label}`);
    })
    .join('');
}

const isNamed = (value: unknown): value is { readonly name: string } =>
  typeof value === 'object' && value !== null && 'name' in value && typeof value.name === 'string';
