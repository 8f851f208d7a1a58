// ONNX Runtime in WebAssembly: one session per half.

import type * as Ort from "onnxruntime-web/wasm";

import type { BundleInfo, Half } from "./bundle.js";
import type { Engine, Heard, Seen } from "./engine.js";
import { BundleError, EngineError, isOutOfMemory, textOf } from "./errors.js";
import { gpuOf, lackOf, TooLate, within } from "./gpu.js";
import type { Bundle } from "./loading.js";
import type { RuntimeFiles } from "./messages.js";
import type { Bytes, Floats } from "./numbers.js";
import { apart, tryOut } from "./trial.js";

const INPUTS = { audio: ["waveform"], image: ["image", "sources"] } as const;

// what two engines may differ by in float32
const CLOSE = 2e-3;
// milliseconds for a GPU to take the graph and its first pictures: compiling its programs takes seconds
const GPU_PATIENCE = 60_000;
const GPU_HANGS = 'The GPU does not answer: load the bundle without engine "webgpu".';

/** Runs a bundle's graphs; `threads` above 1 need a page that is isolated from other origins. */
export class OnnxEngine implements Engine {
  /** What runs the image half. */
  kind: "wasm" | "webgpu" = "wasm";

  private constructor(
    readonly info: BundleInfo,
    private readonly ort: typeof Ort,
    private readonly sessions: Record<Half, Ort.InferenceSession>,
  ) {}

  /** Open both graphs with the runtime's files, as its package ships them. Throws BundleError for graphs that can't be run. */
  static async open(bundle: Bundle, { api, mjs, wasm }: RuntimeFiles, threads: number): Promise<OnnxEngine> {
    // where it lies is known to the page alone: what packs this code leaves it there
    const ort = (await import(/* webpackIgnore: true */ /* @vite-ignore */ api)) as typeof Ort;
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = { mjs, wasm };
    ort.env.logLevel = "error";
    const sessions = {} as Record<Half, Ort.InferenceSession>;
    // one after the other: the runtime starts once
    for (const half of ["audio", "image"] as const) sessions[half] = await openGraph(ort, bundle, half);
    return new OnnxEngine(bundle.info, ort, sessions);
  }

  /**
   * Run the image half on the GPU where that gives the same as before, and is faster unless `slowly`; the milliseconds
   * of a picture, or why it does not. The runtime's files must be those with WebGPU. Throws EngineError where the GPU
   * hangs amid it: nothing can be run in this worker then.
   */
  async useGpu(bundle: Bundle, slowly: boolean): Promise<{ ms?: number; instead?: string }> {
    const lack = lackOf(await gpuOf());
    if (lack) return { instead: lack };
    try {
      return (await within(GPU_PATIENCE, this.tryGpu(bundle, slowly)))!;
    } catch (error) {
      throw error instanceof TooLate ? new EngineError("engine", GPU_HANGS) : error;
    }
  }

  private async tryGpu(bundle: Bundle, slowly: boolean): Promise<{ ms?: number; instead?: string }> {
    const before = await tryOut(this);
    const cpu = this.sessions.image;
    let ms: number;
    try {
      this.sessions.image = await openGraph(this.ort, bundle, "image", "webgpu");
      const { ms: found, seen } = await tryOut(this);
      ms = found;
      const difference = apart(before.seen, seen);
      if (!(difference <= CLOSE)) throw new Error(`it differs by ${difference.toPrecision(2)}`);
      if (ms > before.ms && !slowly) throw new Error(`it takes ${Math.round(ms)} ms a picture in place of ${Math.round(before.ms)}`);
    } catch (error) {
      this.sessions.image = cpu;
      return { instead: textOf(error) };
    }
    await cpu.release();
    this.kind = "webgpu";
    return { ms };
  }

  async runAudio(waveform: Floats): Promise<Heard> {
    const found = await this.run("audio", { waveform: new this.ort.Tensor("float32", waveform, [1, waveform.length]) });
    return { sources: floats(found, "sources"), audioProb: this.prob(found, "audio_prob") };
  }

  async runPatches(waveforms: Floats, count: number): Promise<Floats> {
    const shape = [count, waveforms.length / count];
    return floats(await this.run("audio", { waveform: new this.ort.Tensor("float32", waveforms, shape) }), "sources");
  }

  async runImage(image: Bytes, sources: Floats): Promise<Seen> {
    const count = this.info.classes.length;
    const found = await this.run("image", {
      image: new this.ort.Tensor("uint8", image, [1, ...this.info.image_size, 3]),
      sources: new this.ort.Tensor("float32", sources, [1, count, sources.length / count]),
    });
    return { maps: floats(found, "maps"), visualProb: this.prob(found, "visual_prob") };
  }

  private async run(half: Half, feed: Record<string, Ort.Tensor>): Promise<Record<string, Ort.Tensor>> {
    return this.sessions[half].run(feed);
  }

  /** Without presence heads there are none, and every class counts as there. */
  private prob(found: Record<string, Ort.Tensor>, name: string): Floats {
    return name in found ? floats(found, name) : new Float32Array(this.info.classes.length).fill(1);
  }
}

async function openGraph(ort: typeof Ort, { info, graphs }: Bundle, half: Half, on = "wasm"): Promise<Ort.InferenceSession> {
  let session: Ort.InferenceSession;
  try {
    session = await ort.InferenceSession.create(graphs[half], { executionProviders: [on], logSeverityLevel: 3 });
  } catch (error) {
    if (isOutOfMemory(error)) throw error;
    const reason = textOf(error);
    // the runtime itself did not start: nothing is wrong with the graph
    if (/wasm|WebAssembly|backend/i.test(reason) && !/graph|node|model/i.test(reason)) throw error;
    throw new BundleError(`Graph ${info.variant[half]} can't be loaded (${reason}): export the bundle again.`);
  }
  const missing = INPUTS[half].find((name) => !session.inputNames.includes(name));
  if (missing) throw new BundleError(`The ${half} graph has no input ${missing}: export the bundle again.`);
  return session;
}

function floats(found: Record<string, Ort.Tensor>, name: string): Floats {
  const tensor = found[name];
  if (!(tensor?.data instanceof Float32Array)) throw new BundleError(`A graph gives no ${name}: export the bundle again.`);
  return tensor.data as Floats;
}
