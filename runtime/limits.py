"""What a file may claim about itself before it is refused, so that no claim decides about memory or time."""

from __future__ import annotations

from avgn.runtime.errors import InputError

# Hz: lower than any recording of sound, and the highest rate that converters run at
MIN_RATE = 1_000
MAX_RATE = 768_000
# seventh-order ambisonics
MAX_CHANNELS = 64
# of one picture of a video: 8K is 35 million
MAX_PIXELS = 40_000_000
# of one still: phones take 108 million
MAX_STILL_PIXELS = 128_000_000
# names in one list of classes
MOST_CLASSES = 10_000
# bytes of a file with one still or mask, and of an archive of masks once it is unpacked
LARGEST_STILL = 256 << 20
# pictures a second that are believed; what a file says beyond is not used
MIN_FPS, MAX_FPS = 1.0, 1000.0
# how many times wider or taller than a square a pixel may be
MAX_PIXEL_ASPECT = 8.0
# seconds in which neither picture nor sound is, after which the time between is skipped
MAX_GAP = 60.0
# seconds between the first picture and the first sound that are believed
MAX_OFFSET = 3600.0
# bytes of decoded pictures that may wait between two threads
WAITING_BYTES = 128 * 2**20


def check_audio(name: object, rate: int, channels: int) -> None:
    """Raise InputError, naming the sound, unless its rate (Hz) and number of channels are those of a recording."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(
            f"{name} claims a sample rate of {rate} Hz: sound of {MIN_RATE} to {MAX_RATE} Hz can be used, "
            "so resample it or mend its header"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InputError(
            f"{name} claims {channels} channels of sound: 1 to {MAX_CHANNELS} can be used, so mix it down first"
        )


def check_frame_size(name: object, width: int, height: int) -> None:
    """Raise InputError, naming the video, when its pictures are too large to be decoded."""
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} has pictures of {width}x{height} pixels: up to {MAX_PIXELS // 10**6} million pixels can be used "
            "(8K is 35 million), so scale it down first"
        )


def usable_fps(*claims: float | None, default: float) -> float:
    """Return the first of the claimed frame rates that can be believed; slower ones than MIN_FPS count as that."""
    for claim in claims:
        if claim is not None and 0 < claim <= MAX_FPS:
            return max(float(claim), MIN_FPS)
    return default


def waiting_frames(width: int, height: int, most: int) -> int:
    """Return how many decoded pictures may wait between two threads: 1 to `most`, fewer where they are large."""
    return max(1, min(most, WAITING_BYTES // max(1, 3 * width * height)))
