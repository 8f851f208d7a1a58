// What a browser must be able to do, and what it can do at most.

const MOST_THREADS = 4;
// the smallest module with one instruction of 128 bits
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

export type Lack = "insecure" | "noWebAssembly" | "noSimd" | "noOffscreen";

/** What this browser lacks to run a model, as the key of its sentence in the tables of words; null: nothing. */
export function lack(): Lack | null {
  if (!isSecureContext) return "insecure";
  if (typeof WebAssembly !== "object") return "noWebAssembly";
  if (!WebAssembly.validate(new Uint8Array(SIMD))) return "noSimd";
  if (typeof OffscreenCanvas === "undefined") return "noOffscreen";
  return null;
}

/** How many threads a model may have: several only where the page is isolated from other origins. */
export function threads(): number {
  return crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
}
