// What is refused, and how: one sentence that names the thing, the value and the way out.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createHash } from "node:crypto";

import { expect, test, vi } from "vitest";

import { parseBundle } from "../src/bundle.js";
import { rulesFor } from "../src/decision.js";
import { BundleError } from "../src/errors.js";
import { loadBundle } from "../src/loading.js";
import { document } from "./documents.js";

const variant = (document()["variants"] as object[])[1];

test.each<[object, RegExp]>([
  [{ format: "other" }, /not a bundle/],
  [{ version: 2 }, /version 2 is not known/],
  [{ classes: [] }, /classes/],
  [{ classes: ["a", "a"] }, /unique/],
  [{ sample_rate: "16000" }, /sample_rate/],
  [{ sample_rate: 1e9 }, /sample_rate/],
  [{ window_seconds: 601 }, /window_seconds/],
  [{ audio_hop_seconds: 0 }, /audio_hop_seconds/],
  [{ image_size: [4] }, /image_size/],
  [{ image_size: [60000, 60000] }, /million pixels/],
  [{ thresholds: { audio: [0.5], visual: [0.5, 0.5] } }, /thresholds.audio must list/],
  [{ has_presence: 1 }, /has_presence/],
  [{ color_order: "BGR" }, /color_order/],
  [{ variants: [] }, /variants/],
  [{ variants: [{ engine: "openvino" }] }, /no ONNX graphs/],
  [{ variants: [{ ...variant, audio: "../audio.onnx" }] }, /variants.audio/],
  [{ variants: [{ ...variant, audio: "https://elsewhere/audio.onnx" }] }, /variants.audio/],
  [{ variants: [{ ...variant, audio: "//elsewhere/audio.onnx" }] }, /variants.audio/],
  [{ variants: [{ ...variant, sha256: { audio: "00", image: "1".repeat(64) } }] }, /sha256.audio/],
  [{ patches: { samples: 120, loudest: 2 } }, /whole patches/],
  [{ joint: { visual_weight: 1, thresholds: [0], margin: 1, apart: 0.1, floor: -6 } }, /joint.thresholds/],
  [{ decision: { release: "high" } }, /decision.release/],
])("%j", (changes, reason) => {
  const text = JSON.stringify({ ...document(), ...changes });
  expect(() => parseBundle(text)).toThrow(BundleError);
  expect(() => parseBundle(text)).toThrow(reason);
});

test("what is no JSON, and a rule that is not known", () => {
  expect(() => parseBundle("{")).toThrow(/not valid JSON/);
  expect(() => parseBundle("[1]")).toThrow(BundleError);
  expect(() => rulesFor(parseBundle(JSON.stringify({ ...document(), decision: { speed: 1 } })))).toThrow(/decision speed/);
});

test("graphs come by their hashes, once more past a cache that holds something else", async () => {
  const graphs = { "/audio.onnx": "the audio half", "/image.onnx": "the image half" };
  const hash = (text: string) => createHash("sha256").update(text).digest("hex");
  const good = { ...variant, sha256: { audio: hash(graphs["/audio.onnx"]), image: hash(graphs["/image.onnx"]) } };
  const text = JSON.stringify({ ...document(), variants: [good] });
  const asked: string[] = [];
  let broken = 1;
  const server = createServer((request, response) => {
    asked.push(request.url!);
    if (request.url === "/bundle.json") return response.end(text);
    if (request.url === "/image.onnx" && broken-- > 0) return response.end("the im");
    return response.end(graphs[request.url as keyof typeof graphs]);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const address = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  try {
    const bundle = await loadBundle(address);
    expect(new TextDecoder().decode(bundle.graphs.image)).toBe("the image half");
    expect(asked.filter((one) => one === "/image.onnx").length).toBe(2);
    broken = 9;
    await expect(loadBundle(address)).rejects.toThrow(/Graph image.onnx has sha256 .* was changed or cut off/);
    await expect(loadBundle(new URL("missing/", address))).rejects.toThrow(BundleError);
  } finally {
    server.close();
  }
});

test.each<[string, () => Promise<Response>, RegExp, number]>([
  ["no connection", () => Promise.reject(new TypeError("failed")), /bundle.json can't be loaded: check the connection/, 4],
  ["one that breaks", async () => new Response(broken()), /The connection broke while the model was loaded/, 4],
  ["a host with too much to do", async () => new Response("", { status: 503 }), /can't be had \(the host says 503\)/, 4],
  ["a file that is not there", async () => new Response("", { status: 404 }), /is missing \(the host says 404\)/, 1],
])("%s: asked again where that may help, and said in the end", async (_, answer, reason, count) => {
  vi.useFakeTimers();
  const fetch = vi.fn(answer);
  vi.stubGlobal("fetch", fetch);
  try {
    const refused = expect(loadBundle(new URL("http://host/"))).rejects.toThrow(reason);
    await vi.runAllTimersAsync();
    await refused;
    expect(fetch).toHaveBeenCalledTimes(count);
  } finally {
    vi.unstubAllGlobals();
    vi.useRealTimers();
  }
});

function broken(): ReadableStream {
  return new ReadableStream({
    start: (controller) => controller.enqueue(new Uint8Array(10)),
    pull: (controller) => controller.error(new TypeError("cut off")),
  });
}
