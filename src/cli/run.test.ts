// SPDX-License-Identifier: Apache-2.0
import { defineCommand } from 'citty';
import { describe, expect, it } from 'vitest';
import { BugError, EnvironmentError, InputError } from '../lib/errors.ts';
import { runCli, type Verb } from './run.ts';

/** How a verb that throws this ends: exit code and what is said. */
async function endOf(error: unknown): Promise<{ code: number; said: string }> {
  const verb: Verb = defineCommand({
    run: () => {
      throw error;
    },
  });
  let said = '';
  const output = {
    stdout: () => undefined,
    stderr: (text: string) => {
      said += text;
    },
  };
  return { code: await runCli(verb, [], '0', output), said };
}

describe('a verb that throws', () => {
  it.each([
    ['what the caller got wrong', new InputError('OPTION_INVALID', 'wrong'), 1, 'OPTION_INVALID'],
    [
      'what the host lacks',
      new EnvironmentError('FUSE_UNAVAILABLE', 'missing', { where: '/dev/fuse' }),
      3,
      'FUSE_UNAVAILABLE',
    ],
    [
      'an exception of Node about the limit of open files',
      Object.assign(new TypeError('EMFILE'), { code: 'EMFILE', path: '/dist/x.js' }),
      3,
      'RESOURCES_EXHAUSTED',
    ],
    [
      'one about a full disk',
      Object.assign(new TypeError('ENOSPC'), { code: 'ENOSPC', syscall: 'write' }),
      3,
      'RESOURCES_EXHAUSTED',
    ],
  ])('%s ends with one line, what to do, and an exit code', async (_, error, code, name) => {
    const end = await endOf(error);
    expect(end.code).toBe(code);
    expect(end.said).toMatch(new RegExp(`^softsnp: .*\\[${name}\\]\\n {2}[A-Z].*\\n$`));
  });

  it.each([new BugError('impossible'), new TypeError('x is undefined'), 'text'])(
    'anything else (%s) is a defect, with its stack',
    async (error) => {
      const end = await endOf(error);
      expect(end.code).toBe(70);
      expect(end.said).toContain('This is a defect in softsnp');
    },
  );
});
