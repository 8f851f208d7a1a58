"""avgn localize --manifest: the items of a collection in place of one video."""

from __future__ import annotations

import sys
from typing import Any

from avgn.runtime.errors import FailureError, InputError
from avgn.runtime.texts import plain, printable

# options of the other kind, with their defaults
FOR_COLLECTIONS = {"workers": 1, "cluster": None, "address": None, "parquet": None, "maps": None, "strict": False}
FOR_VIDEOS = {
    "output": None,
    "csv": None,
    "seconds": None,
    "microphone": None,
    "camera_size": None,
    "camera_fps": None,
    "show": False,
    "profile": None,
    "audio": None,
    "start": None,
    "duration": None,
    "every": None,
    "threshold": None,
    "live": False,
    "no_live": False,
}


def add_options(parser: Any) -> None:
    group = parser.add_argument_group("collections")
    group.add_argument(
        "--manifest", type=str | None, default=None, help="localize the items of this manifest instead of VIDEO"
    )
    group.add_argument(
        "--workers", type=int, default=1, help="processes here, or actors of a cluster, with an engine each"
    )
    group.add_argument(
        "--cluster", type=str | None, default=None, help="ray: run through Ray Data, here or at --address"
    )
    group.add_argument(
        "--address", type=str | None, default=None, help="address of a running Ray cluster (default: RAY_ADDRESS)"
    )
    group.add_argument(
        "--parquet", type=str | None, default=None, help="write the results as Parquet files into this folder"
    )
    group.add_argument(
        "--maps", type=str | None, default=None, help="write the maps of every still into this folder, as float16 .npz"
    )
    group.add_argument("--strict", action="store_true", help="end with exit status 1 if an item was left out")


def refuse_options(args: Any) -> None:
    """Raise InputError for neither a video nor a manifest, for both, and for what only the other one takes."""
    if args.manifest is None and args.video is None:
        raise InputError("give a VIDEO, or the items of a collection with --manifest: see avgn localize --help")
    if args.manifest is None:
        _refuse(args, FOR_COLLECTIONS, f"goes with --manifest: leave it out for {args.video}")
        return
    if args.more:
        raise InputError(f"--manifest names the items: leave out {args.video} and {args.more[0]}")
    if args.video is not None:
        raise InputError(f"VIDEO {args.video} and --manifest {args.manifest} exclude each other: leave one out")
    _refuse(args, FOR_VIDEOS, "is for a video: leave it out with --manifest")


def localize_manifest(args: Any) -> None:
    """Localize the items of a manifest, for which `refuse_options` found nothing wrong."""
    from avgn.progress import Progress
    from avgn.runtime.collections import localize_collection
    from avgn.runtime.outputs import find_place, takes_stdout

    is_direct = args.json is not None and find_place(args.json).is_direct
    try:
        with Progress("items") as progress:
            summary = localize_collection(
                args.bundle,
                args.manifest,
                json_path=args.json,
                parquet=args.parquet,
                maps=args.maps,
                workers=args.workers,
                cluster=args.cluster,
                address=args.address,
                backend=args.backend,
                precision=args.precision,
                threads=args.threads,
                audio_track=args.audio_track,
                progress=progress,
            )
    except KeyboardInterrupt:
        if not is_direct:
            where = args.json or args.parquet
            print(f"what is done is kept beside {where}: run the same command again to continue", file=sys.stderr)
        raise
    print(printable("\n".join(summary.lines())), file=sys.stderr if takes_stdout(args.json) else sys.stdout)
    warning = summary.warning()
    if warning is not None:
        if args.strict:
            raise FailureError(warning)
        print(f"avgn: {plain(warning)}", file=sys.stderr)


def _refuse(args: Any, options: dict[str, Any], sentence: str) -> None:
    for name, default in options.items():
        if getattr(args, name) != default:
            raise InputError(f"--{name.replace('_', '-')} {sentence}")
