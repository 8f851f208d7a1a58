// Mixes all channels into one, and collects it in pieces of about 40 ms. A worklet of one file: not every browser lets one
// import others.

const BLOCK = 4096;
const FADE = 512;
const MEMORY = 0.5;
// correlations from which on a channel counts as another's inverse, and down to which it goes on to do so
const INVERSE = 0.9;
const STAYS = 0.5;

// The mean over the channels; one that is the inverse of an earlier one is turned over, that it does not take away what a
// person hears. As Downmix of runtime/audio.py: decided block by block for the blocks after; only the first sound waits.
class Downmix {
  constructor() {
    this.channels = 0;
    this.begin(0);
  }

  // Begin with another number of channels.
  begin(channels) {
    this.channels = channels;
    this.block = Array.from({ length: channels }, () => new Float32Array(BLOCK));
    this.position = this.held = 0;
    this.isDecided = false;
    this.signs = this.before = Array(channels).fill(1);
    this.covariance = Array.from({ length: channels }, () => new Float64Array(channels));
  }

  // Take channels of equally many samples; returns what is decided of the mix.
  push(channels) {
    const parts = [];
    if (channels.length !== this.channels) {
      parts.push(this.flush());
      this.begin(channels.length);
    }
    if (channels.length === 1) parts.push(channels[0].slice());
    else for (let at = 0; at < channels[0].length; ) at += this.take(channels, at, parts);
    return joined(parts);
  }

  // What is still held; the sound may go on.
  flush() {
    const { position, held } = this;
    if (!held) return new Float32Array(0);
    this.learn(position);
    this.before = this.signs;
    this.held = 0;
    return this.mix(position - held, position);
  }

  // Take of the channels from `at` on what fits into the block; returns how many samples.
  take(channels, at, parts) {
    const first = this.position;
    const count = Math.min(BLOCK - first, channels[0].length - at);
    channels.forEach((samples, c) => this.block[c].set(samples.subarray(at, at + count), first));
    this.position += count;
    const isWhole = this.position === BLOCK;
    if (this.isDecided) {
      parts.push(this.mix(first, this.position));
      if (isWhole) {
        this.before = this.signs;
        this.learn(BLOCK);
      }
    } else {
      this.held += count;
      if (isWhole) parts.push(this.flush());
    }
    if (isWhole) this.position = 0;
    return count;
  }

  // Take the block's first `count` samples into the correlations and choose the signs that hold after it.
  learn(count) {
    const centred = this.block.map((samples) => centredOf(samples, count));
    const { covariance } = this;
    for (let one = 0; one < centred.length; one += 1) {
      for (let other = 0; other <= one; other += 1) {
        let sum = 0;
        for (let at = 0; at < count; at += 1) sum += centred[one][at] * centred[other][at];
        covariance[one][other] = covariance[other][one] = MEMORY * covariance[one][other] + sum;
      }
    }
    // silence says nothing: the first sound is waited for
    this.isDecided ||= covariance.some((row) => row.some((value) => value !== 0));
    this.signs = this.choose();
  }

  // The sign of each channel: that of the earlier channel it follows most closely, turned over for an inverse.
  choose() {
    const { covariance, signs: before } = this;
    const scale = covariance.map((row, c) => Math.sqrt(row[c]));
    const signs = [];
    covariance.forEach((row, channel) => {
      let [closest, most] = [0, 0];
      for (let other = 0; other < channel; other += 1) {
        const near = row[other] / (scale[channel] * scale[other]) || 0;
        if (Math.abs(near) > Math.abs(most)) [closest, most] = [other, near];
      }
      const limit = before[channel] > 0 ? INVERSE : STAYS;
      if (channel && !scale[channel]) signs.push(before[channel]);
      else if (most > INVERSE) signs.push(signs[closest]);
      else signs.push(most < -limit ? -signs[closest] : 1);
    });
    return signs;
  }

  // The mean over the channels of the block's samples from `first` to `end`; a change of signs is faded.
  mix(first, end) {
    const { block, signs, before } = this;
    const isFaded = signs.some((sign, c) => sign !== before[c]);
    const out = new Float32Array(end - first);
    for (let at = first; at < end; at += 1) {
      let [now, old] = [0, 0];
      block.forEach((samples, c) => {
        now += signs[c] * samples[at];
        old += before[c] * samples[at];
      });
      const share = isFaded ? Math.min(1, (at + 1) / FADE) : 1;
      out[at - first] = (share * now + (1 - share) * old) / block.length;
    }
    return out;
  }
}

// The first `count` samples around their mean: a constant offset is not heard.
function centredOf(samples, count) {
  const found = new Float64Array(count);
  let mean = 0;
  for (let at = 0; at < count; at += 1) {
    if (Number.isFinite(samples[at])) found[at] = samples[at];
    mean += found[at] / count;
  }
  for (let at = 0; at < count; at += 1) found[at] -= mean;
  return found;
}

function joined(parts) {
  if (parts.length === 1) return parts[0];
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

class Collector extends AudioWorkletProcessor {
  constructor() {
    super();
    this.downmix = new Downmix();
    this.least = Math.round((0.04 * sampleRate) / 128) * 128;
    this.parts = [];
    this.filled = 0;
  }

  process([channels]) {
    // a source that gives nothing, for now or for good, is silent in as many channels as before
    const { length } = channels;
    const silent = () => Array.from({ length: this.downmix.channels || 1 }, () => new Float32Array(128));
    const mixed = this.downmix.push(length ? channels : silent());
    this.parts.push(mixed);
    this.filled += mixed.length;
    if (this.filled >= this.least) {
      this.port.postMessage(joined(this.parts).slice());
      this.parts = [];
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("collector", Collector);
