// A bundle's files from an address: checked by their hashes before anything runs them.

import { HALVES, parseBundle } from "./bundle.js";
import type { BundleInfo, Half } from "./bundle.js";
import { BundleError } from "./errors.js";
import type { Bytes } from "./numbers.js";

const LARGEST_TEXT = 1 << 24;
// seconds before a file is asked for again whose connection broke, or whose host is overburdened
const PAUSES = [1, 3, 6];

export interface Bundle {
  info: BundleInfo;
  graphs: Record<Half, Bytes>;
}

export type Progress = (loaded: number, total: number) => void;

/**
 * Load the bundle whose folder is at `address` (it ends in "/"). `progress` gets bytes of both graphs, `total` 0 where
 * the host does not say. Throws BundleError.
 */
export async function loadBundle(address: URL, progress: Progress = () => {}): Promise<Bundle> {
  const text = new TextDecoder().decode(await fetched(new URL("bundle.json", address), "default", () => {}, LARGEST_TEXT));
  const info = parseBundle(text);
  const amounts = { audio: [0, 0], image: [0, 0] } as Record<Half, [number, number]>;
  const load = async (half: Half): Promise<Bytes> => {
    const file = new URL(info.variant[half].split("/").map(encodeURIComponent).join("/"), address);
    return checked(file, info.variant[half], info.variant.sha256[half], (loaded, total) => {
      amounts[half] = [loaded, total];
      const known = HALVES.every((each) => amounts[each][1]);
      const sum = (at: 0 | 1) => amounts.audio[at] + amounts.image[at];
      progress(sum(0), known ? sum(1) : 0);
    });
  };
  const [audio, image] = await Promise.all([load("audio"), load("image")]);
  return { info, graphs: { audio, image } };
}

async function checked(file: URL, name: string, expected: string, progress: Progress): Promise<Bytes> {
  let found = "";
  // what a cache holds may be cut off: it is asked for again, past the cache, before it is refused
  for (const cache of ["default", "reload"] as const) {
    const bytes = await fetched(file, cache, progress);
    found = await sha256(bytes);
    if (found === expected) return bytes;
  }
  throw new BundleError(
    `Graph ${name} has sha256 ${found.slice(0, 12)}..., bundle.json says ${expected.slice(0, 12)}...: it was changed ` +
      "or cut off, so deploy the bundle again.",
  );
}

/** A connection that may be better the next time. */
class ConnectionError extends BundleError {}

/** The bytes of a file, which is asked for again where the connection breaks. */
async function fetched(file: URL, cache: RequestCache, progress: Progress, most = Infinity): Promise<Bytes> {
  for (const pause of PAUSES) {
    try {
      return await read(await open(file, cache), progress, most);
    } catch (error) {
      if (!(error instanceof ConnectionError)) throw error;
      await new Promise((done) => setTimeout(done, 1000 * pause));
    }
  }
  return read(await open(file, cache), progress, most);
}

async function open(file: URL, cache: RequestCache): Promise<Response> {
  const name = decodeURIComponent(file.pathname.split("/").at(-1)!);
  let response: Response;
  try {
    response = await fetch(file, { cache });
  } catch {
    throw new ConnectionError(`${name} can't be loaded: check the connection and load the page again.`);
  }
  const { status } = response;
  if (status === 429 || status >= 500) {
    throw new ConnectionError(`${name} can't be had (the host says ${status}): load the page again in a while.`);
  }
  if (!response.ok) throw new BundleError(`${name} is missing (the host says ${status}): deploy the bundle again.`);
  return response;
}

async function read(response: Response, progress: Progress, most = Infinity): Promise<Bytes> {
  const total = Number(response.headers.get("content-length") ?? 0);
  const reader = response.body!.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      size += value.length;
      if (size > most) throw new BundleError("bundle.json is too large for a bundle's: export it again.");
      // a compressed answer is longer than it says
      progress(size, Math.max(total, total && size));
    }
  } catch (error) {
    if (error instanceof BundleError) throw error;
    throw new ConnectionError("The connection broke while the model was loaded: load the page again.");
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

export async function sha256(bytes: Bytes): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
