/**
 * avgn in the browser, as a library: which things sound in a video and where, without a server.
 *
 * `Localizer.load(bundle)` starts a worker with the model; `localizer.stream(mediaStream)` gives one result for each
 * picture, in the shape of the JSON lines of `avgn localize --json`.
 */

import { AvgnError, BundleError, EngineError, UnsupportedError } from "./errors.js";
import type { ErrorCode } from "./errors.js";
import type { StateName } from "./lines.js";
import type { Bundle } from "./loading.js";
import type { Answer, EngineChoice, Hello, Request, RuntimeFiles } from "./messages.js";
import { PushedStream, ResultStream } from "./results.js";
import type { MediaChange, Result, ResultSource, StreamOptions } from "./results.js";
import { lack, threads } from "./support.js";
import { chooseThreads, remember, remembered } from "./threads.js";
import type { Found } from "./threads.js";
import english from "./words-en.js";

export { AvgnError, BundleError, EngineError, UnsupportedError };
export type { ErrorCode, MediaChange, PushedStream, Result, ResultSource, ResultStream, StateName, StreamOptions };

export interface LoadOptions {
  /** The folder `dist` of onnxruntime-web; left out: that of the package beside this one, as npm lays them out. */
  runtime?: string | URL;
  /**
   * Threads of the model; left out: one, unless a picture takes longer than a camera's (33 ms) and the page is isolated
   * from other origins: then up to 4 are tried, too, and kept where they save a tenth. The next `load` remembers it.
   */
  threads?: number;
  /** "webgpu" runs pictures on the GPU where that gives the same as WebAssembly ("wasm", the default). */
  engine?: "wasm" | "webgpu";
  /** Gives up loading; `load` then throws its reason. */
  signal?: AbortSignal;
  /** Gets bytes as they come, and how many there will be (0 where the host does not say). */
  onProgress?: (loaded: number, total: number) => void;
}

/** A bundle that runs in a worker of its own; several may be loaded at once, each with one stream at a time. */
export class Localizer {
  /** The classes that the bundle knows, in its order. */
  readonly classes: readonly string[];
  /** Rows and columns of a source's map. */
  readonly grid: readonly [number, number];
  readonly model: string;
  readonly threads: number;
  /** What runs pictures. */
  readonly engine: "wasm" | "webgpu";
  private current: ResultStream | null = null;
  private failure: AvgnError | null = null;
  private streams = 0;

  private readonly worker: Worker;

  private constructor(worker: Worker, hello: Hello) {
    this.worker = worker;
    this.classes = hello.classes.map(({ label }) => label);
    [this.grid, this.model, this.threads, this.engine] = [hello.grid, hello.model, hello.threads, hello.engine];
    if (hello.instead) console.info(`avgn: WebGPU is not used (${hello.instead})`);
    worker.onmessage = ({ data }: MessageEvent<Answer>) => this.receive(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.fail(new EngineError("engine", `The worker failed (${event.message}).`));
    };
  }

  /**
   * Load the bundle in the folder `bundle`, as `avgn export` and `avgn deploy web` write it.
   *
   * Throws UnsupportedError where the browser can't run models, BundleError for a bundle that is missing, broken or
   * foreign, EngineError where the model doesn't start, and the reason of `signal`.
   */
  static async load(bundle: string | URL, options: LoadOptions = {}): Promise<Localizer> {
    const missing = lack();
    if (missing) throw new UnsupportedError(english[missing]);
    options.signal?.throwIfAborted();
    const address = folder(bundle);
    const most = threads();
    const { engine = "wasm" } = options;
    // what a GPU takes says nothing of threads
    const given = options.threads ?? (engine === "wasm" ? undefined : most);
    if (given !== undefined) return new Localizer(...(await start(address, given, options)));
    const known = remembered(most);
    const alone = () => start(address, 1, options);
    const many = known && known.threads > 1;
    const first = await (many ? start(address, known.threads, options).catch((error) => less(error, alone)) : alone());
    return new Localizer(...(await fastest(first, most, known, address, options)));
  }

  /**
   * The results of a MediaStream's pictures with its sound, as they come: `for await (const result of ...)`. Ends when
   * the picture ends. The tracks stay the caller's. Throws AvgnError: "busy" beside another stream, "closed" after
   * close, "classes", "media"; EngineError while it runs.
   */
  stream(media: MediaStream, options: StreamOptions = {}): ResultStream {
    return this.begin((send, id) => new ResultStream(send, this.classes, { ...options, id }, media));
  }

  /** A stream whose pictures and sound the caller gives, each with its time: `pushPicture`, `pushSound`, `end`. */
  open(options: StreamOptions = {}): PushedStream {
    return this.begin((send, id) => new PushedStream(send, this.classes, { ...options, id }));
  }

