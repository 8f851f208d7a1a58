// What the page's worklet gives for sound in several channels: the mono mix of the Python runtime.

import { expect, test } from "vitest";

import type { Floats } from "../src/numbers.js";
import { apart, golden, noise } from "./material.js";

const BLOCK = 128;

interface Collector {
  port: { postMessage: (piece: Floats) => void };
  process(inputs: Floats[][]): boolean;
}

/** The worklet's processor, as a browser makes one. */
async function collector(take: (piece: Floats) => void): Promise<Collector> {
  const made: (new () => Collector)[] = [];
  class AudioWorkletProcessor {
    port = { postMessage: take };
  }
  const register = (_: string, type: new () => Collector) => made.push(type);
  Object.assign(globalThis, { sampleRate: 48000, AudioWorkletProcessor, registerProcessor: register });
  const file = new URL(`../../page/worklet.js?${Math.random()}`, import.meta.url).href;
  await import(/* @vite-ignore */ file);
  return new made[0]!();
}

function channels(name: string, count: number): Floats[] {
  const [first, second] = [80, 81].map((seed) => Float32Array.from(noise(seed, count))) as [Floats, Floats];
  const scaled = (samples: Floats, by: number) => samples.map((value) => by * value);
  const silent = first.map((value, at) => (at < 6000 ? 0 : value));
  const found: Record<string, Floats[]> = {
    alike: [first, scaled(first, 0.5)],
    apart: [first, second],
    inverted: [first, scaled(first, -1)],
    nearly: [first, first.map((value, at) => -value + second[at]! / 8)],
    "from the middle on": [first, first.map((value, at) => (at < count / 2 ? value : -value))],
    "after silence": [silent, scaled(silent, -1)],
    "one of six": [second, first, scaled(first, 0.25), scaled(first, -1), scaled(second, -1), scaled(second, 0.5)],
  };
  return found[name]!;
}

test.each(golden.mixed as { name: string; length: number; places: number[]; values: number[] }[])(
  "channels: $name",
  async ({ name, length, places, values }) => {
    const pieces: number[] = [];
    const processor = await collector((piece) => pieces.push(...piece));
    const sound = channels(name, 160 * BLOCK);
    for (let at = 0; at < sound[0]!.length; at += BLOCK) {
      processor.process([sound.map((samples) => samples.slice(at, at + BLOCK))]);
    }
    // what follows fills the last piece
    for (let more = 0; more < 40; more += 1) processor.process([sound.map(() => new Float32Array(BLOCK))]);
    expect(pieces.length).toBeGreaterThanOrEqual(length);
    expect(apart(places.map((at) => pieces[at]!), values)).toBeLessThan(3e-7);
  },
);

test("a source that gives nothing is silent, and one channel passes at once", async () => {
  const pieces: Floats[] = [];
  const processor = await collector((piece) => pieces.push(piece));
  const samples = Float32Array.from(noise(82, 15 * BLOCK));
  for (let at = 0; at < samples.length; at += BLOCK) processor.process([[samples.slice(at, at + BLOCK)]]);
  expect(pieces).toEqual([samples]);
  for (let block = 0; block < 15; block += 1) expect(processor.process([[]])).toBe(true);
  expect(pieces[1]).toEqual(new Float32Array(15 * BLOCK));
});
