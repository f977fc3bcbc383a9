// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { Errno } from '../abi/errno.ts';
import { GhcbExit } from '../abi/ghcb.ts';
import { MSG_REPORT_RSP_SIZE, SnpMsg } from '../abi/guest-message.ts';
import { PageType } from '../abi/page-info.ts';
import { PscOp } from '../abi/psc.ts';
import { encodeCertificateTable, MemoryBlob } from '../certs/index.ts';
import { type Guest, readPrivate, readShared, writePrivate, writeShared } from '../guest/cpu.ts';
import type { RunningSystem } from '../guest/kernel.ts';
import { setMemoryPrivate, setMemoryShared } from '../guest/page-state.ts';
import { type Gpa, gpa } from '../lib/addresses.ts';
import { isZero, readU32 } from '../lib/bytes.ts';
import { formatStop } from './stop.ts';
import { defaultPlan, MIB, TestHost } from './testing.ts';

const UNKNOWN_GUID = '00112233-4455-6677-8899-aabbccddeeff';
const tableOf = (size: number, fill = 1): Uint8Array =>
  encodeCertificateTable([{ guid: UNKNOWN_GUID, data: new Uint8Array(size - 48).fill(fill) }]);
const INVALID_LEN = 0x1_0000_0000n;
const BUSY = 0x2_0000_0000n;
const GENERIC = 0xffff_ffff_0000_0000n;

describe('launch and boot', () => {
  it('boots one vCPU and accepts all memory', () => {
    const guest = new TestHost().guest();
    expect(guest.boot()).toEqual({ kind: 'done' });
    expect(guest.kernel.system?.missing).toEqual([]);
    // One page of each kind: low RAM, a 2 MiB page, the last page.
    const pages = [0x1000n, 0x120_0000n, BigInt(64 * MIB - 4096)];
    const read = guest.kernel.submit(function* (): Guest<boolean> {
      for (const at of pages) {
        yield* writePrivate(gpa(at), Uint8Array.of(1, 2, 3));
      }
      for (const at of pages) {
        const [a, b, c] = yield* readPrivate(gpa(at), 3);
        if (a !== 1 || b !== 2 || c !== 3) {
          return false;
        }
      }
      return true;
    });
    expect(guest.finish(read)).toBe(true);
  });

  it('boots 64 vCPUs, all of which report', () => {
    const guest = new TestHost().guest({ vcpus: 64 });
    expect(guest.boot()).toEqual({ kind: 'done' });
    expect(guest.kernel.online.size).toBe(64);
    expect(guest.kernel.system?.missing).toEqual([]);
  });

  it('puts RAM above 4 GiB where QEMU does', () => {
    const guest = new TestHost().guest({ memoryBytes: 3072 * MIB });
    expect(guest.boot()).toEqual({ kind: 'done' });
    const high = gpa(0x1_0000_0000n + BigInt(1024 * MIB - 4096));
    const handle = guest.kernel.submit(function* (): Guest<Uint8Array> {
      yield* writePrivate(high, Uint8Array.of(9));
      return yield* readPrivate(high, 1);
    });
    expect(guest.finish(handle)[0]).toBe(9);
  });

  it('names the call, the errno and the firmware status of a launch that failed', () => {
    const host = new TestHost();
    expect(host.attempt({ policy: 0x10000n }).refusal).toEqual({
      ok: false,
      step: 'KVM_SEV_SNP_LAUNCH_START',
      errno: Errno.EINVAL,
      fwStatus: null,
    });
    const idBlock = { block: new Uint8Array(96), auth: new Uint8Array(4096), authorKey: false };
    const refused = host.attempt({ idBlock }).refusal;
    expect(refused).toMatchObject({ step: 'KVM_SEV_SNP_LAUNCH_FINISH', errno: Errno.EIO });
    expect(refused!.fwStatus).not.toBeNull();
    expect(host.attempt({ policy: 0xff_0000_0003_ffffn }).refusal?.step).toBe('KVM_SEV_SNP_LAUNCH_START');
  });

  it('gives everything back when a launch fails: the ASID, the memory, the names of nothing', () => {
    const host = new TestHost();
    const before = host.guest();
    before.boot();
    for (let i = 0; i < 600; i++) {
      host.attempt({ policy: 0x10000n });
    }
    expect(host.guest().boot()).toEqual({ kind: 'done' });
  });

  it('launches the CPUID table the firmware corrected when ours is refused', () => {
    const plan = defaultPlan(1);
    const regions = plan.regions.map((region) => {
      if (region.type !== PageType.CPUID) {
        return region;
      }
      const data = region.data!.slice();
      // Function 1, ECX: every feature there is.
      data.set([0xff, 0xff, 0xff, 0xff], cpuidFunction1(data) + 32);
      return { ...region, data };
    });
    const guest = new TestHost().guest({ plan: { ...plan, regions } });
    expect(guest.log).toContain(
      'the firmware does not vouch for our CPUID table; launching the one it corrected',
    );
    expect(guest.boot()).toEqual({ kind: 'done' });
  });

  it('closes everything a guest had open and can be asked again', () => {
    const host = new TestHost();
    const guest = host.guest();
    guest.boot();
    guest.vmm.close();
    guest.vmm.close();
    expect(guest.vmm.step(0)).toEqual({
      kind: 'stopped',
      end: { stop: { kind: 'closed' }, vcpu: null },
    });
    expect(host.guest().boot()).toEqual({ kind: 'done' });
  });
});

