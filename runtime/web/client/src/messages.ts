// What the page and the worker say to each other. Times are seconds of the page's clock.

import type { Picture } from "./image.js";
import type { Floats } from "./numbers.js";
import type { StreamOptions } from "./stream.js";

/** How a stream runs; `exact`: times are the stream's own; `raw`: results carry maps and probabilities, too. */
export interface Setting extends StreamOptions {
  exact?: boolean;
  raw?: boolean;
}

export type Request =
  | { type: "load"; bundle: string; runtime: string; threads: number }
  | { type: "reset"; setting?: Setting }
  | { type: "sound"; samples: Floats; rate: number; time: number }
  | { type: "sound-end" }
  | { type: "frame"; picture: ImageBitmap; time: number }
  | { type: "pixels"; picture: Picture; time: number };

export type Answer =
  | { type: "progress"; loaded: number; total: number }
  | { type: "starting" }
  | { type: "hello"; classes: { label: string; color: string }[]; grid: [number, number]; threads: number }
  | { type: "result"; time: number; dropped: number }
  // nothing runs; what had run may run again
  | { type: "refused"; reason: string }
  | { type: "failed"; reason: string };
