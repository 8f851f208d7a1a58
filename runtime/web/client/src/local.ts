// The page without a server: what app.js is to a served one. The wire leads to a worker in place of a server.

import { askedFor, gpuOf, lackOf } from "./gpu.js";
import type { Bundle } from "./loading.js";
import type { Answer, EngineChoice, Hello, Request } from "./messages.js";
import type { Floats } from "./numbers.js";
// the page's own modules, shared with the served page
import { startPage } from "./page.js";
import { pictureOf } from "./picture.js";
import { inWords } from "./reasons.js";
import { lack, threads } from "./support.js";
import { chooseThreads, ENOUGH, remember, remembered } from "./threads.js";
import { say } from "./words.js";

// milliseconds that a first visit waits for what will serve it offline
const PATIENCE = 3000;
// a model that fails so often within a minute is not started again
const MOST_FAILURES = 3;
const MINUTE = 60_000;

type Take = (answer: object) => void;
type Change = (state: string, reason: string, share?: number) => void;

class LocalWire {
  // the worker keeps the newest picture alone: as many as come may be on their way
  readonly inFlight = Infinity;
  private worker: Worker | null = null;
  /** The same model in other threads or on the GPU, to see whether it is faster. */
  private trial: Worker | null = null;
  private isReady = false;
  private failures: number[] = [];
  private readonly most = threads();
  private found = remembered(this.most);
  private threads = this.found?.threads ?? 1;
  private readonly asked = askedFor();
  private engine: EngineChoice = this.asked ?? this.found?.engine ?? "wasm";
  private mayTryGpu = false;
  // milliseconds of a picture by the number of threads
  private readonly tried = new Map<number, number>();

  constructor(
    private readonly take: Take,
    private readonly change: Change,
  ) {}

  async connect(): Promise<void> {
    const missing = lack();
    if (missing) {
      this.change("refused", say(missing));
      return;
    }
    this.change("loading", "");
    if (!(await settle())) document.getElementById("online")!.hidden = false;
    const gpu = await gpuOf();
    this.mayTryGpu = this.asked === null && gpu === "hardware";
    const reason = lackOf(gpu);
    if (this.engine !== "wasm" && reason) this.leaveGpu(reason);
    this.load();
  }

  private load(): void {
    this.worker = this.open(this.threads, this.engine, (answer) => this.receive(answer));
  }

