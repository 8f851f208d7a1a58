// A MediaStream as it goes to the worker: its newest pictures, and its sound.

import { AvgnError } from "./errors.js";
import { collect, follow } from "./feed.js";
import type { Floats } from "./numbers.js";
import { pictureOf } from "./picture.js";
import type { MediaChange } from "./results.js";

/** What becomes of a MediaStream; `end`: its picture or all of it has ended. */
export interface Taker {
  picture(picture: ImageBitmap, time: number): void;
  sound(samples: Floats, rate: number, time: number): void;
  endSound(): void;
  end(): void;
  change(change: MediaChange): void;
}

/** Feeds a MediaStream to a taker until it ends or is closed; the tracks are left to whoever made them. */
export class MediaFeed {
  private readonly video = document.createElement("video");
  private context: AudioContext | null = null;
  private leave: () => void = () => {};
  private readonly seeing = new AbortController();
  private hearing = new AbortController();
  private isBusy = false;
  private isClosed = false;

  constructor(
    private readonly media: MediaStream,
    private readonly to: Taker,
  ) {
    if (!media.getVideoTracks().length) throw new AvgnError("media", "The MediaStream has no pictures: ask for video, too.");
  }

  /** Begin; throws AvgnError where the browser can't play it. */
  async open(): Promise<void> {
    const { video, media } = this;
    const [picture] = media.getVideoTracks();
    const [sound] = media.getAudioTracks();
    this.watch(picture!, "picture", this.seeing.signal, this.end);
    if (picture!.readyState === "ended") return this.end();
    if (sound) await this.listen(sound);
    else this.to.endSound();
    if (this.isClosed) return;
    video.muted = true;
    video.playsInline = true;
    video.srcObject = media;
    this.leave = follow(video, (time) => void this.take(time));
    try {
      await video.play();
    } catch (error) {
      if (!this.isClosed) throw new AvgnError("media", `The MediaStream can't be played (${(error as Error).message}).`);
    }
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.leave();
    this.seeing.abort();
    document.removeEventListener("visibilitychange", this.wake);
    this.video.pause();
    this.video.srcObject = null;
    this.deafen();
  }

  /** Hear a track from now on, in place of any other one; throws AvgnError where its sound can't be had. */
  async listen(track: MediaStreamTrack): Promise<void> {
    this.deafen();
    if (track.readyState === "ended") {
      this.to.endSound();
      return;
    }
    const context = new AudioContext({ latencyHint: "interactive" });
    this.context = context;
    this.watch(track, "sound", this.hearing.signal, () => {
      this.deafen();
      this.to.endSound();
    });
    const shift = (track.getSettings() as { latency?: number }).latency ?? 0;
    let collector: AudioWorkletNode;
    try {
      collector = await collect(context, (samples, rate, time) => {
        if (this.context === context) this.to.sound(samples, rate, time - shift);
      });
    } catch (error) {
      // closed in the meantime, it has no worklets
      if (this.context !== context) return;
      throw new AvgnError("media", `The sound can't be collected (${(error as Error).message}).`);
    }
    if (this.context !== context) return;
    context.createMediaStreamSource(new MediaStream([track])).connect(collector);
    context.onstatechange = this.wake;
    document.addEventListener("visibilitychange", this.wake);
    this.wake();
  }

  /** Tell what becomes of a track, and do what its end asks for first. */
  private watch(track: MediaStreamTrack, kind: MediaChange["kind"], signal: AbortSignal, end: () => void): void {
    const tell = (state: MediaChange["state"]) => this.to.change({ kind, state });
    const on = (event: string, state: MediaChange["state"], act: () => void) => {
      const told = () => {
        act();
        tell(state);
      };
      track.addEventListener(event, told, { signal });
    };
    on("mute", "muted", () => {});
    on("unmute", "live", this.wake);
    on("ended", "ended", end);
    if (track.muted) tell("muted");
  }

  private deafen(): void {
    const { context } = this;
    this.context = null;
    this.hearing.abort();
    this.hearing = new AbortController();
    if (context && context.state !== "closed") void context.close();
  }

  private readonly end = (): void => {
    if (this.isClosed) return;
    this.close();
    this.to.end();
  };

  private readonly wake = (): void => {
    // without a gesture it stays suspended, and resuming it never ends
    if (!document.hidden && this.context?.state !== "running") this.context?.resume().catch(() => {});
  };

  private async take(time: number): Promise<void> {
    if (this.isBusy || this.isClosed) return;
    this.isBusy = true;
    try {
      const picture = await pictureOf(this.video);
      if (this.isClosed) picture.close();
      else this.to.picture(picture, time);
    } catch {
      // a video that has just been left gives none
    } finally {
      this.isBusy = false;
    }
  }
}
