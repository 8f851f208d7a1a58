// The time of a microphone's blocks without the jitter of their arrival: runtime/sources/drift.py.

const SMOOTHING = 2;
// a larger error is no drift: the device stood still, or the machine slept
const JUMP = 0.25;
const MAX_DRIFT = 0.02;

/** Follows a device that counts its own samples: a second-order loop on when its blocks were captured. */
export class CaptureClock {
  private drift = 0;
  private next: number | null = null;

  constructor(readonly rate: number) {}

  /** The time of a block's first sample, from its length and the moment at which that sample was captured. */
  block(samples: number, captured: number): number {
    const length = samples / this.rate;
    this.next ??= captured;
    let error = captured - this.next;
    if (Math.abs(error) > JUMP) [this.next, error] = [captured, 0];
    const share = Math.min(1, length / SMOOTHING);
    const time = this.next + share * error;
    this.drift = Math.min(MAX_DRIFT, Math.max(-MAX_DRIFT, this.drift - (0.25 * share * error) / SMOOTHING));
    this.next = time + length / (1 + this.drift);
    return time;
  }
}
