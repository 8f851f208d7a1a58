// A MediaStream as it goes to the worker: its newest pictures, and its sound.

import { AvgnError } from "./errors.js";
import { collect, follow } from "./feed.js";
import type { Floats } from "./numbers.js";
import { pictureOf } from "./picture.js";

/** What becomes of a MediaStream; `end`: its picture or all of it has ended. */
export interface Taker {
  picture(picture: ImageBitmap, time: number): void;
  sound(samples: Floats, rate: number, time: number): void;
  endSound(): void;
  end(): void;
}

/** Feeds a MediaStream to a taker until it ends or is closed; the tracks are left to whoever made them. */
export class MediaFeed {
  private readonly video = document.createElement("video");
  private context: AudioContext | null = null;
  private leave: () => void = () => {};
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
    picture!.addEventListener("ended", this.end);
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
    for (const track of this.media.getTracks()) track.removeEventListener("ended", this.end);
    document.removeEventListener("visibilitychange", this.wake);
    this.video.pause();
    this.video.srcObject = null;
    if (this.context && this.context.state !== "closed") void this.context.close();
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

  private async listen(track: MediaStreamTrack): Promise<void> {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.context = context;
    const shift = (track.getSettings() as { latency?: number }).latency ?? 0;
    let collector: AudioWorkletNode;
    try {
      collector = await collect(context, (samples, rate, time) => {
        if (!this.isClosed) this.to.sound(samples, rate, time - shift);
      });
    } catch (error) {
      // closed in the meantime, it has no worklets
      if (this.isClosed) return;
      throw new AvgnError("media", `The sound can't be collected (${(error as Error).message}).`);
    }
    if (this.isClosed) return;
    context.createMediaStreamSource(new MediaStream([track])).connect(collector);
    context.onstatechange = this.wake;
    document.addEventListener("visibilitychange", this.wake);
    this.wake();
    track.addEventListener("ended", () => {
      if (!this.isClosed) this.to.endSound();
    });
  }

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
