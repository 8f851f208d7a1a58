// Keeps what the page shows: as a file, shared with another program of this device, or on its clipboard.

const KIND = "image/png";

function name(suffix) {
  return `avgn-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.${suffix}`;
}

const pictureOf = (canvas) => new Promise((done) => canvas.toBlob(done, KIND));

// Save bytes as a file of this device.
export function download(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name(suffix);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function savePicture(canvas) {
  download(await pictureOf(canvas), "png");
}

// What this browser can do with a picture beside saving it: "share", "copy" or null.
export function wayOut() {
  const file = new File([], "avgn.png", { type: KIND });
  if (navigator.canShare?.({ files: [file] })) return "share";
  return navigator.clipboard?.write && window.ClipboardItem ? "copy" : null;
}

// Hand the picture to another program, or copy it; saved where neither works. Returns what was done, null: nothing,
// since the visitor thought better of it.
export async function sharePicture(canvas) {
  // asked for within the click, as browsers want it
  const picture = pictureOf(canvas);
  try {
    if (wayOut() === "share") {
      await navigator.share({ files: [new File([await picture], name("png"), { type: KIND })] });
      return "share";
    }
    await navigator.clipboard.write([new ClipboardItem({ [KIND]: picture })]);
    return "copy";
  } catch (error) {
    if (error.name === "AbortError") return null;
    download(await picture, "png");
    return "save";
  }
}
