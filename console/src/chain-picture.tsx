// SPDX-License-Identifier: Apache-2.0
/** A chain drawn: report, leaf, intermediate, root, what the root rests on, and the revocation list. */
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { type Anchor, type Box, fitted, type Link, type ListBadge, type Picture } from './chain-model.ts';
import { SIGNS, type Tone } from './tones.ts';

interface Geometry {
  readonly isWide: boolean;
  readonly box: { readonly w: number; readonly h: number };
  readonly gap: number;
  readonly badge: { readonly w: number; readonly h: number };
}

const WIDE: Geometry = { isWide: true, box: { w: 172, h: 138 }, gap: 80, badge: { w: 172, h: 46 } };
const TALL: Geometry = { isWide: false, box: { w: 318, h: 128 }, gap: 46, badge: { w: 318, h: 46 } };

/** Below this many pixels of room the chain is drawn downwards. */
const WIDE_FROM_PX = 640;
const DROP = 30;

export function ChainPicture({ picture }: { picture: Picture }) {
  const frame = useRef<HTMLDivElement>(null);
  const [isWide, setWide] = useState(true);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWide(entry!.contentRect.width >= WIDE_FROM_PX));
    observer.observe(frame.current!);
    return () => observer.disconnect();
  }, []);
  return (
    <div class="picture" ref={frame}>
      <Drawing picture={picture} geometry={isWide ? WIDE : TALL} />
    </div>
  );
}

function Drawing({ picture, geometry }: { picture: Picture; geometry: Geometry }) {
  const id = useId();
  const { boxes, links, anchor, list } = picture;
  const { isWide, box, gap, badge } = geometry;
  const step = (isWide ? box.w : box.h) + gap;
  const place = (i: number): readonly [number, number] => (isWide ? [i * step, 0] : [0, i * step]);
  const last = boxes.length - 1;
  const [lastX, lastY] = place(last);
  const badgeY = lastY + box.h + DROP;
  // Beside each other under the intermediate and the root, or one under the other.
  const listX = isWide ? place(last - 1)[0] : 0;
  const listY = isWide ? badgeY : badgeY + badge.h + 12;
  const width = isWide ? lastX + box.w : box.w;
  const height = listY + badge.h;
  return (
    <svg
      class="chain"
      viewBox={`-2 -2 ${width + 4} ${height + 4}`}
      role="img"
      aria-labelledby={`${id}t ${id}d`}
      data-anchor={anchor.kind}
    >
      <title id={`${id}t`}>Chain of signatures</title>
      <desc id={`${id}d`}>{inWords(picture)}</desc>
      <defs>
        <pattern
          id={`${id}h`}
          width="14"
          height="14"
          patternUnits="userSpaceOnUse"
          patternTransform="rotate(45)"
        >
          <rect width="14" height="14" class="hazard-a" />
          <rect width="7" height="14" class="hazard-b" />
        </pattern>
      </defs>
      {links.map((link, i) => {
        const [x, y] = place(i);
        const from: readonly [number, number] = isWide ? [x + box.w, box.h / 2] : [box.w / 2, y + box.h];
        return <LinkArrow key={boxes[i]!.kind} link={link} from={from} geometry={geometry} />;
      })}
      {boxes.map((content, i) => (
        <BoxPicture key={content.kind} content={content} at={place(i)} geometry={geometry} />
      ))}
      <path class={`stem stem-${anchor.kind}`} d={`M${lastX + badge.w / 2} ${lastY + box.h} v${DROP}`} />
      <AnchorPicture anchor={anchor} at={[lastX, badgeY]} geometry={geometry} hazard={`url(#${id}h)`} />
      {isWide && <path class="stem stem-list" d={`M${listX + badge.w / 2} ${box.h} v${DROP}`} />}
      <ListPicture list={list} at={[listX, listY]} geometry={geometry} />
    </svg>
  );
}

function Disc({ tone, x, y, r = 9 }: { tone: Tone; x: number; y: number; r?: number }) {
  return (
    <g class={`status status-${tone}`} transform={`translate(${x} ${y}) scale(${r / 8})`}>
      <circle r="8" />
      <path d={SIGNS[tone]} />
    </g>
  );
}

function BoxPicture({
  content,
  at,
  geometry,
}: {
  content: Box;
  at: readonly [number, number];
  geometry: Geometry;
}) {
  const { kind, name, lines, tone, isMissing, errors } = content;
  const { w, h } = geometry.box;
  const more = errors.length > 1 ? ` +${errors.length - 1}` : '';
  return (
    <g
      class={`box box-${tone}${isMissing ? ' box-missing' : ''}${kind === 'REPORT' ? ' box-report' : ''}`}
      transform={`translate(${at[0]} ${at[1]})`}
    >
      <rect width={w} height={h} rx="8" />
      <text class="box-kind" x="14" y="27">
        {kind}
      </text>
      {tone !== 'idle' && <Disc tone={tone} x={w - 20} y={21} />}
      <text class="box-name" x="14" y="46">
        {name}
      </text>
      {lines.map((line, i) => (
        <text key={line} class="box-line" x="14" y={67 + i * 16}>
          {line}
        </text>
      ))}
      {errors.length > 0 && (
        <text class="box-error" x="14" y={h - 10}>
          {fitted(errors[0]!, 25 - more.length)}
          {more}
        </text>
      )}
    </g>
  );
}

