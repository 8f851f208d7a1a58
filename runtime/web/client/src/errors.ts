// What is thrown: every error of avgn has a code that programs can tell apart; its message is a sentence for people.

export type ErrorCode = "bundle" | "unsupported" | "memory" | "engine" | "media" | "classes" | "busy" | "closed";

/** Anything that avgn refuses or that fails in it. */
export class AvgnError extends Error {
  override name = "AvgnError";

  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
  }
}

/** The refusal of a bundle: one sentence that names the thing, the value and the way out. */
export class BundleError extends AvgnError {
  override name = "BundleError";

  constructor(message: string) {
    super("bundle", message);
  }
}

/** This browser, or the address of the page, can't run models. */
export class UnsupportedError extends AvgnError {
  override name = "UnsupportedError";

  constructor(message: string) {
    super("unsupported", message);
  }
}

/** The model failed in this browser: code "memory" where there is not enough of it, "engine" otherwise. */
export class EngineError extends AvgnError {
  override name = "EngineError";

  constructor(code: "memory" | "engine", message: string) {
    super(code, message);
  }
}

/** What a thrown value says, on one line. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message.replace(/\s+/g, " ").slice(0, 160) : String(error);
}

/** Whether a thrown value says that memory could not be had: of the browser, of WebAssembly or inside of the runtime. */
export function isOutOfMemory(error: unknown): boolean {
  // a number is what C++ threw, and it catches all but a failed allocation
  return error instanceof RangeError || typeof error === "number" || /memory|allocat|bad_alloc|\bOOM\b/i.test(textOf(error));
}
