// A small bundle.json that is right in every part.

export function document(): Record<string, unknown> {
  return {
    format: "avgn-bundle",
    version: 1,
    model: { name: "small" },
    classes: ["bell", "drum"],
    sample_rate: 1000,
    window_seconds: 0.3,
    audio_hop_seconds: 0.1,
    image_size: [4, 4],
    grid: [2, 2],
    thresholds: { audio: [0.5, 0.5], visual: [0.5, 0.5] },
    variants: [
      { precision: "fp32", engine: "openvino", target: "any", audio: "a.xml", image: "i.xml" },
      {
        precision: "fp32",
        engine: "onnxruntime",
        target: "any",
        audio: "audio.onnx",
        image: "image.onnx",
        sha256: { audio: "0".repeat(64), image: "1".repeat(64) },
      },
    ],
  };
}
