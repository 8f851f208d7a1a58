// Windows that are heard in patches: a hop computes the new patch, and remembers the others. As runtime/patches.py.

import type { Engine, Heard } from "./engine.js";
import { single } from "./numbers.js";
import type { Floats } from "./numbers.js";

/** A window [T] by its index, and the last hop up to which its sound is complete. */
export interface Window {
  index: number;
  waveform: Floats;
  complete: number;
}

/** The log-odds [K] of the patches that one stream has heard, by the hop at which each ends. */
export type PatchMemory = Map<number, Floats>;

/** The audio half for a window; where the bundle hears in patches, only those that are not remembered are computed. */
export async function hear(engine: Engine, window: Window, memory: PatchMemory): Promise<Heard> {
  const { patches, hopSamples, windowSamples, classes } = engine.info;
  if (!patches) return engine.runAudio(window.waveform);
  const count = (windowSamples - patches.samples) / hopSamples + 1;
  const first = window.index - count + 1;
  for (const end of memory.keys()) if (end < first) memory.delete(end);
  const fresh = Array.from({ length: count }, (_, at) => first + at).filter((end) => !memory.has(end));
  const found = new Map(memory);
  if (fresh.length) {
    const waveforms = new Float32Array(fresh.length * patches.samples);
    fresh.forEach((end, at) => {
      const start = (end - first) * hopSamples;
      waveforms.set(window.waveform.subarray(start, start + patches.samples), at * patches.samples);
    });
    const odds = await engine.runPatches(waveforms, fresh.length);
    fresh.forEach((end, at) => {
      const row = odds.slice(at * classes.length, (at + 1) * classes.length);
      found.set(end, row);
      if (end <= window.complete) memory.set(end, row);
    });
  }
  const rows = Array.from({ length: count }, (_, at) => found.get(first + at)!);
  return poolPatches(rows, patches.loudest, classes.length);
}

/** Log-odds of patches, N of [K]: the mean of the loudest, as "sources" [K, 1] and as probabilities [K]. */
export function poolPatches(rows: Floats[], loudest: number, classes: number): Heard {
  const most = Math.min(loudest, rows.length);
  const sources = new Float32Array(classes);
  const audioProb = new Float32Array(classes);
  for (let k = 0; k < classes; k += 1) {
    const sorted = rows.map((row) => row[k]!).sort((one, other) => one - other);
    const sum = sorted.slice(-most).reduce((total, value) => single(total + value));
    sources[k] = single(sum / most);
    audioProb[k] = single(1 / single(1 + single(Math.exp(-Math.min(80, Math.max(-80, sources[k]!))))));
  }
  return { sources, audioProb };
}
