"""A camera (OpenCV) with a microphone (sounddevice) as one live source, and what of both this machine has."""

from __future__ import annotations

import queue
import re
import sys
import threading
import time as clock
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from avgn.runtime.errors import InputError, MissingExtraError
from avgn.runtime.image import import_cv2
from avgn.runtime.media import AudioBlock, AudioEnd, VideoFrame
from avgn.runtime.sources import LiveEvent, StateChange
from avgn.runtime.sources.drift import CaptureClock

PREFIX = "camera:"
BACKOFF = (0.5, 5.0)
# blocks of sound in line: more than 10 s at 10 ms
LINE = 2048
BLOCK_SECONDS = 0.02
# seconds without a block after which a microphone counts as gone
DEAF = 2.0
AWAY = "the microphone gives nothing: trying to open it again"
V4L = Path("/sys/class/video4linux")
V4L_DEVICE = re.compile(r"/dev/(video\d+|v4l/.+)")


@dataclass(frozen=True, kw_only=True)
class Device:
    """A camera or a microphone: `index` is what --camera or --microphone takes."""

    kind: str
    index: int
    name: str
    detail: str = ""


def is_camera(text: str) -> bool:
    """Return whether `text` names a camera: camera:0, camera:/dev/video0."""
    return text.startswith(PREFIX)


def camera_name(text: str) -> str:
    """Return a camera's bare number or /dev path as is_camera knows it, camera:0; other text as it is, and files'
    names."""
    is_number = text.isascii() and text.isdigit() and not Path(text).exists()
    return PREFIX + text if is_number or V4L_DEVICE.fullmatch(text) else text


def list_devices() -> list[Device]:
    """Return the cameras and microphones of this machine; what can't be asked for is left out."""
    found = _cameras()
    try:
        library = import_sounddevice()
    except InputError:
        return found
    for index, entry in enumerate(library.query_devices()):
        if entry["max_input_channels"] > 0:
            detail = f"{entry['max_input_channels']} channels, {entry['default_samplerate']:.0f} Hz"
            found.append(Device(kind="microphone", index=index, name=str(entry["name"]), detail=detail))
    return found


def import_sounddevice() -> ModuleType:
    """sounddevice; raises MissingExtraError without the package and InputError without its system library."""
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("sounddevice", "live", error) from None
    except OSError as error:
        raise InputError(f"sounddevice finds no PortAudio ({error}): install it, on Debian libportaudio2") from None
    module: ModuleType = sounddevice
    return module


def refresh_devices() -> None:
    """Let PortAudio look for devices again; it does so only when nothing of this process uses it."""
    library = import_sounddevice()
    with Microphone.counting:
        if not Microphone.open_count:
            library._terminate()
            library._initialize()


class Microphone:
    """Blocks of one microphone with their capture times on the monotonic clock; the device's own rate."""

    counting = threading.Lock()
    open_count = 0

    def __init__(self, device: int | str | None = None, rate: int | None = None) -> None:
        """`device`: index or (part of) a name, None: the default. Raises InputError when it can't be opened."""
        library = import_sounddevice()
        try:
            facts: dict[str, Any] = dict(library.query_devices(device, "input"))
            self.name = str(facts["name"])
            self.rate = rate or int(facts["default_samplerate"])
            self.channels = max(1, min(2, int(facts["max_input_channels"])))
            self._line: queue.Queue[tuple[np.ndarray[Any, Any], float]] = queue.Queue(maxsize=LINE)
            self.lost = 0
            self.overflows = 0
            self._clock = CaptureClock(self.rate)
            self._stream = library.InputStream(
                device=device,
                samplerate=self.rate,
                channels=self.channels,
                dtype="float32",
                blocksize=round(BLOCK_SECONDS * self.rate),
                callback=self._take,
            )
            self._stream.start()
            self._is_open = True
            with self.counting:
                Microphone.open_count += 1
        except (library.PortAudioError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"microphone {device!r} can't be opened ({reason}): see avgn devices") from None

    @property
    def drift(self) -> float:
        """The measured deviation of the device's rate, 1e-4 being 100 ppm."""
        return self._clock.drift

    @property
    def is_active(self) -> bool:
        return bool(self._stream.active)

    def blocks(self) -> list[tuple[np.ndarray[Any, Any], float]]:
        """Return what came since the last call: samples [T, C] and the monotonic time of the first of them."""
        found: list[tuple[np.ndarray[Any, Any], float]] = []
        while True:
            try:
                samples, captured = self._line.get_nowait()
            except queue.Empty:
                return found
            found.append((samples, self._clock.block(len(samples), captured)))

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._stream.close()
            with self.counting:
                Microphone.open_count -= 1

    def _take(self, samples: np.ndarray[Any, Any], count: int, times: Any, status: Any) -> None:
        self.overflows += bool(status and status.input_overflow)
        # some hosts give no times; then a block was captured as long ago as it lasts
        known = times.currentTime - times.inputBufferAdcTime
        ago = known if 0 < known < 1 else count / self.rate
        try:
            self._line.put_nowait((samples.copy(), clock.monotonic() - ago))
        except queue.Full:
            self.lost += count


