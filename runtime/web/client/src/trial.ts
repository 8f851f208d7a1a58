// The first run of a bundle's graphs, on silence and a black picture: whether they fit bundle.json, and how fast they are.

import { BundleError } from "./errors.js";
import type { Engine } from "./engine.js";
import type { Floats } from "./numbers.js";

// the first run makes room, the next ones are as fast as the others
const RUNS = 3;

/** The milliseconds of one picture. Throws BundleError where a graph gives anything else than bundle.json says. */
export async function tryOut(engine: Engine): Promise<number> {
  const { info } = engine;
  const count = info.classes.length;
  const [height, width] = info.image_size;
  const sources = await hearNothing(engine, count);
  let best = Infinity;
  for (let run = 0; run < RUNS; run += 1) {
    const begin = performance.now();
    const seen = await engine.runImage(new Uint8Array(height * width * 3), sources);
    best = Math.min(best, performance.now() - begin);
    check("maps", seen.maps, count * info.grid[0] * info.grid[1]);
    check("visual_prob", seen.visualProb, count);
  }
  return best;
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

function check(name: string, values: Floats, wanted: number): void {
  if (values.length !== wanted) misfit(name, values.length, wanted);
  if (!values.every(Number.isFinite)) throw new BundleError(`A graph gives ${name} that are no numbers: export the bundle again.`);
}

function misfit(name: string, found: number, wanted: number): never {
  throw new BundleError(`A graph gives ${found} values of ${name}, bundle.json says ${wanted}: export the bundle again.`);
}
