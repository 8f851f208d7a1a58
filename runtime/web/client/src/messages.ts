// What the page and the worker say to each other. Times are seconds of the page's clock.

import type { ErrorCode } from "./errors.js";
import type { Picture } from "./image.js";
import type { Bundle } from "./loading.js";
import type { Floats } from "./numbers.js";
import type { ResultAnswer } from "./result.js";
import type { StreamOptions } from "./stream.js";

/** Where the files of onnxruntime-web are: its API, and what that loads. */
export interface RuntimeFiles {
  api: string;
  mjs: string;
  wasm: string;
}

/** What runs the image half: "gpu" is WebGPU where it is right and faster, "webgpu" where it is right. */
export type EngineChoice = "wasm" | "gpu" | "webgpu";

/**
 * How a stream runs; `exact`: times are the stream's own; `own`: those of results are, although what comes has the
 * page's; `raw`: results carry maps and probabilities, too; `id`: what results are marked with.
 */
export interface Setting extends StreamOptions {
  exact?: boolean;
  own?: boolean;
  raw?: boolean;
  id?: number;
}

export type Request =
  // `given` is a bundle that another worker has loaded
  | { type: "load"; bundle: string; runtime: string | RuntimeFiles; threads: number; engine?: EngineChoice; given?: Bundle }
  | { type: "reset"; setting?: Setting }
  | { type: "sound"; samples: Floats; rate: number; time: number }
  | { type: "sound-end" }
  // no more comes: answered with "end" when all is answered
  | { type: "end" }
  | { type: "frame"; picture: ImageBitmap; time: number }
  | { type: "pixels"; picture: Picture; time: number };

export interface Hello {
  type: "hello";
  classes: { label: string; color: string }[];
  grid: [number, number];
  has_presence: boolean;
  /** What runs the image half, and why it is not what was asked for. */
  engine: "wasm" | "webgpu";
  instead: string | null;
  model: string;
  threads: number;
  /** Milliseconds of a picture, without sound. */
  frame_ms: number;
  /** What was loaded, for another worker. */
  bundle: Bundle;
}

export type Answer =
  | { type: "progress"; loaded: number; total: number }
  | { type: "starting" }
  | Hello
  | ResultAnswer
  | { type: "end"; id?: number }
  // nothing runs; `amid` a stream: what had run may run again
  | { type: "refused"; code: ErrorCode; reason: string; amid: boolean };
