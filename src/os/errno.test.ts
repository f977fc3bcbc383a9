// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { environmentErrorOf, errnoCode } from './errno.ts';

/** As Node throws them. */
const thrown = (code: string, more: object = {}): Error =>
  Object.assign(new TypeError(`${code}: what Node says`), { code, ...more });

const caught = (work: () => unknown): unknown => {
  try {
    return work();
  } catch (error) {
    return error;
  }
};

describe('the name of an errno', () => {
  it.each([
    ['ENOENT', caught(() => readFileSync('/nowhere'))],
    ['EDQUOT', thrown('Unknown system error -122', { errno: -122 })],
    ['EDQUOT', thrown('UNKNOWN', { errno: -122 })],
    ['errno 200', thrown('UNKNOWN', { errno: -200 })],
    ['ERR_INVALID_ARG_TYPE', caught(() => readFileSync(null as never))],
    ['no code', new TypeError('no code')],
    ['text', 'text'],
    ['undefined', undefined],
  ])('%s is found on what Node throws', (name, error) => {
    expect(errnoCode(error)).toBe(name);
  });
});

describe('an exception of Node', () => {
  it.each(['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC', 'EDQUOT'])(
    '%s says that something has run out',
    (code) => {
      expect(environmentErrorOf(thrown(code, { path: '/a/file' }))).toMatchObject({
        code: 'RESOURCES_EXHAUSTED',
        message: expect.stringMatching(new RegExp(`^/a/file: .+: ${code}$`)),
      });
    },
  );

  it('EAGAIN does for a process that cannot be started, and for nothing else', () => {
    expect(environmentErrorOf(thrown('EAGAIN', { syscall: 'spawn sh' }))?.code).toBe('RESOURCES_EXHAUSTED');
    expect(environmentErrorOf(thrown('EAGAIN', { syscall: 'read' }))).toBeNull();
  });

  it('says that a module is missing', () => {
    expect(environmentErrorOf(thrown('ERR_MODULE_NOT_FOUND'))).toMatchObject({
      code: 'INSTALLATION_INCOMPLETE',
      message: 'ERR_MODULE_NOT_FOUND: what Node says',
    });
  });

  it('is nobody’s surroundings otherwise', () => {
    for (const other of [thrown('ENOENT'), thrown('EINVAL'), new TypeError('a defect'), 'text', null]) {
      expect(environmentErrorOf(other)).toBeNull();
    }
  });
});
