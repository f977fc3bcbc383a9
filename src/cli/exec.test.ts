// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { execCommand } from './exec.ts';
import { readKdsOptions } from './kds-service-options.ts';
import { runCli } from './run.ts';

/** Only for what is refused: anything else would make another program of this process. */
async function refused(...argv: string[]): Promise<string> {
  let said = '';
  const output = {
    stdout: () => undefined,
    stderr: (text: string) => {
      said += text;
    },
  };
  expect(await runCli(execCommand, argv, '0', output)).toBe(1);
  return said;
}

describe('softsnp exec', () => {
  it.each([
    [['--seed', '1'], 'a command is needed'],
    [['--seed', '1', '--'], 'a command is needed'],
    [['--guest', 'a', '--smp', '2', '--', 'true'], '--smp: a host that runs already is not changed by it'],
    [['--guest=a', '--tcb=1,2,3,4', '--', 'true'], '--tcb: a host that runs already'],
    [['--guest', 'a', '--state', 's', '--verbose', '--', 'true'], '--verbose: a host that runs already'],
    [['--guest', 'a', '--kds-intercept', '--kds-rate', 'amd', '--', 'true'], '--kds-rate: a host that runs'],
    [['--kds-fault', 'crl=500', '--', 'true', '--kds-intercept'], '--kds-fault: needs --kds-intercept'],
  ])('refuses %j, which would have no effect', async (argv, message) => {
    expect(await refused(...argv)).toContain(message);
  });

  it('reads what its key service is to do wrong', () => {
    const read = (rules?: string, rate?: string) => readKdsOptions({ 'kds-fault': rules, 'kds-rate': rate });
    const { faults, rate } = read('crl=500*2,vcek=slow', 'amd');
    expect(faults.list().length).toBe(2);
    expect(rate).toEqual({ requests: 1, perMs: 10_000 });
    expect(read()).toEqual({ faults: expect.anything() });
    expect(() => read('crl=nothing')).toThrow(/no fault nothing/);
    expect(() => read(undefined, 'fast')).toThrow(/is not a rate/);
  });
});
