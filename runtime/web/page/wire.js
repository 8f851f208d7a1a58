// The WebSocket: messages of version 1 (see wire.py of the server), reconnected with growing pauses.

import { inWords } from "./reasons.js";
import { say } from "./words.js";

const FRAME = 1;
const SOUND = 2;
const HEADER = 16;
const NO_TOKEN = 4401;
const FULL = 1013;
const BUFFERED = 400_000;
// a picture's longer side in pixels, its JPEG's quality, and how many may be without an answer
const SIDE = 320;
const QUALITY = 0.8;
const IN_FLIGHT = 4;

function headed(kind, rate, time, body) {
  const message = new Uint8Array(HEADER + body.byteLength);
  const view = new DataView(message.buffer);
  view.setUint8(0, kind);
  view.setUint32(4, rate, true);
  view.setFloat64(8, time, true);
  message.set(body, HEADER);
  return message;
}

export class Wire {
  // `take(message)` gets what the server says, `change(state, reason)` "live", "lost" or "token".
  constructor(take, change) {
    this.take = take;
    this.change = change;
    // held by this page alone: an address with a token in it stays in no bar, bookmark or reload
    this.token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    this.attempt = 0;
    this.open = false;
    this.inFlight = IN_FLIGHT;
    this.small = document.createElement("canvas");
  }

  connect() {
    const address = new URL("stream", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    const socket = new WebSocket(address);
    this.socket = socket;
    socket.onopen = () => socket.send(JSON.stringify({ type: "hello", version: 1, token: this.token }));
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.type === "hello") {
        this.open = true;
        this.attempt = 0;
        this.change("live", "");
      }
      this.take(message);
    };
    socket.onclose = (event) => this.closed(event);
    clearInterval(this.alive);
    this.alive = setInterval(() => this.say("alive"), 10_000);
  }

  enter(token) {
    this.token = token;
    this.connect();
  }

  // a socket that is closing takes nothing, and says so before its close event comes
  get ready() {
    return this.open && this.socket.readyState === WebSocket.OPEN;
  }

  say(type, facts = {}) {
    if (this.ready) this.socket.send(JSON.stringify({ type, ...facts }));
  }

  get crowded() {
    return !this.open || this.socket.bufferedAmount > BUFFERED;
  }

  // What sendFrame takes of a video: its picture now, as a small JPEG.
  picture(video) {
    const { small } = this;
    const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
    small.width = Math.max(1, Math.round(scale * video.videoWidth));
    small.height = Math.max(1, Math.round(scale * video.videoHeight));
    const pen = small.getContext("2d", { alpha: false });
    pen.imageSmoothingQuality = "medium";
    pen.drawImage(video, 0, 0, small.width, small.height);
    return new Promise((done) => small.toBlob(done, "image/jpeg", QUALITY));
  }

  async sendFrame(jpeg, time) {
    const body = new Uint8Array(await jpeg.arrayBuffer());
    if (this.ready) this.socket.send(headed(FRAME, 0, time, body));
  }

  sendSound(samples, rate, time) {
    if (!this.ready) return;
    const body = new DataView(new ArrayBuffer(2 * samples.length));
    for (let at = 0; at < samples.length; at += 1) {
      const level = Math.max(-1, Math.min(1, samples[at]));
      body.setInt16(2 * at, Math.round(32767 * level), true);
    }
    this.socket.send(headed(SOUND, rate, time, new Uint8Array(body.buffer)));
  }

  closed(event) {
    this.open = false;
    clearInterval(this.alive);
    if (event.code === NO_TOKEN) {
      this.change("token", this.token === null ? "" : say("tokenWrong"));
      return;
    }
    this.attempt += 1;
    const pause = event.code === FULL ? 10 : Math.min(10, 0.5 * 2 ** this.attempt);
    this.change("lost", event.reason ? inWords(event.reason) : say("noServer"));
    setTimeout(() => this.connect(), 1000 * pause);
  }
}
