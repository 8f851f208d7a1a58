// Collects the mean of all channels into pieces of about 40 ms.

class Collector extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Float32Array(Math.round((0.04 * sampleRate) / 128) * 128);
    this.filled = 0;
  }

  process(inputs) {
    const channels = inputs[0];
    const count = channels.length ? channels[0].length : 128;
    for (let at = 0; at < count; at += 1) {
      let sum = 0;
      for (const channel of channels) sum += channel[at];
      this.piece[this.filled + at] = channels.length ? sum / channels.length : 0;
    }
    this.filled += count;
    if (this.filled >= this.piece.length) {
      this.port.postMessage(this.piece.slice());
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("collector", Collector);
