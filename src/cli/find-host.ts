// SPDX-License-Identifier: Apache-2.0
/** The running host a verb means, found by its state folder. */
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import type { ArgsDef } from 'citty';
import { PRODUCT_LINES } from '../abi/product.ts';
import { InputError } from '../lib/errors.ts';
import { isAnswering } from '../service/control-client.ts';
import { CONTROL_SOCKET, defaultStateDir } from './host-state.ts';
import { productOption } from './options.ts';

export const FIND_ARGS = {
  state: {
    type: 'string',
    valueHint: 'DIR',
    description: 'State folder of the host (that of the one host that runs below $XDG_STATE_HOME/softsnp)',
  },
  chip: {
    type: 'string',
    valueHint: 'milan|genoa|turin',
    description: 'The host of this product line below $XDG_STATE_HOME/softsnp',
  },
} as const satisfies ArgsDef;

/**
 * Path of the control socket.
 *
 * Returns  without options that of the one host that runs in a usual folder; where none does, the one that
 *          softsnp up would use
 * Errors   OPTION_INVALID when several run
 */
export async function findControlSocket({
  state,
  chip,
}: {
  readonly state?: string | undefined;
  readonly chip?: string | undefined;
}): Promise<string> {
  if (state !== undefined) {
    return join(state, CONTROL_SOCKET);
  }
  const products = chip === undefined ? PRODUCT_LINES : [productOption('chip', chip)];
  const sockets = products.map((product) => join(defaultStateDir(product), CONTROL_SOCKET));
  const there = sockets.filter(isThere);
  if (there.length <= 1) {
    return there[0] ?? sockets[0]!;
  }
  const answers = await Promise.all(there.map(isAnswering));
  const running = there.filter((_, i) => answers[i]);
  if (running.length > 1) {
    throw new InputError('OPTION_INVALID', `hosts run on ${running.join(' and ')}; say which`, {
      where: '--chip or --state',
      action: 'Name one of them with --state.',
    });
  }
  return running[0] ?? sockets[0]!;
}

/** Also when nobody may connect to it: whose it is will be said then. */
function isThere(socket: string): boolean {
  try {
    lstatSync(socket);
    return true;
  } catch {
    return false;
  }
}
