// Pictures and sound of a camera or of a video file, with the moments at which they were captured.

import { noCamera, noMicrophone, openDevices, openMicrophone, watchDevices } from "./devices.js";
import { collect, follow } from "./feed.js";
import { say } from "./words.js";

const PACE = 1 / 32;
const PATIENCE = 1;

// seconds into a file at which its sound would have been decoded
const SETTLED = 0.25;
// seconds without a piece of sound after which none is waited for; between two pictures: the page or the device slept
const QUIET = 2;
const SLEPT = 1;

const now = () => performance.now() / 1000;

// by the code of a MediaError
const FILE_REFUSALS = { 2: "fileGone", 3: "fileBroken", 4: "cantPlay" };
const noFile = (name, error) => say(FILE_REFUSALS[error?.code] ?? FILE_REFUSALS[4], { name });

// Whether a file that plays has sound, as far as the browser tells in its own way.
function hasSound(video) {
  if (video.audioTracks) return video.audioTracks.length > 0;
  return video.mozHasAudio ?? video.webkitAudioDecodedByteCount !== 0;
}

export class Capture {
  // `show(video)` is called for every picture, `fail(text, lasts)` when something can't be used, `note(text)` when it
  // can be again, `end()` after a file's end.
  constructor(wire, { show, fail, note, end }) {
    Object.assign(this, { wire, show, fail, note, end });
    this.video = null;
    this.sent = [];
    this.skipped = 0;
    this.lastSent = 0;
    this.encoding = this.isAsking = false;
    this.turn = this.changes = 0;
    this.tookAt = this.heardAt = 0;
    this.isQuiet = false;
    this.leave = this.unwatch = () => {};
    // the system takes sound away from pages that nobody sees, and gives it back to those that ask
    for (const [target, kind] of [[document, "visibilitychange"], [window, "pageshow"], [window, "pointerdown"]]) {
      target.addEventListener(kind, () => this.wake());
    }
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
    const { turn } = this;
    let opened;
    try {
      opened = await openDevices();
    } catch (error) {
      if (turn === this.turn) this.fail(noCamera(error));
      return;
    }
    const { stream, lack } = opened;
    if (turn !== this.turn) {
      // something else was begun while the browser asked
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    const video = this.begin();
    this.stream = stream;
    video.srcObject = stream;
    video.muted = true;
    for (const track of stream.getTracks()) this.watch(track);
    this.unwatch = watchDevices(() => this.hearAgain());
    const [sound] = stream.getAudioTracks();
    if (sound) {
      await this.hear(sound);
    } else {
      this.fail(noMicrophone(lack));
      this.wire.say("sound-end");
    }
    await this.play(video);
  }

  hear(sound) {
    const alone = new MediaStream([sound]);
    return this.listen((context) => context.createMediaStreamSource(alone), -(sound.getSettings().latency ?? 0), false);
  }

  watch(track) {
    const isCamera = track.kind === "video";
    track.onended = () => {
      if (isCamera) {
        this.give(say("cameraGone"));
        return;
      }
      this.stream?.removeTrack(track);
      this.deafen();
      this.fail(say("microphoneGone"));
      // another one may be there
      this.hearAgain();
    };
    // without pictures nothing else is said: it stays until they are back
    track.onmute = () => this.fail(isCamera ? say("cameraMuted") : say("microphoneMuted"), isCamera);
    track.onunmute = () => {
      this.note(isCamera ? say("cameraBack") : say("microphoneBack"));
      this.stream.getTracks().find(({ muted }) => muted)?.onmute();
      this.wake();
    };
    if (track.muted) track.onmute();
  }

  // Hear a microphone that was plugged in, or in again, where none is heard: pictures went on meanwhile.
  async hearAgain() {
    const { stream, turn } = this;
    this.changes += 1;
    if (!stream || this.isAsking || stream.getAudioTracks().length) return;
    this.isAsking = true;
    let sound = null;
    // one that is plugged in says so several times, and can be had after the last
    for (let asked = 0; !sound && asked !== this.changes && turn === this.turn; ) {
      asked = this.changes;
      sound = await openMicrophone();
    }
    this.isAsking = false;
    if (!sound) return;
    if (turn !== this.turn) {
      // stopped meanwhile
      sound.stop();
      return;
    }
    stream.addTrack(sound);
    this.watch(sound);
    await this.hear(sound);
    if (!sound.muted) this.note(say("microphoneBack"));
  }

  async useFile(file) {
    this.stop();
    const video = this.begin();
    this.address = URL.createObjectURL(file);
    video.src = this.address;
    video.onerror = () => this.give(noFile(file.name, video.error));
    video.onloadeddata = () => {
      if (!video.videoWidth) this.give(say("noPictures", { name: file.name }));
    };
    this.unheard = true;
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
    this.unheard = false;
    return video;
  }

  // End with a reason.
  give(reason) {
    this.stop();
    this.fail(reason);
    this.end();
  }

  async play(video) {
    if (this.video !== video) return;
    try {
      await video.play();
    } catch (error) {
      if (this.video !== video || error.name === "AbortError" || video.error) return;
      if (error.name === "NotAllowedError" && this.address) {
        // a file that was dropped is no click, which some browsers wait for
        this.fail(say("clickToPlay"));
        addEventListener("pointerup", () => this.play(video), { once: true });
        return;
      }
      this.fail(say("videoFailed", { reason: error.message }));
      this.stop();
      return;
    }
    if (this.video !== video) return;
    this.leave();
    this.leave = follow(video, (time, stamp) => this.take(video, time, stamp));
  }

  async listen(connect, shift, heard) {
    const context = new AudioContext({ latencyHint: "interactive" });
    this.context = context;
    // a file's sound leaves the loudspeaker, and its pictures appear, later than it passes here
    const late = () => shift + (heard ? (context.baseLatency ?? 0) + (context.outputLatency ?? 0) : 0);
    const take = (samples, rate, time) => {
      if (this.context !== context) return;
      [this.heardAt, this.isQuiet] = [now(), false];
      this.wire.sendSound(samples, rate, time);
    };
    let collector;
    try {
      collector = await collect(context, take, late);
    } catch (error) {
      // stopped in the meantime, it has no worklets
      if (this.context === context) throw error;
    }
    if (this.context !== context) return;
    [this.heardAt, this.isQuiet] = [now(), false];
    const source = connect(context);
    this.source = source;
    source.connect(collector);
    if (heard) source.connect(context.destination);
    context.onstatechange = () => this.wake();
    this.wake();
  }

  // Go on with what the system has stopped: while the page was hidden, by a call, by sleep.
  wake() {
    const { context, video } = this;
    if (document.hidden) return;
    // without a gesture it stays suspended, and resuming it never ends
    if (context && context.state !== "running" && context.state !== "closed") context.resume().catch(() => {});
    if (video?.paused && !video.ended && video.currentTime > 0) video.play().catch(() => {});
  }

  // Wait no longer for sound that does not come: no device plays it, or the browser holds it back.
  notice(time) {
    if (time - this.tookAt > SLEPT) this.heardAt = time;
    this.tookAt = time;
    if (!this.context || this.isQuiet || time - this.heardAt < QUIET) return;
    this.isQuiet = true;
    this.wire.say("sound-end");
    this.fail(say("soundHeld"));
  }

  // Go on without sound.
  deafen() {
    const { context } = this;
    this.context = this.source = null;
    if (context) context.close();
    this.wire.say("sound-end");
  }

  // A track of its own with the sound as it is captured, or null where there is none.
  soundTrack() {
    if (!this.source) return null;
    const copy = this.context.createMediaStreamDestination();
    this.source.connect(copy);
    return copy.stream.getAudioTracks()[0];
  }

  take(video, time, stamp) {
    this.show(video);
    this.notice(now());
    if (this.unheard && video.currentTime > SETTLED) {
      this.unheard = false;
      if (!hasSound(video)) {
        this.fail(say("noSound"));
        this.deafen();
      }
    }
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

  // Send the picture that is shown now, whatever else is on its way.
  async sendNow() {
    const { video } = this;
    const time = now();
    const picture = await this.wire.picture(video);
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
    this.turn += 1;
    this.leave();
    this.unwatch();
    // a track that is stopped here says nothing, one that ends does
    for (const track of stream?.getTracks() ?? []) {
      track.onmute = track.onunmute = null;
      track.stop();
    }
    if (video) {
      video.onerror = video.onended = video.onloadeddata = null;
      video.pause();
      video.srcObject = null;
      video.removeAttribute("src");
    }
    if (context) context.close();
    if (address) URL.revokeObjectURL(address);
    if (video) this.wire.say("reset");
  }
}
