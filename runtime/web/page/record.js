// Records the picture as it is drawn, heat maps and names included, with its sound.

import { withLength } from "./webm.js";

// the first that the browser can write: what plays everywhere, then what plays in browsers
const KINDS = [
  "video/mp4;codecs=avc1.42E028,mp4a.40.2",
  "video/mp4;codecs=avc1.640028,mp4a.40.2",
  "video/webm;codecs=vp8,opus",
  "video/webm",
  "video/mp4",
];
const FPS = 30;
// minutes after which a recording ends by itself: it is held in memory
export const LONGEST = 5;
// milliseconds between two looks at what is still being encoded, and how many find nothing before it is over
const PAUSE = 200;
const EMPTY = 2;
// milliseconds after which it is over in any case
const PATIENCE = 6000;

const kind = () => KINDS.find((one) => MediaRecorder.isTypeSupported(one));
const pause = () => new Promise((done) => setTimeout(done, PAUSE));

// Whether this browser can record at all.
export function canRecord() {
  return "MediaRecorder" in window && "captureStream" in HTMLCanvasElement.prototype && kind() !== undefined;
}

export class Recorder {
  // `follow(seconds)` is told how long it has been, null after the end; `done(clip, suffix, isFull)` gets the file,
  // `fail(error)` what went wrong.
  constructor({ follow, done, fail }) {
    Object.assign(this, { follow, done, fail });
    this.taken = null;
  }

  get running() {
    return this.taken !== null;
  }

  // `sound` is a track that is stopped with the recording, or null.
  start(canvas, sound) {
    const tracks = [...canvas.captureStream(FPS).getVideoTracks(), ...(sound ? [sound] : [])];
    const recorder = new MediaRecorder(new MediaStream(tracks), { mimeType: kind() });
    const taken = { recorder, pieces: [], begin: performance.now(), seconds: 0, isFull: false };
    recorder.ondataavailable = ({ data }) => taken.pieces.push(data);
    recorder.onerror = ({ error }) => this.fail(error);
    recorder.onstop = () => {
      if (this.taken === taken) this.stop();
      for (const track of tracks) track.stop();
      this.deliver(taken);
    };
    // in pieces, so that what it has is there when the browser ends it
    recorder.start(1000);
    taken.timer = setInterval(() => this.look(taken), 250);
    this.taken = taken;
    this.follow(0);
  }

  look(taken) {
    const seconds = (performance.now() - taken.begin) / 1000;
    taken.isFull = seconds >= 60 * LONGEST;
    if (taken.isFull) this.stop();
    else this.follow(seconds);
  }

  stop() {
    const { taken } = this;
    if (!taken) return;
    this.taken = null;
    clearInterval(taken.timer);
    taken.seconds = (performance.now() - taken.begin) / 1000;
    this.follow(null);
    drain(taken);
  }

  async deliver({ recorder, pieces, seconds, isFull }) {
    const type = recorder.mimeType.split(";")[0];
    const clip = new Blob(pieces, { type });
    if (!clip.size) return;
    const isWebm = type === "video/webm";
    this.done(isWebm ? await withLength(clip, seconds) : clip, type.split("/")[1], isFull);
  }
}

// Stop a recording when all that was taken is encoded: a busy device lags behind, and stopping drops what it has not done.
async function drain({ recorder, pieces }) {
  if (recorder.state !== "recording") return;
  recorder.pause();
  const begin = performance.now();
  for (let empty = 0; empty < EMPTY && performance.now() - begin < PATIENCE; ) {
    const before = pieces.length;
    await pause();
    if (recorder.state === "inactive") return;
    recorder.requestData();
    await pause();
    empty = pieces.slice(before).some((piece) => piece.size) ? 0 : empty + 1;
  }
  if (recorder.state !== "inactive") recorder.stop();
}
