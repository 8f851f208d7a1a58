// Pictures and sound of a camera or of a video file, with the moments at which they were captured.

import { say } from "./words.js";

const PACE = 1 / 32;
const PATIENCE = 1;

const now = () => performance.now() / 1000;

const REFUSALS = { NotAllowedError: "noPermission", NotFoundError: "noCamera", NotReadableError: "cameraInUse" };

function explain({ name, message }) {
  return name in REFUSALS ? say(REFUSALS[name]) : say("cameraFailed", { reason: message });
}

export class Capture {
  // `show(video)` is called for every picture, `fail(text)` when something can't be used, `end()` after a file's end.
  constructor(wire, { show, fail, end }) {
    Object.assign(this, { wire, show, fail, end });
    this.video = null;
    this.sent = [];
    this.skipped = 0;
    this.lastSent = 0;
    this.encoding = false;
  }

  get running() {
    return this.video !== null;
  }

  async useCamera() {
    this.stop();
    if (!navigator.mediaDevices) {
      this.fail(say("cameraInsecure"));
      return;
    }
    const picture = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: { ideal: "environment" } };
    const sound = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: picture, audio: sound });
    } catch (first) {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: picture });
        this.fail(say("noMicrophone"));
      } catch {
        this.fail(explain(first));
        return;
      }
    }
    const video = this.begin();
    this.stream = stream;
    video.srcObject = stream;
    video.muted = true;
    const track = stream.getAudioTracks()[0];
    for (const one of stream.getTracks()) one.onended = () => this.fail(say("unplugged"));
    if (track) {
      await this.listen((context) => context.createMediaStreamSource(stream), -(track.getSettings().latency ?? 0), false);
    } else {
      this.wire.say("sound-end");
    }
    await this.play(video);
  }

  async useFile(file) {
    this.stop();
    const video = this.begin();
    this.address = URL.createObjectURL(file);
    video.src = this.address;
    video.onerror = () => {
      this.stop();
      this.fail(say("cantPlay", { name: file.name }));
      this.end();
    };
    video.onended = () => {
      this.stop();
      this.end();
    };
    await this.listen((context) => context.createMediaElementSource(video), 0, true);
    await this.play(video);
  }

  begin() {
    this.wire.say("reset");
    const video = document.createElement("video");
    video.playsInline = true;
    this.video = video;
    this.sent = [];
    this.skipped = 0;
    return video;
  }

  async play(video) {
    if (this.video !== video) return;
    try {
      await video.play();
    } catch (error) {
      if (this.video !== video || error.name === "AbortError" || video.error) return;
      this.fail(say("videoFailed", { reason: error.message }));
      this.stop();
      return;
    }
    if (this.video === video) this.follow(video);
  }

  async listen(connect, shift, heard) {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.context = context;
    try {
      await context.audioWorklet.addModule("worklet.js");
    } catch (error) {
      // stopped in the meantime, it has no worklets
      if (this.context === context) throw error;
    }
    if (this.context !== context) return;
    const collector = new AudioWorkletNode(context, "collector");
    const source = connect(context);
    this.source = source;
    source.connect(collector);
    if (heard) source.connect(context.destination);
    // a node is only run when something takes what it gives: silence, here
    collector.connect(context.destination);
    collector.port.onmessage = ({ data }) => {
      if (this.context !== context) return;
      // a file's sound leaves the loudspeaker, and its pictures appear, later than it passes here
      const late = heard ? (context.baseLatency ?? 0) + (context.outputLatency ?? 0) : 0;
      this.wire.sendSound(data, context.sampleRate, now() - data.length / context.sampleRate + shift + late);
    };
    // without a gesture it stays suspended, and resuming it never ends
    context.resume().catch(() => {});
  }

  // A track of its own with the sound as it is captured, or null where there is none.
  soundTrack() {
    if (!this.source) return null;
    const copy = this.context.createMediaStreamDestination();
    this.source.connect(copy);
    return copy.stream.getAudioTracks()[0];
  }

  follow(video) {
    const next = (stamp, facts) => {
      if (this.video !== video) return;
      this.take(video, stamp / 1000, facts ?? {});
      schedule();
    };
    const schedule = () => {
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
      else requestAnimationFrame(next);
    };
    schedule();
  }

  take(video, stamp, facts) {
    if (!video.videoWidth) return;
    this.show(video);
    const captured = (facts.captureTime ?? facts.expectedDisplayTime ?? NaN) / 1000;
    const time = Math.abs(stamp - captured) < 1 ? captured : stamp;
    this.sent = this.sent.filter((one) => stamp - one < PATIENCE);
    if (time - this.lastSent < PACE && time > this.lastSent) return;
    if (this.encoding || this.wire.crowded || this.sent.length >= this.wire.inFlight) {
      this.skipped += 1;
      return;
    }
    this.lastSent = time;
    this.encoding = true;
    this.sent.push(time);
    this.send(video, time);
  }

  async send(video, time) {
    let picture = null;
    try {
      picture = await this.wire.picture(video);
    } catch {
      // a video that has just been left gives none
    }
    this.encoding = false;
    if (picture && this.video === video) await this.wire.sendFrame(picture, time);
  }

  // The seconds since the picture of a result was captured, or null where it was not one of the last.
  answered(time) {
    const known = this.sent.includes(time);
    this.sent = this.sent.filter((one) => one > time);
    return known ? now() - time : null;
  }

  // After a connection is back: what was on its way is lost.
  resume() {
    this.sent = [];
    if (this.running && !this.context) this.wire.say("sound-end");
  }

  stop() {
    const { video, stream, context, address } = this;
    this.video = this.stream = this.context = this.source = this.address = null;
    if (stream) for (const track of stream.getTracks()) track.stop();
    if (video) {
      video.onerror = video.onended = null;
      video.pause();
      video.srcObject = null;
      video.removeAttribute("src");
    }
    if (context) context.close();
    if (address) URL.revokeObjectURL(address);
    if (video) this.wire.say("reset");
  }
}
