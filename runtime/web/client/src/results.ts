// The results of one stream: an async iterator that the worker's answers go into.

import { AvgnError } from "./errors.js";
import type { Picture } from "./image.js";
import type { Line, SourceLine } from "./lines.js";
import { MediaFeed } from "./media.js";
import type { Answer, Request, Setting } from "./messages.js";
import type { Floats } from "./numbers.js";

/** A source as a JSON line has it; with `maps`: its heat map, rows of levels 0..255, null off-screen. */
export interface ResultSource extends SourceLine {
  map?: number[] | null;
}

/**
 * What is said about a picture, in the shape of the JSON lines of `avgn localize --json`. `time` is in seconds of the
 * stream; peaks and boxes are in parts of the picture's sides; `dropped` counts pictures that were passed over before it.
 */
export interface Result extends Omit<Line, "sources"> {
  sources: ResultSource[];
}

/** What has become of a MediaStream's pictures or sound; "muted": the system gives none for now; "live": they are back. */
export interface MediaChange {
  kind: "picture" | "sound";
  state: "live" | "muted" | "ended";
}

export interface StreamOptions {
  /** Sources of these classes alone; `state` still speaks of everything that is heard. */
  classes?: readonly string[];
  /** Whether sources carry their heat maps. */
  maps?: boolean;
  /** Whether every picture is answered and no result passed over; otherwise the newest one wins. */
  every?: boolean;
  /** Seconds that a picture waits for its sound; then it takes the sound that is there (0.25; with `every`: no limit). */
  maxWait?: number;
  /** Ends the stream; the iterator then throws its reason. */
  signal?: AbortSignal;
  /** Called when a track of the MediaStream is muted by the system, is back, or ends. */
  onMedia?: (change: MediaChange) => void;
}

type Send = (message: Request, transfer?: Transferable[]) => void;
type Waiter = { done: (step: IteratorResult<Result, undefined>) => void; refuse: (reason: unknown) => void };

/** Results as they come: `for await`, or `next()`; leaving the loop closes the stream. */
export class ResultStream implements AsyncIterableIterator<Result> {
  private readonly queue: Result[] = [];
  private readonly waiting: Waiter[] = [];
  private readonly shown: ReadonlySet<string> | null;
  private readonly feed: MediaFeed | null = null;
  private error: { reason: unknown } | null = null;
  private isOver = false;
  /** @internal */
  protected readonly send: Send;
  private readonly options: StreamOptions & { id: number };

  /** @internal Made by `Localizer.stream` and `Localizer.open`. */
  constructor(
    send: Send,
    known: readonly string[],
    options: StreamOptions & { id: number },
    media: MediaStream | null = null,
  ) {
    [this.send, this.options] = [send, options];
    const { classes, signal, every = false, maxWait = every ? Infinity : undefined } = options;
    const foreign = classes?.find((name) => !known.includes(name));
    if (foreign !== undefined) throw new AvgnError("classes", `The bundle has no class "${foreign}": see localizer.classes.`);
    signal?.throwIfAborted();
    this.shown = classes ? new Set(classes) : null;
    if (media) this.feed = new MediaFeed(media, this.taker());
    const setting: Setting = { id: options.id, every, ...(maxWait === undefined ? {} : { maxWait }) };
    send({ type: "reset", setting: { ...setting, ...(media ? { own: true } : { exact: true }) } });
    signal?.addEventListener("abort", this.abort, { once: true });
    this.feed?.open().catch((reason: unknown) => this.fail(reason));
  }

  /** Whether no further result comes. */
  get isDone(): boolean {
    return this.isOver;
  }

  next(): Promise<IteratorResult<Result, undefined>> {
    const result = this.queue.shift();
    if (result) return Promise.resolve({ value: result, done: false });
    if (this.error) {
      const { reason } = this.error;
      this.error = null;
      return Promise.reject(reason);
    }
    if (this.isOver) return Promise.resolve({ value: undefined, done: true });
    return new Promise((done, refuse) => this.waiting.push({ done, refuse }));
  }

