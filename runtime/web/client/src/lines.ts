// The shape of avgn's JSON lines: runtime/result.py.

/** What sounds: something in the picture, only things outside of it, something that is no known class, or nothing. */
export type StateName = "source" | "off-screen" | "unknown" | "none";

/** Something that sounds. Probabilities and `certainty` lie in 0..1, coordinates in parts of the picture's sides. */
export interface SourceLine {
  label: string;
  certainty: number;
  audio_prob: number;
  visual_prob: number;
  on_screen: boolean;
  /** [x, y], null off-screen. */
  peak: number[] | null;
  /** [left, top, right, bottom], null off-screen. */
  box: number[] | null;
  /** What it could be instead, with probabilities; of bundles with a joint rule. */
  alternatives?: [string, number][];
}

/** What is said about one picture; `time` in seconds, `ms` by step, `dropped` pictures were passed over before it. */
export interface Line {
  time: number;
  frame: number;
  state: StateName;
  sources: SourceLine[];
  ms: Record<string, number>;
  dropped: number;
}
