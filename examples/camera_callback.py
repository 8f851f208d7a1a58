"""Call a function with every result of a camera and the default microphone: python examples/camera_callback.py [CAMERA]

CAMERA: a number, a /dev path, or anything else that OpenCV opens as one; "--silent" after it: no microphone.
"""

import sys

from avgn.runtime import Localizer
from avgn.runtime.live_pipeline import LivePipeline
from avgn.runtime.sources.devices import CameraSource

camera = sys.argv[1] if len(sys.argv) > 1 else "0"


def on_result(result, rgb):
    """Print one frame's sources; `rgb` is the frame itself, [H, W, 3] uint8."""
    found = [f"{source.label} ({source.audio_prob:.0%})" for source in result.sources if source.on_screen]
    print(f"{result.time:6.2f} s, {rgb.shape[1]} x {rgb.shape[0]}:", ", ".join(found) or "nothing")


localizer = Localizer.load()
source = CameraSource(camera, audio="--silent" not in sys.argv)
with LivePipeline(source, localizer.engine, [on_result]) as pipeline:
    try:
        pipeline.wait()
    except KeyboardInterrupt:
        print(f"{pipeline.stats.frames} frames", file=sys.stderr)
