// SPDX-License-Identifier: Apache-2.0
/** A host that the verbs exec and up keep running: the state folder it has, and its service. */
import { join } from 'node:path';
import { errnoName } from '../abi/errno.ts';
import { sevRetName } from '../abi/sev-status.ts';
import { FaultPlan } from '../kds/index.ts';
import { VirtualClock } from '../lib/clock.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { Host } from '../machine/index.ts';
import { EventLog } from '../service/event-log.ts';
import { HostService, type ServedGuest } from '../service/host-service.ts';
import type { OpenHostState } from './host-state.ts';
import { chipOverrides, launchSettings, type MachineOptions, openMachineState } from './machine-options.ts';

export interface RunningHost {
  readonly opened: OpenHostState;
  readonly service: HostService;
  /** Wrong answers on demand of the key services that are served for this host. */
  readonly kdsFaults: FaultPlan;
  /** A device could not answer a client: a line for the operator. */
  readonly onFault: (error: unknown, request: string) => void;
  /**
   * Launches a guest as the options say.
   *
   * Errors   MACHINE_REFUSED naming the step
   */
  addGuest(name: string, options: MachineOptions): Promise<ServedGuest>;
  /** Ends every guest and lets the state folder go. */
  close(): void;
}

const BLOB_FOLDER = 'blobs';

/**
 * Starts the host the options name.
 *
 * Errors   STATE_*, OPTION_INVALID, MACHINE_REFUSED when it cannot load a VLEK it was to have
 */
export function openRunningHost(options: MachineOptions): RunningHost {
  const opened = openMachineState(options);
  try {
    return startHost(opened, options);
  } catch (error) {
    opened.close();
    throw error;
  }
}

function startHost(opened: OpenHostState, options: MachineOptions): RunningHost {
  const { crypto, random, clock, state, directory } = opened;
  const events = new EventLog(() => clock.nowMs());
  const log = (line: string): void => {
    events.emit({ type: 'log', line });
    if (options.verbose) {
      process.stderr.write(`${line}\n`);
    }
  };
  const host = new Host(
    { crypto, random, clock, log, trace: (step) => events.emit({ type: 'trace', step }) },
    state,
    chipOverrides(options, state.product),
  );
  if (options.key === 'vlek') {
    const loaded = host.loadVlek();
    if (!loaded.ok) {
      throw new EnvironmentError('MACHINE_REFUSED', loaded.message, { where: 'SNP_VLEK_LOAD' });
    }
  }
  const service = new HostService({
    ...{ host, events },
    blobFolder: join(directory.path, BLOB_FOLDER),
    save: opened.save,
    sleep: sleeper(opened),
  });
  opened.save(host.state);
  return {
    opened,
    service,
    kdsFaults: new FaultPlan(),
    onFault: (error, request) => {
      const what = error instanceof Error ? error.message : String(error);
      log(`${request}: ${what}`);
      if (!options.verbose) {
        process.stderr.write(`softsnp: ${request}: ${what}\n`);
      }
    },
    addGuest: (name, guestOptions) => addGuest(service, name, guestOptions),
    close() {
      for (const name of [...service.guests.keys()]) {
        service.removeGuest(name);
      }
      opened.close();
    },
  };
}

async function addGuest(service: HostService, name: string, options: MachineOptions): Promise<ServedGuest> {
  const { crypto } = service.host.deps;
  const answer = await service.addGuest({
    name,
    settings: launchSettings(options, options.plan(crypto)),
    key: 'auto',
    certs: options.certs,
  });
  if (answer.ok) {
    return answer.served;
  }
  throw new EnvironmentError('MACHINE_REFUSED', 'reason' in answer ? answer.reason : refusalText(answer), {
    where: answer.step,
  });
}

function refusalText({
  errno,
  fwStatus,
}: {
  readonly errno: number;
  readonly fwStatus: number | null;
}): string {
  return fwStatus === null
    ? errnoName(errno)
    : `${errnoName(errno)}, firmware status ${sevRetName(fwStatus)}`;
}

/** Real time passes for the guests of a seeded host too, as real programs wait for them. */
function sleeper({ clock }: OpenHostState): (ms: number) => Promise<void> {
  return (ms) =>
    new Promise((resolve) => {
      if (ms <= 0) {
        setImmediate(resolve);
        return;
      }
      setTimeout(() => {
        if (clock instanceof VirtualClock) {
          clock.advance(ms);
        }
        resolve();
      }, ms);
    });
}