/** Offset of function 1 in a CPUID page. */
function cpuidFunction1(page: Uint8Array): number {
  for (let at = 0x10; at < page.length; at += 48) {
    if (readU32(page, at) === 1) {
      return at;
    }
  }
  return page.length;
}

describe('an attestation request with certificates', () => {
  it('gives the report and the table, and leaves no lock behind', () => {
    const blob = new MemoryBlob('blob', tableOf(5000));
    const guest = new TestHost().guest({ blob });
    guest.boot();
    const reply = guest.extReport();
    expect(reply).toMatchObject({ ret: 0, exitinfo2: 0n, writeBack: false });
    expect(reply.certs!.subarray(0, 5000)).toEqual(tableOf(5000));
    expect(isZero(reply.certs!.subarray(5000))).toBe(true);
    expect([readU32(reply.response!, 0), readU32(reply.response!, 4)]).toEqual([0, 0x4a0]);
    expect(isZero(reply.response!.subarray(MSG_REPORT_RSP_SIZE))).toBe(true);
    expect(blob.sharedHolders).toBe(0);
    expect(guest.trace.map(({ n }) => n)).toEqual([1, 3, 6, 7]);
    expect(guest.host.events.map(({ step }) => step)).toEqual(['ext-guest-request', 'complete-req-certs']);
    expect(guest.host.requests).toHaveLength(1);
  });

  it('takes lock, blob, memory, firmware and unlock in this order, each in a step of its own', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const world = new TestHost().guest({ blob });
    const { vmm, host } = world;
    world.boot();
    const handle = world.startExtReport();
    let outcome = vmm.step(0);
    while (!('exit' in outcome && outcome.exit === 'KVM_EXIT_SNP_REQ_CERTS')) {
      outcome = vmm.step(0);
    }
    // Between the exit and its answer: nothing is locked yet.
    expect(outcome.kind).toBe('ran');
    expect(blob.sharedHolders).toBe(0);

    expect(vmm.step(0)).toEqual({ kind: 'answered', exit: 'KVM_EXIT_SNP_REQ_CERTS' });
    expect(blob.sharedHolders).toBe(1);
    expect(blob.tryLockExclusive()).toEqual({ busy: true });
    expect(host.requests).toHaveLength(0);

    expect(vmm.step(0)).toEqual({ kind: 'ran', ret: -Errno.EINTR, exit: 'EINTR' });
    // The firmware has made the report; the lock is still held.
    expect(host.requests).toHaveLength(1);
    expect(blob.tryLockExclusive()).toEqual({ busy: true });
    expect(handle.done).toBe(false);

    expect(vmm.step(0)).toEqual({ kind: 'answered', exit: 'EINTR' });
    expect(blob.sharedHolders).toBe(0);
    expect('lock' in blob.tryLockExclusive()).toBe(true);
    expect(world.finish(handle).ret).toBe(0);
  });

  it('lets two guests hold the lock at the same time', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const host = new TestHost();
    const guests = [host.guest({ blob }), host.guest({ blob })];
    const handles = guests.map((guest) => {
      guest.boot();
      return guest.startExtReport();
    });
    for (const { vmm } of guests) {
      for (let outcome = vmm.step(0); outcome.kind !== 'answered'; ) {
        outcome = vmm.step(0);
      }
    }
    expect(blob.sharedHolders).toBe(2);
    expect(guests.map((guest, i) => guest.finish(handles[i]!).ret)).toEqual([0, 0]);
    expect(blob.sharedHolders).toBe(0);
  });

  it('drops the lock, and says so, when KVM_RUN fails instead of ending in -EINTR', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const guest = new TestHost().guest({ blob });
    guest.boot();
    guest.startExtReport();
    for (let outcome = guest.vmm.step(0); outcome.kind !== 'answered'; ) {
      outcome = guest.vmm.step(0);
    }
    expect(blob.sharedHolders).toBe(1);
    // KVM needs /dev/sev for the request: the second file the VMM opened, after 0 to 2.
    expect(guest.process.close(4)).toBe(0);
    expect(guest.vmm.step(0)).toMatchObject({
      kind: 'stopped',
      end: { stop: { kind: 'run-failed', errno: Errno.EBADF } },
    });
    expect(blob.sharedHolders).toBe(0);
    expect(guest.log).toContain('KVM_RUN returned -EBADF where -EINTR was due');
    expect(guest.trace.at(-1)!.detail['because']).toBe('-EBADF');
  });

  it('gives two guests different certificates', () => {
    const host = new TestHost();
    const fills = [1, 2].map((fill) => {
      const guest = host.guest({ blob: new MemoryBlob(`blob ${fill}`, tableOf(100, fill)) });
      guest.boot();
      return guest.extReport().certs![60];
    });
    expect(fills).toEqual([1, 2]);
  });

  it('shows BUSY while the exclusive lock is held and succeeds after its release', () => {
    const blob = new MemoryBlob('blob', tableOf(100, 1));
    const guest = new TestHost().guest({ blob });
    guest.boot();
    const exclusive = blob.tryLockExclusive();
    const handle = guest.startExtReport();
    guest.runUntil(() => guest.host.clock.monotonicMs() > 5000);
    expect(handle.done).toBe(false);
    expect(guest.trace.filter(({ n }) => n === 3).map(({ detail }) => detail['ret'])).toEqual(
      Array(3).fill('EAGAIN'),
    );
    if ('lock' in exclusive) {
      exclusive.lock.write(tableOf(100, 2));
      exclusive.lock.release();
    }
    expect(guest.finish(handle).certs![60]).toBe(2);
    expect(guest.host.requests.map(({ seqno }) => seqno)).toEqual([1n]);
  });

  it('ends in ETIMEDOUT and a wiped key when the lock is held for ever', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const guest = new TestHost().guest({ blob });
    guest.boot();
    blob.tryLockExclusive();
    expect(guest.extReport()).toMatchObject({ ret: -Errno.ETIMEDOUT, exitinfo2: BUSY });
    expect(guest.extReport()).toMatchObject({ ret: -Errno.ENOTTY, writeBack: false });
    expect(guest.host.requests).toEqual([]);
  });

  it('shows INVALID_LEN with the pages needed, uses the number up, and gives both on the next call', () => {
    const guest = new TestHost().guest({ blob: new MemoryBlob('blob', tableOf(5000)) });
    guest.boot();
    for (const offered of [0, 0x1000]) {
      const reply = guest.extReport(offered);
      expect(reply).toMatchObject({ ret: -Errno.EIO, exitinfo2: INVALID_LEN, writeBack: true });
      expect(readU32(reply.req_data!, 104)).toBe(0x2000);
    }
    expect(guest.extReport(0x2000)).toMatchObject({ ret: 0 });
    expect(guest.host.requests.map(({ seqno }) => seqno)).toEqual([1n, 3n, 5n]);
  });

  const eio: [string, MemoryBlob][] = [
    ['missing', new MemoryBlob('blob', null)],
    ['malformed', new MemoryBlob('blob', new Uint8Array(1000).fill(0xff))],
    ['too large for any guest', new MemoryBlob('blob', tableOf(0x4001))],
  ];
  for (const [what, blob] of eio) {
    it(`shows the generic VMM error, logged with the cause, when the blob is ${what}`, () => {
      const guest = new TestHost().guest({ blob });
      guest.boot();
      expect(guest.extReport()).toMatchObject({ ret: -Errno.EIO, exitinfo2: GENERIC, writeBack: true });
      expect(guest.log.some((line) => line.startsWith('no certificates for the guest: blob'))).toBe(true);
      expect(guest.host.requests).toEqual([]);
    });
  }

  it('gives an empty table when this VMM has no certificates', () => {
    const guest = new TestHost().guest({ blob: null });
    guest.boot();
    const reply = guest.extReport(0x1000);
    expect(reply.ret).toBe(0);
    expect(isZero(reply.certs!)).toBe(true);
  });

  it('releases the lock when the VM is closed in the middle of a request', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const guest = new TestHost().guest({ blob });
    guest.boot();
    guest.startExtReport();
    for (let outcome = guest.vmm.step(0); outcome.kind !== 'answered'; ) {
      outcome = guest.vmm.step(0);
    }
    expect(blob.sharedHolders).toBe(1);
    guest.vmm.close();
    expect(blob.sharedHolders).toBe(0);
  });
});

