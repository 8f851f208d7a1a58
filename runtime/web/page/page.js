// The page itself, whoever answers it: a server (app.js), or a worker of its own (the page of `avgn deploy web`).

import { Capture } from "./capture.js";
import { download, savePicture, sharePicture, wayOut } from "./keep.js";
import { canRecord, LONGEST, Recorder } from "./record.js";
import { View } from "./view.js";
import { language, percent, say, translate } from "./words.js";

const find = (id) => document.getElementById(id);
const [start, stop, freeze, save, share, record, file] = [
  "start",
  "stop",
  "freeze",
  "save",
  "share",
  "record",
  "file",
].map(find);
const stage = find("stage");
const message = find("message");
const SHOWN = 8000;

find("unstarted").remove();
document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
translate();

const view = new View({
  picture: find("picture"),
  onScreen: find("on-screen"),
  offScreen: find("off-screen"),
  state: find("state"),
  spoken: find("spoken"),
  choice: find("classes"),
});

const counted = { results: 0, dropped: 0, since: performance.now(), latencies: [] };
let capture;

const recorder = new Recorder({
  follow: (seconds) => {
    const shown = find("recorded");
    record.setAttribute("aria-pressed", String(seconds !== null));
    shown.hidden = seconds === null;
    const [minutes, rest] = [Math.floor((seconds ?? 0) / 60), Math.floor((seconds ?? 0) % 60)];
    shown.textContent = `● ${minutes}:${String(rest).padStart(2, "0")}`;
  },
  done: (clip, suffix, isFull) => {
    download(clip, suffix);
    if (isFull) tell(say("recordFull", { count: LONGEST }), "notice");
  },
  fail: ({ message: reason }) => fail(say("recordFailed", { reason })),
});

// Say something for a while, or until something else is said.
function tell(text, kind, lasts = false) {
  message.textContent = text;
  message.dataset.kind = kind;
  message.hidden = false;
  clearTimeout(message.timer);
  if (!lasts) message.timer = setTimeout(() => (message.hidden = true), SHOWN);
}

const fail = (text, lasts) => tell(text, "failure", lasts);

function take(answer) {
  if (answer.type === "hello" || answer.type === "classes") view.name(answer.classes, answer.grid);
  if (answer.type === "classes") return;
  if (answer.type === "hello") {
    start.disabled = false;
    capture.resume();
    return;
  }
  // what was on its way when it was stopped
  if (!capture.running) return;
  const latency = capture.answered(answer.time);
  if (latency !== null) counted.latencies.push(1000 * latency);
  counted.results += 1;
  counted.dropped += answer.dropped;
  view.take(answer);
  dispatchEvent(new CustomEvent("avgn-result", { detail: { ...answer, latency } }));
}

// Say how the connection is; with a reason, loudly. "refused" is for good.
function show(state, reason, share) {
  const shown = find("connection");
  const bar = find("loading");
  bar.hidden = state !== "loading" && state !== "starting";
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
  shown.dataset.state = state;
  shown.textContent = share === undefined ? say(state) : say("progress", { state: say(state), share: percent(share) });
  const isRefused = state === "refused";
  if (reason && (isRefused || capture.running)) fail(reason);
  if (isRefused) {
    clearTimeout(message.timer);
    ended();
    find("welcome").hidden = true;
    find("again").hidden = false;
    start.disabled = file.disabled = true;
  }
  if (state !== "live" && state !== "ready") view.clear();
}

function setFrozen(frozen) {
  view.frozen = frozen;
  freeze.setAttribute("aria-pressed", String(frozen));
}

async function begin(work) {
  recorder.stop();
  message.hidden = true;
  setFrozen(false);
  try {
    await work();
  } catch (error) {
    capture.stop();
    fail(say("cantDo", { reason: error.message }));
  }
  counted.dropped = 0;
  const { running } = capture;
  find("welcome").hidden = running;
  for (const button of [stop, freeze, save, share, record]) button.disabled = !running;
  if (running) stop.focus({ preventScroll: true });
  dispatchEvent(new CustomEvent("avgn-running", { detail: running }));
}

function ended() {
  recorder.stop();
  capture.stop();
  setFrozen(false);
  view.clear();
  find("welcome").hidden = false;
  stop.disabled = freeze.disabled = record.disabled = true;
  dispatchEvent(new CustomEvent("avgn-running", { detail: false }));
  start.focus({ preventScroll: true });
}

start.onclick = () => begin(() => capture.useCamera());
stop.onclick = () => {
  message.hidden = true;
  ended();
};
// an installed page has no such button of the browser's
find("again").onclick = () => location.reload();
freeze.onclick = () => setFrozen(!view.frozen);
save.onclick = () => savePicture(view.picture);
share.hidden = wayOut() === null;
if (wayOut() === "copy") share.textContent = say("copy");
share.onclick = async () => {
  if ((await sharePicture(view.picture)) === "copy") tell(say("copied"), "notice");
};
record.hidden = !canRecord();
record.onclick = () => {
  if (recorder.running) recorder.stop();
  else recorder.start(view.picture, capture.soundTrack());
};
file.onchange = () => {
  const [chosen] = file.files;
  if (chosen) begin(() => capture.useFile(chosen));
  file.value = "";
};
find("all").onclick = () => view.choose(view.classes.map(({ label }) => label), true);
find("none").onclick = () => view.choose(view.classes.map(({ label }) => label), false);

for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    stage.classList.add("dragging");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) stage.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("dragging");
  if (!file.disabled) drop(event.dataTransfer);
});

// Play what was dropped: the first video of several files.
async function drop({ files, items }) {
  // what is dragged may come as text, too
  const held = [...items].filter(({ kind }) => kind === "file");
  const isFolder = held.map((item) => item.webkitGetAsEntry?.()?.isDirectory ?? false);
  const first = [...files].findIndex((one, at) => !isFolder[at] && one.type.startsWith("video/"));
  const at = Math.max(0, first);
  const dropped = files[at];
  if (!dropped) return;
  if (isFolder[at]) {
    fail(say("folder", { name: dropped.name }));
    return;
  }
  await begin(() => capture.useFile(dropped));
  if (files.length > 1 && capture.running && message.hidden) tell(say("oneVideo", { name: dropped.name }), "notice");
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox])");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const button = { f: freeze, s: save, r: record, Escape: stop }[event.key];
  if (button && !button.disabled && !button.hidden) button.click();
});

setInterval(() => {
  const now = performance.now();
  const { results, since, latencies } = counted;
  find("fps").textContent = String(Math.round((1000 * results) / (now - since)));
  latencies.sort((one, other) => one - other);
  if (latencies.length) find("latency").textContent = String(Math.round(latencies[latencies.length >> 1]));
  find("skipped").textContent = String(capture.skipped + counted.dropped);
  Object.assign(counted, { results: 0, since: now, latencies: [] });
  if (view.isStale) view.clear();
}, 1000);

// Run the page on a wire that `makeWire(take, change)` makes: `take(message)` gets the hello and the results,
// `change(state, reason, share)` how the connection is.
export function startPage(makeWire, follow = () => {}) {
  const wire = makeWire(take, (state, reason, share) => {
    show(state, reason, share);
    follow(state, reason, share);
  });
  capture = new Capture(wire, { show: (video) => view.draw(video), fail, note: (text) => tell(text, "notice"), end: ended });
  wire.connect();
  return { wire, capture, fail };
}
