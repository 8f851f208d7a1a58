// How many threads the model runs in: two are slower than one for a small model, and faster for a large one.

// milliseconds of a picture: a camera gives no more of them
export const ENOUGH = 33;
// what more threads have to save before they are worth their memory and heat
const WORTH = 0.9;

/** What was found for a bundle, by the hash of its image graph. */
export interface Found {
  bundle: string;
  threads: number;
  engine: "wasm" | "gpu";
}

/** How many to run with, by the milliseconds of a picture with as many as were tried: those that run already, or others. */
export function chooseThreads(tried: ReadonlyMap<number, number>, most: number): number {
  const alone = tried.get(1);
  if (alone === undefined || most === 1 || alone <= ENOUGH) return 1;
  const together = tried.get(most);
  return together === undefined || together < WORTH * alone ? most : 1;
}

function key(most: number): string {
  return `avgn threads of ${most} ${new URL(".", document.baseURI).pathname}`;
}

/** What an earlier visit has found; browsers that keep nothing try again. */
export function remembered(most: number): Found | null {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(key(most)) ?? "null");
    const { bundle, threads, engine } = (found ?? {}) as Partial<Found>;
    if (typeof bundle !== "string" || (threads !== 1 && threads !== most)) return null;
    return engine === "wasm" || engine === "gpu" ? { bundle, threads, engine } : null;
  } catch {
    return null;
  }
}

export function remember(found: Found, most: number): void {
  try {
    localStorage.setItem(key(most), JSON.stringify(found));
  } catch {
    // it is found again, then
  }
}
