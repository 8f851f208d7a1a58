// One stream through the two halves: sound and frames in, results out. As runtime/stream.py, for one frame at a time.
//
// Frames come at their own times, audio windows end at multiples of the hop; a window is computed once, when the first
// frame needs it.

import { loudnessDb } from "./audio.js";
import { AudioClock } from "./clock.js";
import { rulesFor, startOf, step } from "./decision.js";
import type { DecisionState, Rules } from "./decision.js";
import type { Engine, Heard } from "./engine.js";
import { resize } from "./image.js";
import type { Picture } from "./image.js";
import type { Bytes, Floats } from "./numbers.js";
import { hear } from "./patches.js";
import type { PatchMemory } from "./patches.js";
import type { Result } from "./result.js";

// a frame time within a millionth of a hop of a window's end counts as that end
const SLACK = 1e-6;
// seconds of sound that stay beside those of two windows where no frame asks for them
const KEPT = 5;
const now = (): number => performance.now();

export type Mode = "live" | "file";

export interface StreamOptions {
  /** "live": the last window that ends at or before a frame; "file": the one whose centre is nearest. */
  mode?: Mode;
  /** Every frame is answered, instead of the newest one. */
  every?: boolean;
  /** Seconds of frame time that a frame waits for its sound; then it takes the sound that is there. */
  maxWait?: number;
}

interface Pending {
  time: number;
  number: number;
  window: number;
  image: Bytes;
  dropped: number;
  resizeMs: number;
}

interface AudioWindow extends Heard {
  index: number;
  loudnessDb: number;
  ms: number;
}

/** Localizes one stream with an engine that others may share. */
export class StreamLocalizer {
  private readonly rules: Rules;
  readonly clock: AudioClock;
  private readonly memory: PatchMemory = new Map();
  private readonly mode: Mode;
  private readonly every: boolean;
  private readonly maxWait: number;
  private decision: DecisionState;
  private pending: Pending[] = [];
  private window: AudioWindow | null = null;
  private frames = 0;
  private lost = 0;
  private waitingSince: number | null = null;

  constructor(
    readonly engine: Engine,
    { mode = "live", every = false, maxWait = Infinity }: StreamOptions = {},
  ) {
    this.rules = rulesFor(engine.info);
    this.clock = new AudioClock(engine.info.sample_rate);
    this.decision = startOf(engine.info.classes.length);
    [this.mode, this.every, this.maxWait] = [mode, every, maxWait];
  }

  /** The index of the audio window that a frame at `time` seconds uses. */
  windowOf(time: number): number {
    const { sample_rate: rate, hopSamples: hop, windowSamples: length } = this.engine.info;
    const samples = time * rate;
    if (this.mode === "live") return Math.floor(samples / hop + SLACK);
    return Math.ceil((samples + length / 2) / hop - 0.5 - SLACK);
  }

  /** Take mono sound [T] at `rate` Hz whose first sample is at `time` seconds. */
  pushAudio(samples: Floats, rate: number, time: number): void {
    this.clock.push(samples, rate, time);
    // a tab in the background has sound without frames, for hours
    if (!this.every) this.clock.forget(this.clock.end - 2 * this.engine.info.windowSamples - KEPT * this.clock.sampleRate);
  }

  endAudio(): void {
    if (!this.clock.closed) this.clock.close();
  }

  /** Take a frame at `time` seconds; without `every` it takes the place of one that still waits. */
  pushFrame(picture: Picture, time: number): void {
    const [height, width] = this.engine.info.image_size;
    const begin = now();
    const image = resize(picture, { height, width });
    if (!this.every && this.pending.length) {
      // with those that it had replaced itself
      this.lost += this.pending.reduce((sum, one) => sum + one.dropped + 1, 0);
      this.waitingSince ??= this.pending[0]!.time;
      this.pending = [];
    }
    const resizeMs = now() - begin;
    this.pending.push({ time, number: this.frames, window: this.windowOf(time), image, dropped: this.lost, resizeMs });
    this.lost = 0;
    this.frames += 1;
  }

  /** Count a frame that was passed over before it came here. */
  passOver(): void {
    this.lost += 1;
    this.frames += 1;
  }

  /** The result of the next frame whose sound is there; null where there is none yet. One call at a time. */
  async next(): Promise<Result | null> {
    const frame = this.pending[0];
    if (!frame || !this.isReady(frame)) return null;
    this.pending.shift();
    this.waitingSince = null;
    const known = this.window?.index === frame.window ? this.window : null;
    const heard = known ?? (await this.hear(frame.window));
    this.window = heard;
    const begin = now();
    const seen = await this.engine.runImage(frame.image, heard.sources);
    const middle = now();
    const [state, decision] = step(this.rules, this.decision, {
      time: frame.time,
      audioProb: heard.audioProb,
      visualProb: seen.visualProb,
      maps: seen.maps,
      loudnessDb: heard.loudnessDb,
    });
    this.decision = state;
    return {
      time: frame.time,
      frame: frame.number,
      state: decision.state,
      sources: decision.sources,
      audioProb: heard.audioProb,
      visualProb: seen.visualProb,
      maps: seen.maps,
      loudnessDb: heard.loudnessDb,
      window: heard.index,
      ms: { resize: frame.resizeMs, audio: known ? 0 : heard.ms, image: middle - begin, decide: now() - middle },
      dropped: frame.dropped,
    };
  }

  private isReady(frame: Pending): boolean {
    const { clock } = this;
    if (clock.closed || frame.window <= 0 || frame.window * this.engine.info.hopSamples <= clock.end) return true;
    const newest = this.pending.at(-1)!.time;
    return newest - (this.waitingSince ?? frame.time) >= this.maxWait;
  }

  private async hear(index: number): Promise<AudioWindow> {
    const { windowSamples: length, hopSamples: hop } = this.engine.info;
    const start = index * hop - length;
    // frames come in time order, but a timestamp may step back a little
    this.clock.forget(start - length);
    const waveform = this.clock.window(start, length);
    const complete = this.clock.closed ? index : Math.floor(this.clock.end / hop);
    const begin = now();
    const heard = await hear(this.engine, { index, waveform, complete }, this.memory);
    return { ...heard, index, loudnessDb: loudnessDb(waveform), ms: now() - begin };
  }
}
