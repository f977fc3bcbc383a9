// SPDX-License-Identifier: Apache-2.0
/** Where devices can be shown, where they cannot, and what stands there from before. */
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FuseMount } from '../../src/os/fuse-mount.ts';
import {
  type DeviceFolder,
  type DeviceFolderOptions,
  detachRecorded,
  serveDevices,
} from '../../src/service/device-folder.ts';
import { type ServiceHost, serviceHost } from './service-host.ts';
import { identities, isRoot, LONG, mountsBelow } from './softsnp.ts';

const missing = isRoot ? identities[0]!.obstacle : 'mounting outside a namespace needs root';
if (missing !== null) {
  process.stderr.write(`SKIPPED: where devices can be shown: ${missing}\n`);
}

describe.skipIf(missing !== null)('the device folder', () => {
  let host: ServiceHost;
  let record: string;
  const served: DeviceFolder[] = [];
  beforeEach(() => {
    host = serviceHost();
    record = join(host.folder, 'mounts.json');
  });
  afterEach(async () => {
    for (const folder of served.splice(0)) {
      await folder.close();
    }
    expect(mountsBelow(host.folder)).toEqual([]);
    host.close();
  });

  const serve = async (name: string, more: Partial<DeviceFolderOptions> = {}): Promise<string> => {
    const folder = await serveDevices({
      ...{ service: host.service, folder: join(host.folder, name), system: null, record },
      ...{ onFault: () => undefined, onMissing: () => undefined },
      ...more,
    });
    served.push(folder);
    return folder.target;
  };
  /** A softsnp that is mounted here and never answers: dead, once it is closed. */
  const silent = async (name: string): Promise<FuseMount> => {
    mkdirSync(join(host.folder, name));
    return FuseMount.mount(join(host.folder, name));
  };

  it.each([
    ['is a file', 'file', 'not a folder'],
    ['is below a file', 'file/below', 'cannot be used: EEXIST'],
    ['is a link', 'link', 'is a symbolic link'],
    ['is a link that leads nowhere', 'dangling', 'is a symbolic link'],
    ['is below a link that leads nowhere', 'dangling/below', 'cannot be used: ENOENT'],
    ['has a name that is too long', 'x'.repeat(300), 'cannot be used: ENAMETOOLONG'],
  ])('is refused when it %s, and nothing is mounted', async (_, name, message) => {
    mkdirSync(join(host.folder, 'folder'));
    writeFileSync(join(host.folder, 'file'), '');
    symlinkSync('folder', join(host.folder, 'link'));
    symlinkSync('nowhere', join(host.folder, 'dangling'));
    const before = readdirSync(host.folder);
    await expect(serve(name)).rejects.toMatchObject({
      code: 'MOUNT_POINT_INVALID',
      message: expect.stringMatching(new RegExp(`: ${message}$`)),
    });
    expect(mountsBelow(host.folder)).toEqual([]);
    expect(readdirSync(host.folder)).toEqual(before);
  });

  it('is refused where another softsnp answers, and below it; that one is left alone', async () => {
    const first = await serve('devices');
    const own = { record: join(host.folder, 'other.json') };
    for (const name of ['devices', 'devices/below', 'devices/host']) {
      await expect(serve(name, own)).rejects.toMatchObject({
        code: 'MOUNT_POINT_INVALID',
        message: `${first}: another softsnp is mounted here and answers`,
      });
    }
    expect(mountsBelow(host.folder).length).toBe(1);
    expect(existsSync(own.record)).toBe(false);
  });

  it.skipIf(!LONG)('is refused where another softsnp is mounted that does not answer any more', async () => {
    const other = await silent('devices');
    for (const name of ['devices', 'devices/below']) {
      await expect(serve(name)).rejects.toThrow('another softsnp is mounted here and does not answer');
    }
    await other.detach();
    other.close();
  });

  it.each(['devices', 'devices/below/it'])('takes the place of one that died: %s', async (name) => {
    (await silent('devices')).close();
    expect(await serve(name)).toBe(join(host.folder, name));
    expect(mountsBelow(host.folder).length).toBe(1);
    await served.pop()!.close();
    expect(mountsBelow(host.folder)).toEqual([]);
    expect(readdirSync(join(host.folder, name))).toEqual([]);
  });

  it.each(['broken', '[1, null]', ''])(
    'is found again after a kill -9 though the record of it is %j',
    async (broken) => {
      (await silent('devices')).close();
      writeFileSync(record, broken);
      await detachRecorded(record);
      await serve('devices');
      expect(JSON.parse(readFileSync(record, 'utf8'))).toEqual([join(host.folder, 'devices')]);
    },
  );

  it('is recorded by its real path, so that the next start finds the mount', async () => {
    mkdirSync(join(host.folder, 'real'));
    symlinkSync('real', join(host.folder, 'alias'));
    const target = await serve('alias/devices');
    expect(target).toBe(join(host.folder, 'real', 'devices'));
    expect(JSON.parse(readFileSync(record, 'utf8'))).toEqual([target]);
  });

  it('is not mounted when it cannot be recorded', async () => {
    mkdirSync(join(dirname(record), '.mounts.json.new'));
    await expect(serve('devices')).rejects.toMatchObject({ code: 'STATE_UNWRITABLE' });
    expect(mountsBelow(host.folder)).toEqual([]);
  });
});
