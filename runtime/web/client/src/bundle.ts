// What bundle.json says, checked as strictly as it decides what runs: runtime/bundle_schema.py.

import { BundleError } from "./errors.js";

const FORMAT = "avgn-bundle";
const VERSION = 1;
const MOST_CLASSES = 10_000;
const MOST_SAMPLES = 1 << 25;
const MOST_PIXELS = 100_000_000;

export const HALVES = ["audio", "image"] as const;
export type Half = (typeof HALVES)[number];

export interface Variant {
  precision: string;
  engine: string;
  audio: string;
  image: string;
  sha256: Record<Half, string>;
}

export interface Joint {
  visual_weight: number;
  thresholds: number[];
  margin: number;
  apart: number;
  floor: number;
  scale: number;
  seen_floor: number;
}

export interface Patches {
  samples: number;
  loudest: number;
}

/** The facts of a bundle, under the names of bundle.json; sizes are [height, width]. */
export interface BundleInfo {
  name: string;
  classes: string[];
  sample_rate: number;
  window_seconds: number;
  audio_hop_seconds: number;
  image_size: [number, number];
  grid: [number, number];
  thresholds: { audio: number[]; visual: number[] };
  has_presence: boolean;
  variant: Variant;
  decision: Record<string, number>;
  patches: Patches | null;
  joint: Joint | null;
  /** T, the samples of one window; of a window or a patch, as the graph takes them; between two windows. */
  windowSamples: number;
  graphSamples: number;
  hopSamples: number;
}

type Raw = Record<string, unknown>;

function fail(rule: string, value: unknown): never {
  const text = (JSON.stringify(value) ?? "nothing").slice(0, 60);
  throw new BundleError(`bundle.json: ${rule}, got ${text}: export the bundle again.`);
}

/** Check the text of bundle.json; throws BundleError. */
export function parseBundle(text: string): BundleInfo {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    throw new BundleError("bundle.json is not valid JSON: export the bundle again.");
  }
  if (!isObject(raw) || raw["format"] !== FORMAT) {
    fail(`not a bundle: "format" must be "${FORMAT}"`, isObject(raw) ? raw["format"] : raw);
  }
  if (raw["version"] !== VERSION) {
    throw new BundleError(
      `bundle.json: bundle version ${String(raw["version"]).slice(0, 20)} is not known: this page reads version ` +
        `${VERSION}, so deploy it again.`,
    );
  }
  if ((raw["color_order"] ?? "RGB") !== "RGB") fail("color_order must be RGB", raw["color_order"]);
  const classes = names(raw["classes"]);
  const hasPresence = raw["has_presence"] ?? true;
  if (typeof hasPresence !== "boolean") fail("has_presence must be true or false", hasPresence);
  const sampleRate = whole(raw["sample_rate"], "sample_rate", 1000, 768_000);
  const windowSeconds = number(raw["window_seconds"], "window_seconds", 0.01, 600);
  const hopSeconds = number(raw["audio_hop_seconds"] ?? 0.2, "audio_hop_seconds", 0.001, 600);
  const patches = readPatches(raw["patches"]);
  const windowSamples = Math.round(windowSeconds * sampleRate);
  const info: BundleInfo = {
    name: modelName(raw["model"]),
    classes,
    sample_rate: sampleRate,
    window_seconds: windowSeconds,
    audio_hop_seconds: hopSeconds,
    image_size: pair(raw["image_size"], "image_size"),
    grid: pair(raw["grid"], "grid"),
    thresholds: readThresholds(raw["thresholds"], classes.length),
    has_presence: hasPresence,
    variant: readVariant(raw["variants"]),
    decision: readDecision(raw["decision"] ?? {}),
    patches,
    joint: readJoint(raw["joint"], classes.length),
    windowSamples,
    graphSamples: patches?.samples ?? windowSamples,
    hopSamples: Math.round(hopSeconds * sampleRate),
  };
  checkSizes(info);
  return info;
}

function checkSizes(info: BundleInfo): void {
  if (info.windowSamples > MOST_SAMPLES) fail(`window_seconds must be at most ${MOST_SAMPLES} samples`, info.windowSamples);
  if (info.image_size[0] * info.image_size[1] > MOST_PIXELS) fail("image_size must be at most 100 million pixels", info.image_size);
  if (info.classes.length * info.grid[0] * info.grid[1] > MOST_SAMPLES) {
    fail(`the maps of all classes must have at most ${MOST_SAMPLES} cells`, info.grid);
  }
  if (info.patches) {
    const rest = info.windowSamples - info.patches.samples;
    if (rest < 0 || rest % info.hopSamples) {
      fail(`a window of ${info.windowSamples} samples must be whole patches, ${info.hopSamples} samples apart`, info.patches);
    }
  }
}

