"""avgn localize, devices, serve."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from avgn.cli import collections, excerpts, several
from avgn.cli.options import add_engine_options, make_parser, parse_size, split_names
from avgn.runtime.errors import InputError
from avgn.runtime.trace import tracing


def localize(argv: Sequence[str]) -> None:
    parser = make_parser("localize", "Find the sounding objects of a video file, a network stream or a collection.")
    parser.add_argument("bundle", type=str, help="bundle folder or the name tiny")
    parser.add_argument(
        "video",
        type=str | None,
        nargs="?",
        default=None,
        help="file; an address: rtsp, udp, http ...; camera:0, camera:/dev/video0",
    )
    several.add_options(parser)
    collections.add_options(parser)
    excerpts.add_options(parser)
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="overlay video (MP4); with several videos a folder, which gets the JSON lines as well",
    )
    parser.add_argument(
        "--json",
        type=str | None,
        default=None,
        help="results, one JSON line a frame, or an item of a manifest; - for standard output (streams)",
    )
    parser.add_argument(
        "--csv",
        type=str | None,
        default=None,
        help="events, one a line: class, start, end, share on screen, mean place, frames",
    )
    parser.add_argument("--seconds", type=float | None, default=None, help="live sources: end after so many")
    parser.add_argument(
        "--microphone",
        type=str | None,
        default=None,
        help="beside a camera: index, name, or none; else the default",
    )
    parser.add_argument("--camera-size", type=str | None, default=None, help="WIDTHxHEIGHT to ask the camera for")
    parser.add_argument("--camera-fps", type=float | None, default=None, help="frames a second to ask the camera for")
    parser.add_argument("--show", action="store_true", help="live sources: a window; Escape or q ends the run")
    parser.add_argument("--profile", type=str | None, default=None, help="write every stage's times as a Chrome trace")
    parser.add_argument(
        "--audio", type=str | None, default=None, help="a file whose sound is heard in place of the video's own"
    )
    add_engine_options(parser)
    args = parser.parse_args(argv)
    if args.threshold is not None:
        args.bundle = excerpts.with_threshold(args.bundle, args.threshold)
    if several.is_several(args):
        with tracing(args.profile):
            several.localize_several(args, excerpts.chosen(args))
        return
    if args.manifest is not None:
        collections.localize_manifest(args)
        return
    collections.refuse_options(args)
    from avgn.runtime.localize import localize_file
    from avgn.runtime.sources.devices import is_camera
    from avgn.runtime.sources.url import is_url

    for name in () if is_camera(args.video) else ("microphone", "camera_size", "camera_fps"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} goes with a camera: give camera:0 in place of {args.video}")
    if is_url(args.video) or is_camera(args.video):
        with tracing(args.profile):
            _localize_live(args)
        return
    if args.seconds is not None:
        raise InputError("--seconds ends a live source: leave it out for a file")
    if args.show:
        raise InputError("--show is for live sources: write a file's overlay with --output and play it")
    with tracing(args.profile):
        summary = localize_file(
            args.bundle,
            args.video,
            output=args.output,
            json_path=args.json,
            csv_path=args.csv,
            audio=args.audio,
            backend=args.backend,
            precision=args.precision,
            threads=args.threads,
            show_progress=sys.stderr.isatty(),
            **excerpts.chosen(args),
        )
    for warning in summary.warnings:
        print(f"avgn: {warning}", file=sys.stderr)
    print("\n".join(summary.lines()))


def _localize_live(args: Any) -> None:
    from avgn.runtime.live_run import localize_live, stats_lines
    from avgn.runtime.sources.devices import PREFIX, CameraSource, is_camera

    if args.audio is not None:
        raise InputError(f"--audio is for video files: leave it out for the stream {args.video}")
    excerpts.refuse_live(args)
    source: str | CameraSource = args.video
    if is_camera(args.video):
        microphone = args.microphone
        source = CameraSource(
            args.video.removeprefix(PREFIX),
            int(microphone) if microphone is not None and microphone.isdigit() else microphone,
            size=None if args.camera_size is None else parse_size("--camera-size", args.camera_size),
            fps=args.camera_fps,
            sound=microphone != "none",
        )
    stats = localize_live(
        args.bundle,
        source,
        json_path=args.json,
        csv_path=args.csv,
        output=args.output,
        show=args.show,
        seconds=args.seconds,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        report=lambda message: print(message, file=sys.stderr),
    )
    print("\n".join(stats_lines(stats)), file=sys.stderr)


def devices(argv: Sequence[str]) -> None:
    parser = make_parser("devices", "The cameras and microphones of this machine.")
    parser.parse_args(argv)
    from avgn.runtime.sources.devices import list_devices

    found = list_devices()
    for device in found:
        print(f"{device.kind:11}{device.index:3}  {device.name}  {device.detail}".rstrip())
    for kind in ("camera", "microphone"):
        if not any(device.kind == kind for device in found):
            print(f"no {kind}")


def serve_page(argv: Sequence[str]) -> None:
    parser = make_parser("serve", "A page that localizes what the visitor's camera and microphone, or a video, give.")
    parser.add_argument("bundle", type=str, help="bundle folder or the name tiny")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="any but this machine's own needs --token")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument(
        "--token", type=str | None, default=os.environ.get("AVGN_TOKEN"), help="what visitors must know; or AVGN_TOKEN"
    )
    parser.add_argument("--tls-cert", type=str | None, default=None, help="PEM certificate: the page comes by https")
    parser.add_argument("--tls-key", type=str | None, default=None, help="its PEM key")
    parser.add_argument(
        "--allow-origin", type=str | None, default=None, help="comma-separated: other pages that may connect"
    )
    parser.add_argument("--max-sessions", type=int, default=8, help="visitors at a time")
    parser.add_argument("--idle-timeout", type=float, default=30.0, help="seconds without a message")
    add_engine_options(parser)
    args = parser.parse_args(argv)
    from avgn.runtime.web.limits import Limits
    from avgn.runtime.web.server import serve

    serve(
        args.bundle,
        host=args.host,
        port=args.port,
        token=args.token,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        origins=split_names(args.allow_origin or ""),
        limits=Limits(sessions=args.max_sessions, idle=args.idle_timeout),
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        report=lambda message: print(message, flush=True),
    )
