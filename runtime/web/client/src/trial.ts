// The first run of a bundle's graphs, on silence and a picture of noise: whether they fit bundle.json, and how fast they are.

import { BundleError } from "./errors.js";
import type { Engine, Seen } from "./engine.js";
import type { Bytes, Floats } from "./numbers.js";

// the first run makes room, the next ones are as fast as the others
const RUNS = 3;

/** The milliseconds of one picture, and what is seen in it. */
export interface Trial {
  ms: number;
  seen: Seen;
}

/** Try both halves. Throws BundleError where a graph gives anything else than bundle.json says. */
export async function tryOut(engine: Engine): Promise<Trial> {
  const { info } = engine;
  const count = info.classes.length;
  const [height, width] = info.image_size;
  const sources = await hearNothing(engine, count);
  const picture = noise(height * width * 3);
  let best = Infinity;
  let last: Seen | null = null;
  for (let run = 0; run < RUNS; run += 1) {
    const begin = performance.now();
    const seen = await engine.runImage(picture, sources);
    best = Math.min(best, performance.now() - begin);
    check("maps", seen.maps, count * info.grid[0] * info.grid[1]);
    check("visual_prob", seen.visualProb, count);
    last = seen;
  }
  return { ms: best, seen: last! };
}

/** The sources of a silent window, [K, D] flat. */
async function hearNothing(engine: Engine, count: number): Promise<Floats> {
  const { patches, windowSamples } = engine.info;
  if (patches) {
    const odds = await engine.runPatches(new Float32Array(patches.samples), 1);
    check("sources", odds, count);
    return odds;
  }
  const heard = await engine.runAudio(new Float32Array(windowSamples));
  check("audio_prob", heard.audioProb, count);
  if (!heard.sources.length || heard.sources.length % count) misfit("sources", heard.sources.length, count);
  return heard.sources;
}

/** Bytes without a pattern, the same ones every time. */
function noise(count: number): Bytes {
  let state = 1;
  return new Uint8Array(count).map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

/** The largest difference of what two engines see of one picture, in parts of the values' range above 1. */
export function apart(one: Seen, other: Seen): number {
  const most = (a: Floats, b: Floats) => a.reduce((found, value, at) => Math.max(found, Math.abs(value - b[at]!)), 0);
  const range = one.maps.reduce((found, value) => Math.max(found, Math.abs(value)), 1);
  return Math.max(most(one.maps, other.maps) / range, most(one.visualProb, other.visualProb));
}

function check(name: string, values: Floats, wanted: number): void {
  if (values.length !== wanted) misfit(name, values.length, wanted);
  if (!values.every(Number.isFinite)) throw new BundleError(`A graph gives ${name} that are no numbers: export the bundle again.`);
}

function misfit(name: string, found: number, wanted: number): never {
  throw new BundleError(`A graph gives ${found} values of ${name}, bundle.json says ${wanted}: export the bundle again.`);
}
