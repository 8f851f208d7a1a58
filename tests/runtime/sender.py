"""Sends a video in real time, over and over, as a camera on the network would: python sender.py VIDEO URL FORMAT."""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from typing import Any

import av


def main() -> None:
    video, url, kind = sys.argv[1:4]
    options: dict[str, str] = {}
    if kind == "hls":
        options = {"hls_time": "1", "hls_list_size": "5", "hls_flags": "delete_segments"}
    elif kind == "rtsp":
        options = {"rtsp_transport": "tcp"}
    elif kind == "mpegts":
        options = {"mpegts_flags": "resend_headers", "pat_period": "0.2"}
    with av.open(video) as source:
        first = source.streams.video[0]
        size, fps, rate = (
            (first.width, first.height),
            round(float(first.average_rate or 25)),
            source.streams.audio[0].rate,
        )
    with av.open(url, "w", format=kind, options=options) as out:
        picture: Any = out.add_stream("h264", rate=fps)
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        picture.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(fps // 2)}
        sound: Any = out.add_stream("aac", rate=rate)
        sound.layout = "mono"
        begin, frames, samples = time.monotonic(), 0, 0
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
        while True:
            with av.open(video) as source:
                for frame in source.decode(source.streams.video[0], source.streams.audio[0]):
                    if isinstance(frame, av.VideoFrame):
                        time.sleep(max(0.0, begin + frames / fps - time.monotonic()))
                        frame.pts, frame.time_base = frames, Fraction(1, fps)
                        frame.pict_type = av.video.frame.PictureType.NONE
                        out.mux(picture.encode(frame))
                        frames += 1
                    else:
                        for block in resampler.resample(frame):
                            block.pts, block.time_base = samples, Fraction(1, rate)
                            samples += block.samples
                            out.mux(sound.encode(block))


if __name__ == "__main__":
    main()