  return(): Promise<IteratorResult<Result, undefined>> {
    this.close();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** End at once; results that nobody has asked for are dropped. */
  close(): void {
    this.queue.length = 0;
    if (this.isOver) return;
    this.over();
    // the worker lets go of what it has of this stream
    this.send({ type: "reset" });
  }

  /**
   * Hear another track of sound from now on: a microphone that was plugged in again, after `onMedia` has told that the
   * first one ended. Throws AvgnError: "media" where its sound can't be had, "closed" after the end.
   */
  async listen(track: MediaStreamTrack): Promise<void> {
    if (this.isOver) throw new AvgnError("closed", "This stream has ended: open another one.");
    if (track.kind !== "audio" || !this.feed) throw new AvgnError("media", "Only streams of a MediaStream hear tracks of sound.");
    await this.feed.listen(track);
  }

  /** @internal Take what the worker says of this stream. */
  receive(answer: Extract<Answer, { type: "result" | "end" }>): void {
    if (this.isOver || answer.id !== this.options.id) return;
    if (answer.type === "end") return this.over();
    const result = this.resultOf(answer);
    const waiter = this.waiting.shift();
    if (waiter) return waiter.done({ value: result, done: false });
    // whoever is slower than the results gets the newest one
    const old = this.options.every ? undefined : this.queue.pop();
    if (old) result.dropped += old.dropped + 1;
    this.queue.push(result);
  }

  /** @internal End with an error, which the iterator throws once. */
  fail(reason: unknown): void {
    if (this.isOver) return;
    const waiter = this.waiting.shift();
    if (waiter) waiter.refuse(reason);
    else this.error = { reason };
    this.close();
  }

  private readonly abort = (): void => this.fail(this.options.signal!.reason);

  private over(): void {
    this.isOver = true;
    this.feed?.close();
    this.options.signal?.removeEventListener("abort", this.abort);
    for (const { done } of this.waiting.splice(0)) done({ value: undefined, done: true });
  }

  private taker(): ConstructorParameters<typeof MediaFeed>[1] {
    return {
      picture: (picture, time) => this.send({ type: "frame", picture, time }, [picture]),
      sound: (samples, rate, time) => this.send({ type: "sound", samples, rate, time }, [samples.buffer]),
      endSound: () => this.send({ type: "sound-end" }),
      end: () => this.send({ type: "end" }),
      change: (change) => this.options.onMedia?.(change),
    };
  }

  private resultOf(answer: Extract<Answer, { type: "result" }>): Result {
    const { time, frame, state, ms, dropped } = answer;
    const sources = answer.sources
      .filter(({ label }) => this.shown?.has(label) ?? true)
      .map(({ index: _, map, ...source }) => (this.options.maps ? { ...source, map } : source));
    return { time, frame, state, sources, ms, dropped };
  }
}

/** A stream whose caller gives pictures and sound. Times are seconds from its beginning; pictures come in their order. */
export class PushedStream extends ResultStream {
  private isEnded = false;

  /** Give mono sound in -1..1 at `rate` Hz whose first sample is at `time` seconds. */
  pushSound(samples: Float32Array, rate: number, time: number): void {
    this.check(time);
    if (!(rate >= 1)) throw new RangeError(`rate is in Hz, at least 1, got ${rate}`);
    const copy = samples.slice() as Floats;
    this.send({ type: "sound", samples: copy, rate, time }, [copy.buffer]);
  }

  /** Give a picture at `time` seconds; an ImageBitmap is taken over, pixels are copied. */
  pushPicture(picture: ImageBitmap | ImageData, time: number): void {
    this.check(time);
    if (picture instanceof ImageBitmap) {
      this.send({ type: "frame", picture, time }, [picture]);
      return;
    }
    const { width, height, data } = picture;
    const pixels: Picture = { width, height, channels: 4, data: data.slice() as Uint8ClampedArray };
    this.send({ type: "pixels", picture: pixels, time }, [pixels.data.buffer as ArrayBuffer]);
  }

  /** Say that nothing more comes: the iterator ends after the last result. */
  end(): void {
    if (this.isEnded || this.isDone) return;
    this.isEnded = true;
    this.send({ type: "end" });
  }

  private check(time: number): void {
    if (this.isEnded || this.isDone) throw new AvgnError("closed", "This stream has ended: open another one.");
    if (!Number.isFinite(time)) throw new RangeError(`times are finite seconds, got ${time}`);
  }
}
