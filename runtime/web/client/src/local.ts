// The page without a server: what app.js is to a served one. The wire leads to a worker in place of a server.

import type { Answer, Request } from "./messages.js";
import type { Floats } from "./numbers.js";
// the page's own modules, shared with the served page
import { startPage } from "./page.js";
import { inWords } from "./reasons.js";
import { say } from "./words.js";

// pixels of a picture's longer side, as it goes to the worker
const SIDE = 640;
// milliseconds that a first visit waits for what will serve it offline
const PATIENCE = 3000;
const MOST_THREADS = 4;
// the smallest module with one instruction of 128 bits
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

type Take = (answer: object) => void;
type Change = (state: string, reason: string, share?: number) => void;

/** Why the model can't run in this browser, or null. */
export function refusal(): string | null {
  if (!isSecureContext) return say("insecure");
  if (typeof WebAssembly !== "object") return say("noWebAssembly");
  if (!WebAssembly.validate(new Uint8Array(SIMD))) return say("noSimd");
  if (typeof OffscreenCanvas === "undefined") return say("noOffscreen");
  return null;
}

class LocalWire {
  // the worker keeps the newest picture alone: as many as come may be on their way
  readonly inFlight = Infinity;
  private worker: Worker | null = null;
  private isReady = false;

  constructor(
    private readonly take: Take,
    private readonly change: Change,
  ) {}

  async connect(): Promise<void> {
    const reason = refusal();
    if (reason) {
      this.change("refused", reason);
      return;
    }
    this.change("loading", "");
    await settle();
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.refuse(say("noWorker", { reason: event.message || say("missing") }));
    };
    const bundle = new URL("bundle/", document.baseURI).href;
    const runtime = new URL("ort/", import.meta.url).href;
    this.send({ type: "load", bundle, runtime, threads: threads() });
  }

  get crowded(): boolean {
    return !this.isReady;
  }

  say(type: "reset" | "sound-end"): void {
    if (this.isReady) this.send({ type });
  }

  async picture(video: HTMLVideoElement): Promise<ImageBitmap | null> {
    const { videoWidth: width, videoHeight: height } = video;
    const scale = Math.min(1, SIDE / Math.max(width, height));
    const size = {
      resizeWidth: Math.max(1, Math.round(scale * width)),
      resizeHeight: Math.max(1, Math.round(scale * height)),
      resizeQuality: "medium" as const,
    };
    return createImageBitmap(video, scale < 1 ? size : {});
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
      this.refuse(inWords(answer.reason));
    } else {
      if (answer.type === "hello") {
        this.isReady = true;
        this.change("ready", "");
      }
      this.take(answer);
    }
  }

  private refuse(reason: string): void {
    this.isReady = false;
    this.worker?.terminate();
    this.worker = null;
    this.change("refused", reason);
  }
}

function threads(): number {
  return crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
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
    await Promise.race([controlled, new Promise((done) => setTimeout(done, PATIENCE))]);
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

startPage((take: Take, change: Change) => new LocalWire(take, change));
