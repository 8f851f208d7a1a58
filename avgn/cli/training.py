"""avgn synthesize, shard, train, convert."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avgn.cli.config_file import config_action
from avgn.cli.fields import add_fields, add_overrides
from avgn.cli.options import make_parser, parameters_as_options, parse_range, parse_size, to_underscores
from avgn.runtime.errors import InputError


def synthesize(argv: Sequence[str]) -> None:
    parser = make_parser("synthesize", "Render procedural scenes with their whole truth.")
    parser.add_argument("out", type=str, help="new or empty folder")
    parser.add_argument("--scenes", type=int, required=True, help="how many")
    parser.add_argument("--sources", type=str, default="0-3", help="sounding things of a scene: N or MIN-MAX")
    parser.add_argument("--silent", type=str, default="0-2", help="silent visible things of a scene: N or MIN-MAX")
    parser.add_argument("--off-screen", type=float, default=0.15, help="chance that a sounding thing is not visible")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same scenes")
    parser.add_argument("--split", type=str, default="train", help="train, val or test: disjoint parameters")
    parser.add_argument("--size", type=str | None, default=None, help="WIDTHxHEIGHT; default: varied")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the sound of a still scene")
    parser.add_argument("--video", type=float | None, default=None, help="write MP4 videos of this many seconds")
    parser.add_argument(
        "--layout",
        type=str | None,
        default=None,
        help="lay the scenes out as a public data set: MUSIC, VGGSound, VGGSound-Instruments (sources: 1, duets: 2)",
    )
    parser.add_argument("--test-scenes", type=int, default=60, help="with --layout: scenes of its test lists")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(argv)
    if args.layout is not None:
        _synthesize_layout(args)
        return
    from avgn.progress import Progress
    from avgn.scenes import SceneConfig, synthesize

    config = SceneConfig(
        split=args.split,
        sources=parse_range("--sources", args.sources),
        silent=parse_range("--silent", args.silent),
        off_screen=args.off_screen,
        size=None if args.size is None else parse_size("--size", args.size),
        seconds=args.seconds,
    )
    with Progress("scenes", args.scenes) as progress:
        manifest = synthesize(
            Path(args.out),
            scenes=args.scenes,
            config=config,
            seed=args.seed,
            jobs=args.jobs,
            video_seconds=args.video,
            progress=progress,
        )
    print(manifest)


def _synthesize_layout(args: Any) -> None:
    from avgn.reproduce.layouts import Sizes, write_layout

    if args.video is not None:
        raise InputError("--layout writes stills: leave out --video")
    silent = parse_range("--silent", args.silent)
    sizes = Sizes(
        train=args.scenes,
        test=args.test_scenes,
        silent=silent[0],
        size=None if args.size is None else parse_size("--size", args.size),
        seconds=args.seconds,
    )
    write_layout(Path(args.out), args.layout, sizes, seed=args.seed, jobs=args.jobs)
    print(args.out)


def train(argv: Sequence[str]) -> None:
    from avgn.config import PRESETS, READY_PRESETS

    parser = make_parser("train", "Train a localizer from a manifest.")
    parser.add_argument("--config", action=config_action(), help="YAML file with any of these options")
    parser.add_argument("manifest", type=str, help="training manifest, or a folder of shards")
    parser.add_argument("--validation", type=str | None, default=None, help="validation manifest")
    parser.add_argument("--output", type=str, required=True, help="new folder for the checkpoint")
    parser.add_argument("--preset", type=str, default="avgn-resnet18", help=", ".join([*PRESETS, *READY_PRESETS]))
    parser.add_argument("--system", type=str | None, default=None, help="what is trained: see avgn models")
    parser.add_argument("--encoders", type=str | None, default=None, help="resnet18, or world: EfficientNet and YAMNet")
    parser.add_argument("--resume", action="store_true", help="go on from the output's last checkpoint")
    parser.add_argument("--threads", type=int | None, default=None, help="CPU threads of PyTorch")
    _add_settings(parser)
    args = parser.parse_args(to_underscores(argv))
    with parameters_as_options(parser):
        _train(args)


def _add_settings(parser: Any) -> None:
    """Add the options of training, and those that override entries of the preset."""
    from avgn.config import IN_FILES, Config
    from avgn.training.config import NESTED, TrainConfig

    add_fields(parser.add_argument_group("training"), TrainConfig, leave_out=tuple(NESTED))
    for place, kind in NESTED.items():
        add_fields(parser.add_argument_group(place), kind)
    model = parser.add_argument_group("model", "entries of the preset to override")
    add_overrides(model, Config, "model", leave_out=("name", "classes", "system"))
    for name, old in IN_FILES.items():
        model.add_argument(f"--model.{old}", type=str | None, default=None, help=f"old name of --model.{name}")


def _train(args: Any) -> None:
    from avgn.config import preset
    from avgn.runtime.manifest import read_manifest
    from avgn.training.config import TrainConfig

    # before PyTorch is imported, which takes longer than noticing that the manifest is unusable
    validation = None if args.validation is None else read_manifest(args.validation)
    manifest: Any
    if Path(args.manifest).is_dir():
        from avgn.data.shards import read_shards

        manifest = read_shards(Path(args.manifest))
    else:
        manifest = read_manifest(args.manifest)
    from avgn.training.fit import train

    if args.threads is not None:
        if args.threads < 1:
            raise InputError(f"--threads must be at least 1, got {args.threads}: leave it out for all cores")
        import torch

        torch.set_num_threads(args.threads)
    overrides = {name: value for name, value in vars(args.model).items() if value is not None}
    if args.system is not None:
        overrides["system"] = args.system
    if args.encoders is not None:
        overrides["encoders"] = args.encoders
    try:
        config = preset(args.preset, classes=manifest.classes, **overrides)
        settings = TrainConfig.from_options(**{name: args[name] for name in TrainConfig().to_dict()})
    except ValueError as error:
        raise InputError(str(error)) from None
    print(train(config, manifest, validation, args.output, settings, resume=args.resume))


def shard(argv: Sequence[str]) -> None:
    parser = make_parser("shard", "Pack a manifest's scenes into WebDataset shards, which avgn train streams.")
    parser.add_argument("manifest", type=str, help="manifest whose scenes are packed")
    parser.add_argument("out", type=str, help="new or empty folder")
    parser.add_argument("--megabytes", type=int, default=256, help="size of a shard")
    args = parser.parse_args(argv)
    from avgn.data.shards import write_shards
    from avgn.progress import Progress
    from avgn.runtime.manifest import read_manifest

    manifest = read_manifest(args.manifest)
    with Progress("scenes", len(manifest.items)) as progress:
        print(write_shards(manifest, Path(args.out), megabytes=args.megabytes, progress=progress))


def convert(argv: Sequence[str]) -> None:
    parser = make_parser("convert", "Turn a checkpoint in the published AVGN format into one of this package.")
    parser.add_argument("released", type=str, help="the published .pth file")
    parser.add_argument("out", type=str, help="new or empty folder")
    parser.add_argument(
        "--classes", type=str | None, default=None, help="a text file, one class a line, in token order"
    )
    parser.add_argument(
        "--metadata", type=str | None, default=None, help="the training list: its sorted classes are used"
    )
    args = parser.parse_args(argv)
    from avgn.convert import classes_of_list, convert_released, read_classes

    if args.classes and args.metadata:
        raise InputError("--classes and --metadata both name the classes: give one of them")
    names = read_classes(args.classes) if args.classes else classes_of_list(args.metadata) if args.metadata else None
    print(convert_released(args.released, args.out, names))
