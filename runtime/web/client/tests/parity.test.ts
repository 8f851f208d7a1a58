// The same numbers as the Python runtime.

import { expect, test } from "vitest";

import { joined, loudnessDb, Resampler } from "../src/audio.js";
import { AudioClock } from "../src/clock.js";
import { colorOf } from "../src/colors.js";
import { DEFAULTS, startOf, step } from "../src/decision.js";
import type { Rules } from "../src/decision.js";
import { CaptureClock } from "../src/drift.js";
import { resize } from "../src/image.js";
import { poolPatches } from "../src/patches.js";
import { peakOf, regionBox } from "../src/regions.js";
import { lineOf } from "../src/result.js";
import { apart, CELLS, CLASSES, golden, GRID, linspace, maps, noise, walk } from "./material.js";

test.each(golden.resampled as { rates: [number, number]; length: number; places: number[]; values: number[] }[])(
  "sound at $rates",
  ({ rates, length, places, values }) => {
    const samples = Float32Array.from(noise(1, 6000));
    const resampler = new Resampler(...rates);
    const whole = joined(resampler.push(samples), resampler.flush());
    expect(whole.length).toBe(length);
    expect(apart(places.map((at) => whole[at]!), values)).toBeLessThan(2e-7);
    // however it is cut
    const again = new Resampler(...rates);
    let pieces = new Float32Array(0);
    for (let at = 0, size = 1; at < samples.length; at += size, size = (size * 7) % 311 || 1) {
      pieces = joined(pieces, again.push(samples.slice(at, at + size)));
    }
    expect(joined(pieces, again.flush())).toEqual(whole);
  },
);

test("windows of a clock with gaps, repeats, another rate and a long silence", () => {
  const clock = new AudioClock(16000);
  const samples = Float32Array.from(noise(2, 48000));
  samples[100] = NaN;
  golden.windows.forEach((entry: { push: [number, number, number, number]; end: number; start: number; values: number[]; loudness_db: number }, at: number) => {
    const [time, rate, low, high] = entry.push;
    if (at % 2 === 0) clock.push(samples.slice(low, high), rate, time);
    expect(clock.end).toBe(entry.end);
    const window = clock.window(entry.start, 1000);
    expect(apart(window.filter((_, place) => place % 25 === 0), entry.values)).toBeLessThan(2e-7);
    expect(loudnessDb(window)).toBeCloseTo(entry.loudness_db, 5);
  });
  expect(clock.nonFinite).toBe(1);
});

test.each((golden.pictures as { from: [number, number]; to: [number, number]; bytes: string }[]).map((entry, at) => ({ ...entry, at })))(
  "a picture $from as $to",
  ({ from, to, bytes, at }) => {
    const rgb = Uint8Array.from(noise(at + 10, from[0] * from[1] * 3), (value) => (value + 1) * 127.5);
    const size = { height: to[0], width: to[1] };
    const expected = Buffer.from(bytes, "base64");
    const found = resize({ height: from[0], width: from[1], channels: 3, data: rgb }, size);
    // OpenCV's own builds differ by one level in few pixels
    expect(apart(found, expected)).toBeLessThanOrEqual(1);
    expect(found.filter((value, place) => value !== expected[place]).length).toBeLessThanOrEqual(0.02 * found.length);
    // as a canvas gives it
    const rgba = new Uint8ClampedArray(from[0] * from[1] * 4).fill(255);
    rgb.forEach((value, place) => (rgba[4 * Math.floor(place / 3) + (place % 3)] = value));
    expect(resize({ height: from[0], width: from[1], channels: 4, data: rgba }, size)).toEqual(found);
  },
);

test.each(golden.regions as { seed: number | null; peak: number[]; box: number[] }[])("the region of map $seed", ({ seed, peak, box }) => {
  const heat = seed === null ? new Float32Array(CELLS) : maps(seed, 1);
  expect(apart(peakOf(heat, GRID), peak)).toBeLessThan(1e-9);
  expect(apart(regionBox(heat, GRID, 0.5), box)).toBeLessThan(1e-9);
});

function rulesOf(name: string): Rules {
  const count = CLASSES.length;
  const plain: Rules = {
    config: DEFAULTS,
    classes: CLASSES,
    grid: GRID,
    audioThresholds: Float32Array.from(linspace(0.3, 0.7, count)),
    visualThresholds: Float32Array.from(linspace(0.6, 0.4, count)),
    hasPresence: true,
    joint: null,
  };
  if (name === "slow") return { ...plain, config: { ...DEFAULTS, min_on: 0.12, min_off: 0.4, release: 0.5, off_screen_seconds: 0.2 } };
  if (name === "maps") return { ...plain, hasPresence: false, visualThresholds: Float32Array.from(linspace(1, -0.1, count)) };
  if (name === "joint") {
    const thresholds = linspace(-0.5, 0.5, count);
    return { ...plain, joint: { visual_weight: 0.3, thresholds, margin: 5, apart: 0.11, floor: -6, scale: 0.75, seen_floor: -2.5 } };
  }
  return plain;
}

test.each(golden.decisions as { rules: string; lines: [string, unknown[][]][] }[])("decisions, frame by frame: $rules", ({ rules, lines }) => {
  const rule = rulesOf(rules);
  const count = CLASSES.length;
  const [heard, seen, loud] = [walk(40, lines.length, count, 0.2), walk(41, lines.length, count, 0.2), walk(42, lines.length, 1, 0.3)];
  let state = startOf(count);
  lines.forEach(([name, sources], frame) => {
    const evidence = {
      time: frame * 0.04,
      audioProb: heard[frame]!,
      visualProb: seen[frame]!,
      maps: maps(50 + Math.floor(frame / 6), count),
      loudnessDb: loud[frame]![0]! * 90 - 85,
    };
    const [following, decision] = step(rule, state, evidence);
    state = following;
    const line = lineOf({ ...evidence, ...decision, frame, window: 0, ms: {}, dropped: 0 });
    expect(line.state).toBe(name);
    const found = line.sources.map((source) => Object.values(source));
    expect(found.map((source) => source.map(text))).toEqual(sources.map((source) => source.map(text)));
    expect(apart(numbersOf(found), numbersOf(sources))).toBeLessThan(3e-5);
  });
});

function text(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(text);
  return typeof value === "number" ? "number" : value;
}

function numbersOf(value: unknown): number[] {
  if (Array.isArray(value)) return value.flatMap(numbersOf);
  return typeof value === "number" ? [value] : [];
}

test("the loudest patches", () => {
  const odds = Float32Array.from(noise(60, 66), (value) => value * 6);
  const rows = Array.from({ length: 11 }, (_, at) => odds.slice(6 * at, 6 * at + 6));
  const found = poolPatches(rows, 3, 6);
  expect(apart(found.sources, golden.pooled.sources)).toBeLessThan(1e-6);
  expect(apart(found.audioProb, golden.pooled.audio_prob)).toBeLessThan(1e-6);
});

test("the times of a microphone's blocks", () => {
  const clock = new CaptureClock(48000);
  const jitter = noise(70, 60);
  const found = jitter.map((value, n) => clock.block(1920, n * 0.04 + value * 0.02 + (n < 40 ? 0 : 1.5)));
  expect(apart(found, golden.captured)).toBeLessThan(1e-12);
});

test("the colours of classes", () => {
  expect(golden.colors.map((_: string, index: number) => colorOf(index))).toEqual(golden.colors);
});