  /** Start a worker, which may be given the bundle that another one has loaded. */
  private open(threads: number, engine: EngineChoice, take: (answer: Answer, from: Worker) => void, given?: Bundle): Worker {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      // what one that was ended had said before
      if (worker === this.worker || worker === this.trial) take(data, worker);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      if (worker === this.trial) this.giveUp();
      else this.refuse(say("noWorker", { reason: event.message || say("missing") }));
    };
    const bundle = new URL("bundle/", document.baseURI).href;
    const runtime = new URL("ort/", import.meta.url).href;
    const message: Request = { type: "load", bundle, runtime, threads, engine, ...(given && { given }) };
    worker.postMessage(message, given ? [given.graphs.audio.buffer, given.graphs.image.buffer] : []);
    return worker;
  }

  get crowded(): boolean {
    return !this.isReady;
  }

  say(type: "reset" | "sound-end"): void {
    // what is begun now is not kept waiting by a trial, nor a trial by that
    this.giveUp();
    if (this.isReady) this.send({ type });
  }

  picture(video: HTMLVideoElement): Promise<ImageBitmap> {
    return pictureOf(video);
  }

  async sendFrame(picture: ImageBitmap, time: number): Promise<void> {
    this.send({ type: "frame", picture, time }, [picture]);
  }

  sendSound(samples: Floats, rate: number, time: number): void {
    if (this.isReady) this.send({ type: "sound", samples, rate, time }, [samples.buffer]);
  }

  private send(message: Request, transfer: Transferable[] = []): void {
    this.worker?.postMessage(message, transfer);
  }

  private receive(answer: Answer): void {
    if (answer.type === "progress") {
      this.change("loading", "", answer.total ? Math.min(1, answer.loaded / answer.total) : undefined);
    } else if (answer.type === "starting") {
      this.change("starting", "");
    } else if (answer.type === "refused") {
      this.refused(answer);
    } else if (answer.type !== "end") {
      if (answer.type === "hello" && !this.greet(answer)) return;
      this.take(answer);
    }
  }

  private refused({ amid, reason }: Extract<Answer, { type: "refused" }>): void {
    if (this.engine !== "wasm") {
      this.leaveGpu(reason);
      this.end();
      this.load();
    } else if (amid) {
      this.restart(reason);
    } else if (this.threads > 1) {
      // they take memory of their own
      this.end();
      this.threads = 1;
      this.load();
    } else {
      this.refuse(inWords(reason));
    }
  }

  /** Begin with a worker that is ready, and see what else is faster; false: another one is started in its place. */
  private greet({ bundle, frame_ms, engine, instead }: Hello): boolean {
    if (this.engine !== "wasm" && engine === "wasm") {
      // its files without WebGPU are smaller and faster
      this.leaveGpu(instead ?? "it was not taken");
      this.end();
      this.load();
      return false;
    }
    this.isReady = true;
    this.change("ready", "");
    const hash = bundle.info.variant.sha256.image;
    if (this.found?.bundle === hash || this.asked === "webgpu") return true;
    this.tried.set(this.threads, frame_ms);
    const wanted = chooseThreads(this.tried, this.most);
    if (this.engine !== "wasm") this.keep(hash);
    else if (wanted === this.threads) this.tryGpu(bundle);
    else this.tryOther(wanted, bundle);
    return true;
  }

  /** See whether other threads are faster, while nothing runs: the page is ready meanwhile. */
  private tryOther(threads: number, bundle: Bundle): void {
    const hash = bundle.info.variant.sha256.image;
    const judge = (answer: Answer, worker: Worker): void => {
      if (answer.type !== "hello" && answer.type !== "refused") return;
      this.tried.set(threads, answer.type === "hello" ? answer.frame_ms : Infinity);
      if (chooseThreads(this.tried, this.most) === threads) {
        this.adopt(worker);
        this.threads = threads;
      } else {
        this.giveUp();
      }
      if (answer.type === "hello") this.tryGpu(answer.bundle);
      else this.keep(hash);
    };
    this.trial = this.open(threads, "wasm", judge, bundle);
  }

  /** See whether a GPU is faster, where there is one and need of it. */
  private tryGpu(bundle: Bundle): void {
    const { precision, sha256 } = bundle.info.variant;
    if (!this.mayTryGpu || precision !== "fp32" || Math.min(...this.tried.values()) <= ENOUGH) {
      this.keep(sha256.image);
      return;
    }
    const judge = (answer: Answer, worker: Worker): void => {
      if (answer.type !== "hello" && answer.type !== "refused") return;
      if (answer.type === "hello" && answer.engine === "webgpu") {
        this.adopt(worker);
        this.engine = "gpu";
      } else {
        this.giveUp();
        this.leaveGpu(answer.type === "hello" ? (answer.instead ?? "it was not taken") : answer.reason);
      }
      this.keep(sha256.image);
    };
    this.trial = this.open(this.threads, "gpu", judge, bundle);
  }

  /** Go on with the worker that was tried. */
  private adopt(worker: Worker): void {
    this.worker?.terminate();
    [this.worker, this.trial] = [worker, null];
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      if (worker === this.worker) this.receive(data);
    };
  }

  private leaveGpu(reason: string): void {
    console.info(`avgn: WebGPU is not used (${reason})`);
    this.engine = "wasm";
    this.mayTryGpu = false;
  }

  private giveUp(): void {
    this.trial?.terminate();
    this.trial = null;
  }

  private keep(hash: string): void {
    this.found = { bundle: hash, threads: this.threads, engine: this.engine === "wasm" ? "wasm" : "gpu" };
    if (this.asked === null) remember(this.found, this.most);
  }

  /** Start anew where the model has failed amid a stream, which goes on with it. */
  private restart(reason: string): void {
    const now = performance.now();
    this.failures = [...this.failures.filter((at) => now - at < MINUTE), now];
    if (this.failures.length >= MOST_FAILURES) {
      this.refuse(inWords(reason));
      return;
    }
    this.end();
    this.change("failed", say("startedAgain"));
    this.load();
  }

  private end(): void {
    this.isReady = false;
    this.giveUp();
    this.worker?.terminate();
    this.worker = null;
  }

  private refuse(reason: string): void {
    this.end();
    giveWay();
    this.change("refused", reason);
  }
}

/** Let a newer version, which waits for all tabs to be closed, have the next visit: this one doesn't run. */
function giveWay(): void {
  if (!navigator.serviceWorker) return;
  navigator.serviceWorker.getRegistration().then(
    (known) => known?.waiting?.postMessage("activate"),
    () => {},
  );
}

/**
 * Wait until the service worker serves this page, and with it the headers that threads need; never in vain. Whether it
 * will serve it without a connection.
 */
async function settle(): Promise<boolean> {
  const { serviceWorker } = navigator as { serviceWorker?: ServiceWorkerContainer };
  if (!serviceWorker) return false;
  const controlled = new Promise<void>((done) => {
    if (serviceWorker.controller) done();
    else serviceWorker.addEventListener("controllerchange", () => done(), { once: true });
  });
  try {
    const registered = await serviceWorker.register("sw.js");
    // a page that was loaded past it (with shift) stays so
    if (registered.active && !serviceWorker.controller) return true;
    await Promise.race([controlled, given(registered), new Promise((done) => setTimeout(done, PATIENCE))]);
    if (!serviceWorker.controller && !registered.active && !registered.waiting && !registered.installing) return false;
  } catch {
    // some private windows have none: the page works, online and with one thread
    return false;
  }
  const [visit] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
  if (serviceWorker.controller && !crossOriginIsolated && visit?.type !== "reload") {
    location.reload();
    await new Promise(() => {});
  }
  return true;
}

/** Resolves when the browser gives a service worker up: its disk is full, for one. */
function given({ installing }: ServiceWorkerRegistration): Promise<void> {
  return new Promise((done) => {
    installing?.addEventListener("statechange", () => {
      if (installing.state === "redundant") done();
    });
  });
}

startPage((take: Take, change: Change) => new LocalWire(take, change));
