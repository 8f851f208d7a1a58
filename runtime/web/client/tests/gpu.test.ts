// A GPU is asked for, and never waited for without end.

import { expect, test, vi } from "vitest";

import { gpuOf, lackOf, TooLate, within } from "../src/gpu.js";

const having = (requestAdapter: unknown) => vi.stubGlobal("navigator", requestAdapter ? { gpu: { requestAdapter } } : {});

test.each<[string, unknown, string]>([
  ["no WebGPU", null, "none"],
  ["no adapter", async () => null, "none"],
  ["an error", () => Promise.reject(new Error("lost")), "none"],
  ["a software adapter", async () => ({ info: { isFallbackAdapter: true } }), "software"],
  ["an older adapter", async () => ({ info: {} }), "software"],
  ["a card", async () => ({ info: { isFallbackAdapter: false } }), "hardware"],
  ["a process that hangs", () => new Promise(() => {}), "silent"],
])("%s", async (_, requestAdapter, wanted) => {
  having(requestAdapter);
  const found = await gpuOf(20);
  vi.unstubAllGlobals();
  expect(found).toBe(wanted);
  expect(lackOf(found) === null).toBe(wanted === "software" || wanted === "hardware");
});

test("what comes in time is given, and an error stays what it is", async () => {
  expect(await within(1000, Promise.resolve(7))).toBe(7);
  await expect(within(1000, Promise.reject(new RangeError("no")))).rejects.toThrow(RangeError);
  await expect(within(10, new Promise(() => {}))).rejects.toThrow(TooLate);
});
