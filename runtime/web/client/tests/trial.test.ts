// Graphs that give anything else than bundle.json says are refused before the page is ready.

import { expect, test } from "vitest";

import { parseBundle } from "../src/bundle.js";
import type { Engine } from "../src/engine.js";
import { BundleError } from "../src/errors.js";
import { tryOut } from "../src/trial.js";
import { document } from "./documents.js";

const PATCHES = { patches: { samples: 100, loudest: 2 } };

/** An engine that gives arrays of these lengths, all of one value. */
function giving(sizes: { sources?: number; prob?: number; odds?: number; maps?: number; seen?: number }, changes: object = {}, value = 0.5): Engine {
  const filled = (count: number) => new Float32Array(count).fill(value);
  return {
    info: parseBundle(JSON.stringify({ ...document(), ...changes })),
    runAudio: async () => ({ sources: filled(sizes.sources ?? 6), audioProb: filled(sizes.prob ?? 2) }),
    runPatches: async () => filled(sizes.odds ?? 2),
    runImage: async () => ({ maps: filled(sizes.maps ?? 8), visualProb: filled(sizes.seen ?? 2) }),
  };
}

test("what fits is timed", async () => {
  expect(await tryOut(giving({}))).toBeGreaterThanOrEqual(0);
  expect(await tryOut(giving({}, PATCHES))).toBeGreaterThanOrEqual(0);
});

test.each<[Engine, RegExp]>([
  [giving({ prob: 3 }), /gives 3 values of audio_prob, bundle.json says 2/],
  [giving({ sources: 5 }), /gives 5 values of sources, bundle.json says 2/],
  [giving({ sources: 0 }), /gives 0 values of sources/],
  [giving({ odds: 10 }, PATCHES), /gives 10 values of sources, bundle.json says 2/],
  [giving({ maps: 4 }), /gives 4 values of maps, bundle.json says 8/],
  [giving({ seen: 1 }), /gives 1 values of visual_prob, bundle.json says 2/],
  [giving({}, {}, NaN), /that are no numbers/],
])("%#: %s", async (engine, reason) => {
  await expect(tryOut(engine)).rejects.toThrow(BundleError);
  await expect(tryOut(engine)).rejects.toThrow(reason);
});