function LinkArrow({
  link,
  from,
  geometry,
}: {
  link: Link;
  from: readonly [number, number];
  geometry: Geometry;
}) {
  const { isWide, gap } = geometry;
  const [x, y] = from;
  const end = gap - 3;
  return (
    <g class={`link link-${link.tone}`} transform={`translate(${x} ${y})`}>
      {isWide ? (
        <>
          <path d={`M3 0 H${end - 6}`} />
          <path class="head" d={`M${end} 0 l-9 -5 v10 z`} />
          {/* Two lines: above the sign the first word, below it the rest. */}
          <text x={gap / 2 - 3} y="-15" text-anchor="middle">
            {link.says.slice(0, link.says.lastIndexOf(' '))}
          </text>
          <text x={gap / 2 - 3} y="22" text-anchor="middle">
            {link.says.slice(link.says.lastIndexOf(' ') + 1)}
          </text>
          <Disc tone={link.tone} x={gap / 2 - 3} y={0} r={8} />
        </>
      ) : (
        <>
          <path d={`M0 3 V${end - 6}`} />
          <path class="head" d={`M0 ${end} l-5 -9 h10 z`} />
          <text x="18" y={gap / 2 + 2}>
            {link.says}
          </text>
          <Disc tone={link.tone} x={0} y={gap / 2 - 3} r={8} />
        </>
      )}
    </g>
  );
}

function AnchorPicture({
  anchor,
  at,
  geometry,
  hazard,
}: {
  anchor: Anchor;
  at: readonly [number, number];
  geometry: Geometry;
  hazard: string;
}) {
  const { w, h } = geometry.badge;
  return (
    <g class={`anchor anchor-${anchor.kind}`} transform={`translate(${at[0]} ${at[1]})`}>
      {anchor.kind === 'test' ? (
        <>
          <rect width={w} height={h} rx="8" fill={hazard} />
          <rect class="plate" x="7" y="5" width={w - 14} height={h - 10} rx="4" />
        </>
      ) : (
        <rect class="ground" width={w} height={h} rx="8" />
      )}
      <g transform={`translate(26 ${h / 2})`}>
        {anchor.kind === 'amd' ? (
          <Pin />
        ) : anchor.kind === 'test' ? (
          <Warning />
        ) : (
          <Disc tone="bad" x={0} y={0} />
        )}
      </g>
      <text class="badge-title" x="46" y={h / 2 - 2}>
        {anchor.title}
      </text>
      <text class="badge-detail" x="46" y={h / 2 + 12}>
        {anchor.detail}
      </text>
    </g>
  );
}

/** A drawing pin: the root is nailed to the program, not taken from the evidence. */
const Pin = () => (
  <path
    class="pin"
    d="M-5 -11 H5 L3.500 -8.500 V-2.500 L7 2 V3.500 H1 V11 L0 13 L-1 11 V3.500 H-7 V2 L-3.500 -2.500 V-8.500 Z"
  />
);

const Warning = () => (
  <g class="warning-sign">
    <path d="M0 -10 10.500 8.500 H-10.500 Z" />
    <path class="mark" d="M0 -3.500 V2.500 M0 5.400 V5.600" />
  </g>
);

function ListPicture({
  list,
  at,
  geometry,
}: {
  list: ListBadge;
  at: readonly [number, number];
  geometry: Geometry;
}) {
  const { isWide } = geometry;
  const { w, h } = geometry.badge;
  return (
    <g class={`crl crl-${list.tone}`} transform={`translate(${at[0]} ${at[1]})`}>
      <path
        class="ground"
        d={`M8 0 H${w - 14} L${w} 14 V${h - 8} a8 8 0 0 1 -8 8 H8 a8 8 0 0 1 -8 -8 V8 a8 8 0 0 1 8 -8 z`}
      />
      <path class="fold" d={`M${w - 14} 0 V14 H${w}`} />
      <Disc tone={list.tone} x={26} y={h / 2} />
      <text class="badge-title" x="46" y={h / 2 - 2}>
        {list.title}
      </text>
      <text class="badge-detail" x="46" y={h / 2 + 12}>
        {fitted(list.detail, isWide ? 20 : 40)}
      </text>
    </g>
  );
}

/** The picture for those who hear it. */
function inWords({ boxes, links, anchor, list }: Picture): string {
  const parts = boxes.map(({ kind, name, isMissing, errors }, i) => {
    const link = links[i];
    const self = `${kind} ${name}${isMissing ? '' : errors.length > 0 ? ` with errors ${errors.join(', ')}` : ''}`;
    return link === undefined ? self : `${self}, ${link.says}`;
  });
  return `${parts.join(' ')}. Root: ${anchor.title}, ${anchor.detail}. Revocation: ${list.title}, ${list.detail}.`;
}
