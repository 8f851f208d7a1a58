// Which classes sound and are seen, by what both halves say of them together. As runtime/joint.py.

import type { Joint } from "./bundle.js";
import type { Size } from "./image.js";
import { argmax, single } from "./numbers.js";
import type { Floats } from "./numbers.js";

// beyond these log-odds a probability says no more
const LIMIT = 15;
// but of two things in plain view that both are hardly heard, the less unlikely one is ahead
const LEAST_HEARD = -60;

/** `prob` [K]: 0.5 at a class's threshold, 0 where another class took its place; `insteadOf` a class: [k, prob]. */
export interface Verdict {
  prob: Floats;
  insteadOf: Map<number, [number, number][]>;
}

function oddsOf(prob: Floats, least: number): Floats {
  return prob.map((value) => Math.min(LIMIT, Math.max(least, Math.log(value) - Math.log1p(-value))));
}

/** The verdict on one frame: probabilities [K], maps [K, h, w] flat. */
export function judge(rule: Joint, audioProb: Floats, visualProb: Floats, maps: Floats, grid: Size): Verdict {
  const [heard, seen] = [oddsOf(audioProb, LEAST_HEARD), oddsOf(visualProb, -LIMIT)];
  const weight = single(rule.visual_weight);
  const thresholds = Float32Array.from(rule.thresholds);
  const odds = heard.map((value, k) => single(single(value + single(weight * seen[k]!)) - thresholds[k]!));
  const [floor, seenFloor] = [single(rule.floor), single(rule.seen_floor)];
  const able = Array.from(heard, (value, k) => value >= floor && seen[k]! >= seenFloor);
  const scale = single(rule.scale);
  const prob = odds.map((value, k) => (able[k] ? sigmoid(single(scale * value)) : 0));
  const known = prob.slice();
  const score = odds.map((value, k) => (able[k] ? single(value + thresholds[k]!) : -Infinity));
  const candidates = Array.from(score.keys())
    .filter((k) => able[k] && odds[k]! >= single(-rule.margin))
    .sort((one, other) => score[other]! - score[one]! || one - other);
  const least = single(Math.max(...score) - single(rule.margin));
  prob.forEach((_, k) => {
    if (score[k]! < least) prob[k] = 0;
  });
  const cells = grid.height * grid.width;
  const peaks = new Map(candidates.map((k) => [k, peakOfCells(maps.subarray(k * cells, (k + 1) * cells), grid)]));
  const kept = new Map<number, [number, number][]>();
  for (const k of candidates) {
    const near = [...kept.keys()].find((best) => isNear(peaks.get(best)!, peaks.get(k)!, rule.apart));
    if (near === undefined) {
      kept.set(k, []);
    } else {
      kept.get(near)!.push([k, known[k]!]);
      prob[k] = 0;
    }
  }
  return { prob, insteadOf: kept };
}

function sigmoid(value: number): number {
  return single(1 / single(1 + single(Math.exp(-Math.min(LIMIT, Math.max(-LIMIT, value))))));
}

function peakOfCells(heat: Floats, { height, width }: Size): [number, number] {
  const best = argmax(heat);
  return [(Math.floor(best / width) + 0.5) / height, ((best % width) + 0.5) / width];
}

function isNear(one: [number, number], other: [number, number], apart: number): boolean {
  return Math.abs(one[0] - other[0]) <= apart && Math.abs(one[1] - other[1]) <= apart;
}
