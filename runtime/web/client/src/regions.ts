// Where a map is hottest: its peak and the box around it, normalised to the frame. As runtime/regions.py.

import { upsampleMap } from "./image.js";
import type { Size } from "./image.js";
import { argmax, single } from "./numbers.js";
import type { Floats } from "./numbers.js";

const FINE = 6;

export type Point = [x: number, y: number];
export type Box = [x1: number, y1: number, x2: number, y2: number];

function range(heat: Floats): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of heat) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** The map scaled to 0..1; a flat map becomes zeros. */
export function minMax(heat: Floats): Floats {
  const [low, high] = range(heat);
  const scaled = new Float32Array(heat.length);
  if (!(high > low)) return scaled;
  const wide = single(high - low);
  for (let at = 0; at < heat.length; at += 1) scaled[at] = single(heat[at]! - low) / wide;
  return scaled;
}

/** The hottest cell's centre, moved to the top of a parabola through its neighbours; the middle of a flat map. */
export function peakOf(heat: Floats, { height, width }: Size): Point {
  const [low, high] = range(heat);
  if (!(high > low)) return [0.5, 0.5];
  const best = argmax(heat);
  const [row, column] = [Math.floor(best / width), best % width];
  const down = vertex((at) => heat[at * width + column]!, row, height);
  const across = vertex((at) => heat[row * width + at]!, column, width);
  return [(column + 0.5 + across) / width, (row + 0.5 + down) / height];
}

/** The box around the connected region of the peak where the min-max map is at least `fraction`. */
export function regionBox(heat: Floats, size: Size, fraction: number): Box {
  const fine = { height: size.height * FINE, width: size.width * FINE };
  const map = upsampleMap(minMax(heat), size, fine);
  const best = argmax(map);
  const least = single(fraction * map[best]!);
  const seen = new Uint8Array(map.length);
  const open = [best];
  seen[best] = 1;
  let [left, top, right, bottom] = [fine.width, fine.height, 0, 0];
  while (open.length) {
    const at = open.pop()!;
    const [row, column] = [Math.floor(at / fine.width), at % fine.width];
    [left, right] = [Math.min(left, column), Math.max(right, column + 1)];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row + 1)];
    const beside = [
      column > 0 ? at - 1 : -1,
      column + 1 < fine.width ? at + 1 : -1,
      row > 0 ? at - fine.width : -1,
      row + 1 < fine.height ? at + fine.width : -1,
    ];
    for (const next of beside) {
      if (next < 0 || seen[next] || !(map[next]! >= least)) continue;
      seen[next] = 1;
      open.push(next);
    }
  }
  return [left / fine.width, top / fine.height, right / fine.width, bottom / fine.height];
}

/** Offset in -0.5..0.5 of the parabola's top; 0 at the border. */
function vertex(value: (at: number) => number, at: number, length: number): number {
  if (!(at > 0 && at < length - 1)) return 0;
  const [left, centre, right] = [value(at - 1), value(at), value(at + 1)];
  const curve = left - 2 * centre + right;
  return curve >= 0 ? 0 : Math.min(0.5, Math.max(-0.5, (0.5 * (left - right)) / curve));
}
