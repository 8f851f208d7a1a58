"""A sender whose pictures say their own number and the moment they were sent, as bits of black and white blocks.

`python stamped.py URL FORMAT FPS GOP` sends H.264 in real time to an address (FORMAT mpegts, rtsp, h264 ...);
`python stamped.py PORT KIND FPS GOP` with KIND mjpeg or h264 serves it by http, to each visitor from a key frame on.
A fifth argument is the rate that the stream claims, a sixth "tone" adds a sound of 440 Hz.
"""

from __future__ import annotations

import http.server
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np

from avgn.runtime.arrays import Pixels

BLOCK = 16
BITS = 16
SIZE = (64, BITS * BLOCK)
RATE = 16_000


def stamp(number: int) -> Pixels:
    """A picture [64, 256, 3]: the number in the first row, the wall clock's milliseconds in the two below."""
    now = round(time.time() * 1000)
    words = (number & 0xFFFF, now & 0xFFFF, (now >> 16) & 0xFFFF, 0)
    bits = np.array([[(word >> bit) & 1 for bit in range(BITS)] for word in words], np.uint8)
    return np.repeat(np.repeat(bits * 255, BLOCK, 0), BLOCK, 1)[..., None].repeat(3, 2)


def read_stamp(rgb: Pixels) -> tuple[int, float]:
    """(number, seconds since it was sent) of a picture."""
    cells = rgb.mean(axis=2).reshape(4, BLOCK, BITS, BLOCK)[:, 4:-4, :, 4:-4].mean(axis=(1, 3)) > 127
    number, low, high = ((row * (1 << np.arange(BITS))).sum() for row in cells[:3])
    now = round(time.time() * 1000) & 0xFFFFFFFF
    return int(number), ((now - int(low) - (int(high) << 16)) & 0xFFFFFFFF) / 1000


def paced(fps: float) -> Iterator[tuple[int, Pixels]]:
    begin, number = time.monotonic(), 0
    while True:
        time.sleep(max(0.0, begin + number / fps - time.monotonic()))
        yield number, stamp(number)
        number += 1


def encoder(stream: Any, gop: int) -> None:
    stream.height, stream.width = SIZE
    stream.pix_fmt = "yuv420p"
    stream.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "g": str(gop),
        "keyint_min": str(gop),
        "crf": "18",
        "x264-params": "scenecut=0",
    }


def frame_of(picture: Pixels, number: int, fps: Fraction) -> Any:
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame.pts, frame.time_base = number, 1 / fps
    return frame


def send(url: str, kind: str, fps: float, gop: int, claimed: Fraction, tone: bool) -> None:
    options = {"rtsp": {"rtsp_transport": "tcp"}, "mpegts": {"mpegts_flags": "resend_headers", "pat_period": "0.2"}}
    with av.open(url, "w", format=kind, options=options.get(kind, {})) as out:
        video: Any = out.add_stream("h264", rate=claimed)
        encoder(video, gop)
        sound: Any = out.add_stream("aac", rate=RATE) if tone else None
        if tone:
            sound.layout = "mono"
        sent = 0
        for number, picture in paced(fps):
            out.mux(video.encode(frame_of(picture, number, claimed)))
            while tone and sent < number / fps * RATE:
                wave = 0.3 * np.sin(2 * np.pi * 440 * (sent + np.arange(1024)) / RATE)
                block: Any = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = RATE, sent, Fraction(1, RATE)
                out.mux(sound.encode(block))
                sent += 1024


class Visit(http.server.BaseHTTPRequestHandler):
    """One visitor gets the stream until he leaves."""

    kind, fps, gop = "mjpeg", 10.0, 10

    def do_GET(self) -> None:
        self.send_response(200)
        if self.kind == "mjpeg":
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        else:
            self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        try:
            self._mjpeg() if self.kind == "mjpeg" else self._h264()
        except OSError:
            # he left
            return

    def _mjpeg(self) -> None:
        for _, picture in paced(self.fps):
            data = bytes(cv2.imencode(".jpg", picture)[1])
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def _h264(self) -> None:
        codec: Any = av.CodecContext.create("h264", "w")
        encoder(codec, self.gop)
        codec.framerate, codec.time_base = Fraction(25), Fraction(1, 25)
        for number, picture in paced(self.fps):
            for packet in codec.encode(frame_of(picture, number, Fraction(25))):
                self.wfile.write(bytes(packet))

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def main() -> None:
    target, kind, fps, gop = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    claimed = Fraction(sys.argv[5]) if len(sys.argv) > 5 else Fraction(fps).limit_denominator(1001)
    if target.isdigit():
        Visit.kind, Visit.fps, Visit.gop = kind, fps, gop
        http.server.ThreadingHTTPServer(("127.0.0.1", int(target)), Visit).serve_forever()
    send(target, kind, fps, gop, claimed, len(sys.argv) > 6 and sys.argv[6] == "tone")


if __name__ == "__main__":
    main()
