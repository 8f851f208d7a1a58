// The part of runtime/web/page/feed.js that is used here.

import type { Floats } from "./numbers.js";

export function collect(
  context: AudioContext,
  take: (samples: Floats, rate: number, time: number) => void,
  late?: () => number,
): Promise<AudioWorkletNode>;

export function follow(video: HTMLVideoElement, take: (time: number, stamp: number) => void): () => void;