  /** End the stream that runs, and the worker. */
  close(): void {
    this.failure ??= new AvgnError("closed", "This localizer was closed: load another one.");
    this.current?.close();
    this.worker.terminate();
  }

  private begin<Kind extends ResultStream>(make: (send: Send, id: number) => Kind): Kind {
    if (this.failure) throw this.failure;
    if (this.current && !this.current.isDone) {
      throw new AvgnError("busy", "A localizer runs one stream at a time: close the other one, or load another localizer.");
    }
    this.streams += 1;
    const stream = make((message, transfer = []) => this.worker.postMessage(message, transfer), this.streams);
    this.current = stream;
    return stream;
  }

  private receive(answer: Answer): void {
    if (answer.type === "refused") this.fail(errorOf(answer));
    else if (answer.type === "result" || answer.type === "end") this.current?.receive(answer);
  }

  private fail(error: AvgnError): void {
    this.failure ??= error;
    this.current?.fail(error);
    this.worker.terminate();
  }
}

type Send = (message: Request, transfer?: Transferable[]) => void;

function folder(bundle: string | URL): URL {
  const address = new URL(bundle, document.baseURI);
  if (!address.pathname.endsWith("/")) address.pathname += "/";
  return address;
}

/** The files of onnxruntime-web under the names of its package. */
function filesOf(runtime: string | URL | undefined, engine: EngineChoice): RuntimeFiles {
  // beside this package, which bundlers must not look for as if it were a file
  const here = import.meta.url;
  const at = runtime === undefined ? new URL("../../onnxruntime-web/dist/", here) : folder(runtime);
  const file = (name: string) => new URL(name, at).href;
  const [api, wasm] = engine === "wasm" ? ["ort.wasm.min.mjs", ""] : ["ort.webgpu.min.mjs", ".asyncify"];
  const loader = `ort-wasm-simd-threaded${wasm}`;
  return { api: file(api!), mjs: file(`${loader}.mjs`), wasm: file(`${loader}.wasm`) };
}

type Started = [worker: Worker, hello: Hello];

/** Start a worker with a bundle, which another one may have loaded. */
async function start(bundle: URL, threads: number, options: LoadOptions, given?: Bundle): Promise<Started> {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  try {
    return [worker, await started(worker, bundle, threads, options, given)];
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

/** Try once more with less where the engine failed: threads take memory of their own. */
function less(error: unknown, again: () => Promise<Started>): Promise<Started> {
  if (error instanceof EngineError) return again();
  throw error;
}

/** What has started, or the same with as many threads as are faster; the next load remembers them. */
async function fastest(first: Started, most: number, known: Found | null, bundle: URL, options: LoadOptions): Promise<Started> {
  const [worker, hello] = first;
  const hash = hello.bundle.info.variant.sha256.image;
  if (known?.bundle === hash) return first;
  const tried = new Map([[hello.threads, hello.frame_ms]]);
  const wanted = chooseThreads(tried, most);
  let found = first;
  if (wanted !== hello.threads) {
    try {
      const other = await start(bundle, wanted, options, hello.bundle);
      tried.set(wanted, other[1].frame_ms);
      const isBetter = chooseThreads(tried, most) === wanted;
      (isBetter ? worker : other[0]).terminate();
      if (isBetter) found = other;
    } catch (error) {
      // no memory for more of them, for one
      if (options.signal?.aborted) {
        worker.terminate();
        throw error;
      }
    }
  }
  remember({ bundle: hash, threads: found[1].threads, engine: "wasm" }, most);
  return found;
}

function started(worker: Worker, bundle: URL, threads: number, options: LoadOptions, given?: Bundle): Promise<Hello> {
  const { signal } = options;
  return new Promise((done, refuse) => {
    const abort = () => refuse(signal!.reason);
    signal?.addEventListener("abort", abort, { once: true });
    worker.onerror = (event) => {
      event.preventDefault();
      refuse(new EngineError("engine", `The worker can't start (${event.message || "it is missing"}).`));
    };
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if (data.type === "progress") options.onProgress?.(data.loaded, data.total);
      if (data.type === "refused") refuse(errorOf(data));
      if (data.type !== "hello") return;
      signal?.removeEventListener("abort", abort);
      done(data);
    };
    const { engine = "wasm" } = options;
    const message: Request = {
      type: "load",
      bundle: bundle.href,
      engine,
      runtime: filesOf(options.runtime, engine),
      threads,
      ...(given && { given }),
    };
    worker.postMessage(message, given ? [given.graphs.audio.buffer, given.graphs.image.buffer] : []);
  });
}

function errorOf({ code, reason }: Extract<Answer, { type: "refused" }>): AvgnError {
  if (code === "bundle") return new BundleError(reason);
  return new EngineError(code === "memory" ? "memory" : "engine", reason);
}
