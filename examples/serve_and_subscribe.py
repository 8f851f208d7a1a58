"""Serve a bundle, send a video as a visitor would, print the answers: python examples/serve_and_subscribe.py VIDEO

`runtime/web/wire.py` describes the messages; without a token, `avgn serve` answers this machine alone.
"""

import json
import subprocess
import sys
import time

import cv2
from websockets.sync.client import connect

from avgn.runtime import open_media
from avgn.runtime.media import AudioBlock, VideoFrame
from avgn.runtime.web.wire import FRAME, HEADER, SAMPLES

serve = [sys.executable, "-m", "avgn", "serve", "--port", "0"]
server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
try:
    address = server.stdout.readline().strip()
    with connect(address.replace("http", "ws") + "stream") as socket:
        socket.send(json.dumps({"type": "hello", "version": 1}))
        print("classes:", *(each["label"] for each in json.loads(socket.recv())["classes"]))
        begin = time.monotonic()
        for event in open_media(sys.argv[1]).events(lookahead=0.1):
            if isinstance(event, AudioBlock):
                pcm = (event.samples.mean(axis=1) * 32767).astype("<i2")
                socket.send(HEADER.pack(SAMPLES, event.rate, event.time) + pcm.tobytes())
            elif isinstance(event, VideoFrame):
                time.sleep(max(0.0, begin + event.time - time.monotonic()))
                jpeg = cv2.imencode(".jpg", cv2.resize(event.rgb[:, :, ::-1], (320, 240)))[1]
                socket.send(HEADER.pack(FRAME, 0, event.time) + jpeg.tobytes())
                result = json.loads(socket.recv())
                print(f"{result['time']:.2f} s:", *(source["label"] for source in result["sources"]))
finally:
    server.terminate()
    server.wait()
