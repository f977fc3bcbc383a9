// SPDX-License-Identifier: Apache-2.0
/**
 * What programs outside hold on to of a guest: its files. They stay the same files, open or bound to a place
 * of the system, whichever guest of that name is behind them.
 */
import { SVM_SEV_FEAT_SNP_ACTIVE } from '../abi/vmsa.ts';
import { type KeptReport, Tsm } from '../devices/configfs-tsm/device.ts';
import { ReportGroup, tsmPlaces } from '../devices/configfs-tsm/files.ts';
import { sevGuestProvider } from '../devices/configfs-tsm/provider.ts';
import { guestMsrs, hostMsrs } from '../devices/msr/device.ts';
import { msrPlaces } from '../devices/msr/files.ts';
import type { SevGuestDriver } from '../devices/sev-guest/device.ts';
import { sevGuestPlaces } from '../devices/sev-guest/files.ts';
import type { Places } from './device-tree.ts';
import { GONE, type GuestQueue } from './guest-driver.ts';

/** Physical memory of the machine that /dev/cpu/0/msr shows. */
const HOST_MEMORY_BYTES = 256n << 30n;

export class GuestDoor {
  /** What the guest shows inside: /dev/sev-guest and what goes with it. */
  readonly places: Places;
  readonly #reports: ReportGroup;
  #queue: GuestQueue | null = null;

  constructor() {
    const driver: SevGuestDriver = (call) => this.#queue?.driver(call) ?? Promise.resolve(GONE);
    this.#reports = new ReportGroup(new Tsm(sevGuestProvider(driver)));
    this.places = {
      ...sevGuestPlaces({ driver }),
      ...tsmPlaces(this.#reports),
      // One file for both sides: programs on a laptop look for host and guest in the same place.
      ...msrPlaces(guestMsrs(SVM_SEV_FEAT_SNP_ACTIVE), hostMsrs(HOST_MEMORY_BYTES)),
    };
  }

  /** Entries of configfs-tsm by name. */
  get reports(): ReadonlyMap<string, KeptReport> {
    return this.#reports.kept();
  }

  /** Leads to another guest from now on, in whose kernel there are these entries. */
  leadTo(queue: GuestQueue, reports: ReadonlyMap<string, KeptReport>): void {
    this.#queue = queue;
    this.#reports.replace(reports);
  }
}