class Reopened:
    """A microphone that is opened again, with growing pauses, when it gives nothing; its gaps are silence.

    Drivers may take seconds to close or open a device: a thread of its own waits for them, capture does not.
    """

    def __init__(self, device: int | str | None) -> None:
        """Raises InputError when it can't be opened the first time."""
        self.current: Microphone | None = Microphone(device)
        self._device = device
        self._wait = BACKOFF[0]
        self._heard = clock.monotonic()
        self._retry = 0.0
        self._worker: threading.Thread | None = None
        self._found: Microphone | None = None
        self._closed = False

    def blocks(self) -> tuple[list[tuple[np.ndarray[Any, Any], float]], int]:
        """Return what came since the last call, as from Microphone.blocks, and its rate."""
        now = clock.monotonic()
        if self.current is None:
            self._try_again(now)
        if self.current is None:
            return [], 0
        blocks = self.current.blocks()
        if blocks:
            self._heard, self._wait = now, BACKOFF[0]
        elif now - self._heard > DEAF or not self.current.is_active:
            lost, self.current = self.current, None
            self._retry = now + self._wait
            self._start(lost.close)
            return [], 0
        return blocks, self.current.rate

    def events(self, begin: float) -> Iterator[LiveEvent]:
        """Yield what came since the last call, with times since the moment `begin`, and whether the microphone went
        away."""
        was_away = self.current is None
        blocks, rate = self.blocks()
        is_away = self.current is None
        if is_away != was_away:
            yield StateChange(state="live", reason=AWAY if is_away else "the microphone is back")
        for samples, moment in blocks:
            yield AudioBlock(samples=samples, rate=rate, time=moment - begin)

    def close(self) -> None:
        self._closed = True
        if self.current is not None:
            self.current.close()

    def _try_again(self, now: float) -> None:
        if self._worker is not None and self._worker.is_alive():
            return
        found, self._found = self._found, None
        if found is not None:
            self.current, self._heard = found, now
        elif now >= self._retry:
            self._retry = now + self._wait
            self._wait = min(BACKOFF[1], 2 * self._wait)
            self._start(self._open)

    def _start(self, work: Callable[[], None]) -> None:
        self._worker = threading.Thread(target=work, name="avgn-microphone", daemon=True)
        self._worker.start()

    def _open(self) -> None:
        try:
            refresh_devices()
            found = Microphone(self._device)
        except InputError:
            return
        if self._closed:
            found.close()
        else:
            self._found = found


