// Sound as the halves expect it: mono float32 at the bundle's rate. The same filter as runtime/audio.py.

import type { Floats } from "./numbers.js";

const ZERO_CROSSINGS = 32;
const KAISER_BETA = 8;
const ROLLOFF = 0.92;
// filters of more phases than this are interpolated between so many
const MAX_PHASES = 1024;
const SILENCE_DB = -200;

/** RMS level in dBFS (a full-scale square wave is 0), -200 for digital silence. */
export function loudnessDb(samples: Floats): number {
  let power = 0;
  for (const sample of samples) power += sample * sample;
  power = samples.length ? power / samples.length : 0;
  return power > 0 ? Math.max(SILENCE_DB, 10 * Math.log10(power)) : SILENCE_DB;
}

/** Zeros in place of NaN and infinity, in place; returns how many there were. */
export function replaceNonFinite(samples: Floats): number {
  let count = 0;
  for (let at = 0; at < samples.length; at += 1) {
    if (!Number.isFinite(samples[at])) {
      samples[at] = 0;
      count += 1;
    }
  }
  return count;
}

/**
 * Windowed-sinc polyphase resampling of a stream, with zeros before and after it.
 *
 * Output sample n sits at input time n / rateOut. The output does not depend on how the input is cut into pieces.
 */
export class Resampler {
  received = 0;
  produced = 0;
  private readonly up: number;
  private readonly down: number;
  private readonly bank: Float64Array | null;
  private readonly taps: number;
  private readonly half: number;
  private buffer: Floats;
  private bufferStart: number;

  constructor(rateIn: number, rateOut: number) {
    if (!(rateIn >= 1 && rateOut >= 1)) throw new Error(`sample rates must be at least 1 Hz, got ${rateIn} and ${rateOut}`);
    const divisor = gcd(rateIn, rateOut);
    [this.up, this.down] = [rateOut / divisor, rateIn / divisor];
    const same = this.up === this.down;
    this.half = same ? 0 : halfOf(this.up, this.down);
    this.taps = 2 * this.half;
    this.bank = same ? null : filterBank(this.up, this.down, this.half);
    this.buffer = new Float32Array(Math.max(this.half - 1, 0));
    this.bufferStart = this.half ? 1 - this.half : 0;
  }

  /** Take [T] samples and return all output samples that they complete. */
  push(samples: Floats): Floats {
    this.received += samples.length;
    if (this.bank === null) {
      this.produced = this.received;
      return samples.slice();
    }
    this.buffer = joined(this.buffer, samples);
    return this.produce(this.complete(this.received));
  }

  /** Take `count` zeros; returns output samples and the number of further ones that are zero. Costs no time or memory. */
  pushSilence(count: number): [Floats, number] {
    const head = this.push(new Float32Array(Math.min(count, this.taps)));
    const rest = count - Math.min(count, this.taps);
    if (rest === 0) return [head, 0];
    this.received += rest;
    const before = this.produced;
    this.produced = this.bank === null ? this.received : this.complete(this.received);
    if (this.bank !== null) {
      this.buffer = new Float32Array(this.taps);
      this.bufferStart = this.received - this.taps;
    }
    return [head, this.produced - before];
  }

  /** Return the rest of the output, up to ceil(T * rateOut / rateIn) samples in all; ends the stream. */
  flush(): Floats {
    if (this.bank === null) return new Float32Array(0);
    this.buffer = joined(this.buffer, new Float32Array(this.taps));
    return this.produce(Math.ceil((this.received * this.up) / this.down));
  }

  /** How many outputs n have their last tap, floor(n * down / up) + half, inside the input. */
  private complete(received: number): number {
    const last = received - 1 - this.half;
    return last >= 0 ? Math.max(this.produced, Math.ceil(((last + 1) * this.up) / this.down)) : this.produced;
  }

  private produce(end: number): Floats {
    const { taps, up, down, half } = this;
    const found = new Float32Array(Math.max(0, end - this.produced));
    for (let at = 0; at < found.length; at += 1) {
      const position = (this.produced + at) * down;
      const start = Math.floor(position / up) - half + 1 - this.bufferStart;
      found[at] = this.filtered(start, position % up, taps);
    }
    this.produced = Math.max(this.produced, end);
    const keep = Math.floor((this.produced * down) / up) - half + 1 - this.bufferStart;
    if (keep > 0) {
      this.buffer = this.buffer.slice(keep);
      this.bufferStart += keep;
    }
    return found;
  }

  private filtered(start: number, phase: number, taps: number): number {
    const bank = this.bank!;
    const { buffer } = this;
    if (this.up <= MAX_PHASES) {
      const row = phase * taps;
      let sum = 0;
      for (let k = 0; k < taps; k += 1) sum += buffer[start + k]! * bank[row + k]!;
      return sum;
    }
    const place = phase * (MAX_PHASES / this.up);
    const below = Math.floor(place);
    const share = place - below;
    let sum = 0;
    for (let k = 0; k < taps; k += 1) {
      sum += buffer[start + k]! * ((1 - share) * bank[below * taps + k]! + share * bank[(below + 1) * taps + k]!);
    }
    return sum;
  }
}

export function joined(one: Floats, other: Floats): Floats {
  const both = new Float32Array(one.length + other.length);
  both.set(one);
  both.set(other, one.length);
  return both;
}

function gcd(one: number, other: number): number {
  while (other) [one, other] = [other, one % other];
  return one;
}

function cutoffOf(up: number, down: number): number {
  return ROLLOFF * Math.min(1, up / down);
}

function halfOf(up: number, down: number): number {
  return Math.ceil(ZERO_CROSSINGS / cutoffOf(up, down));
}

/** The filter of each phase [up, taps]: tap k of phase p weighs the input at offset k - half + 1 - p / up. */
function filterBank(up: number, down: number, half: number): Float64Array {
  const cutoff = cutoffOf(up, down);
  const phases = up <= MAX_PHASES ? up : MAX_PHASES + 1;
  const steps = Math.min(up, MAX_PHASES);
  const bank = new Float64Array(phases * 2 * half);
  const whole = bessel(KAISER_BETA);
  for (let phase = 0; phase < phases; phase += 1) {
    const row = bank.subarray(phase * 2 * half, (phase + 1) * 2 * half);
    let sum = 0;
    for (let k = 0; k < row.length; k += 1) {
      const offset = k + 1 - half - phase / steps;
      const inside = Math.sqrt(Math.max(0, 1 - (offset / half) ** 2));
      row[k] = (cutoff * sinc(cutoff * offset) * bessel(KAISER_BETA * inside)) / whole;
      sum += row[k]!;
    }
    for (let k = 0; k < row.length; k += 1) row[k]! /= sum;
  }
  return bank;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** The modified Bessel function of the first kind and order zero. */
function bessel(x: number): number {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-17 * sum; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
