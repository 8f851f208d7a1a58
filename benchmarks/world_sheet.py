"""A contact sheet of scenes that came out right and of such that did not: the truth beside what was said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from avgn.inspection.truth import draw_item, read_rgb, scale
from avgn.runtime import Localizer, Result
from avgn.runtime.arrays import Pixels
from avgn.runtime.engines.base import Engine
from avgn.runtime.manifest import Item, Manifest
from avgn.runtime.outputs import write_whole
from avgn.runtime.reading import read_wav
from avgn.runtime.sinks.labels import GRAY, Labels

# scenes of each kind; a scene is a pair of pictures of this height
COUNT = 6
PAIRS_A_ROW = 3
HEIGHT = 240
GAP = 6
# frames that the still picture is shown as, so that the decision has its time
STEP_SECONDS = 0.25
RIGHT, WRONG = (40, 140, 60), (170, 40, 40)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene with what a stream says in its middle."""

    item: Item
    picture: Pixels
    result: Result


def write_sheet(engine: Engine, manifests: list[Manifest], path: Path, count: int = COUNT) -> None:
    """Write a PNG of `count` scenes that are right and as many that are wrong, evenly chosen of each kind.

    Right is a scene of which exactly the classes that sound are said, each with its peak inside a box of its own.
    """
    localizer = Localizer(engine)
    kinds: dict[bool, list[Scene]] = {True: [], False: []}
    for manifest in manifests:
        for item in manifest.items:
            scene = look(localizer, item)
            kinds[is_right(scene)].append(scene)
    rows = []
    for is_good, name, color in ((True, "right", RIGHT), (False, "wrong", WRONG)):
        found = kinds[is_good]
        chosen = [found[k] for k in np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).astype(int))]
        pairs = [draw_pair(scene, localizer.bundle.classes, name, color) for scene in chosen]
        rows += [_row(pairs[k : k + PAIRS_A_ROW]) for k in range(0, len(pairs), PAIRS_A_ROW)]
    width = max(row.shape[1] for row in rows)
    whole = np.vstack([np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0))) for row in rows])
    done, data = cv2.imencode(path.suffix or ".png", whole[..., ::-1])
    assert done
    write_whole(path, data.tobytes(), "sheet")


def look(localizer: Localizer, item: Item) -> Scene:
    """Show a scene to a stream, its still picture over and over, and keep what it says in the middle."""
    assert item.frame is not None and item.audio is not None
    picture = scale(read_rgb(item.frame), 2 * HEIGHT)
    samples, rate = read_wav(item.audio)
    seconds = len(samples) / rate
    stream = localizer.open_stream(mode="file")
    results = list(stream.push_audio(samples, rate, 0.0))
    results += stream.end_audio()
    for time in np.arange(0, seconds, STEP_SECONDS):
        results += stream.push_frame(picture, float(time))
    results += stream.flush()
    return Scene(item=item, picture=picture, result=min(results, key=lambda result: abs(result.time - seconds / 2)))


def is_right(scene: Scene) -> bool:
    """Return whether exactly what sounds is said, and each thing that is seen is peaked at."""
    true = {source.label: source for source in scene.item.sources if source.sounding}
    said = {source.label: source for source in scene.result.sources}
    if true.keys() != said.keys():
        return False
    for label, source in said.items():
        if source.on_screen != true[label].on_screen:
            return False
        if source.peak is not None:
            x, y = source.peak
            if not any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in true[label].boxes):
                return False
    return True


def draw_pair(scene: Scene, classes: tuple[str, ...], name: str, color: tuple[int, int, int]) -> Pixels:
    """Draw a scene's truth and, on its right, what was said: [HEIGHT, w, 3]."""
    truth, _ = draw_item(scene.item, classes, HEIGHT)
    said = scale(scene.result.plot(scene.picture), HEIGHT)
    pair = np.ascontiguousarray(np.hstack([truth, said]))
    labels = Labels(pair, 2)
    labels.put("truth", "", GRAY, (0, HEIGHT))
    labels.put(name, "", color, (pair.shape[1], HEIGHT))
    return pair


def _row(pairs: list[Pixels]) -> Pixels:
    return np.hstack([np.pad(pair, ((0, 0), (0, GAP), (0, 0))) for pair in pairs])
