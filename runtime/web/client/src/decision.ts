// From raw probabilities and maps to what is said about a frame: pure functions over a state. As runtime/decision.py,
// step by step and in its precision: K classes, h x w map grid, times in seconds.

import type { BundleInfo, Joint } from "./bundle.js";
import { BundleError } from "./errors.js";
import type { Size } from "./image.js";
import { judge } from "./joint.js";
import type { Verdict } from "./joint.js";
import type { StateName } from "./lines.js";
import { single } from "./numbers.js";
import type { Floats } from "./numbers.js";
import { peakOf, regionBox } from "./regions.js";
import type { Box, Point } from "./regions.js";

// how many are said of one source
const ALTERNATIVES = 3;
// times are sums of floats: a nanosecond must not cost a frame
const NANOSECOND = 1e-9;

/** Constants of the decision layer; durations in seconds, levels in dBFS of the audio window's RMS. */
export const DEFAULTS = {
  audio_smoothing: 0.05,
  visual_smoothing: 0.1,
  release: 0.7,
  min_on: 0,
  min_off: 0.1,
  silence_db: -60,
  unknown_db: -40,
  unknown_seconds: 0.3,
  box_fraction: 0.5,
  off_screen_margin: 0.75,
  off_screen_seconds: 0.6,
};
export type DecisionConfig = typeof DEFAULTS;

/** What one stream decides by. */
export interface Rules {
  config: DecisionConfig;
  classes: string[];
  grid: Size;
  audioThresholds: Floats;
  visualThresholds: Floats;
  hasPresence: boolean;
  joint: Joint | null;
}

export function rulesFor(info: BundleInfo): Rules {
  const unknown = Object.keys(info.decision).find((name) => !(name in DEFAULTS));
  if (unknown !== undefined) {
    throw new BundleError(`bundle.json: decision ${unknown.slice(0, 40)} is not known: deploy the page again with this avgn.`);
  }
  return {
    config: { ...DEFAULTS, ...info.decision },
    classes: info.classes,
    grid: { height: info.grid[0], width: info.grid[1] },
    audioThresholds: Float32Array.from(info.thresholds.audio),
    visualThresholds: Float32Array.from(info.thresholds.visual),
    hasPresence: info.has_presence,
    joint: info.joint,
  };
}

/** Smoothed values [K], which of them are on, since when each wants to change (NaN: not), and the value decided on. */
interface Hysteresis {
  value: Floats;
  on: boolean[];
  since: number[];
  said: Floats;
}

/** Everything that one frame's decision hands to the next. Never modified, only replaced. */
export interface DecisionState {
  time: number | null;
  audio: Hysteresis;
  visual: Hysteresis;
  claimed: boolean[];
  certainSince: number[];
  joint: Hysteresis;
  loudSince: number;
}

export function startOf(count: number): DecisionState {
  const [zeros, off, never] = [new Float32Array(count), Array<boolean>(count).fill(false), Array<number>(count).fill(NaN)];
  const gate = { value: zeros, on: off, since: never, said: zeros };
  return { time: null, audio: gate, visual: gate, claimed: off, certainSince: never, joint: gate, loudSince: NaN };
}

/** One class that sounds; on screen it has a peak, a box and its map. */
export interface Source {
  label: string;
  index: number;
  audioProb: number;
  visualProb: number;
  onScreen: boolean;
  certainty: number;
  peak: Point | null;
  box: Box | null;
  map: Floats | null;
  alternatives: [string, number][];
}

export interface Decision {
  state: StateName;
  sources: Source[];
}

/** What the halves say of a frame: probabilities [K], maps [K, h, w] flat, the level of its audio window. */
export interface Evidence {
  time: number;
  audioProb: Floats;
  visualProb: Floats;
  maps: Floats;
  loudnessDb: number;
}

export function step(rules: Rules, state: DecisionState, seen: Evidence): [DecisionState, Decision] {
  const { config } = rules;
  const count = rules.classes.length;
  const { time, maps } = seen;
  const first = state.time === null;
  const elapsed = state.time === null ? 0 : Math.max(0, time - state.time);
  const silent = seen.loudnessDb < config.silence_db;
  const zeros = new Float32Array(count);
  let heardValue = rules.hasPresence ? seen.audioProb : new Float32Array(count).fill(1);
  const heardThreshold = rules.hasPresence ? rules.audioThresholds : new Float32Array(count).fill(0.5);
  const seenValue = rules.hasPresence ? seen.visualProb : maxima(maps, count);
  if (silent) heardValue = zeros;
  const pass = { time, elapsed, config, first };
  const audio = gate(state.audio, heardValue, heardThreshold, config.audio_smoothing, pass);
  const visual = gate(state.visual, seenValue, rules.visualThresholds, config.visual_smoothing, pass);
  let { joint } = state;
  let verdict: Verdict | null = null;
  if (rules.joint) {
    verdict = judge(rules.joint, audio.value, visual.value, maps, rules.grid);
    joint = gate(state.joint, silent ? zeros : verdict.prob, new Float32Array(count).fill(0.5), 0, pass);
  }
  const [alone, certainSince] = claims(state, audio, visual, heardThreshold, time, config);
  const claimed = rules.joint
    ? // what both say together needs neither alone
      joint.on.map((on, k) => on || (audio.on[k]! && (state.claimed[k]! || lasted(certainSince[k]!, time, config))))
    : alone;
  let { loudSince } = state;
  if (seen.loudnessDb < config.unknown_db || claimed.some(Boolean)) loudSince = NaN;
  else if (Number.isNaN(loudSince)) loudSince = time;
  const following = { time, audio, visual, claimed, certainSince, joint, loudSince };
  let sources = claimed.flatMap((on, k) => (on ? [sourceOf(rules, following, maps, k, verdict)] : []));
  if (!rules.hasPresence) sources = sources.filter((source) => source.onScreen);
  return [following, { state: overall(config, following, sources), sources }];
}

