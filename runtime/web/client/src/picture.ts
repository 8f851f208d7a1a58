// A video's picture as it goes to the worker.

// pixels of its longer side
const SIDE = 640;

export function pictureOf(video: HTMLVideoElement): Promise<ImageBitmap> {
  const { videoWidth: width, videoHeight: height } = video;
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const size = {
    resizeWidth: Math.max(1, Math.round(scale * width)),
    resizeHeight: Math.max(1, Math.round(scale * height)),
    resizeQuality: "medium" as const,
  };
  return createImageBitmap(video, scale < 1 ? size : {});
}
