// Whether a GPU may be worth a try, and what the visitor wants.

import type { EngineChoice } from "./messages.js";

/** What WebGPU has here: "software" computes on the processor, slower than WebAssembly; "silent" does not answer. */
export type Gpu = "none" | "silent" | "software" | "hardware";

// milliseconds: a GPU's process that hangs never answers, one that starts does so within a second
const PATIENCE = 3000;

/** Ask for the GPU, and wait no longer than `patience` milliseconds for it. */
export async function gpuOf(patience = PATIENCE): Promise<Gpu> {
  // not every browser has it
  const { gpu } = navigator as { gpu?: GPU };
  try {
    const adapter = await within(patience, gpu?.requestAdapter());
    if (!adapter) return "none";
    return adapter.info.isFallbackAdapter === false ? "hardware" : "software";
  } catch (error) {
    return error instanceof TooLate ? "silent" : "none";
  }
}

/** Why a GPU that is not there, or does not answer, is not used; null where it may be. */
export function lackOf(gpu: Gpu): string | null {
  if (gpu === "silent") return "the GPU does not answer";
  return gpu === "none" ? "this browser has no GPU for it" : null;
}

/** Thrown where something has not come in time. */
export class TooLate extends Error {}

/** What a promise gives, unless that takes longer than `patience` milliseconds. Throws TooLate. */
export async function within<Value>(patience: number, promise: Promise<Value> | undefined): Promise<Value | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, refuse) => {
    timer = setTimeout(() => refuse(new TooLate("it does not answer")), patience);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What the page's address asks for: ?engine=wasm or ?engine=webgpu. */
export function askedFor(): EngineChoice | null {
  const asked = new URLSearchParams(location.search).get("engine");
  return asked === "wasm" || asked === "webgpu" ? asked : null;
}
