// Camera and microphone: asked for, and what is said where they can't be had.

import { say } from "./words.js";

const PICTURE = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: { ideal: "environment" } };
const SOUND = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

const CAMERA_REFUSALS = { NotAllowedError: "noPermission", NotFoundError: "noCamera", NotReadableError: "cameraInUse" };
const MICROPHONE_REFUSALS = {
  NotAllowedError: "microphoneRefused",
  NotFoundError: "noMicrophone",
  NotReadableError: "microphoneInUse",
};

export function noCamera({ name, message }) {
  // the browser may, and the system lets no browser
  if (name === "NotAllowedError" && /system/i.test(message)) return say("noPermissionSystem");
  return Object.hasOwn(CAMERA_REFUSALS, name) ? say(CAMERA_REFUSALS[name]) : say("cameraFailed", { reason: message });
}

export function noMicrophone({ name, message }) {
  return Object.hasOwn(MICROPHONE_REFUSALS, name) ? say(MICROPHONE_REFUSALS[name]) : say("microphoneFailed", { reason: message });
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

// The track of a microphone that is there now, or null: a visitor who has not allowed it for good is asked nothing.
export async function openMicrophone() {
  // browsers that do not tell ask for a device that they were asked for before only where they must
  const allowed = await permission("microphone");
  if (allowed !== undefined && allowed !== "granted") return null;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: SOUND });
    return stream.getAudioTracks()[0];
  } catch {
    return null;
  }
}

// Call change() when a device was plugged in or out, until the function that is returned is called.
export function watchDevices(change) {
  const { mediaDevices } = navigator;
  mediaDevices.addEventListener("devicechange", change);
  return () => mediaDevices.removeEventListener("devicechange", change);
}
