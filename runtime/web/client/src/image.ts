// Frames and maps as the halves expect them: the numbers of runtime/image.py, which are OpenCV's.

import { even, single } from "./numbers.js";
import type { Bytes, Floats } from "./numbers.js";

// fixed point of OpenCV's bilinear resizing of bytes
const BITS = 11;

export interface Size {
  height: number;
  width: number;
}

/** A picture of bytes; `channels` 4 has an alpha that is passed over. */
export interface Picture extends Size {
  data: Uint8Array | Uint8ClampedArray;
  channels: 3 | 4;
}

/** Squash a picture to RGB [h, w, 3]: pixel areas where it shrinks, then bilinear where it grows. */
export function resize(picture: Picture, size: Size): Bytes {
  const shrunk = { height: Math.min(size.height, picture.height), width: Math.min(size.width, picture.width) };
  const small = same(shrunk, picture) ? opaque(picture) : shrink(picture, shrunk);
  return same(shrunk, size) ? small : grow(small, shrunk, size);
}

function same(one: Size, other: Size): boolean {
  return one.height === other.height && one.width === other.width;
}

function opaque({ data, channels, height, width }: Picture): Bytes {
  if (channels === 3) return new Uint8Array(data);
  const out = new Uint8Array(3 * height * width);
  for (let from = 0, to = 0; to < out.length; from += 4, to += 3) {
    out[to] = data[from]!;
    out[to + 1] = data[from + 1]!;
    out[to + 2] = data[from + 2]!;
  }
  return out;
}

function shrink(picture: Picture, size: Size): Bytes {
  const [across, down] = [picture.width / size.width, picture.height / size.height];
  return Number.isInteger(across) && Number.isInteger(down)
    ? shrinkWhole(picture, size, across, down)
    : shrinkParts(picture, size);
}

/** Means of whole pixels; of four, halves are rounded up. */
function shrinkWhole({ data, channels, width }: Picture, size: Size, across: number, down: number): Bytes {
  const out = new Uint8Array(3 * size.height * size.width);
  const share = single(1 / (across * down));
  const four = across === 2 && down === 2;
  for (let y = 0, to = 0; y < size.height; y += 1) {
    for (let x = 0; x < size.width; x += 1) {
      for (let channel = 0; channel < 3; channel += 1, to += 1) {
        let sum = 0;
        for (let row = 0; row < down; row += 1) {
          let from = ((y * down + row) * width + x * across) * channels + channel;
          for (let column = 0; column < across; column += 1, from += channels) sum += data[from]!;
        }
        out[to] = four ? (sum + 2) >> 2 : even(single(sum * share));
      }
    }
  }
  return out;
}

interface Cells {
  first: Int32Array;
  count: Int32Array;
  weights: Float32Array;
  most: number;
}

/** For each of `to` cells, the pixels of `from` that it covers and how much of each. */
function cover(from: number, to: number): Cells {
  const scale = from / to;
  const most = Math.ceil(scale) + 2;
  const cells = { first: new Int32Array(to), count: new Int32Array(to), weights: new Float32Array(to * most), most };
  for (let at = 0; at < to; at += 1) {
    const [low, high] = [at * scale, at * scale + scale];
    const width = Math.min(scale, from - low);
    const end = Math.min(Math.floor(high), from - 1);
    const start = Math.min(Math.ceil(low), end);
    const whole: number[] = [];
    cells.first[at] = start;
    if (start - low > 1e-3) {
      cells.first[at] = start - 1;
      whole.push((start - low) / width);
    }
    for (let pixel = start; pixel < end; pixel += 1) whole.push(1 / width);
    if (high - end > 1e-3) whole.push(Math.min(high - end, 1, width) / width);
    cells.count[at] = whole.length;
    cells.weights.set(whole, at * most);
  }
  return cells;
}

function shrinkParts({ data, channels, height, width }: Picture, size: Size): Bytes {
  const out = new Uint8Array(3 * size.height * size.width);
  const [columns, rows] = [cover(width, size.width), cover(height, size.height)];
  const line = new Float32Array(3 * size.width);
  const sums = new Float32Array(3 * size.width);
  let held = -1;
  for (let y = 0; y < size.height; y += 1) {
    sums.fill(0);
    for (let k = 0; k < rows.count[y]!; k += 1) {
      // a row that two cells share is summed once
      if (held !== rows.first[y]! + k) {
        held = rows.first[y]! + k;
        addRow(data, held * width * channels, channels, columns, line);
      }
      const weight = rows.weights[y * rows.most + k]!;
      for (let at = 0; at < sums.length; at += 1) sums[at] = sums[at]! + single(weight * line[at]!);
    }
    const to = y * sums.length;
    for (let at = 0; at < sums.length; at += 1) out[to + at] = even(sums[at]!);
  }
  return out;
}

