// The teach panel of `avgn serve --teach`: hold the button, say where and what it is, and everybody here has it.

import { BoxCanvas } from "./teach-box.js";
import { refusal, tell } from "./teach-words.js";
import { percent } from "./words.js";

const LONGEST_NAME = 64;
const SAVED = "avgn-taught.zip";

function make(kind, facts = {}, ...inside) {
  const element = Object.assign(document.createElement(kind), facts);
  element.append(...inside);
  return element;
}

export class TeachPanel {
  // `wire` talks to the server, `capture` has camera and microphone.
  constructor(wire, capture) {
    Object.assign(this, { wire, capture, state: "idle", seconds: 10, taught: [], classes: [] });
    document.head.append(make("link", { rel: "stylesheet", href: "teach.css" }));
    this.canvas = new BoxCanvas(document.getElementById("stage"));
    this.build();
    this.listen();
    this.show();
  }

  build() {
    const button = (id, text) => make("button", { id, type: "button", textContent: text });
    this.hold = button("teach-hold", tell("hold"));
    this.status = make("p", { id: "teach-status" });
    this.status.setAttribute("role", "status");
    this.names = make("datalist", { id: "teach-names" });
    this.name = make("input", { id: "teach-name", type: "text", maxLength: LONGEST_NAME, required: true, autocomplete: "off" });
    this.name.setAttribute("list", "teach-names");
    this.give = make("button", { id: "teach-give", type: "submit", textContent: tell("teach") });
    this.hottest = button("teach-hottest", tell("hottest"));
    this.whole = button("teach-whole", tell("whole"));
    this.drop = button("teach-drop", tell("discard"));
    const label = make("label", { htmlFor: "teach-name", textContent: tell("name") });
    const places = make("p", { className: "row" }, this.hottest, this.whole);
    const ends = make("p", { className: "row" }, this.give, this.drop);
    this.form = make("form", { id: "teach-form", hidden: true }, places, label, this.name, this.names, ends);
    this.list = make("ul", { id: "teach-list" });
    this.save = button("teach-export", tell("download"));
    const known = make("h3", { textContent: tell("known") });
    const note = make("p", { className: "note", textContent: tell("note") });
    this.panel = make("fieldset", { id: "teach" }, make("legend", { textContent: tell("title") }));
    this.panel.append(this.hold, this.status, this.form, known, this.list, this.save, note);
    const aside = document.querySelector("aside");
    aside.insertBefore(this.panel, aside.querySelector("fieldset"));
  }

  listen() {
    const { hold } = this;
    hold.onpointerdown = (event) => {
      if (event.button) return;
      hold.setPointerCapture(event.pointerId);
      this.begin();
    };
    hold.onpointerup = hold.onpointercancel = hold.onlostpointercapture = () => this.end();
    hold.oncontextmenu = (event) => event.preventDefault();
    addEventListener("keydown", (event) => this.press(event), true);
    addEventListener("keyup", (event) => this.release(event), true);
    addEventListener("avgn-running", ({ detail }) => (detail ? this.show() : this.stopped()));
    // who looks elsewhere holds nothing any more
    addEventListener("blur", () => this.end());
    document.addEventListener("visibilitychange", () => document.hidden && this.end());
    this.hottest.onclick = () => this.canvas.set(this.canvas.offered);
    this.whole.onclick = () => this.canvas.set(null);
    this.drop.onclick = () => this.discard();
    this.name.oninput = () => this.label();
    this.form.onsubmit = (event) => {
      event.preventDefault();
      this.teach();
    };
    this.save.onclick = () => this.download();
  }

  press(event) {
    const typing = event.target.matches("input:not([type=checkbox])");
    if (event.key === "Escape" && this.state !== "idle") {
      // not the page's: the camera goes on
      event.stopPropagation();
      this.discard();
      return;
    }
    const onButton = event.target === this.hold && (event.key === " " || event.key === "Enter");
    const anywhere = event.key.toLowerCase() === "t" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey;
    if (!onButton && !anywhere) return;
    event.preventDefault();
    if (!event.repeat) this.begin();
    this.key = event.key;
  }

  release(event) {
    if (this.state !== "recording" || event.key !== this.key) return;
    event.preventDefault();
    this.end();
  }

  begin() {
    if (this.hold.disabled) return;
    // what is recorded is seen, and so is what comes of it
    const freeze = document.getElementById("freeze");
    if (freeze.getAttribute("aria-pressed") === "true") freeze.click();
    this.wire.say("teach-begin");
    this.to("recording", "");
    const begin = performance.now();
    const tick = () => {
      const seconds = (performance.now() - begin) / 1000;
      this.status.textContent = tell("holding", { seconds: Math.floor(seconds) });
      if (seconds >= this.seconds) this.end();
    };
    tick();
    this.ticking = setInterval(tick, 250);
  }

