// The teach panel's words in the page's language: its tables are of the form of the page's own.

import de from "./teach-words-de.js";
import en from "./teach-words-en.js";
import zh from "./teach-words-zh.js";
import { speaker } from "./words.js";

// The words for a key: tell("learnt", { name: "Rex" }).
export const tell = speaker({ en, de, zh });

// what a server refuses, by its code (desk.py, recorder.py, avgn/teach/classroom.py)
const REFUSED = {
  busy: "busy",
  short: "short",
  "no-sound": "noSound",
  "no-picture": "noPicture",
  silent: "silent",
  dark: "dark",
  name: "badName",
  box: "badBox",
  exists: "exists",
  "many-classes": "manyClasses",
  "many-examples": "manyExamples",
  unknown: "unknown",
  nothing: "nothing",
  late: "late",
};

export const refusal = (code, facts) => tell(REFUSED[code] ?? "failed", facts);
