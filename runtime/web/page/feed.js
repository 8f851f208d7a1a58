// The sound and the pictures of a source as they are captured, with their moments in seconds of the page's clock.

const now = () => performance.now() / 1000;

// Collect what an audio node gives, mixed to one channel: take(samples, rate, time of the first sample).
// `late()` is how many seconds later than here it is heard. Returns the node, when its worklet is there.
export async function collect(context, take, late = () => 0) {
  await context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
  const collector = new AudioWorkletNode(context, "collector");
  // a node is only run when something takes what it gives: silence, here
  collector.connect(context.destination);
  collector.port.onmessage = ({ data }) => {
    take(data, context.sampleRate, now() - data.length / context.sampleRate + late());
  };
  return collector;
}

// Call take(time, stamp) for every new picture of a video, captured at `time` and shown at `stamp`, until the function
// that is returned is called.
export function follow(video, take) {
  let isOver = false;
  const next = (shown, facts) => {
    if (isOver) return;
    const stamp = shown / 1000;
    const captured = (facts?.captureTime ?? facts?.expectedDisplayTime ?? NaN) / 1000;
    if (video.videoWidth) take(Math.abs(stamp - captured) < 1 ? captured : stamp, stamp);
    schedule();
  };
  const schedule = () => {
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  };
  schedule();
  return () => {
    isOver = true;
  };
}