  async end() {
    if (this.state !== "recording") return;
    this.to("looking", tell("looking"));
    const { video } = this.capture;
    if (!video?.videoWidth) {
      this.wire.say("teach-drop");
      this.to("idle", tell("noPicture"));
      return;
    }
    // the picture that is frozen is the last one of the example
    this.canvas.freeze(video);
    await this.capture.sendNow();
    this.released = performance.now();
    this.wire.say("teach-end");
  }

  discard() {
    if (this.state === "learning") return;
    this.wire.say("teach-drop");
    this.to("idle", "");
  }

  stopped() {
    // what was recorded before can still be named
    if (this.state === "recording") this.discard();
    this.show();
  }

  teach() {
    const name = this.name.value.trim();
    if (this.state !== "looked" || !name) return;
    this.wire.say("teach", { name, box: this.canvas.box, replace: this.replacing === name });
    this.to("learning", tell("learning"));
  }

  // What the server says of lessons, or null while it can't be reached.
  take(answer) {
    if (answer === null) {
      if (this.state !== "idle") this.to("idle", tell("lost"));
    } else if (answer.type === "lesson") {
      this.follow(answer);
    } else if (answer.teach) {
      this.seconds = answer.teach.seconds;
      this.taught = answer.teach.taught;
      this.classes = answer.classes.map(({ label }) => label);
      this.fill();
    }
    this.show();
  }

  follow(answer) {
    const { state, name } = answer;
    if (state === "looked" && this.state === "looking") {
      this.canvas.offer(answer.box);
      this.to("looked", [...(answer.like ? [tell("like", { name: answer.like })] : []), tell("where")].join(" "));
      this.form.scrollIntoView({ block: "nearest" });
      // a finger would get a keyboard over the picture in which the box is drawn
      if (!matchMedia("(pointer: coarse)").matches) this.name.focus({ preventScroll: true });
    } else if (state === "learnt") {
      this.to("idle", this.report(name, answer));
      dispatchEvent(new CustomEvent("avgn-learnt", { detail: { ...answer, released: this.released } }));
    } else if (state === "forgotten") {
      this.to("idle", tell("forgotten", { name }));
    } else if (state === "refused") {
      const text = refusal(answer.code, answer);
      this.replacing = answer.code === "exists" ? this.name.value.trim() : null;
      this.to(answer.again ? "looked" : "idle", text);
    }
  }

  report(name, { found, more, mistaken }) {
    const lines = [tell("learnt", { name })];
    if (typeof found === "number") lines.push(tell("found", { share: percent(found) }));
    if (more) lines.push(tell("more", { count: more }));
    if (mistaken?.length) lines.push(tell("mistaken", { names: mistaken.join(", ") }));
    return lines.join(" ");
  }

  to(state, text) {
    clearInterval(this.ticking);
    this.state = state;
    this.status.textContent = text || (state === "idle" ? tell("hint") : "");
    if (state === "idle") {
      this.canvas.hide();
      this.replacing = null;
    }
    this.show();
  }

  show() {
    const { state } = this;
    this.panel.dataset.state = state;
    this.form.hidden = state !== "looked" && state !== "learning";
    for (const part of this.form.elements) part.disabled = state === "learning";
    this.hold.disabled = state !== "recording" && (state !== "idle" || !this.capture.running || !this.wire.ready);
    this.hold.setAttribute("aria-pressed", String(state === "recording"));
    for (const one of this.list.querySelectorAll("button")) one.disabled = state !== "idle";
    this.save.hidden = !this.taught.length;
    if (!this.status.textContent && state === "idle") this.status.textContent = tell("hint");
    this.label();
  }

  // The button says what it will do with this name.
  label() {
    const name = this.name.value.trim();
    const known = this.taught.some(({ label }) => label.toLowerCase() === name.toLowerCase());
    if (this.replacing !== name) this.replacing = null;
    this.give.textContent = this.replacing ? tell("replace", { name }) : tell(known ? "add" : "teach");
  }

  fill() {
    this.names.replaceChildren(...this.taught.map(({ label }) => make("option", { value: label })));
    this.list.replaceChildren(...this.taught.map(({ label, examples }) => this.line(label, examples)));
    this.list.dataset.empty = this.taught.length ? "" : tell("none");
  }

  line(label, examples) {
    const count = tell("examples", { count: examples });
    const forget = make("button", { type: "button", className: "forget", textContent: "✕" });
    forget.ariaLabel = tell("forget", { name: label });
    forget.title = forget.ariaLabel;
    forget.onclick = () => {
      this.wire.say("teach-forget", { name: label });
      this.to("learning", "");
    };
    const line = make("li", {}, make("span", { textContent: label }), make("small", { textContent: count }), forget);
    line.dataset.label = label;
    return line;
  }

  async download() {
    const headers = this.wire.token === null ? {} : { authorization: `Bearer ${this.wire.token}` };
    try {
      const answer = await fetch("taught.zip", { headers });
      if (!answer.ok) throw new Error(answer.statusText);
      const link = make("a", { href: URL.createObjectURL(await answer.blob()), download: SAVED });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      this.status.textContent = tell("downloaded", { file: SAVED });
    } catch {
      this.status.textContent = tell("notFetched");
    }
  }
}
