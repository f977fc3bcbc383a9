// SPDX-License-Identifier: Apache-2.0
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { ProductLine } from '../abi/product.ts';
import { SevRet } from '../abi/sev-status.ts';
import { SevCmd } from '../abi/snp-commands.ts';
import { SevDevice } from '../devices/sev/device.ts';
import { sevFile } from '../devices/sev/files.ts';
import { testOpen } from '../devices/testing.ts';
import { defaultChip, SecureProcessor } from '../firmware/secure-processor.ts';
import { Hardware } from '../hw/hardware.ts';
import { chipIdOf, chipWrappingKey, descend, topStick, wrapHashstick } from '../keys/index.ts';
import { HostKernel } from '../kvm/host-kernel.ts';
import { toHex } from '../lib/bytes.ts';
import { VirtualClock } from '../lib/clock.ts';
import { BugError } from '../lib/errors.ts';
import { nodeCrypto, seededRandom } from '../os/node-crypto.ts';
import { hostVerb } from './host.ts';
import { runCli } from './run.ts';

const folder = mkdtempSync(join(tmpdir(), 'softsnp-host-'));
afterAll(() => rmSync(folder, { recursive: true }));

const crypto = nodeCrypto({ deterministic: true });
const SECRET = new Uint8Array(32).fill(7);
const TCB = { fmc: 0, boot_loader: 3, tee: 0, snp: 22, microcode: 213 };

/** A host whose commands a test can see and answer, and the verb on it. */
class World {
  readonly commands: number[] = [];
  intercept: (id: number) => number | null = () => null;
  readonly device: SevDevice;

  constructor(product: ProductLine = 'Milan', initOnProbe = true) {
    const hw = new Hardware(crypto);
    const tcbs = { currentTcb: TCB, committedTcb: TCB, reportedTcb: TCB };
    const chip = defaultChip(crypto, product, SECRET, tcbs);
    const psp = new SecureProcessor({ hw, crypto, random: seededRandom(1), chip });
    const kernel = new HostKernel({
      hw,
      psp: {
        command: (id, bufferAt) => {
          this.commands.push(id);
          return this.intercept(id) ?? psp.command(id, bufferAt);
        },
      },
      clock: new VirtualClock(0),
      engines: () => {
        throw new BugError('there is no guest');
      },
      initOnProbe,
    });
    this.device = new SevDevice({ process: kernel.spawn('clients') });
  }

  async run(...argv: string[]): Promise<{ code: number; out: string; err: string }> {
    const written = { out: '', err: '' };
    const output = {
      stdout: (text: string) => {
        written.out += text;
      },
      stderr: (text: string) => {
        written.err += text;
      },
    };
    const code = await runCli(hostVerb(output, testOpen(sevFile(this.device))), argv, '0', output);
    return { code, ...written };
  }

  async status(): Promise<Record<string, unknown>> {
    return JSON.parse((await this.run('status', '--json')).out);
  }
}

describe('softsnp host status', () => {
  it('shows version, state, features and TCBs with the components of the chip', async () => {
    const { code, out } = await new World().run('status');
    expect(code).toBe(0);
    expect(out).toMatch(/^api +\d+\.\d+$/m);
    expect(out).toMatch(/^state +INIT$/m);
    expect(out).toMatch(/^is_rmp_init +1$/m);
    expect(out).toMatch(
      /^reported_tcb +0xd516000000000003 {2}\(boot_loader,tee,snp,microcode = 3,0,22,213\)$/m,
    );
  });

  it('divides the words of a Turin chip as a Turin chip does', async () => {
    expect(await new World('Turin').status()).toMatchObject({
      current_tcb: { word: '0xd500000016000300', components: { fmc: 0, snp: 22 }, text: '0,3,0,22,213' },
    });
  });

  it('leaves the words whole when the chip does not say who it is', async () => {
    const world = new World();
    world.intercept = (id) => (id === SevCmd.SEV_CMD_GET_ID ? SevRet.SEV_RET_UNSUPPORTED : null);
    const { code, out } = await world.run('status');
    expect([code, out]).toEqual([0, expect.stringMatching(/^current_tcb +0xd516000000000003$/m)]);
  });
});