/** An extended guest request made by hand: message type, certificate buffer and pages as given. */
function extendedRequest(msgType: number, certsGpa: bigint, npages: bigint) {
  return function* ({ ghcb, pages }: RunningSystem): Guest<{ info1: bigint; info2: bigint; rbx: bigint }> {
    const message = new Uint8Array(4096);
    message[0x34] = msgType;
    yield* writeShared(pages.request, message);
    ghcb.invalidate();
    ghcb.put('rax', certsGpa);
    ghcb.put('rbx', npages);
    yield* ghcb.call(GhcbExit.SVM_VMGEXIT_EXT_GUEST_REQUEST, pages.request, pages.response);
    return {
      info1: ghcb.answer('sw_exit_info_1'),
      info2: ghcb.answer('sw_exit_info_2'),
      rbx: ghcb.answer('rbx'),
    };
  };
}

describe('a hostile guest', () => {
  const reportBuffers: [string, bigint, bigint, bigint][] = [
    ['private memory', 0x100_0000n + 0x20_0000n, 4n, GENERIC],
    ['memory it does not have', 0x1000_0000n, 4n, GENERIC],
    ['the hole below 1 MiB', 0xa_0000n, 1n, GENERIC],
    ['a range that wraps', 0xffff_ffff_ffff_f000n, 2n, GENERIC],
    ['the last page of all', 0xffff_ffff_ffff_f000n, 1n, GENERIC],
    ['2^52 pages', 0x1000n, 1n << 52n, GENERIC],
    ['the firmware image', 0xffff_0000n, 4n, GENERIC],
  ];
  for (const [what, at, npages, info2] of reportBuffers) {
    it(`that offers ${what} for certificates gets 0x${info2.toString(16)}; host memory stays as it was`, () => {
      const guest = new TestHost().guest({ blob: new MemoryBlob('blob', tableOf(100)) });
      guest.boot();
      const job = guest.kernel.submit(extendedRequest(SnpMsg.SNP_MSG_REPORT_REQ, at, npages));
      expect(guest.finish(job)).toMatchObject({ info1: 0n, info2, rbx: npages });
      expect(guest.host.requests).toEqual([]);
      expect(guest.log.at(-1)).toMatch(/^no certificates for the guest: cannot write/);
    });
  }

  it('that offers one page for a table of two gets RBX 2; nothing is written, no report made', () => {
    const guest = new TestHost().guest({ blob: new MemoryBlob('blob', tableOf(5000)) });
    guest.boot();
    const job = guest.kernel.submit(function* (system): Guest<[unknown, boolean]> {
      const { certs } = system.pages;
      yield* writeShared(certs, new Uint8Array(8192).fill(0xee));
      const answer = yield* extendedRequest(SnpMsg.SNP_MSG_REPORT_REQ, certs, 1n)(system);
      return [answer, (yield* readShared(certs, 8192)).every((byte) => byte === 0xee)];
    });
    expect(guest.finish(job)).toEqual([{ info1: 0n, info2: INVALID_LEN, rbx: 2n }, true]);
    expect(guest.host.requests).toEqual([]);
  });

  it('that offers no pages learns how many are needed', () => {
    const guest = new TestHost().guest({ blob: new MemoryBlob('blob', tableOf(9000)) });
    guest.boot();
    const job = guest.kernel.submit(extendedRequest(SnpMsg.SNP_MSG_REPORT_REQ, 0xdead_b000n, 0n));
    expect(guest.finish(job)).toEqual({ info1: 0n, info2: INVALID_LEN, rbx: 3n });
  });

  it('that offers an unaligned buffer is told so by KVM: malformed input 5', () => {
    const guest = new TestHost().guest({ blob: new MemoryBlob('blob', tableOf(100)) });
    guest.boot();
    const job = guest.kernel.submit(extendedRequest(SnpMsg.SNP_MSG_REPORT_REQ, 0x1001n, 4n));
    expect(guest.finish(job)).toMatchObject({ info1: 2n, info2: 5n });
    expect(guest.trace.filter(({ n }) => n === 3)).toEqual([]);
  });

  it('that sends any other message type never reaches the certificates', () => {
    const blob = new MemoryBlob('blob', tableOf(100));
    const guest = new TestHost().guest({ blob });
    guest.boot();
    for (let type = 0; type < 256; type++) {
      if (type !== SnpMsg.SNP_MSG_REPORT_REQ) {
        const job = guest.kernel.submit(extendedRequest(type, 0x1000n, 4n));
        const { info1, info2 } = guest.finish(job);
        expect([info1, info2 >> 32n]).toEqual([0n, 0n]);
        expect(info2).not.toBe(0n);
      }
    }
    expect(guest.trace).toEqual([]);
    expect(guest.host.requests).toHaveLength(255);
  });

  it('that asks for devices gets all ones, and one line in the log for each place', () => {
    const guest = new TestHost().guest();
    guest.boot();
    const inByte = function* ({ ghcb }: RunningSystem): Guest<bigint> {
      ghcb.invalidate();
      ghcb.put('rax', 0n);
      // IN, one byte, port 0x2f8.
      yield* ghcb.call(GhcbExit.SVM_EXIT_IOIO, 0x02f8_0011n, 0n);
      return readAx(yield* readShared(gpa(ghcb.gpa + 0x1f8n), 8));
    };
    expect(guest.finish(guest.kernel.submit(inByte)) & 0xffn).toBe(0xffn);
    guest.finish(guest.kernel.submit(inByte));
    expect(guest.log.filter((line) => line.includes('0x2f8'))).toEqual(['no device at port 0x2f8']);
  });
});

