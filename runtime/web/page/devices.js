// Camera and microphone: asked for, and what is said where they can't be had.

const PICTURE = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: { ideal: "environment" } };
const SOUND = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

export function noCamera(error) {
  const known = {
    NotAllowedError: /system/i.test(error.message)
      ? "This device's settings keep the browser from the camera: allow it there and press the button again."
      : "The browser was not allowed to use the camera: allow it beside the address and press the button again.",
    NotFoundError: "This device has no camera. A video file can be dropped here instead.",
    NotReadableError: "The camera is in use by another program: close it and press the button again.",
  };
  return known[error.name] ?? `The camera can't be used (${error.message}).`;
}

export function noMicrophone(error) {
  const known = {
    NotAllowedError: "The microphone is not allowed: nothing can be heard.",
    NotFoundError: "This device has no microphone: nothing can be heard.",
    NotReadableError: "The microphone is in use by another program: nothing can be heard.",
  };
  return known[error.name] ?? `The microphone can't be used (${error.message}): nothing can be heard.`;
}

// "granted", "denied", "prompt"; undefined where the browser does not tell.
async function permission(name) {
  try {
    return (await navigator.permissions.query({ name })).state;
  } catch {
    return undefined;
  }
}

// Whether a visitor who said no to both may be asked for the camera alone: not again for what was just refused.
async function mayAskAgain(error) {
  if (error.name !== "NotAllowedError") return true;
  const [camera, microphone] = await Promise.all([permission("camera"), permission("microphone")]);
  return camera === undefined || camera === "granted" || (camera === "prompt" && microphone === "denied");
}

// The stream of camera and microphone, or of the camera alone and what the microphone said.
export async function openDevices() {
  const { mediaDevices } = navigator;
  try {
    return { stream: await mediaDevices.getUserMedia({ video: PICTURE, audio: SOUND }), lack: null };
  } catch (lack) {
    if (!(await mayAskAgain(lack))) throw lack;
    return { stream: await mediaDevices.getUserMedia({ video: PICTURE }), lack };
  }
}
