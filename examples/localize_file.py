"""Print what sounds in a video, and where: python examples/localize_file.py VIDEO [BUNDLE]"""

import sys

from avgn.runtime import Localizer

video = sys.argv[1]
bundle = sys.argv[2] if len(sys.argv) > 2 else "world"

for result in Localizer.load(bundle).stream(video):
    for source in result.sources:
        place = "on screen" if source.on_screen else "off-screen"
        print(f"{result.time:7.2f} s  {source.label:12} {source.audio_prob:.2f}  {place}  {source.peak}")
