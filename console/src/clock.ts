// SPDX-License-Identifier: Apache-2.0
import { useEffect, useState } from 'preact/hooks';

/** A list that runs out while the page is open is seen to have run out this soon. */
const TICK_MS = 15_000;

/**
 * The time, read again as it goes on.
 *
 * Shape    timers sleep with a page that nobody sees, so that it is read as soon as somebody does, too
 */
export function useNow(): number {
  const [nowMs, setNow] = useState(() => Date.now());
  useEffect(() => {
    const read = (): void => setNow(Date.now());
    const timer = setInterval(read, TICK_MS);
    document.addEventListener('visibilitychange', read);
    window.addEventListener('pageshow', read);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', read);
      window.removeEventListener('pageshow', read);
    };
  }, []);
  return nowMs;
}
