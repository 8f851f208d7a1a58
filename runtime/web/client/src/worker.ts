// The worker: a bundle, and one stream at a time. Everything that takes longer than a moment happens here.

import { colorOf } from "./colors.js";
import { CaptureClock } from "./drift.js";
import { BundleError, EngineError, isOutOfMemory, textOf } from "./errors.js";
import type { Picture } from "./image.js";
import { loadBundle } from "./loading.js";
import type { Answer, EngineChoice, Request, RuntimeFiles, Setting } from "./messages.js";
import type { Floats } from "./numbers.js";
import { OnnxEngine } from "./onnx.js";
import { answerOf } from "./result.js";
import type { Result } from "./result.js";
import { StreamLocalizer } from "./stream.js";
import { tryOut } from "./trial.js";

// seconds that a frame waits for its sound
const MAX_WAIT = 0.25;
// bytes of a progress message apart
const STEP = 1 << 18;

interface Run {
  stream: StreamLocalizer;
  setting: Setting;
  /** The time of the first message, which is the stream's zero. */
  origin: number | null;
  last: number;
  sound: CaptureClock | null;
  /** The newest picture that nobody has looked at yet. */
  waiting: { bitmap: ImageBitmap; at: number } | null;
  /** Times as they were given, by the stream's own. */
  given: Map<number, number>;
  isEnding: boolean;
}

let engine: OnnxEngine | null = null;
let run: Run | null = null;
let isBusy = false;
let canvas: OffscreenCanvas | null = null;

function say(message: Answer, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}

addEventListener("message", ({ data }: MessageEvent<Request>) => {
  take(data).catch(refuse);
});

async function take(message: Request): Promise<void> {
  if (message.type === "load") return load(message);
  if (message.type === "reset") return reset(message.setting ?? {});
  if (!run) return;
  if (message.type === "sound") takeSound(run, message.samples, message.rate, message.time);
  else if (message.type === "sound-end") run.stream.endAudio();
  else if (message.type === "end") end(run);
  else if (message.type === "frame") takeBitmap(run, message.picture, message.time);
  else run.stream.pushFrame(message.picture, timeOf(run, message.time, true));
  await pump();
}

async function load(message: Extract<Request, { type: "load" }>): Promise<void> {
  let told = -STEP;
  const progress = (loaded: number, total: number): void => {
    if (loaded - told < STEP && loaded !== total) return;
    told = loaded;
    say({ type: "progress", loaded, total });
  };
  const bundle = message.given ?? (await loadBundle(new URL(message.bundle), progress));
  say({ type: "starting" });
  const choice = message.engine ?? "wasm";
  const opened = await OnnxEngine.open(bundle, filesOf(message.runtime, choice), message.threads);
  const { ms: frameMs } = await tryOut(opened);
  const gpu = choice === "wasm" ? null : await opened.useGpu(bundle, choice === "webgpu");
  engine = opened;
  reset({});
  const { info, graphs } = bundle;
  say({
    type: "hello",
    classes: info.classes.map((label, index) => ({ label, color: colorOf(index) })),
    grid: info.grid,
    has_presence: info.has_presence,
    engine: opened.kind,
    instead: gpu?.instead ?? null,
    threads: message.threads,
    model: info.name,
    frame_ms: gpu?.ms ?? frameMs,
    bundle,
  }, [graphs.audio.buffer, graphs.image.buffer]);
}

/** The files under the names that a site has for them; or as they are named. */
function filesOf(runtime: string | RuntimeFiles, choice: EngineChoice): RuntimeFiles {
  if (typeof runtime !== "string") return runtime;
  const at = (name: string) => new URL(name, runtime).href;
  if (choice === "wasm") return { api: at("ort.js"), mjs: at("ort-wasm.js"), wasm: at("ort-wasm.wasm") };
  return { api: at("ort-webgpu.js"), mjs: at("ort-webgpu-wasm.js"), wasm: at("ort-webgpu-wasm.wasm") };
}

