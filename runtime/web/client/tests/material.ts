// The inputs of tests/web/golden.py, made by the same exact operations, and what it wrote about them.

import { readFileSync } from "node:fs";

import type { Floats } from "../src/numbers.js";

export const golden = JSON.parse(readFileSync(new URL("golden.json", import.meta.url), "utf-8"));
export const GRID = { height: 5, width: 4 };
export const CELLS = GRID.height * GRID.width;
export const CLASSES = ["bell", "drum", "dog", "speech", "engine", "bird"];

export function noise(seed: number, count: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 16) / 32768 - 1;
  });
}

export function walk(seed: number, frames: number, count: number, pace: number): Floats[] {
  const steps = noise(seed, frames * count);
  const value = Array<number>(count).fill(0.5);
  return Array.from({ length: frames }, (_, frame) => {
    for (let k = 0; k < count; k += 1) {
      value[k] = Math.min(0.999, Math.max(0.001, value[k]! + pace * steps[frame * count + k]!));
    }
    return Float32Array.from(value);
  });
}

export function maps(seed: number, count: number): Floats {
  const found = Float32Array.from(noise(seed, count * CELLS), (value) => value * 0.25);
  for (let k = 0; k < count; k += 1) found[k * CELLS + (k % GRID.height) * GRID.width + ((k + seed) % GRID.width)]! += 1;
  return found;
}

export function linspace(from: number, to: number, count: number): number[] {
  return Array.from({ length: count }, (_, at) => (at === count - 1 ? to : from + (at * (to - from)) / (count - 1)));
}

/** The largest difference of two lists of numbers. */
export function apart(one: ArrayLike<number>, other: ArrayLike<number>): number {
  if (one.length !== other.length) return Infinity;
  let most = 0;
  for (let at = 0; at < one.length; at += 1) most = Math.max(most, Math.abs(one[at]! - other[at]!));
  return most;
}
