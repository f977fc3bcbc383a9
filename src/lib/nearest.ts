// SPDX-License-Identifier: Apache-2.0
/** What a misspelt name was probably meant to be. */

/** Nobody's name is longer; what is behind it is not compared, so that no input takes long. */
const MAX_LENGTH = 64;

/** The known name that is at most `within` letters away, the nearest and of equals the first; null without one. */
export function nearestName(name: string, known: Iterable<string>, within: number): string | null {
  let nearest: string | null = null;
  let least = within + 1;
  for (const candidate of known) {
    const distance = distanceOf(name.slice(0, MAX_LENGTH), candidate);
    if (distance < least) {
      [nearest, least] = [candidate, distance];
    }
  }
  return nearest;
}

/** Letters to change, add, leave out or swap with the next to come from one word to the other. */
function distanceOf(a: string, b: string): number {
  let before: readonly number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      const isSwapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      const swapped = isSwapped ? before[j - 2]! + 1 : Number.POSITIVE_INFINITY;
      next.push(Math.min(changed, swapped, row[j]! + 1, next[j - 1]! + 1));
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}
