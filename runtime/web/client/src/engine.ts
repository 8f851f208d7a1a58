// The two halves: what they take and give. B windows, T samples, N patches of S samples, K maps, D width of a source.

import type { BundleInfo } from "./bundle.js";
import type { Bytes, Floats } from "./numbers.js";

/** `sources` [K, D] flat, `audioProb` [K]. */
export interface Heard {
  sources: Floats;
  audioProb: Floats;
}

/** `maps` [K, h, w] flat, `visualProb` [K]. */
export interface Seen {
  maps: Floats;
  visualProb: Floats;
}

export interface Engine {
  readonly info: BundleInfo;
  /** One window [T] of a bundle that hears in windows. */
  runAudio(waveform: Floats): Promise<Heard>;
  /** Patches [N, S] flat of a bundle that hears in patches: their log-odds [N, K] flat. */
  runPatches(waveforms: Floats, count: number): Promise<Floats>;
  /** A picture [H, W, 3] with sources [K, D]. */
  runImage(image: Bytes, sources: Floats): Promise<Seen>;
}