function isObject(raw: unknown): raw is Raw {
  return typeof raw === "object" && raw !== null && !Array.isArray(raw);
}

function object(raw: unknown, name: string): Raw {
  return isObject(raw) ? raw : fail(`${name} must be an object`, raw);
}

function number(raw: unknown, name: string, low: number, high: number): number {
  if (typeof raw !== "number" || !(raw >= low && raw <= high)) fail(`${name} must be a number from ${low} to ${high}`, raw);
  return raw;
}

function whole(raw: unknown, name: string, low: number, high: number): number {
  const value = number(raw, name, low, high);
  return Number.isInteger(value) ? value : fail(`${name} must be a whole number`, raw);
}

function pair(raw: unknown, name: string): [number, number] {
  if (!Array.isArray(raw) || raw.length !== 2) fail(`${name} must be [height, width]`, raw);
  return [whole(raw[0], name, 1, 1 << 16), whole(raw[1], name, 1, 1 << 16)];
}

function names(raw: unknown): string[] {
  const fits = Array.isArray(raw) && raw.length > 0 && raw.every((name) => typeof name === "string" && name !== "");
  if (!fits || new Set(raw).size !== raw.length) fail("classes must be unique names, at least one", raw);
  if (raw.length > MOST_CLASSES) fail(`classes must be at most ${MOST_CLASSES} names`, raw.length);
  return raw as string[];
}

function numbers(raw: unknown, name: string, count: number): number[] {
  if (!Array.isArray(raw) || raw.length !== count) {
    fail(`${name} must list one value for each of the ${count} classes`, Array.isArray(raw) ? raw.length : raw);
  }
  return raw.map((value) => number(value, name, -1e6, 1e6));
}

function modelName(raw: unknown): string {
  const name = object(raw, "model")["name"];
  return typeof name === "string" ? name : fail("model must have a name", name);
}

function readThresholds(raw: unknown, count: number): BundleInfo["thresholds"] {
  const entry = object(raw, "thresholds");
  const of = (half: "audio" | "visual") => numbers(entry[half], `thresholds.${half}`, count);
  return { audio: of("audio"), visual: of("visual") };
}

function readDecision(raw: unknown): Record<string, number> {
  const entry = object(raw, "decision");
  for (const [name, value] of Object.entries(entry)) number(value, `decision.${name.slice(0, 40)}`, -1e6, 1e6);
  return entry as Record<string, number>;
}

function readPatches(raw: unknown): Patches | null {
  if (raw === undefined || raw === null) return null;
  const entry = object(raw, "patches");
  return {
    samples: whole(entry["samples"], "patches.samples", 1, 10_000_000),
    loudest: whole(entry["loudest"], "patches.loudest", 1, 10_000),
  };
}

function readJoint(raw: unknown, count: number): Joint | null {
  if (raw === undefined || raw === null) return null;
  const entry = object(raw, "joint");
  return {
    visual_weight: number(entry["visual_weight"], "joint.visual_weight", 0, 1e3),
    thresholds: numbers(entry["thresholds"], "joint.thresholds", count),
    margin: number(entry["margin"], "joint.margin", 0, 1e6),
    apart: number(entry["apart"], "joint.apart", 0, 1),
    floor: number(entry["floor"], "joint.floor", -1e6, 1e6),
    scale: number(entry["scale"] ?? 1, "joint.scale", 1e-6, 1e6),
    seen_floor: number(entry["seen_floor"] ?? -1e6, "joint.seen_floor", -1e6, 1e6),
  };
}

/** The first pair of ONNX graphs: other engines' files do not run in a browser. */
function readVariant(raw: unknown): Variant {
  if (!Array.isArray(raw) || !raw.length) fail("variants must be a list with at least one entry", raw);
  const entry = raw.find((one) => isObject(one) && one["engine"] === "onnxruntime");
  if (!isObject(entry)) throw new BundleError("This bundle holds no ONNX graphs: export it with --format onnx.");
  const hashes = object(entry["sha256"], "variants.sha256");
  for (const half of HALVES) {
    const name = entry[half];
    // the file lies beside bundle.json, whatever characters its name has
    if (typeof name !== "string" || !name || /[\\\0]|^\/|^[a-z]+:|(^|\/)\.\.(\/|$)/i.test(name)) {
      fail(`variants.${half} must be the name of a file in the bundle`, name);
    }
    if (typeof hashes[half] !== "string" || !/^[0-9a-f]{64}$/.test(hashes[half])) {
      fail(`variants.sha256.${half} must be 64 hexadecimal digits`, hashes[half]);
    }
  }
  return entry as unknown as Variant;
}
