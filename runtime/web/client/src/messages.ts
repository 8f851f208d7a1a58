// What the page and the worker say to each other. Times are seconds of the page's clock.

import type { Picture } from "./image.js";
import type { Bundle } from "./loading.js";
import type { Floats } from "./numbers.js";
import type { StreamOptions } from "./stream.js";

/** How a stream runs; `exact`: times are the stream's own; `raw`: results carry maps and probabilities, too. */
export interface Setting extends StreamOptions {
  exact?: boolean;
  raw?: boolean;
}

export type Request =
  // `given` is a bundle that another worker has loaded
  | { type: "load"; bundle: string; runtime: string; threads: number; given?: Bundle }
  | { type: "reset"; setting?: Setting }
  | { type: "sound"; samples: Floats; rate: number; time: number }
  | { type: "sound-end" }
  | { type: "frame"; picture: ImageBitmap; time: number }
  | { type: "pixels"; picture: Picture; time: number };

export type Answer =
  | { type: "progress"; loaded: number; total: number }
  | { type: "starting" }
  // `bundle` is what was loaded, `frame_ms` how long a picture takes
  | {
      type: "hello";
      classes: { label: string; color: string }[];
      grid: [number, number];
      threads: number;
      frame_ms: number;
      bundle: Bundle;
    }
  | { type: "result"; time: number; dropped: number }
  // nothing runs; what had run may run again
  | { type: "refused"; reason: string }
  | { type: "failed"; reason: string };