const readAx = (raw: Uint8Array): bigint => BigInt(raw[0]!);

describe('page states', () => {
  const frame = 0x3000;
  const at: Gpa = gpa(0x300_0000n);
  const range = { from: frame, to: frame + 3 };

  it('change between private and shared, and the contents do not follow', () => {
    const guest = new TestHost().guest();
    guest.boot();
    const job = guest.kernel.submit(function* ({ ghcb }): Guest<readonly number[]> {
      yield* writePrivate(at, Uint8Array.of(1));
      yield* setMemoryShared(ghcb, range);
      const shared = (yield* readShared(at, 1))[0]!;
      yield* writeShared(at, Uint8Array.of(2));
      yield* setMemoryPrivate(ghcb, range);
      const again = (yield* readPrivate(at, 1))[0]!;
      return [shared, again];
    });
    const [shared, again] = guest.finish(job);
    expect(shared).toBe(0);
    // Host zeroes seen through the guest's key, not what either state held before.
    expect([1, 2]).not.toContain(again);
  });

  it('of a page accessed without asking are converted; the guest finds it not validated', () => {
    const guest = new TestHost().guest();
    guest.boot();
    const job = guest.kernel.submit(function* ({ ghcb }): Guest<void> {
      yield* setMemoryShared(ghcb, range);
      // No page state change, no PVALIDATE: the access faults, is converted and raises #VC.
      yield* readPrivate(at, 1);
    });
    expect(guest.runUntil(() => job.done)).toMatchObject({
      kind: 'stopped',
      end: { stop: { kind: 'terminated', reasonSet: 0, reasonCode: 0 } },
    });
    expect(guest.log.some((line) => line.includes('unexpected #VC, error code 0x404'))).toBe(true);
  });

  it('beyond memory are refused to private and granted to shared', () => {
    const guest = new TestHost().guest();
    guest.boot();
    const change = (operation: number) =>
      guest.finish(
        guest.kernel.submit(function* ({ ghcb }): Guest<bigint> {
          // One VMMCALL KVM_HC_MAP_GPA_RANGE of a page of the memory-mapped space.
          ghcb.invalidate();
          ghcb.put('rax', 12n);
          ghcb.put('rbx', 0xe000_0000n);
          ghcb.put('rcx', 1n);
          ghcb.put('rdx', operation === PscOp.SNP_PAGE_STATE_PRIVATE ? 0x10n : 0n);
          ghcb.image[0xcb] = 0;
          ghcb.image[0x3f0 + (0xcb >> 6)]! |= 1 << ((0xcb >> 3) & 7);
          yield* ghcb.call(GhcbExit.SVM_EXIT_VMMCALL, 0n, 0n);
          return BigInt.asIntN(64, readQuad(yield* readShared(gpa(ghcb.gpa + 0x1f8n), 8)));
        }),
      );
    expect(change(PscOp.SNP_PAGE_STATE_PRIVATE)).toBe(BigInt(-Errno.EINVAL));
    expect(change(PscOp.SNP_PAGE_STATE_SHARED)).toBe(0n);
  });
});

