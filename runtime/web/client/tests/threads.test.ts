// As many threads as are faster.

import { expect, test } from "vitest";

import { chooseThreads } from "../src/threads.js";

test.each<[[number, number][], number, number]>([
  // one is tried first
  [[], 4, 1],
  // and is enough where it keeps up with a camera, or where no more may run
  [[[1, 13]], 2, 1],
  [[[1, 400]], 1, 1],
  // more are tried where it is not, and kept where they are clearly faster
  [[[1, 126]], 2, 2],
  [[[1, 126], [2, 72]], 2, 2],
  [[[1, 126], [2, 120]], 2, 1],
  [[[1, 126], [4, Infinity]], 4, 1],
  // what an earlier visit has found of another bundle says nothing of one thread
  [[[4, 50]], 4, 1],
])("%j of at most %i: %i", (tried, most, wanted) => {
  expect(chooseThreads(new Map(tried), most)).toBe(wanted);
});
