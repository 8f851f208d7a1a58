"""avgn localize, devices, serve."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avgn.cli import collections, excerpts, several
from avgn.cli.chosen import bundle_or_default, split_bundle
from avgn.cli.options import add_engine_options, load_localizer, make_parser, parse_size, split_names
from avgn.runtime.errors import InputError
from avgn.runtime.texts import plain, printable
from avgn.runtime.trace import tracing


def _localize_parser() -> Any:
    """Declare the options."""
    parser = make_parser("localize", "Find the sounding objects of a video file, a network stream or a collection.")
    parser.add_argument(
        "words",
        metavar="[BUNDLE] VIDEO",
        type=str,
        nargs="*",
        default=[],
        help="a bundle folder, or the name world or tiny (left out: world); then a file, an address (rtsp, udp, "
        "http ...) or a camera (camera:0, 0 or /dev/video0), or several files and folders, whose outputs then go to a "
        "folder",
    )
    collections.add_options(parser)
    excerpts.add_options(parser)
    parser.add_argument(
        "--output",
        type=str | None,
        default=None,
        help="overlay video: .mp4, .mkv, .webm, .mov, .avi or .gif; with several videos a folder, which gets "
        "the JSON lines "
        "as well",
    )
    parser.add_argument(
        "--json",
        type=str | None,
        default=None,
        help="write the results: one JSON line for each frame, or for each item of a manifest; - for standard output",
    )
    parser.add_argument(
        "--csv",
        type=str | None,
        default=None,
        help="write events, one a line: class, start, end, share on screen, mean place, frames; - for standard output",
    )
    _add_live_options(parser)
    parser.add_argument(
        "--profile", type=str | None, default=None, help="write the times of every stage as a Chrome trace"
    )
    parser.add_argument("--audio", type=str | None, default=None, help="a file whose sound replaces the video's own")
    parser.add_argument(
        "--audio-track",
        type=str | None,
        default=None,
        help="which sound track of a file: its number, from 1, or its language, such as eng (default: the "
        "file's default track)",
    )
    add_engine_options(parser)
    return parser


def _add_live_options(parser: Any) -> None:
    """Declare what belongs to cameras, microphones and addresses."""
    parser.add_argument("--seconds", type=float | None, default=None, help="live sources: stop after this many seconds")
    parser.add_argument(
        "--microphone",
        type=str | None,
        default=None,
        help="with a camera: index or name of a microphone, or none (default: the system's). With an address: "
        "use it in place of "
        "the address's own sound",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="read an address as a live stream: newest frame first, reconnecting when it ends",
    )
    parser.add_argument("--no-live", action="store_true", help="read an address once and to its end, every frame")
    parser.add_argument(
        "--follow",
        action="store_true",
        help="let an address redirect to other hosts, and a local playlist name other files",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="https addresses: accept a server whose certificate can't be verified"
    )
    parser.add_argument("--camera-size", type=str | None, default=None, help="WIDTHxHEIGHT to request from the camera")
    parser.add_argument(
        "--camera-fps", type=float | None, default=None, help="frames a second to request from the camera"
    )
    parser.add_argument("--show", action="store_true", help="live sources: show a window; Escape or q ends the run")


def localize(argv: Sequence[str]) -> None:
    args = _localize_parser().parse_args(argv)
    named, videos = split_bundle(args.words, is_alone=args.manifest is not None)
    args.video, args.more = (videos[0] if videos else None), videos[1:]
    collections.refuse_options(args)
    args.bundle = bundle_or_default(named)
    if args.threshold is not None:
        args.bundle = excerpts.with_threshold(args.bundle, args.threshold)
    if several.is_several(args) or args.manifest is not None:
        _refuse_trust(args, "one video or address")
    if several.is_several(args):
        with tracing(args.profile):
            several.localize_several(args, excerpts.chosen(args) | {"audio_track": args.audio_track})
        return
    if args.manifest is not None:
        collections.localize_manifest(args)
        return
    from avgn.runtime.followers import is_follower
    from avgn.runtime.sources.address import is_url, local_path, look_at, refuse_unread
    from avgn.runtime.sources.devices import camera_name, is_camera
    from avgn.runtime.sources.finished import gathered
    from avgn.runtime.sources.web import Trust

    args.video = camera_name(local_path(args.video))
    refuse_unread(args.video)
    if args.audio is not None:
        args.audio = local_path(args.audio)
        if is_url(args.audio):
            raise InputError(f"--audio takes a file, not the address {args.audio}: fetch it first")
    for name in () if is_camera(args.video) else ("camera_size", "camera_fps"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} goes with a camera: give camera:0 in place of {args.video}")
    if (args.live or args.no_live) and (args.live == args.no_live or not is_url(args.video)):
        raise InputError(
            f"--live and --no-live are for an address and exclude each other, got {args.video}: leave one or both out"
        )
    if args.microphone is not None and not is_camera(args.video) and not is_url(args.video):
        raise InputError(f"--microphone goes with a camera or a stream: give camera:0 in place of {args.video}")
    trust = Trust(follow=args.follow, insecure=args.insecure)
    if is_camera(args.video):
        _refuse_trust(args, "an address or a playlist")
    address = (
        look_at(args.video, args.live if args.live != args.no_live else None, trust) if is_url(args.video) else None
    )
    if is_camera(args.video) or (address is not None and address.is_live):
        with tracing(args.profile):
            _localize_live(args, trust)
    elif address is not None:
        _localize_finished(args, address)
    elif args.follow and is_follower(Path(args.video)):
        with gathered(Path(args.video)) as path:
            _localize_file(args, str(path), args.video)
    else:
        _localize_file(args, args.video)


def _refuse_trust(args: Any, what: str) -> None:
    for name in ("follow", "insecure"):
        if getattr(args, name):
            raise InputError(f"--{name} goes with {what}: leave it out")


def _localize_finished(args: Any, address: Any) -> None:
    from avgn.runtime.sources.finished import fetched

    for name in ("seconds", "microphone"):
        if getattr(args, name) is not None:
            raise InputError(
                f"--{name} is for live streams, but {address} is a finished one ({address.why}): "
                "leave it out, or add --live"
            )
    with fetched(address, lambda message: print(f"avgn: {plain(message)}", file=sys.stderr)) as path:
        _localize_file(args, str(path), str(address))


def _localize_file(args: Any, video: str, name: str = "") -> None:
    """Localize a file; `name` is what its user calls it, where that is something else."""
    from avgn.runtime.file_run import localize_file
    from avgn.runtime.outputs import takes_stdout
    from avgn.runtime.trace import tracing

    if args.seconds is not None:
        raise InputError("--seconds ends a live source: leave it out for a file")
    if args.show:
        raise InputError("--show is for live sources: write a file's overlay with --output and play it")
    with tracing(args.profile):
        summary = localize_file(
            load_localizer(args),
            video,
            output=args.output,
            json_path=args.json,
            csv_path=args.csv,
            audio=args.audio,
            audio_track=args.audio_track,
            show_progress=sys.stderr.isatty(),
            **excerpts.chosen(args),
        )
    for warning in summary.warnings:
        print(f"avgn: {plain(warning.replace(video, name or video))}", file=sys.stderr)
    taken = takes_stdout(args.output, args.json, args.csv)
    print(printable("\n".join(summary.lines())), file=sys.stderr if taken else sys.stdout)


def _localize_live(args: Any, trust: Any) -> None:
    from avgn.runtime.live_run import ATTEMPTS, localize_live, stats_lines
    from avgn.runtime.sources import Source
    from avgn.runtime.sources.devices import PREFIX, CameraSource, is_camera
    from avgn.runtime.sources.url import UrlSource

    if args.audio is not None:
        raise InputError(f"--audio is for video files: leave it out for the stream {args.video}")
    if args.audio_track is not None:
        raise InputError(f"--audio-track is for video files: leave it out for the stream {args.video}")
    excerpts.refuse_live(args)
    source: str | Source = args.video
    microphone = args.microphone
    chosen = int(microphone) if microphone is not None and microphone.isdigit() else microphone
    if is_camera(args.video):
        source = CameraSource(
            args.video.removeprefix(PREFIX),
            chosen,
            size=None if args.camera_size is None else parse_size("--camera-size", args.camera_size),
            fps=args.camera_fps,
            audio=microphone != "none",
        )
    elif microphone not in (None, "none"):
        from avgn.runtime.sources.beside import MicrophoneBeside

        source = MicrophoneBeside(UrlSource(args.video, attempts=ATTEMPTS, trust=trust), chosen)
    else:
        source = UrlSource(args.video, attempts=ATTEMPTS, trust=trust)
    stats = localize_live(
        load_localizer(args),
        source,
        json_path=args.json,
        csv_path=args.csv,
        output=args.output,
        show=args.show,
        seconds=args.seconds,
        report=lambda message: print(plain(message), file=sys.stderr),
    )
    print("\n".join(stats_lines(stats)), file=sys.stderr)


def devices(argv: Sequence[str]) -> None:
    parser = make_parser("devices", "List the cameras and microphones of this machine.")
    parser.parse_args(argv)
    from avgn.runtime.sources.devices import list_devices

    found = list_devices()
    for device in found:
        print(f"{device.kind:11}{device.index:3}  {device.name}  {device.detail}".rstrip())
    for kind in ("camera", "microphone"):
        if not any(device.kind == kind for device in found):
            print(f"no {kind}")


def serve_page(argv: Sequence[str]) -> None:
    parser = make_parser(
        "serve", "Serve a web page that localizes the sounds of its visitor's camera and microphone, or of a video."
    )
    parser.add_argument(
        "bundle",
        type=str | None,
        nargs="?",
        default=None,
        help="bundle folder, or the name world or tiny (left out: world)",
    )
    parser.add_argument(
        "--host", type=str, default="127.0.0.1", help="address to listen on; any but this machine's own needs --token"
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes any free one")
    parser.add_argument(
        "--token",
        type=str | None,
        default=None,
        help="the secret that visitors must know; safer in --token-file or AVGN_TOKEN",
    )
    parser.add_argument("--token-file", type=str | None, default=None, help="a file whose first line is the token")
    parser.add_argument(
        "--tls-cert", type=str | None, default=None, help="PEM certificate; the page is then served by https"
    )
    parser.add_argument("--tls-key", type=str | None, default=None, help="the certificate's PEM key")
    parser.add_argument(
        "--allow-origin", type=str | None, default=None, help="comma-separated origins of other pages that may connect"
    )
    parser.add_argument(
        "--max-sessions", type=int, default=8, help="how many visitors may send pictures or sound at a time"
    )
    parser.add_argument(
        "--idle-timeout",
        type=float,
        default=30.0,
        help="seconds without pictures or sound after which a visitor's place is freed, or without any message "
        "after which the "
        "connection is closed",
    )
    parser.add_argument(
        "--teach",
        action="store_true",
        help="let visitors teach the bundle classes of their own, which all of them have then (world; docs/teach.md)",
    )
    parser.add_argument(
        "--teach-output",
        type=str | None,
        default=None,
        help="with --teach: a new folder that always holds the bundle with what was taught",
    )
    add_engine_options(parser)
    args = parser.parse_args(argv)
    args.bundle = bundle_or_default(args.bundle)
    if args.teach_output is not None and not args.teach:
        raise InputError("--teach-output goes with --teach: give both, or leave it out")
    from avgn.runtime.web.limits import Limits
    from avgn.runtime.web.server import serve
    from avgn.runtime.web.token import choose_token

    localizer = load_localizer(args)
    with _teacher(args, localizer) as teacher:
        serve(
            localizer,
            host=args.host,
            port=args.port,
            token=choose_token(args.token, args.token_file),
            tls_cert=args.tls_cert,
            tls_key=args.tls_key,
            origins=split_names(args.allow_origin or ""),
            limits=Limits(sessions=args.max_sessions, idle=args.idle_timeout),
            teacher=teacher,
            report=lambda message: print(message, flush=True),
        )


@contextmanager
def _teacher(args: Any, localizer: Any) -> Iterator[Any]:
    """Yield who teaches the bundle, or None without --teach."""
    if not args.teach:
        yield None
        return
    from avgn.runtime.engines import ENGINES
    from avgn.runtime.localizer import Localizer
    from avgn.teach.bundles import ONNX
    from avgn.teach.classroom import Classroom

    if args.backend in ENGINES and ONNX not in ENGINES[args.backend].reads:
        raise InputError(f"--backend {args.backend} runs machine code, which can't be taught: leave it or --teach out")

    def load(bundle: Any) -> Localizer:
        return Localizer.load(bundle, args.backend, args.get("precision"), threads=args.get("threads"))

    with Classroom(localizer, load, args.teach_output) as teacher:
        yield teacher
