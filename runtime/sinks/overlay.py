"""The overlay video: pictures with their results drawn on them, and the sound that they were heard with."""

from __future__ import annotations

import os
from collections.abc import Callable

from avgn.runtime.arrays import Pixels
from avgn.runtime.media import AudioBlock, MediaFile
from avgn.runtime.nvtx import stage
from avgn.runtime.outputs import WholeFile, find_place, open_output
from avgn.runtime.result import Result
from avgn.runtime.sinks.audio import AudioTrack, LiveAudio
from avgn.runtime.sinks.containers import container_of
from avgn.runtime.sinks.video_file import VideoFile

# how long a live picture lasts where nothing follows it
LIVE_FPS = 30.0


class OverlayWriter:
    """Draws results on the frames of `media` and writes them with its timestamps and its own sound.

    Raises InputError when the file can't be written. `draw_ms` and `encode_ms` hold the time spent so far.
    """

    def __init__(
        self, path: str | os.PathLike[str], media: MediaFile, *, crf: int = 21, preset: str | None = None
    ) -> None:
        self.draw_ms = 0.0
        self.encode_ms = 0.0
        inputs = (media.path, media.audio_path)
        container_of(find_place(path, *inputs))
        self._file = VideoFile(
            open_output(path, *inputs),
            (media.info.height, media.info.width),
            media.info.fps,
            lambda container, form: AudioTrack(media, container, form),
            crf=crf,
            preset=preset,
        )

    def __call__(self, result: Result, rgb: Pixels) -> None:
        with stage("draw") as drawing:
            drawn = result.plot(rgb)
        with stage("encode") as encoding:
            self._file.write(drawn, result.time)
        self.draw_ms += drawing.ms
        self.encode_ms += encoding.ms

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file; after an interrupt the sound ends with the last frame."""
        self._file.close(interrupted=interrupted)

    def hurry(self) -> None:
        """Stop waiting for whoever reads the output: the run is to end."""
        self._file.hurry()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._file.abort()


class LiveOverlay:
    """The same for a live source, whose size and sound are known when they come: `hear` takes the sound.

    `has_audio`: whether the source has sound, which may come after its first picture; what never comes is silence.
    `partial` is where the recording lies until it is finished, None for what is written to as it is. Raises InputError
    when the file can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], has_audio: Callable[[], bool] = lambda: False) -> None:
        container_of(find_place(path))
        self._output = open_output(path)
        self.partial = self._output.partial if isinstance(self._output, WholeFile) else None
        self._audio = LiveAudio(has_audio)
        self._file: VideoFile | None = None

    def hear(self, block: AudioBlock) -> None:
        """Take a block of sound; from any thread."""
        self._audio.push(block)

    def __call__(self, result: Result, rgb: Pixels) -> None:
        if self._file is None:
            height, width = rgb.shape[:2]
            self._file = VideoFile(self._output, (height, width), LIVE_FPS, self._audio.attach)
        with stage("draw"):
            drawn = result.plot(rgb)
        with stage("encode"):
            self._file.write(drawn, result.time)

    def close(self, *, interrupted: bool = False) -> None:
        """Finish the file; a source that gave nothing leaves none."""
        if self._file is None:
            self.abort()
        else:
            # a live sound ends with its pictures
            self._file.close(interrupted=True)

    def hurry(self) -> None:
        """Stop waiting for whoever reads the output: the run is to end."""
        self._output.hurry()

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._file is not None:
            self._file.abort()
        self._output.abort()
