"""The pictures of a video alone, whether it sounds or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from avgn.runtime.orientation import Turner
from avgn.runtime.pieces import VideoFrame
from avgn.runtime.track import no_picture, open_video


class Pictures:
    """A video's pictures, to be read any number of times; `duration` in seconds as the file claims, or None."""

    def __init__(self, path: Path) -> None:
        """Raises InputError for a file that holds no picture that can be decoded."""
        found = open_video(path, "give a video file")
        self._track, self._aspect, self._seconds = found.track, found.pixel_aspect, 1 / found.fps
        if self._track.look_at_first(self._seconds) is None:
            raise no_picture(path, found.codec)
        self._track.set_zero(self._track.begins)
        claimed = self._track.claimed
        self.duration = None if claimed is None else max(0.0, claimed - float(self._track.zero))

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the pictures in order, upright and with square pixels, at seconds from the first one."""
        turn, last, due = Turner(), 0.0, 0.0
        with closing(self._track.decode(lambda: None)) as frames:
            for frame in frames:
                stamp = self._track.stamp_of(frame)
                # never backwards, whatever a file says
                last = max(last, due if stamp is None else stamp)
                due = last + self._seconds
                yield VideoFrame(rgb=turn(frame, self._aspect), time=last)
