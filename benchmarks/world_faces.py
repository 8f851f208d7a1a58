"""Where a talking clip shows a face, by a detector that has nothing to do with ours, and how often a peak lies inside.

python -m benchmarks.world_faces CLIP [CLIP ...] --output faces.json [--sheet faces.png]

The truth is OpenCV's Haar cascade (Viola and Jones), which OpenCV 5 no longer has: run it where opencv-python-headless
below 5 is installed. The sheet is for looking at it: a detector that nobody looked at is no truth. Then
`python -m benchmarks.world --talking CLIP --faces faces.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avgn.runtime import Localizer
from avgn.runtime.arrays import Pixels
from avgn.runtime.bundle import file_sha256
from avgn.runtime.localizer import run_media
from avgn.runtime.manifest import Box
from avgn.runtime.media import AudioBlock, open_media

CASCADE = "haarcascade_frontalface_default.xml"
# the smallest side of a face, in parts of the picture's height; smaller finds are mostly none
SMALLEST = 0.1
NEIGHBOURS = 6
SHEET_COLUMNS, SHEET_ROWS = 4, 3
TILE_WIDTH = 320
# root mean square of a second in which somebody speaks; silence between sentences lies below
SPEAKING = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, help="a PNG of some of the frames with their faces")
    args = parser.parse_args()
    tiles: list[Pixels] = []
    found = {clip.name: find_faces(clip, tiles) for clip in args.clips}
    args.output.write_text(json.dumps({"detector": f"OpenCV {cv2.__version__}, {CASCADE}", "clips": found}) + "\n")
    if args.sheet:
        cv2.imwrite(str(args.sheet), sheet(tiles)[..., ::-1])


def find_faces(clip: Path, tiles: list[Pixels]) -> dict[str, Any]:
    """Find the faces of every frame: {"sha256", "frames": [[time, [box, ...]], ...]}; `tiles` gets the frames drawn."""
    if not hasattr(cv2, "CascadeClassifier"):
        raise SystemExit(f"OpenCV {cv2.__version__} has no cascades: pip install 'opencv-python-headless<5'")
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / CASCADE))
    frames: list[tuple[float, list[Box]]] = []
    for frame in open_media(clip).video():
        height, width = frame.rgb.shape[:2]
        side = round(SMALLEST * height)
        gray = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
        boxes = cascade.detectMultiScale(gray, minNeighbors=NEIGHBOURS, minSize=(side, side))
        frames.append(
            (frame.time, [(x / width, y / height, (x + w) / width, (y + h) / height) for x, y, w, h in boxes])
        )
        drawn = np.ascontiguousarray(frame.rgb)
        for x, y, w, h in boxes:
            cv2.rectangle(drawn, (int(x), int(y)), (int(x + w), int(y + h)), (255, 255, 0), 2)
        tiles.append(cv2.resize(drawn, (TILE_WIDTH, round(TILE_WIDTH * height / width))))
    return {"sha256": file_sha256(clip), "frames": frames}


def sheet(tiles: list[Pixels]) -> Pixels:
    """Lay evenly chosen tiles [h, w, 3] out in rows."""
    chosen = [tiles[k] for k in np.linspace(0, len(tiles) - 1, SHEET_COLUMNS * SHEET_ROWS).astype(int)]
    rows = [chosen[k : k + SHEET_COLUMNS] for k in range(0, len(chosen), SHEET_COLUMNS)]
    return np.vstack([np.hstack([tile[: chosen[0].shape[0]] for tile in row]) for row in rows])


def inside_faces(localizer: Localizer, clip: Path, faces: dict[str, Any]) -> dict[str, Any]:
    """Measure in how many speaking seconds of a clip speech is named with its peak inside a face.

    A second speaks where its sound is louder than SPEAKING and at least half of its frames show a face; it counts as
    found where the peak of "speech" lies inside a face of the same frame in at least half of those frames. Raises
    ValueError for the faces of another clip.
    """
    listed = faces["clips"].get(clip.name)
    if listed is None or listed["sha256"] != file_sha256(clip):
        raise ValueError(f"the faces are not of {clip}: run python -m benchmarks.world_faces on it")
    loud = _loud_seconds(clip)
    hits: dict[int, list[tuple[bool, bool]]] = {}
    frames: dict[int, int] = {}
    for result, boxes in zip(_results(localizer, clip), (row[1] for row in listed["frames"]), strict=True):
        second = int(result.time)
        frames[second] = frames.get(second, 0) + 1
        if second in loud and boxes:
            peaks = [source.peak for source in result.sources if source.label == "speech" and source.peak]
            largest = max(boxes, key=lambda box: box[2] - box[0])
            inside = [[_inside(peak, box) for peak in peaks] for box in (largest, *boxes)]
            hits.setdefault(second, []).append((any(map(any, inside)), any(inside[0])))
    speaking = [np.mean(found, axis=0) >= 0.5 for second, found in hits.items() if len(found) >= frames[second] / 2]
    shares = (100 * np.mean(speaking, axis=0)).round(1).tolist() if speaking else [None, None]
    return {
        "detector": faces["detector"],
        "speaking_seconds": len(speaking),
        "inside_a_face_percent": shares[0],
        "inside_the_largest_face_percent": shares[1],
    }


def _results(localizer: Localizer, clip: Path) -> Iterator[Any]:
    return (result for result, _ in run_media(localizer.open_stream(mode="file"), open_media(clip)))


def _inside(peak: tuple[float, float], box: Box) -> bool:
    return box[0] <= peak[0] <= box[2] and box[1] <= peak[1] <= box[3]


def _loud_seconds(clip: Path) -> set[int]:
    power: dict[int, list[float]] = {}
    for event in open_media(clip).events(0.0):
        if isinstance(event, AudioBlock):
            power.setdefault(int(event.time), []).append(float(np.mean(event.samples.astype(np.float64) ** 2)))
    return {second for second, found in power.items() if np.sqrt(np.mean(found)) > SPEAKING}


if __name__ == "__main__":
    main()
