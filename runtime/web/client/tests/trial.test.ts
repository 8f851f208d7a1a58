// Graphs that give anything else than bundle.json says are refused before the page is ready.

import { expect, test } from "vitest";

import { parseBundle } from "../src/bundle.js";
import type { Engine } from "../src/engine.js";
import { BundleError } from "../src/errors.js";
import { apart, tryOut } from "../src/trial.js";
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
  expect((await tryOut(giving({}))).ms).toBeGreaterThanOrEqual(0);
  expect((await tryOut(giving({}, PATCHES))).ms).toBeGreaterThanOrEqual(0);
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

test("engines are held to what they see", () => {
  const seen = (...maps: number[]) => ({ maps: new Float32Array(maps), visualProb: new Float32Array([0.5]) });
  expect(apart(seen(0.5, 8), seen(0.5, 8))).toBe(0);
  expect(apart(seen(0.5, 8), seen(0.5, 7.92))).toBeCloseTo(0.01, 4);
  expect(apart(seen(0.5, 0), seen(0.25, 0))).toBe(0.25);
  expect(apart(seen(0), { maps: new Float32Array(1), visualProb: new Float32Array([0.25]) })).toBe(0.25);
  // what is no number is never close
  expect(apart(seen(0), seen(NaN)) <= 1).toBe(false);
});
