// SPDX-License-Identifier: Apache-2.0
/** A host that the verbs exec and up keep running: the state folder it has, and its service. */
import { join } from 'node:path';
import { Fleet, KdsService } from '../kds/index.ts';
import { VirtualClock } from '../lib/clock.ts';
import { EnvironmentError } from '../lib/errors.ts';
import { Host, type HostDeps } from '../machine/index.ts';
import { EventLog } from '../service/event-log.ts';
import { launchGuest, MachineRefusal } from '../service/host-control.ts';
import { HostService } from '../service/host-service.ts';
import type { GuestSpec, ServedGuest } from '../service/served-guest.ts';
import type { OpenHostState } from './host-state.ts';
import type { KdsOptions } from './kds-service-options.ts';
import { chipOverrides, type MachineOptions, openMachineState } from './machine-options.ts';

export interface RunningHost {
  readonly opened: OpenHostState;
  readonly service: HostService;
  /** The key service of this host, for whoever serves it. */
  readonly kds: KdsService;
  /** A device could not answer a client: a line for the operator. */
  readonly onFault: (error: unknown, request: string) => void;
  /**
   * Launches a guest.
   *
   * Errors   MACHINE_REFUSED naming the step; OPTION_INVALID for its name
   */
  addGuest(spec: GuestSpec): Promise<ServedGuest>;
  /** Ends every guest, after what is under way, and lets the state folder go. */
  close(): Promise<void>;
}

const BLOB_FOLDER = 'blobs';

/**
 * Starts the host the options name.
 *
 * Errors   STATE_*, OPTION_INVALID, MACHINE_REFUSED when it cannot load a VLEK it was to have
 */
export function openRunningHost(options: MachineOptions, kds: KdsOptions): RunningHost {
  const opened = openMachineState(options);
  try {
    return startHost(opened, options, kds);
  } catch (error) {
    opened.close();
    throw error;
  }
}

function startHost(opened: OpenHostState, options: MachineOptions, kds: KdsOptions): RunningHost {
  const { crypto, random, clock, state, directory } = opened;
  const events = new EventLog(() => clock.nowMs());
  const log = (line: string): void => {
    events.emit({ type: 'log', line });
    if (options.verbose) {
      process.stderr.write(`${line}\n`);
    }
  };
  const deps: HostDeps = {
    crypto,
    random,
    clock,
    log,
    trace: (step) => events.emit({ type: 'trace', step }),
  };
  const chip = chipOverrides(options, state.product);
  const host = new Host(deps, state, chip);
  if (options.key === 'vlek') {
    const loaded = host.loadVlek();
    if (!loaded.ok) {
      throw new EnvironmentError('MACHINE_REFUSED', loaded.message, { where: 'SNP_VLEK_LOAD' });
    }
  }
  const service = new HostService({
    ...{ host, events },
    // The TCB that was asked for is the first machine's; a snapshot has its own.
    machine: (wanted) => new Host(deps, wanted, { reportVersion: host.chip.reportVersion }),
    blobFolder: join(directory.path, BLOB_FOLDER),
    prepareSave: opened.prepareSave,
    sleep: sleeper(opened),
  });
  opened.save(host.state);
  return {
    opened,
    service,
    kds: new KdsService({ fleet: Fleet.ofHost(crypto, state), clock, random, ...kds }),
    onFault: (error, request) => {
      const what = error instanceof Error ? error.message : String(error);
      log(`${request}: ${what}`);
      if (!options.verbose) {
        process.stderr.write(`softsnp: ${request}: ${what}\n`);
      }
    },
    addGuest: (spec) => addGuest(service, spec),
    async close() {
      await service.close();
      opened.close();
    },
  };
}

async function addGuest(service: HostService, spec: GuestSpec): Promise<ServedGuest> {
  const launched = await launchGuest(service, spec);
  if (launched instanceof MachineRefusal) {
    throw new EnvironmentError('MACHINE_REFUSED', launched.reason, { where: launched.step });
  }
  return launched;
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
