// Whether a GPU may be worth a try, and what the visitor wants.

import type { EngineChoice } from "./messages.js";

/** What WebGPU has here: "software" computes on the processor, slower than WebAssembly. */
export async function gpuOf(): Promise<"none" | "software" | "hardware"> {
  // not every browser has it
  const { gpu } = navigator as { gpu?: GPU };
  try {
    const adapter = await gpu?.requestAdapter();
    if (!adapter) return "none";
    return adapter.info.isFallbackAdapter === false ? "hardware" : "software";
  } catch {
    return "none";
  }
}

/** What the page's address asks for: ?engine=wasm or ?engine=webgpu. */
export function askedFor(): EngineChoice | null {
  const asked = new URLSearchParams(location.search).get("engine");
  return asked === "wasm" || asked === "webgpu" ? asked : null;
}
