// The stream's rules with an engine that says which window and which picture it was given.

import { expect, test } from "vitest";

import { parseBundle } from "../src/bundle.js";
import type { BundleInfo } from "../src/bundle.js";
import { CaptureClock } from "../src/drift.js";
import type { Engine } from "../src/engine.js";
import type { Floats } from "../src/numbers.js";
import { StreamLocalizer } from "../src/stream.js";
import type { StreamOptions } from "../src/stream.js";
import { document } from "./documents.js";
import { golden } from "./material.js";

class Recorder implements Engine {
  patches: Floats[] = [];
  windows: Floats[] = [];
  readonly info: BundleInfo;

  constructor(changes: object = {}) {
    this.info = parseBundle(JSON.stringify({ ...document(), ...changes }));
  }

  async runAudio(waveform: Floats) {
    this.windows.push(waveform);
    return { sources: new Float32Array(2), audioProb: new Float32Array(2) };
  }

  async runPatches(waveforms: Floats, count: number) {
    const size = waveforms.length / count;
    for (let at = 0; at < count; at += 1) this.patches.push(waveforms.slice(at * size, (at + 1) * size));
    return new Float32Array(2 * count);
  }

  async runImage() {
    return { maps: new Float32Array(8), visualProb: new Float32Array(2) };
  }
}

const PICTURE = { height: 4, width: 4, channels: 3 as const, data: new Uint8Array(48) };

function ramp(from: number, count: number): Floats {
  return Float32Array.from({ length: count }, (_, at) => from + at);
}

async function all(stream: StreamLocalizer): Promise<number[][]> {
  const found: number[][] = [];
  for (let result = await stream.next(); result; result = await stream.next()) found.push([result.frame, result.window, result.dropped]);
  return found;
}

function open(engine: Recorder, options: StreamOptions = {}): StreamLocalizer {
  return new StreamLocalizer(engine, options);
}

test("the grid of hops", () => {
  const info = { sample_rate: 16000, window_seconds: 2.975, audio_hop_seconds: 0.2, patches: { samples: 15600, loudest: 3 } };
  const engine = new Recorder(info);
  const [live, file] = [open(engine), open(engine, { mode: "file" })];
  for (const [time, last, nearest] of golden.windows_of) {
    expect([time, live.windowOf(time), file.windowOf(time)]).toEqual([time, last, nearest]);
  }
});

test("a frame waits for its sound, and windows are cut where the hops are", async () => {
  const engine = new Recorder();
  const stream = open(engine, { every: true });
  stream.pushFrame(PICTURE, 0.25);
  expect(await all(stream)).toEqual([]);
  stream.pushAudio(ramp(0, 200), 1000, 0);
  expect(await all(stream)).toEqual([[0, 2, 0]]);
  // window 2 ends at sample 200, and is 300 long: what was before the stream is silent
  expect([...engine.windows[0]!]).toEqual([...Array(100).fill(0), ...ramp(0, 200)]);
  stream.pushFrame(PICTURE, 0.29);
  expect(await all(stream)).toEqual([[1, 2, 0]]);
  expect(engine.windows.length).toBe(1);
});

test("the newest frame wins, and says how many it replaced", async () => {
  const stream = open(new Recorder());
  for (const time of [0.1, 0.14, 0.18, 0.22]) stream.pushFrame(PICTURE, time);
  stream.passOver();
  stream.endAudio();
  expect(await all(stream)).toEqual([[3, 2, 3]]);
  stream.pushFrame(PICTURE, 0.3);
  expect(await all(stream)).toEqual([[5, 3, 1]]);
});

test("where sound stays away, frames go on with what is there", async () => {
  const stream = open(new Recorder(), { maxWait: 0.25 });
  const found: number[][] = [];
  for (let frame = 0; frame < 20; frame += 1) {
    stream.pushFrame(PICTURE, 0.1 + 0.04 * frame);
    found.push(...(await all(stream)));
  }
  expect(found.length).toBeGreaterThanOrEqual(2);
});

test("patches are heard once, and again only where their sound was not complete", async () => {
  const engine = new Recorder({ patches: { samples: 100, loudest: 2 } });
  const stream = open(engine, { every: true, maxWait: 0.1 });
  stream.pushAudio(ramp(1, 300), 1000, 0);
  stream.pushFrame(PICTURE, 0.3);
  expect(await all(stream)).toEqual([[0, 3, 0]]);
  expect(engine.patches.map((patch) => patch[0])).toEqual([1, 101, 201]);
  stream.pushAudio(ramp(301, 100), 1000, 0.3);
  stream.pushFrame(PICTURE, 0.4);
  await all(stream);
  expect(engine.patches.length).toBe(4);
  // without its sound, hop 5 is not remembered
  stream.pushFrame(PICTURE, 0.5);
  stream.pushFrame(PICTURE, 0.61);
  await all(stream);
  const heard = engine.patches.length;
  stream.pushAudio(ramp(401, 300), 1000, 0.4);
  await all(stream);
  stream.pushFrame(PICTURE, 0.7);
  await all(stream);
  expect(engine.patches.length).toBeGreaterThan(heard + 1);
});

test("an hour of sound without a frame is not kept", () => {
  const stream = open(new Recorder());
  for (let second = 0; second < 3600; second += 1) stream.pushAudio(new Float32Array(1000), 1000, second);
  expect(stream.clock.end).toBe(3_600_000);
  expect(stream.clock.held).toBeLessThan(12_000);
});

test("after a device has slept for an hour, what is heard is new, and nothing is kept of the time between", async () => {
  const engine = new Recorder({ patches: { samples: 100, loudest: 2 } });
  const stream = open(engine);
  const clock = new CaptureClock(1000);
  const found: [number, number, number][] = [];
  const live = async (begin: number, value: number): Promise<void> => {
    for (let block = 0; block < 25; block += 1) {
      const time = begin + 0.04 * block;
      stream.pushAudio(new Float32Array(40).fill(value), 1000, clock.block(40, time));
      stream.pushFrame(PICTURE, time + 0.03);
      for (let result = await stream.next(); result; result = await stream.next()) {
        found.push([result.time, result.window, result.dropped]);
      }
    }
  };
  await live(0, 1);
  const before = found.length;
  engine.patches = [];
  await live(3600, 2);
  // every frame is answered with the window that ends before it, none is counted as skipped
  expect(found.length - before).toBeGreaterThanOrEqual(24);
  expect(found.every(([time, window, dropped]) => window === Math.floor(time / 0.1 + 1e-6) && dropped === 0)).toBe(true);
  // the sound from before the sleep is not heard again, silence and the new one are
  const heard = new Set(engine.patches.flatMap((patch) => [...patch].map((value) => Math.round(value))));
  expect([...heard].sort()).toEqual([0, 2]);
  expect(stream.clock.held).toBeLessThan(10_000);
});

test("sound that steps back in time is taken once, and frames go on", async () => {
  const stream = open(new Recorder());
  stream.pushAudio(new Float32Array(1000), 1000, 0);
  stream.pushAudio(new Float32Array(500), 1000, 0.2);
  expect(stream.clock.end).toBe(1000);
  stream.pushFrame(PICTURE, 0.95);
  stream.pushFrame(PICTURE, 0.9);
  expect((await all(stream)).length).toBe(1);
});
