// ONNX Runtime in WebAssembly: one session per half.

import { BundleError } from "./bundle.js";
import type { BundleInfo, Half } from "./bundle.js";
import type { Engine, Heard, Seen } from "./engine.js";
import type { Bundle } from "./loading.js";
import type { Bytes, Floats } from "./numbers.js";
// the runtime lies beside the page, as its package ships it
import * as ort from "./ort/ort.js";

const INPUTS = { audio: ["waveform"], image: ["image", "sources"] } as const;

/** Runs a bundle's graphs; `threads` above 1 need a page that is isolated from other origins. */
export class OnnxEngine implements Engine {
  private constructor(
    readonly info: BundleInfo,
    private readonly sessions: Record<Half, ort.InferenceSession>,
  ) {}

  /** Open both graphs with the runtime's files at `runtime`. Throws BundleError for graphs that can't be run. */
  static async open(bundle: Bundle, runtime: URL, threads: number): Promise<OnnxEngine> {
    ort.env.wasm.numThreads = threads;
    const file = (name: string) => new URL(name, runtime).href;
    ort.env.wasm.wasmPaths = { mjs: file("ort-wasm.js"), wasm: file("ort-wasm.wasm") };
    ort.env.logLevel = "error";
    const sessions = {} as Record<Half, ort.InferenceSession>;
    // one after the other: the runtime starts once
    for (const half of ["audio", "image"] as const) sessions[half] = await openGraph(bundle, half);
    return new OnnxEngine(bundle.info, sessions);
  }

  async runAudio(waveform: Floats): Promise<Heard> {
    const found = await this.run("audio", { waveform: new ort.Tensor("float32", waveform, [1, waveform.length]) });
    return { sources: floats(found, "sources"), audioProb: this.prob(found, "audio_prob") };
  }

  async runPatches(waveforms: Floats, count: number): Promise<Floats> {
    const shape = [count, waveforms.length / count];
    return floats(await this.run("audio", { waveform: new ort.Tensor("float32", waveforms, shape) }), "sources");
  }

  async runImage(image: Bytes, sources: Floats): Promise<Seen> {
    const count = this.info.classes.length;
    const found = await this.run("image", {
      image: new ort.Tensor("uint8", image, [1, ...this.info.image_size, 3]),
      sources: new ort.Tensor("float32", sources, [1, count, sources.length / count]),
    });
    return { maps: floats(found, "maps"), visualProb: this.prob(found, "visual_prob") };
  }

  private async run(half: Half, feed: Record<string, ort.Tensor>): Promise<Record<string, ort.Tensor>> {
    return this.sessions[half].run(feed);
  }

  /** Without presence heads there are none, and every class counts as there. */
  private prob(found: Record<string, ort.Tensor>, name: string): Floats {
    return name in found ? floats(found, name) : new Float32Array(this.info.classes.length).fill(1);
  }
}

async function openGraph({ info, graphs }: Bundle, half: Half): Promise<ort.InferenceSession> {
  let session: ort.InferenceSession;
  try {
    session = await ort.InferenceSession.create(graphs[half], { executionProviders: ["wasm"] });
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/\s+/g, " ").slice(0, 160) : String(error);
    // the runtime itself did not start: nothing is wrong with the graph
    if (/wasm|WebAssembly|backend|memory/i.test(reason) && !/graph|node|model/i.test(reason)) throw new Error(reason);
    throw new BundleError(`Graph ${info.variant[half]} can't be loaded (${reason}): export the bundle again.`);
  }
  const missing = INPUTS[half].find((name) => !session.inputNames.includes(name));
  if (missing) throw new BundleError(`The ${half} graph has no input ${missing}: export the bundle again.`);
  return session;
}

function floats(found: Record<string, ort.Tensor>, name: string): Floats {
  const tensor = found[name];
  if (!(tensor?.data instanceof Float32Array)) throw new BundleError(`A graph gives no ${name}: export the bundle again.`);
  return tensor.data as Floats;
}
