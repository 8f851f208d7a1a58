// The length of a WebM clip: browsers record without knowing how long it becomes, and players want to know.

const SEGMENT = 0x18538067;
const INFO = 0x1549a966;
const DURATION = 0x4489;
const SCALE = 0x2ad7b1;
const VOID = 0xec;
// the facts stand before the first picture
const HEAD = 1 << 16;

function readId(view, at) {
  const length = Math.clz32(view.getUint8(at)) - 23;
  let id = 0;
  for (let byte = 0; byte < length; byte += 1) id = id * 256 + view.getUint8(at + byte);
  return { id, length };
}

// The size of an element; null where it is not known.
function readSize(view, at) {
  const length = Math.clz32(view.getUint8(at)) - 23;
  let size = view.getUint8(at) & ((1 << (8 - length)) - 1);
  let isKnown = size !== (1 << (8 - length)) - 1;
  for (let byte = 1; byte < length; byte += 1) {
    size = size * 256 + view.getUint8(at + byte);
    isKnown ||= view.getUint8(at + byte) !== 255;
  }
  return { size: isKnown ? size : null, length };
}

// The elements of a part of a file: { id, at, content, end }, up to one of unknown size.
function* elements(view, from, to) {
  for (let at = from; at < to; ) {
    const { id, length } = readId(view, at);
    const { size, length: wide } = readSize(view, at + length);
    const content = at + length + wide;
    const end = size === null ? null : content + size;
    yield { id, at, content, end };
    if (end === null) return;
    at = end;
  }
}

function number(view, { content, end }) {
  let value = 0;
  for (let at = content; at < end; at += 1) value = value * 256 + view.getUint8(at);
  return value;
}

function element(id, bytes) {
  return [...id, 0x80 | bytes.length, ...bytes];
}

// What stands in place of the facts: the same ones, with the length.
function facts(view, info, seconds) {
  const children = [...elements(view, info.content, info.end)];
  const scale = children.find(({ id }) => id === SCALE);
  const step = scale ? number(view, scale) : 1_000_000;
  const length = new DataView(new ArrayBuffer(8));
  length.setFloat64(0, (1e9 * seconds) / step);
  const kept = children
    .filter(({ id }) => id !== DURATION && id !== VOID)
    .flatMap(({ at, end }) => [...new Uint8Array(view.buffer, at, end - at)]);
  const content = [...kept, ...element([0x44, 0x89], new Uint8Array(length.buffer))];
  const size = [0x10, (content.length >> 16) & 255, (content.length >> 8) & 255, content.length & 255];
  return new Uint8Array([0x15, 0x49, 0xa9, 0x66, ...size, ...content]);
}

// The clip with its length in seconds; as it is where its layout is another one.
export async function withLength(clip, seconds) {
  try {
    const view = new DataView(await clip.slice(0, HEAD).arrayBuffer());
    for (const { id, content, end } of elements(view, 0, view.byteLength)) {
      // where sizes are known, places are, too
      if (id !== SEGMENT || end !== null) continue;
      for (const info of elements(view, content, view.byteLength)) {
        if (info.id !== INFO) continue;
        return new Blob([clip.slice(0, info.at), facts(view, info, seconds), clip.slice(info.end)], { type: clip.type });
      }
    }
  } catch {
    // cut off, or no WebM
  }
  return clip;
}
