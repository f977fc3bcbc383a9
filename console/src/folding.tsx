// SPDX-License-Identifier: Apache-2.0
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';

/** A panel that can be folded, and begins so where the verdict would not fit on the screen below it. */
export function Folding({ id, title, children }: { id: string; title: string; children: ComponentChildren }) {
  const [beginsOpen] = useState(() => matchMedia('(min-width: 981px)').matches);
  return (
    <section class="panel" aria-labelledby={`${id}-title`}>
      <details class="folding" open={beginsOpen}>
        <summary>
          <h2 id={`${id}-title`}>{title}</h2>
        </summary>
        {children}
      </details>
    </section>
  );
}
