// SPDX-License-Identifier: Apache-2.0
import { expect, it } from 'vitest';
import { SignalRelay } from './signal-relay.ts';

// What a whole group gets is tried at terminals, by test/service/exec.test.ts.
it('passes on what is sent to this process alone, until it is closed', async () => {
  const before = process.listenerCount('SIGUSR2');
  const sent: string[] = [];
  const relay = await SignalRelay.start((signal) => sent.push(signal));
  process.kill(process.pid, 'SIGUSR2');
  await expect.poll(() => sent).toEqual(['SIGUSR2']);
  process.kill(process.pid, 'SIGHUP');
  await expect.poll(() => sent).toEqual(['SIGUSR2', 'SIGHUP']);
  relay.close();
  expect(process.listenerCount('SIGUSR2')).toBe(before);
});
