// The sound of a stream on one clock: resampled, gaps filled, windows cut out of it. As runtime/clock.py.

import { joined, replaceNonFinite, Resampler } from "./audio.js";
import type { Floats } from "./numbers.js";

// timestamps jitter by up to a few milliseconds; a real gap is longer
const TOLERANCE = 0.01;
const CRUMB = 4096;
const EMPTY = new Float32Array(0);

/** Takes blocks of mono sound with their times, gives windows [T] at the bundle's rate; zeros outside of the stream. */
export class AudioClock {
  end = 0;
  closed = false;
  nonFinite = 0;
  private segments: [number, Floats][] = [];
  private resampler: Resampler | null = null;
  private rate = 0;
  private origin = 0;

  constructor(readonly sampleRate: number) {}

  /**
   * Add [T] samples whose first one sounds at `time` seconds. A jump of more than 10 ms forward becomes silence, one
   * backward drops the samples that are already there.
   */
  push(samples: Floats, rate: number, time: number): void {
    this.closed = false;
    if (this.resampler === null || rate !== this.rate) {
      this.finish();
      this.resampler = new Resampler(rate, this.sampleRate);
      this.rate = rate;
      this.origin = this.end / this.sampleRate;
    }
    const jump = time - (this.origin + this.resampler.received / rate);
    if (jump > TOLERANCE) {
      const [head, zeros] = this.resampler.pushSilence(Math.round(jump * rate));
      this.append(head);
      this.end += zeros;
    } else if (jump < -TOLERANCE) {
      samples = samples.slice(Math.min(samples.length, Math.round(-jump * rate)));
    }
    if (!samples.length) return;
    const finite = samples.slice();
    this.nonFinite += replaceNonFinite(finite);
    this.append(this.resampler.push(finite));
  }

  /** Say that no more sound comes. */
  close(): void {
    this.finish();
    this.closed = true;
  }

  /** The samples [start, start + length); zeros where there are none. */
  window(start: number, length: number): Floats {
    const out = new Float32Array(length);
    for (const [first, samples] of this.segments) {
      const low = Math.max(first, start);
      const high = Math.min(first + samples.length, start + length);
      if (low < high) out.set(samples.subarray(low - first, high - first), low - start);
    }
    return out;
  }

  /** How many samples are kept. */
  get held(): number {
    return this.segments.reduce((sum, [, samples]) => sum + samples.length, 0);
  }

  /** Let go of the sound before sample `before`. */
  forget(before: number): void {
    while (this.segments.length && this.segments[0]![0] + this.segments[0]![1].length <= before) this.segments.shift();
  }

  private finish(): void {
    if (this.resampler) this.append(this.resampler.flush());
    this.resampler = null;
  }

  private append(samples: Floats = EMPTY): void {
    if (!samples.length) return;
    const last = this.segments.at(-1);
    // crumbs are joined, so that a window is never put together from thousands of them
    if (last && last[0] + last[1].length === this.end && last[1].length < CRUMB) last[1] = joined(last[1], samples);
    else this.segments.push([this.end, samples]);
    this.end += samples.length;
  }
}