describe('softsnp host identifier', () => {
  it.each([
    ['Milan', 128],
    ['Turin', 16],
  ] as const)('prints the hwid of a %s chip: %d digits', async (product, digits) => {
    const id = toHex(chipIdOf(crypto, SECRET, product));
    const { code, out } = await new World(product).run('identifier');
    expect([code, out]).toEqual([0, `${id.slice(0, digits)}\n`]);
    const json = JSON.parse((await new World(product).run('identifier', '--json')).out);
    expect(json.sockets).toEqual([{ identifier: id, hwid: id.slice(0, digits) }]);
  });
});

describe('softsnp host config', () => {
  it('sets what is given and leaves the rest as it is', async () => {
    const world = new World();
    expect((await world.run('config', 'set', '--reported-tcb', '3,0,21,213')).code).toBe(0);
    expect((await world.run('config', 'set', '--mask-chip-id', 'on')).code).toBe(0);
    expect((await world.run('config', 'set', '--mask-chip-key', 'on', '--mask-chip-id', 'off')).code).toBe(0);
    expect(await world.status()).toMatchObject({
      reported_tcb: { text: '3,0,21,213' },
      mask_chip_id: 0,
      mask_chip_key: 1,
    });
  });

  it('resets everything', async () => {
    const world = new World();
    await world.run('config', 'set', '--reported-tcb', '3,0,21,213', '--mask-chip-id', 'on');
    expect((await world.run('config', 'reset', '--json')).out).toBe('{\n  "ok": true\n}\n');
    expect(await world.status()).toMatchObject({ reported_tcb: { text: '3,0,22,213' }, mask_chip_id: 0 });
  });

  it('ends with 1 for nothing to set, a TCB of another shape, and a mask that is neither on nor off', async () => {
    const world = new World();
    for (const options of [
      [],
      ['--reported-tcb', '0,3,0,22,213'],
      ['--reported-tcb', '3,0,22,256'],
      ['--mask-chip-id', '1'],
    ]) {
      expect((await world.run('config', 'set', ...options)).code).toBe(1);
    }
  });

  it('ends with 3 and names the status for a TCB the firmware refuses', async () => {
    const { code, err } = await new World().run('config', 'set', '--reported-tcb', '3,0,23,213');
    expect(code).toBe(3);
    expect(err).toMatch(/SNP_SET_CONFIG: EIO, firmware status SEV_RET_\w+ \(0x\w+\) \[DEVICE_REFUSED\]/);
  });

  it('ends with 3 and names the errno when SNP is not initialised', async () => {
    const { code, err } = await new World('Milan', false).run('config', 'reset');
    expect([code, err]).toEqual([3, expect.stringContaining('SNP_SET_CONFIG: ENODEV [DEVICE_REFUSED]')]);
  });
});

describe('softsnp host commit', () => {
  it('gives SNP_COMMIT and says so', async () => {
    const world = new World();
    expect(await world.run('commit')).toMatchObject({ code: 0, out: 'The running firmware is committed.\n' });
    expect(world.commands.at(-1)).toBe(SevCmd.SEV_CMD_SNP_COMMIT);
  });
});

describe('softsnp host vlek-load', () => {
  const file = (bytes: Uint8Array): string => {
    const path = join(folder, `stick-${bytes.length}-${bytes[12]}`);
    writeFileSync(path, bytes);
    return path;
  };
  const stick = (): Uint8Array => {
    const top = topStick(crypto, new Uint8Array(32).fill(9), 'Milan');
    return wrapHashstick(
      crypto,
      seededRandom(3),
      chipWrappingKey(crypto, SECRET),
      descend(crypto, top, TCB)!,
    );
  };

  it('loads a stick for this chip and its reported TCB', async () => {
    const world = new World();
    expect(await world.run('vlek-load', file(stick()))).toMatchObject({
      code: 0,
      out: 'The VLEK is loaded.\n',
    });
    expect(await world.status()).toMatchObject({ vlek_en: 1 });
  });

  it('ends with 3 for a stick the firmware refuses', async () => {
    const world = new World();
    await world.run('config', 'set', '--reported-tcb', '3,0,21,213');
    expect((await world.run('vlek-load', file(stick()))).code).toBe(3);
  });

  it('ends with 1 for a file that is no stick, without asking the firmware', async () => {
    const world = new World();
    const damaged = stick();
    damaged[12] = 1;
    const before = world.commands.length;
    for (const bytes of [new Uint8Array(432), new Uint8Array(431), new Uint8Array(433), damaged]) {
      expect((await world.run('vlek-load', file(bytes))).code).toBe(1);
    }
    expect(world.commands.length).toBe(before);
  });
});
