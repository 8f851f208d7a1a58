// The page without a server: what app.js is to a served one. The wire leads to a worker in place of a server.

import { askedFor, gpuOf } from "./gpu.js";
import type { Bundle } from "./loading.js";
import type { Answer, EngineChoice, Request } from "./messages.js";
import type { Floats } from "./numbers.js";
// the page's own modules, shared with the served page
import { startPage } from "./page.js";
import { pictureOf } from "./picture.js";
import { inWords } from "./reasons.js";
import { lack, threads } from "./support.js";
import { chooseThreads, ENOUGH, remember, remembered } from "./threads.js";
import type { Found } from "./threads.js";
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
    await settle();
    const gpu = await gpuOf();
    this.mayTryGpu = this.asked === null && gpu === "hardware";
    if (this.engine !== "wasm" && gpu === "none") this.leaveGpu("this browser has no GPU for it");
    this.load();
  }

  private load(given?: Bundle): void {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker = worker;
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      // what one that was ended had said before
      if (worker === this.worker) this.receive(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.refuse(say("noWorker", { reason: event.message || say("missing") }));
    };
    const bundle = new URL("bundle/", document.baseURI).href;
    const runtime = new URL("ort/", import.meta.url).href;
    const { threads, engine } = this;
    this.send({ type: "load", bundle, runtime, threads, engine, ...(given && { given }) }, given && buffersOf(given));
  }

  get crowded(): boolean {
    return !this.isReady;
  }

  say(type: "reset" | "sound-end"): void {
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
      if (answer.type === "hello" && !this.isSettled(answer)) return;
      this.take(answer);
    }
  }

  private refused({ amid, reason }: Extract<Answer, { type: "refused" }>): void {
    if (this.engine !== "wasm") {
      this.leaveGpu(reason);
      this.loadAgain(this.threads);
    } else if (amid) {
      this.restart(reason);
    } else if (this.threads > 1) {
      // they take memory of their own
      this.tried.set(this.threads, Infinity);
      this.loadAgain(1);
    } else {
      this.refuse(inWords(reason));
    }
  }

  /** Whether it runs in as many threads as are best; otherwise it is started in others. */
  private isSettled({ bundle, frame_ms, engine, instead }: Extract<Answer, { type: "hello" }>): boolean {
    const { precision, sha256 } = bundle.info.variant;
    const hash = sha256.image;
    if (this.engine !== "wasm" && engine === "wasm") {
      // its files without WebGPU are smaller and faster
      this.leaveGpu(instead ?? "");
      this.loadAgain(this.threads, bundle);
      return false;
    }
    if (this.engine !== "wasm") return this.begin({ bundle: hash, threads: this.threads, engine: "gpu" });
    this.tried.set(this.threads, frame_ms);
    const wanted = this.found?.bundle === hash ? this.threads : chooseThreads(this.tried, this.most);
    if (wanted !== this.threads) {
      this.loadAgain(wanted, bundle);
      return false;
    }
    if (this.mayTryGpu && frame_ms > ENOUGH && precision === "fp32" && this.found?.bundle !== hash) {
      this.engine = "gpu";
      this.loadAgain(wanted, bundle);
      return false;
    }
    return this.begin({ bundle: hash, threads: wanted, engine: "wasm" });
  }

  private begin(found: Found): true {
    this.found = found;
    if (this.asked === null) remember(found, this.most);
    this.isReady = true;
    this.change("ready", "");
    return true;
  }

  private leaveGpu(reason: string): void {
    console.info(`avgn: WebGPU is not used (${reason})`);
    this.engine = "wasm";
    this.mayTryGpu = false;
  }

  private loadAgain(threads: number, given?: Bundle): void {
    this.end();
    this.threads = threads;
    this.load(given);
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
    this.worker?.terminate();
    this.worker = null;
  }

  private refuse(reason: string): void {
    this.end();
    giveWay();
    this.change("refused", reason);
  }
}

function buffersOf({ graphs }: Bundle): Transferable[] {
  return [graphs.audio.buffer, graphs.image.buffer];
}

/** Let a newer version, which waits for all tabs to be closed, have the next visit: this one doesn't run. */
function giveWay(): void {
  if (!("serviceWorker" in navigator)) return;
  navigator.serviceWorker.getRegistration().then(
    (known) => known?.waiting?.postMessage("activate"),
    () => {},
  );
}

/** Wait until the service worker serves this page, and with it the headers that threads need; never in vain. */
async function settle(): Promise<void> {
  if (!("serviceWorker" in navigator)) return;
  const { serviceWorker } = navigator;
  const controlled = new Promise<void>((done) => {
    if (serviceWorker.controller) done();
    else serviceWorker.addEventListener("controllerchange", () => done(), { once: true });
  });
  try {
    const registered = await serviceWorker.register("sw.js");
    // a page that was loaded past it (with shift) stays so
    if (registered.active && !serviceWorker.controller) return;
    await Promise.race([controlled, given(registered), new Promise((done) => setTimeout(done, PATIENCE))]);
  } catch {
    // private windows have none: the page works, online and with one thread
    return;
  }
  const [visit] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
  if (serviceWorker.controller && !crossOriginIsolated && visit?.type !== "reload") {
    location.reload();
    await new Promise(() => {});
  }
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