function maxima(maps: Floats, count: number): Floats {
  const cells = maps.length / count;
  return Float32Array.from({ length: count }, (_, k) => Math.max(...maps.subarray(k * cells, (k + 1) * cells)));
}

interface Pass {
  time: number;
  elapsed: number;
  config: DecisionConfig;
  first: boolean;
}

function gate(before: Hysteresis, value: Floats, threshold: Floats, smoothing: number, pass: Pass): Hysteresis {
  const { time, elapsed, config, first } = pass;
  const weight = single(first || smoothing === 0 ? 1 : 1 - Math.exp(-elapsed / smoothing));
  const release = single(config.release);
  const smooth = before.value.map((old, k) => single(old + single(weight * single(value[k]! - old))));
  const on: boolean[] = [];
  const since: number[] = [];
  const said = smooth.slice();
  smooth.forEach((level, k) => {
    const limit = threshold[k]!;
    const was = before.on[k]!;
    // a negative threshold (a map's) is released below itself, too
    const wants = was ? level < single(limit >= 0 ? limit * release : limit / release) : level >= limit;
    const from = wants ? (Number.isNaN(before.since[k]!) ? time : before.since[k]!) : NaN;
    const change = wants && time - from >= (was ? config.min_off : config.min_on) - NANOSECOND;
    on.push(was !== change);
    since.push(change ? NaN : from);
    if (wants && !change) said[k] = before.said[k]!;
  });
  return { value: smooth, on, since, said };
}

/** Which classes are said to sound, and since when those that are heard alone have been nearly certain. */
function claims(
  state: DecisionState,
  audio: Hysteresis,
  visual: Hysteresis,
  threshold: Floats,
  time: number,
  config: DecisionConfig,
): [boolean[], number[]] {
  const margin = single(config.off_screen_margin);
  const since = audio.on.map((on, k) => {
    const needed = single(threshold[k]! + single(margin * single(1 - threshold[k]!)));
    if (!(on && audio.value[k]! >= needed)) return NaN;
    return Number.isNaN(state.certainSince[k]!) ? time : state.certainSince[k]!;
  });
  // what was seen while it sounded may leave the picture
  const claimed = audio.on.map((on, k) => on && (visual.on[k]! || state.claimed[k]! || lasted(since[k]!, time, config)));
  return [claimed, since];
}

function lasted(certainSince: number, time: number, config: DecisionConfig): boolean {
  return !Number.isNaN(certainSince) && time - certainSince >= config.off_screen_seconds - NANOSECOND;
}

function certaintyOf(value: number, threshold: number): number {
  return Math.min(1, 0.5 + (0.5 * Math.max(0, value - threshold)) / Math.max(1 - threshold, 1e-6));
}

function sourceOf(rules: Rules, state: DecisionState, maps: Floats, index: number, verdict: Verdict | null): Source {
  const onScreen = (verdict ? state.joint : state.visual).on[index]!;
  const shown = rules.hasPresence ? state.audio : state.visual;
  const threshold = (rules.hasPresence ? rules.audioThresholds : rules.visualThresholds)[index]!;
  let certainty = certaintyOf(shown.said[index]!, threshold);
  let alternatives: [string, number][] = [];
  if (verdict && onScreen) {
    certainty = certaintyOf(state.joint.said[index]!, 0.5);
    const others = (verdict.insteadOf.get(index) ?? []).slice(0, ALTERNATIVES);
    alternatives = others.map(([k, prob]) => [rules.classes[k]!, prob]);
  }
  const cells = rules.grid.height * rules.grid.width;
  const heat = onScreen ? maps.slice(index * cells, (index + 1) * cells) : null;
  return {
    label: rules.classes[index]!,
    index,
    audioProb: shown.value[index]!,
    visualProb: state.visual.value[index]!,
    onScreen,
    certainty,
    alternatives,
    peak: heat && peakOf(heat, rules.grid),
    box: heat && regionBox(heat, rules.grid, rules.config.box_fraction),
    map: heat,
  };
}

function overall(config: DecisionConfig, state: DecisionState, sources: Source[]): StateName {
  if (sources.some((source) => source.onScreen)) return "source";
  if (sources.length) return "off-screen";
  return state.time! - state.loudSince >= config.unknown_seconds - NANOSECOND ? "unknown" : "none";
}