/** The weighted sums of a row's pixels, RGB of each cell, into `line`. */
function addRow(data: Picture["data"], row: number, channels: number, columns: Cells, line: Float32Array): void {
  for (let x = 0, to = 0; to < line.length; x += 1, to += 3) {
    let red = 0;
    let green = 0;
    let blue = 0;
    let from = row + columns.first[x]! * channels;
    for (let k = 0; k < columns.count[x]!; k += 1, from += channels) {
      const weight = columns.weights[x * columns.most + k]!;
      red = single(red + single(weight * data[from]!));
      green = single(green + single(weight * data[from + 1]!));
      blue = single(blue + single(weight * data[from + 2]!));
    }
    line[to] = red;
    line[to + 1] = green;
    line[to + 2] = blue;
  }
}

interface Taps {
  first: Int32Array;
  second: Int32Array;
  share: Float32Array;
}

/** For each of `to` places, the two of `from` that it lies between and the share of the second. */
function between(from: number, to: number): Taps {
  const taps = { first: new Int32Array(to), second: new Int32Array(to), share: new Float32Array(to) };
  for (let at = 0; at < to; at += 1) {
    const place = single((at + 0.5) * (from / to) - 0.5);
    let low = Math.floor(place);
    let share = single(place - low);
    if (low < 0) [low, share] = [0, 0];
    if (low >= from - 1) [low, share] = [from - 1, 0];
    taps.first[at] = low;
    taps.second[at] = Math.min(low + 1, from - 1);
    taps.share[at] = share;
  }
  return taps;
}

function grow(rgb: Bytes, from: Size, size: Size): Bytes {
  const [columns, rows] = [between(from.width, size.width), between(from.height, size.height)];
  const lines = new Map<number, Int32Array>();
  const out = new Uint8Array(3 * size.height * size.width);
  for (let y = 0; y < size.height; y += 1) {
    const [first, second] = [rows.first[y]!, rows.second[y]!];
    for (const known of lines.keys()) if (known < first) lines.delete(known);
    const upper = lines.get(first) ?? widen(rgb, from.width, first, columns);
    lines.set(first, upper);
    const lower = lines.get(second) ?? widen(rgb, from.width, second, columns);
    lines.set(second, lower);
    const [one, other] = fixed(rows.share[y]!);
    const to = y * upper.length;
    for (let at = 0; at < upper.length; at += 1) {
      const sum = ((one * (upper[at]! >> 4)) >> 16) + ((other * (lower[at]! >> 4)) >> 16);
      out[to + at] = Math.max(0, Math.min(255, (sum + 2) >> 2));
    }
  }
  return out;
}

function widen(rgb: Bytes, width: number, row: number, columns: Taps): Int32Array {
  const line = new Int32Array(3 * columns.first.length);
  const start = 3 * row * width;
  for (let x = 0, to = 0; to < line.length; x += 1) {
    const [one, other] = fixed(columns.share[x]!);
    const [left, right] = [start + 3 * columns.first[x]!, start + 3 * columns.second[x]!];
    for (let channel = 0; channel < 3; channel += 1, to += 1) {
      line[to] = rgb[left + channel]! * one + rgb[right + channel]! * other;
    }
  }
  return line;
}

function fixed(share: number): [number, number] {
  return [even(single(single(1 - share) * (1 << BITS))), even(single(share * (1 << BITS)))];
}

/** Bilinear resizing of a map [h, w] to `size`, align_corners=False. */
export function upsampleMap(map: Floats, from: Size, size: Size): Floats {
  const [columns, rows] = [between(from.width, size.width), between(from.height, size.height)];
  const out = new Float32Array(size.height * size.width);
  const across = (row: number, x: number): number => {
    const share = columns.share[x]!;
    const start = row * from.width;
    return single(
      single(map[start + columns.first[x]!]! * single(1 - share)) + single(map[start + columns.second[x]!]! * share),
    );
  };
  for (let y = 0, to = 0; y < size.height; y += 1) {
    const share = rows.share[y]!;
    for (let x = 0; x < size.width; x += 1, to += 1) {
      out[to] =
        single(across(rows.first[y]!, x) * single(1 - share)) + single(across(rows.second[y]!, x) * share);
    }
  }
  return out;
}
