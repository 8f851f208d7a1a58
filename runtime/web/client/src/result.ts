// What a stream says about one frame, and its line.

import type { Source } from "./decision.js";
import type { Line, SourceLine, StateName } from "./lines.js";
import { even, rounded } from "./numbers.js";
import type { Floats } from "./numbers.js";
import { minMax } from "./regions.js";

const LEVELS = 255;

/** One frame's answer; `audioProb`, `visualProb` [K] and `maps` [K, h, w] flat are the halves' own, before smoothing. */
export interface Result {
  time: number;
  frame: number;
  state: StateName;
  sources: Source[];
  audioProb: Floats;
  visualProb: Floats;
  maps: Floats;
  loudnessDb: number;
  window: number;
  ms: Record<string, number>;
  dropped: number;
}

/** A result as a line of JSON holds it: plain values, coordinates normalised to the frame. */
export function lineOf(result: Result): Line {
  return {
    time: rounded(result.time, 6),
    frame: result.frame,
    state: result.state,
    sources: result.sources.map(sourceLine),
    ms: Object.fromEntries(Object.entries(result.ms).map(([name, value]) => [name, rounded(value, 3)])),
    dropped: result.dropped,
  };
}

function sourceLine(source: Source): SourceLine {
  const five = (values: readonly number[] | null) => values && values.map((value) => rounded(value, 5));
  const line: SourceLine = {
    label: source.label,
    certainty: rounded(source.certainty, 5),
    audio_prob: rounded(source.audioProb, 5),
    visual_prob: rounded(source.visualProb, 5),
    on_screen: source.onScreen,
    peak: five(source.peak),
    box: five(source.box),
  };
  if (source.alternatives.length) line.alternatives = source.alternatives.map(([label, prob]) => [label, rounded(prob, 5)]);
  return line;
}

/** A line's source with its class's number and its map [h, w] flat, null off-screen. */
export type SourceAnswer = SourceLine & { index: number; map: number[] | null };
export type ResultAnswer = Omit<Line, "sources"> & { type: "result"; sources: SourceAnswer[]; id?: number };

/** What the page draws: the line with each source's map as levels 0..255 of its range (runtime/web/wire.py). */
export function answerOf(result: Result, time: number): ResultAnswer {
  const line = lineOf(result);
  const sources = line.sources.map((entry, at) => {
    const { index, map } = result.sources[at]!;
    return { ...entry, index, map: map && Array.from(minMax(map), (level) => even(LEVELS * level)) };
  });
  return { type: "result", ...line, sources, time };
}
