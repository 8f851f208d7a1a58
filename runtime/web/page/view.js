// The picture with its heat maps, and the lists beside it.

import { isolated, percent, say } from "./words.js";

const FLOOR = 0.3;
const STRENGTH = 0.65;
// pixels of the longer side of what is drawn: more of them, of an 8K video, take longer than the next picture
const SIDE = 1920;
// milliseconds after which a result is old: of so many results where they come slowly, and at most
const STALE = 1000;
const SLOW = 3;
const OLDEST = 5000;
// of the others the lists say it all
const STATES = { unknown: "stateUnknown", none: "stateNone" };

const named = (label) => label.replaceAll("_", " ");

export class View {
  constructor(elements) {
    Object.assign(this, elements);
    this.pen = this.picture.getContext("2d", { alpha: false });
    this.heat = document.createElement("canvas");
    this.classes = [];
    this.hidden = new Set();
    this.result = null;
    this.at = 0;
    this.patience = STALE;
    this.frozen = false;
    this.spokenText = "";
  }

  // The classes that the server knows, each with a box to tick.
  name(classes, grid) {
    const same = classes.length === this.classes.length && classes.every((one, at) => one.label === this.classes[at].label);
    [this.classes, this.grid] = [classes, grid];
    if (same) return;
    // a result of others has their numbers
    if (this.result) this.clear();
    this.choice.replaceChildren(
      ...classes.map(({ label }) => {
        const box = document.createElement("input");
        box.type = "checkbox";
        box.checked = !this.hidden.has(label);
        box.value = label;
        box.onchange = () => this.choose([label], box.checked);
        const line = document.createElement("label");
        line.append(box, named(label));
        return line;
      }),
    );
  }

  choose(labels, shown) {
    for (const label of labels) shown ? this.hidden.delete(label) : this.hidden.add(label);
    for (const box of this.choice.querySelectorAll("input")) box.checked = !this.hidden.has(box.value);
    this.list();
  }

  take(result) {
    if (this.frozen) return;
    const now = performance.now();
    this.patience = Math.min(OLDEST, Math.max(STALE, SLOW * (now - this.at)));
    this.result = result;
    this.at = now;
    this.list();
  }

  clear() {
    this.result = null;
    this.list();
  }

  // Whether what is said is too old to be true; a frozen picture stays what it was.
  get isStale() {
    return this.result !== null && !this.frozen && performance.now() - this.at > this.patience;
  }

  get sources() {
    return (this.result?.sources ?? []).filter(({ label }) => !this.hidden.has(label));
  }

  draw(video) {
    if (this.frozen) return;
    const { picture, pen } = this;
    const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
    const [width, height] = [video.videoWidth, video.videoHeight].map((side) => Math.max(1, Math.round(scale * side)));
    if (picture.width !== width || picture.height !== height) Object.assign(picture, { width, height });
    pen.drawImage(video, 0, 0, picture.width, picture.height);
    if (this.isStale) return;
    const shown = this.sources.filter((source) => source.on_screen && source.map);
    for (const source of shown) this.drawHeat(source);
    const taken = [];
    for (const source of shown) this.drawName(source, taken);
  }

  drawHeat({ map, index }) {
    const [height, width] = this.grid;
    const color = parseInt(this.classes[index].color.slice(1), 16);
    const pixels = new ImageData(width, height);
    map.forEach((level, at) => {
      const strength = Math.max(0, level / 255 - FLOOR) / (1 - FLOOR);
      pixels.data.set([color >> 16, (color >> 8) & 255, color & 255, Math.round(255 * STRENGTH * strength)], 4 * at);
    });
    this.heat.width = width;
    this.heat.height = height;
    this.heat.getContext("2d").putImageData(pixels, 0, 0);
    this.pen.imageSmoothingEnabled = true;
    this.pen.imageSmoothingQuality = "high";
    this.pen.drawImage(this.heat, 0, 0, this.picture.width, this.picture.height);
  }

  drawName({ label, certainty, index, peak }, taken) {
    const { pen, picture } = this;
    const unit = Math.max(12, picture.height / 26);
    const [x, y] = [peak[0] * picture.width, peak[1] * picture.height];
    pen.lineWidth = unit / 8;
    pen.strokeStyle = "#fff";
    pen.beginPath();
    pen.arc(x, y, unit / 3, 0, 2 * Math.PI);
    pen.stroke();
    pen.font = `600 ${unit}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    const share = ` ${percent(certainty)}`;
    const text = isolated(this.fitting(named(label), picture.width - unit - pen.measureText(share).width)) + share;
    const [wide, high] = [pen.measureText(text).width + unit, 1.5 * unit];
    const left = Math.max(0, Math.min(picture.width - wide, x - wide / 2));
    let top = y - high - unit;
    if (top < 0) top = Math.min(picture.height - high, y + unit);
    while (taken.some((box) => Math.abs(box.top - top) < high && left < box.left + box.wide && box.left < left + wide)) top += high;
    taken.push({ left, top, wide });
    pen.fillStyle = this.classes[index].color;
    pen.fillRect(left, top, wide, high);
    pen.fillStyle = "#000";
    pen.fillText(text, left + unit / 2, top + high / 2);
  }

  // A name, or as much of its beginning as is at most so wide.
  fitting(name, most) {
    const { pen } = this;
    const { width } = pen.measureText(name);
    if (width <= most) return name;
    const letters = [...name];
    let count = Math.ceil((letters.length * most) / width);
    const cut = () => `${letters.slice(0, count).join("")}…`;
    while (count > 1 && pen.measureText(cut()).width > most) count -= 1;
    return cut();
  }

  list() {
    const { sources } = this;
    this.fill(this.onScreen, sources.filter((source) => source.on_screen));
    this.fill(this.offScreen, sources.filter((source) => !source.on_screen));
    // while nothing runs nobody knows what sounds
    const state = this.result?.state;
    this.state.textContent = STATES[state] ? say(STATES[state]) : "";
    this.speak(sources);
  }

  fill(list, sources) {
    const lines = new Map([...list.children].map((line) => [line.dataset.label, line]));
    for (const { label, certainty, index } of sources) {
      const line = lines.get(label) ?? this.line(list, label, index);
      lines.delete(label);
      line.querySelector("meter").value = certainty;
      line.querySelector("output").textContent = percent(certainty);
    }
    for (const line of lines.values()) line.remove();
  }

  line(list, label, index) {
    const line = document.createElement("li");
    line.dataset.label = label;
    line.style.setProperty("--own", this.classes[index].color);
    const dot = document.createElement("span");
    dot.className = "dot";
    dot.textContent = "●";
    dot.ariaHidden = "true";
    const name = document.createElement("span");
    name.className = "name";
    name.append(dot, ` ${isolated(named(label))}`);
    const meter = document.createElement("meter");
    meter.ariaHidden = "true";
    line.append(name, document.createElement("output"), meter);
    list.append(line);
    return line;
  }

  // For screen readers: only what changed, not every probability.
  speak(sources) {
    const said = sources.map(({ label, on_screen }) => (on_screen ? named(label) : say("outsideOf", { name: named(label) })));
    const text = said.sort().join("; ") || this.state.textContent;
    if (text === this.spokenText) return;
    this.spokenText = text;
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => (this.spoken.textContent = text), 700);
  }
}