class CameraSource:
    """A camera and a microphone; what is unplugged is opened again, and its state reported."""

    def __init__(
        self,
        camera: int | str = 0,
        microphone: int | str | None = None,
        *,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        audio: bool = True,
        sound: bool | None = None,
    ) -> None:
        """`camera`: OpenCV's index, a /dev path or anything that cv2.VideoCapture opens. `microphone`: index or name,
        None: the default one. `size` (width, height) and `fps` are asked for; a camera may give others. `audio` False:
        no microphone (until version 0.1 called `sound`). Raises InputError when the microphone can't be opened.
        """
        if sound is not None:
            warnings.warn("sound is called audio now: use that name", DeprecationWarning, stacklevel=2)
            audio = sound
        self.camera = camera
        self.frames = 0
        self._size, self._fps = size, fps
        self._closed = threading.Event()
        # for the outputs: sound comes, though perhaps after the first picture
        self.has_audio = audio
        self._microphone = Reopened(microphone) if audio else None
        self._begin = clock.monotonic()

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.camera}"

    @property
    def microphone(self) -> Microphone | None:
        """The microphone in use; None without one, or while it is lost."""
        return None if self._microphone is None else self._microphone.current

    def close(self) -> None:
        self._closed.set()

    def events(self) -> Iterator[LiveEvent]:
        """Sound is handed on before each picture, so that a picture finds the sound that was captured before it."""
        wait = BACKOFF[0]
        if self._microphone is None:
            yield AudioEnd()
        try:
            while not self._closed.is_set():
                yield StateChange(state="connecting")
                capture, seen = self._open(), 0
                opened, pace = clock.monotonic(), self._pace(capture)
                while capture is not None and not self._closed.is_set():
                    if pace:
                        # a file in place of a camera gives its pictures when a camera would
                        self._closed.wait(max(0.0, opened + seen * pace - clock.monotonic()))
                    good, bgr = capture.read()
                    moment = clock.monotonic()
                    if not good:
                        break
                    if not seen:
                        wait = BACKOFF[0]
                        yield StateChange(state="live")
                    seen += 1
                    self.frames += 1
                    yield from self._audio()
                    rgb = np.ascontiguousarray(bgr[:, :, ::-1])
                    yield VideoFrame(rgb=rgb, time=moment - self._begin, captured=moment)
                if capture is not None:
                    capture.release()
                if self._closed.is_set():
                    break
                reason = "the camera gives no picture" if capture is not None else "the camera can't be opened"
                yield StateChange(state="lost", reason=reason)
                until = clock.monotonic() + wait
                while clock.monotonic() < until and not self._closed.wait(0.1):
                    # sound goes on while the camera is away
                    yield from self._audio()
                wait = min(BACKOFF[1], 2 * wait)
            yield StateChange(state="ended")
        finally:
            if self._microphone is not None:
                self._microphone.close()

    def _audio(self) -> Iterator[LiveEvent]:
        if self._microphone is not None:
            yield from self._microphone.events(self._begin)

    def _pace(self, capture: Any | None) -> float:
        """Return seconds between the pictures of a file, 0 for a camera, which has a pace of its own."""
        if capture is None or not isinstance(self.camera, str) or not Path(self.camera).is_file():
            return 0.0
        fps = capture.get(import_cv2().CAP_PROP_FPS)
        return 1 / fps if fps > 0 else 0.0

    def _open(self) -> Any | None:
        cv2 = import_cv2()
        camera = int(self.camera) if isinstance(self.camera, str) and self.camera.isdigit() else self.camera
        capture = cv2.VideoCapture(camera)
        if not capture.isOpened():
            capture.release()
            return None
        if self._size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        if self._fps is not None:
            capture.set(cv2.CAP_PROP_FPS, self._fps)
        # one frame in the driver's line: the newest
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture


def _cameras() -> list[Device]:
    if sys.platform.startswith("linux"):
        listed = []
        for folder in sorted(V4L.glob("video*")):
            digits = folder.name.removeprefix("video")
            if digits.isdigit():
                name = (folder / "name").read_text().strip() if (folder / "name").is_file() else folder.name
                listed.append(Device(kind="camera", index=int(digits), name=name, detail=f"/dev/{folder.name}"))
        return sorted(listed, key=lambda device: device.index)
    cv2 = import_cv2()
    found: list[Device] = []
    for index in range(5):
        capture = cv2.VideoCapture(index)
        if capture.isOpened():
            found.append(Device(kind="camera", index=index, name=f"camera {index}"))
        capture.release()
    return found
