"""What a stream says about one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avgn.runtime.arrays import Floats, Pixels
from avgn.runtime.decision import Heard


def _alternatives(source: Heard) -> dict[str, Any]:
    if not source.alternatives:
        return {}
    return {"alternatives": [[label, round(prob, 5)] for label, prob in source.alternatives]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """One frame's answer.

    `time` in seconds of the stream's clock; `frame` counts the frames pushed; `state` is "source", "off-screen",
    "unknown" or "none"; `sources` holds the classes heard. `audio_prob`, `visual_prob` [K] and `maps` [K, h, w] are the
    engine's own, before smoothing. `loudness_db` is the RMS level of the audio window, `window` its index on the
    audio grid. `ms` has the milliseconds of each stage, `dropped` the frames lost before this one.
    In its JSON line a source lists `alternatives` where other classes would stand for the same thing.
    """

    time: float
    frame: int
    state: str
    sources: tuple[Heard, ...]
    audio_prob: Floats
    visual_prob: Floats
    maps: Floats
    loudness_db: float
    window: int
    ms: dict[str, float]
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the result line: plain values, coordinates normalised to the frame, null where a sound is
        off-screen."""
        return {
            "time": round(self.time, 6),
            "frame": self.frame,
            "state": self.state,
            "sources": [
                {
                    "label": source.label,
                    "certainty": round(source.certainty, 5),
                    "audio_prob": round(source.audio_prob, 5),
                    "visual_prob": round(source.visual_prob, 5),
                    "on_screen": source.on_screen,
                    "peak": None if source.peak is None else [round(v, 5) for v in source.peak],
                    "box": None if source.box is None else [round(v, 5) for v in source.box],
                }
                | _alternatives(source)
                for source in self.sources
            ],
            "ms": {name: round(value, 3) for name, value in self.ms.items()},
            "dropped": self.dropped,
        }

    def plot(self, rgb: Pixels) -> Pixels:
        """Return the frame [H, W, 3] uint8 with heat maps, boxes and labels drawn on a copy of it."""
        from avgn.runtime.sinks.drawing import draw_sources

        return draw_sources(rgb, self.sources, self.state)
