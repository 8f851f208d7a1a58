// The frozen picture of an example over the live one, and the box that says where the thing is.

import { tell } from "./teach-words.js";

const STEP = 0.02;
const LEAST = 0.04;
const clip = (value) => Math.min(1, Math.max(0, value));

export class BoxCanvas {
  constructor(stage) {
    const canvas = document.createElement("canvas");
    canvas.id = "example";
    canvas.hidden = true;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.ariaLabel = tell("stage");
    stage.append(canvas);
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { alpha: false });
    this.still = document.createElement("canvas");
    // in parts of the picture's sides: [left, top, right, bottom], or null for anywhere
    this.box = null;
    this.offered = null;
    canvas.onpointerdown = (event) => this.begin(event);
    canvas.onpointermove = (event) => this.drag(event);
    canvas.onpointerup = canvas.onpointercancel = () => (this.from = null);
    canvas.onkeydown = (event) => this.key(event);
  }

  // Keep the picture that a video shows now.
  freeze(video) {
    const { still } = this;
    still.width = this.canvas.width = video.videoWidth;
    still.height = this.canvas.height = video.videoHeight;
    still.getContext("2d").drawImage(video, 0, 0);
    this.box = this.offered = null;
    this.canvas.hidden = false;
    this.draw();
  }

  offer(box) {
    this.offered = this.box = box;
    this.draw();
  }

  hide() {
    this.canvas.hidden = true;
  }

  set(box) {
    this.box = box;
    this.draw();
  }

  draw() {
    const { pen, canvas, still, box } = this;
    const { width, height } = canvas;
    pen.drawImage(still, 0, 0);
    if (!box) return;
    const [left, top, right, bottom] = [box[0] * width, box[1] * height, box[2] * width, box[3] * height];
    pen.fillStyle = "rgb(0 0 0 / 55%)";
    pen.fillRect(0, 0, width, top);
    pen.fillRect(0, bottom, width, height - bottom);
    pen.fillRect(0, top, left, bottom - top);
    pen.fillRect(right, top, width - right, bottom - top);
    const line = Math.max(3, width / 200);
    for (const [colour, size] of [["#000", 2 * line], ["#fff", line]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = size;
      pen.strokeRect(left, top, right - left, bottom - top);
    }
  }

  // Where a pointer is in the picture, which has bars at its sides where the canvas is wider.
  at(event) {
    const { canvas } = this;
    const frame = canvas.getBoundingClientRect();
    const scale = Math.min(frame.width / canvas.width, frame.height / canvas.height);
    const [wide, high] = [scale * canvas.width, scale * canvas.height];
    const left = frame.left + (frame.width - wide) / 2;
    const top = frame.top + (frame.height - high) / 2;
    return [clip((event.clientX - left) / wide), clip((event.clientY - top) / high)];
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.from = this.at(event);
  }

  drag(event) {
    if (!this.from) return;
    const [x, y] = this.at(event);
    const [u, v] = this.from;
    const box = [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
    // a tap leaves the box as it is
    if (box[2] - box[0] >= LEAST && box[3] - box[1] >= LEAST) this.set(box);
  }

  key(event) {
    const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (!step) return;
    event.preventDefault();
    const box = this.box ?? [0.25, 0.25, 0.75, 0.75];
    const moved = event.shiftKey
      ? [box[0], box[1], clip(box[2] + step[0]), clip(box[3] + step[1])]
      : box.map((side, at) => side + step[at % 2]);
    const fits = moved.every((side) => side >= 0 && side <= 1) && moved[2] - moved[0] >= LEAST && moved[3] - moved[1] >= LEAST;
    this.set(fits ? moved : box);
  }
}