const readQuad = (raw: Uint8Array): bigint => new DataView(raw.buffer, raw.byteOffset).getBigUint64(0, true);

describe('the end of a guest', () => {
  it('is named by the reason it terminated with', () => {
    const plan = defaultPlan(1);
    const guest = new TestHost().guest({ plan: { ...plan, cpuidGpa: null } });
    const end = guest.boot();
    expect(end).toEqual({
      kind: 'stopped',
      end: { stop: { kind: 'terminated', reasonSet: 1, reasonCode: 4 }, vcpu: 0 },
    });
    expect(end.kind === 'stopped' ? formatStop(end.end) : '').toBe(
      'vCPU 0: the guest asked to be terminated, reason 1:4 GHCB_TERM_CPUID',
    );
    expect(guest.vmm.step(0).kind).toBe('stopped');
  });

  it('is a failed KVM_RUN when the guest uses a GHCB it did not register', () => {
    const guest = new TestHost().guest();
    guest.boot();
    const job = guest.kernel.submit(function* (): Guest<void> {
      yield { op: 'wrmsr', msr: 0xc001_0130, value: 0x1000n };
      yield { op: 'vmgexit' };
    });
    expect(guest.runUntil(() => job.done)).toMatchObject({
      kind: 'stopped',
      end: { stop: { kind: 'run-failed', errno: Errno.EINVAL }, vcpu: 0 },
    });
  });

  it('is a shutdown when its code ends', () => {
    const guest = new TestHost().guest();
    guest.boot();
    const job = guest.kernel.submit(function* (): Guest<void> {
      // A write to memory-mapped space through a private mapping has no handler in this kernel.
      yield* writePrivate(gpa(0xa_0000n), Uint8Array.of(1));
    });
    const end = guest.runUntil(() => job.done);
    expect(end.kind).toBe('stopped');
  });

  it('comes to "idle" when every vCPU sleeps and no one is asked for anything', () => {
    const guest = new TestHost().guest({ vcpus: 2 });
    guest.boot();
    expect(guest.runUntil(() => false)).toEqual({ kind: 'idle' });
  });
});
