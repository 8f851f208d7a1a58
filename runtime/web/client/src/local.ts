// The page without a server: what app.js is to a served one. The wire leads to a worker in place of a server.

import type { Bundle } from "./loading.js";
import type { Answer, Hello, Request } from "./messages.js";
import type { Floats } from "./numbers.js";
// the page's own modules, shared with the served page
import { startPage } from "./page.js";
import { pictureOf } from "./picture.js";
import { inWords } from "./reasons.js";
import { lack, threads } from "./support.js";
import { chooseThreads, remember, remembered } from "./threads.js";
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
  /** The same model in other threads, to see whether it is faster. */
  private trial: Worker | null = null;
  private isReady = false;
  private failures: number[] = [];
  private readonly most = threads();
  private found = remembered(this.most);
  private threads = this.found?.threads ?? 1;
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
    this.load();
  }

  private load(): void {
    this.worker = this.open(this.threads, (answer) => this.receive(answer));
  }

  /** Start a worker, which may be given the bundle that another one has loaded. */
  private open(threads: number, take: (answer: Answer, from: Worker) => void, given?: Bundle): Worker {
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
    const message: Request = { type: "load", bundle, runtime, threads, ...(given && { given }) };
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
      if (answer.type === "hello") this.greet(answer);
      this.take(answer);
    }
  }

  private refused({ amid, reason }: Extract<Answer, { type: "refused" }>): void {
    if (amid) {
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

  private greet({ bundle, frame_ms }: Hello): void {
    this.isReady = true;
    this.change("ready", "");
    const hash = bundle.info.variant.sha256.image;
    if (this.found?.bundle === hash) return;
    this.tried.set(this.threads, frame_ms);
    const wanted = chooseThreads(this.tried, this.most);
    if (wanted === this.threads) this.keep(hash);
    else this.tryOther(wanted, bundle);
  }

  /** See whether other threads are faster, while nothing runs: the page is ready meanwhile. */
  private tryOther(threads: number, bundle: Bundle): void {
    const hash = bundle.info.variant.sha256.image;
    const judge = (answer: Answer, worker: Worker): void => {
      if (answer.type !== "hello" && answer.type !== "refused") return;
      this.tried.set(threads, answer.type === "hello" ? answer.frame_ms : Infinity);
      if (chooseThreads(this.tried, this.most) === threads) {
        this.worker?.terminate();
        [this.worker, this.trial, this.threads] = [worker, null, threads];
        worker.onmessage = ({ data }: MessageEvent<Answer>) => {
          if (worker === this.worker) this.receive(data);
        };
      } else {
        this.giveUp();
      }
      this.keep(hash);
    };
    this.trial = this.open(threads, judge, bundle);
  }

  private giveUp(): void {
    this.trial?.terminate();
    this.trial = null;
  }

  private keep(hash: string): void {
    this.found = { bundle: hash, threads: this.threads };
    remember(this.found, this.most);
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
