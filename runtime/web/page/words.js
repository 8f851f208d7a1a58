// The page's words in the first language of the browser that there is a table for. To add one: words-xx.js with the
// keys of words-en.js, and a line here.

import de from "./words-de.js";
import en from "./words-en.js";
import zh from "./words-zh.js";

const TABLES = { en, de, zh };
const SLOT = /\{(\w+)\}/;

// Of `wanted`, as navigator.languages has them, the first that has a table; English where none has.
export function choose(wanted) {
  const known = wanted.map((one) => one.toLowerCase().split("-")[0]).find((one) => Object.hasOwn(TABLES, one));
  return known ?? "en";
}

export const language = choose(navigator.languages ?? []);
const words = TABLES[language];
const plural = new Intl.PluralRules(language);
const number = new Intl.NumberFormat(language);
const share = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });

// A number from 0 to 1 as a percentage.
export const percent = (part) => share.format(part);

function sentence(table, key, count) {
  const found = table[key];
  return typeof found === "string" ? found : (found[plural.select(count)] ?? found.other);
}

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

// A name that may be of any script: what stands beside it keeps its place.
export const isolated = (name) => (RIGHT_TO_LEFT.test(name) ? `\u2068${name}\u2069` : name);

// Speaks the page's language out of tables, by language, that have the same keys.
export function speaker(tables) {
  const shown = (value) => (typeof value === "number" ? number.format(value) : isolated(String(value)));
  return (key, values = {}) => {
    const parts = sentence(tables[language], key, values.count).split(SLOT);
    return parts.map((part, at) => (at % 2 ? shown(values[part]) : part)).join("");
  };
}

// The words for a key, with values in their places: say("seconds", { count: 3 }). `count` chooses among plural forms.
export const say = speaker(TABLES);

// Put the words of a key into an element; its children stand at the places that bear their data-slot.
function fill(element, key) {
  const slots = new Map([...element.children].map((child) => [child.dataset.slot, child]));
  const parts = sentence(words, key, 0).split(SLOT);
  element.replaceChildren(...parts.map((part, at) => (at % 2 ? slots.get(part) : part)));
}

// Say everything below `root` that has words: data-words="key" is an element's text, data-words-NAME="key" the words of
// its attribute NAME.
export function translate(root = document) {
  for (const element of root.querySelectorAll("*")) {
    for (const { name, value } of [...element.attributes]) {
      if (name === "data-words") fill(element, value);
      else if (name.startsWith("data-words-")) element.setAttribute(name.slice("data-words-".length), say(value));
    }
  }
}
