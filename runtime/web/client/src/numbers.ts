// Shared names of arrays, and arithmetic in the precision of the Python runtime.

export type Floats = Float32Array<ArrayBuffer>;
export type Bytes = Uint8Array<ArrayBuffer>;

/** A number rounded to float32, as numpy rounds every step of an array of them. */
export const single = Math.fround;

/** The place of the largest value; the first one of several. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let at = 1; at < values.length; at += 1) if (values[at]! > values[best]!) best = at;
  return best;
}

/** A number rounded to `digits` decimals; halves go to the even digit where they can be told. */
export function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

/** Round half to even, as the C library does. */
export function even(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}
