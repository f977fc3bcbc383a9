// SPDX-License-Identifier: Apache-2.0
/**
 * Giving the terminal back. A shell with job control gives it to each of its jobs and at its end to the
 * group it came from, which it cannot name from inside a pid namespace: it sees its number as 0.
 */
import { readFileSync } from 'node:fs';
import { isatty } from 'node:tty';
import { blockSignal, ioctl } from './libc.ts';

const TIOCSPGRP = 0x5410;
const SIGTTOU = 22;

/** Returns  what makes our process group that of the foreground again, if it is now */
export function keepTerminal(): () => void {
  const terminal = [0, 1, 2].find((fd) => isatty(fd));
  const { group, foreground } = groups();
  if (terminal === undefined || group !== foreground) {
    return () => undefined;
  }
  return () => {
    if (groups().foreground !== group) {
      // Without this we would be stopped for it, as any program in the background.
      blockSignal(SIGTTOU);
      ioctl(terminal, TIOCSPGRP, new Uint8Array(Int32Array.of(group).buffer));
    }
  };
}

function groups(): { readonly group: number; readonly foreground: number } {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  // state, ppid, pgrp, session, tty_nr, tpgid; the name before them may have any character in it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { group: Number(fields[2]), foreground: Number(fields[5]) };
}