function reset(setting: Setting): void {
  if (!engine) return;
  run?.waiting?.bitmap.close();
  const stream = new StreamLocalizer(engine, { maxWait: MAX_WAIT, ...setting });
  run = { stream, setting, origin: null, last: 0, sound: null, waiting: null, given: new Map(), isEnding: false };
}

/** A time of the page's clock on the stream's, which starts with the first message; pictures never go back. */
function timeOf(to: Run, given: number, isPicture: boolean): number {
  if (!Number.isFinite(given)) throw new Error("times are finite seconds");
  if (to.setting.exact) return given;
  to.origin ??= given;
  if (!isPicture) return given - to.origin;
  to.last = Math.max(to.last, given - to.origin);
  to.given.set(to.last, given);
  return to.last;
}

function takeSound(to: Run, samples: Floats, rate: number, time: number): void {
  let at = timeOf(to, time, false);
  if (!to.setting.exact) {
    // blocks arrive in bursts: their times follow a loop
    if (to.sound?.rate !== rate) to.sound = new CaptureClock(rate);
    at = to.sound.block(samples.length, at);
  }
  to.stream.pushAudio(samples, rate, at);
}

function end(of: Run): void {
  of.stream.endAudio();
  of.isEnding = true;
}

function takeBitmap(to: Run, bitmap: ImageBitmap, time: number): void {
  if (to.setting.every) {
    to.stream.pushFrame(pixelsOf(bitmap), timeOf(to, time, true));
    return;
  }
  if (to.waiting) {
    to.waiting.bitmap.close();
    to.stream.passOver();
  }
  to.waiting = { bitmap, at: timeOf(to, time, true) };
}

function pixelsOf(bitmap: ImageBitmap): Picture {
  const { width, height } = bitmap;
  if (canvas?.width !== width || canvas.height !== height) canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true, alpha: false })!;
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { width, height, channels: 4, data: pen.getImageData(0, 0, width, height).data };
}

/** Run frames until none is ready; what came in the meantime is taken between two of them. */
async function pump(): Promise<void> {
  if (isBusy) return;
  isBusy = true;
  try {
    for (;;) {
      const now = run!;
      const { waiting } = now;
      if (waiting) {
        now.waiting = null;
        now.stream.pushFrame(pixelsOf(waiting.bitmap), waiting.at);
      }
      const result = await now.stream.next();
      if (result && now === run) answer(now, result);
      if (!result && now === run) {
        if (now.isEnding) say({ type: "end", ...marked(now) });
        now.isEnding = false;
        return;
      }
      // a graph that runs lets no message in: the newest picture may be among them
      await turn();
    }
  } finally {
    isBusy = false;
  }
}

function answer(of: Run, result: Result): void {
  const time = of.given.get(result.time) ?? result.time;
  for (const at of of.given.keys()) if (at <= result.time) of.given.delete(at);
  const raw = of.setting.raw
    ? { maps: result.maps, audio_prob: result.audioProb, visual_prob: result.visualProb, window: result.window }
    : {};
  say({ ...answerOf(result, of.setting.own ? result.time : time), ...raw, ...marked(of) });
}

function marked({ setting: { id } }: Run): { id?: number } {
  return id === undefined ? {} : { id };
}

const channel = new MessageChannel();
let turned: () => void = () => {};
channel.port1.onmessage = () => turned();

function turn(): Promise<void> {
  return new Promise((done) => {
    turned = done;
    channel.port2.postMessage(null);
  });
}

function refuse(error: unknown): void {
  const { code, message } = known(error);
  say({ type: "refused", code, reason: message, amid: engine !== null });
}

function known(error: unknown): BundleError | EngineError {
  if (error instanceof BundleError || error instanceof EngineError) return error;
  if (isOutOfMemory(error)) {
    return new EngineError("memory", "There is not enough memory for the model: close other tabs and load the page again.");
  }
  return new EngineError(
    "engine",
    `The model can't run in this browser (${textOf(error)}): load the page again, or use another browser.`,
  );
}
