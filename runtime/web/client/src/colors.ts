// The colours of classes: runtime/sinks/drawing.py.

import { even } from "./numbers.js";

const GOLDEN_TURN = 0.61803398875;

/** The colour of class `index` as #rrggbb: neighbours in the list are far apart on the wheel. */
export function colorOf(index: number): string {
  const hue = (0.02 + index * GOLDEN_TURN) % 1;
  const sector = Math.trunc(hue * 6);
  const rest = hue * 6 - sector;
  const low = 1 - 0.85;
  const [falling, rising] = [1 - 0.85 * rest, 1 - 0.85 * (1 - rest)];
  const rgb = [
    [1, rising, low],
    [falling, 1, low],
    [low, 1, rising],
    [low, falling, 1],
    [rising, low, 1],
    [1, low, falling],
  ][sector % 6]!;
  return `#${rgb.map((value) => even(255 * value).toString(16).padStart(2, "0")).join("")}`;
}
