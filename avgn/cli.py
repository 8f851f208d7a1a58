"""The command line: one parser per sub-command, built when it is asked for; every room is imported lazily."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from avgn.runtime.errors import FailureError, InputError, MissingExtraError

if TYPE_CHECKING:
    from avgn.runtime.engines import Engine

Command = Callable[[Sequence[str]], None]

HELP = """usage: avgn COMMAND [OPTIONS]

Which things sound in a video, and where each is in the picture.

commands:
  synthesize OUT            render procedural scenes or videos with their whole truth
  train MANIFEST            train a localizer, written as a checkpoint folder
  evaluate MODEL MANIFEST   score a checkpoint or a bundle under named protocols
  export CHECKPOINT BUNDLE  freeze a checkpoint into verified graphs
  verify BUNDLE             compare a bundle's variants with their model again
  deploy SERVER BUNDLE OUT  lay a bundle out for triton-server
  convert RELEASED OUT      read a checkpoint in the published AVGN format
  localize BUNDLE VIDEO     find the sounding objects of a video file or a network stream
  devices                   list cameras and microphones
  demo                      localize the sources of a short rendered video
  doctor                    what is installed, and one test inference

avgn COMMAND --help describes a command. BUNDLE may be the name tiny: the model inside the package.
"""

MODULE_EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "lightning": "train",
    "safetensors": "train",
    "sklearn": "train",
    "scipy": "train",
    "tensorboard": "train",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "cv2": "runtime",
    "av": "runtime",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (failure), 2 (bad input) or 130 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        from avgn import __version__

        print(f"avgn {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        return _fail(f"unknown command {name!r}: use one of {', '.join(COMMANDS)}", 2)
    try:
        COMMANDS[name](arguments[1:])
    except InputError as error:
        return _fail(str(error), 2)
    except FailureError as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in MODULE_EXTRAS:
            raise
        return _fail(str(MissingExtraError(module, MODULE_EXTRAS[module])), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # whoever read our output has gone: nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _fail(message: str, status: int) -> int:
    print(f"avgn: {' '.join(message.split())}", file=sys.stderr)
    return status


def _parser(name: str, description: str) -> Any:
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            raise InputError(f"{' '.join(message.split())}: see avgn {name} --help")

    class Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Tables stay as they are."""

    return Parser(prog=f"avgn {name}", description=description, formatter_class=Formatter)


def _synthesize(argv: Sequence[str]) -> None:
    parser = _parser("synthesize", "Render procedural scenes with their whole truth.")
    parser.add_argument("out", type=str, help="new or empty folder")
    parser.add_argument("--scenes", type=int, required=True, help="how many")
    parser.add_argument("--sources", type=str, default="0-3", help="sounding things of a scene: N or MIN-MAX")
    parser.add_argument("--silent", type=str, default="0-2", help="silent visible things of a scene: N or MIN-MAX")
    parser.add_argument("--off-screen", type=float, default=0.15, help="chance that a sounding thing is not visible")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", type=str, default="train", help="train, val or test: disjoint parameters")
    parser.add_argument("--size", type=str | None, default=None, help="WIDTHxHEIGHT; default: varied")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the sound of a still scene")
    parser.add_argument("--video", type=float | None, default=None, help="write MP4 videos of this many seconds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    args = parser.parse_args(argv)
    from avgn.progress import Progress
    from avgn.scenes import SceneConfig, synthesize

    config = SceneConfig(
        split=args.split,
        sources=_range("--sources", args.sources),
        silent=_range("--silent", args.silent),
        off_screen=args.off_screen,
        size=None if args.size is None else _size("--size", args.size),
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


def _train(argv: Sequence[str]) -> None:
    from avgn.config import PRESETS, Config, preset
    from avgn.training.config import TrainConfig

    parser = _parser("train", "Train a localizer from a manifest.")
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument("manifest", type=str, help="training manifest")
    parser.add_argument("--validation", type=str | None, default=None, help="validation manifest")
    parser.add_argument("--output", type=str, required=True, help="new folder for the checkpoint")
    parser.add_argument("--preset", type=str, default="avgn-resnet18", help=", ".join(PRESETS))
    parser.add_argument("--resume", action="store_true", help="go on from the output's last checkpoint")
    parser.add_argument("--threads", type=int | None, default=None, help="CPU threads of PyTorch")
    parser.add_class_arguments(TrainConfig, as_group=True)
    hints = get_type_hints(Config)
    model = parser.add_argument_group("model", "entries of the preset to override")
    for entry in fields(Config):
        if entry.name not in ("name", "classes"):
            model.add_argument(f"--model.{entry.name}", type=hints[entry.name] | None, default=None)
    args = parser.parse_args(_dashes(argv))
    from avgn.runtime.manifest import read_manifest
    from avgn.training.fit import train

    manifest = read_manifest(args.manifest)
    validation = None if args.validation is None else read_manifest(args.validation)
    if args.threads is not None:
        if args.threads < 1:
            raise InputError(f"--threads must be at least 1, got {args.threads}: leave it out for all cores")
        import torch

        torch.set_num_threads(args.threads)
    overrides = {name: value for name, value in vars(args.model).items() if value is not None}
    try:
        config = preset(args.preset, classes=manifest.classes, **overrides)
        settings = TrainConfig(**{entry.name: args[entry.name] for entry in fields(TrainConfig)})
    except ValueError as error:
        raise InputError(str(error)) from None
    print(train(config, manifest, validation, args.output, settings, resume=args.resume))


def _evaluate(argv: Sequence[str]) -> None:
    parser = _parser("evaluate", "Score a checkpoint or a bundle under named protocols.")
    parser.add_argument("model", type=str, help="checkpoint folder, bundle folder or the name tiny")
    parser.add_argument("manifest", type=str)
    parser.add_argument("--protocol", type=str, default="source-wise,adaptive", help="comma-separated; also: video")
    parser.add_argument("--classes", type=str, default="given,predicted")
    parser.add_argument("--thresholds", type=str | None, default=None, help="validation manifest to calibrate on")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the 95 %% intervals, 0: none")
    parser.add_argument("--skip-bad", action="store_true", help="count unreadable items instead of stopping")
    parser.add_argument("--backend", type=str, default="auto")
    parser.add_argument("--json", type=str | None, default=None, help="write the results to this file")
    args = parser.parse_args(argv)
    import numpy as np

    from avgn.evaluation import evaluate, format_table
    from avgn.evaluation.calibration import calibrate
    from avgn.progress import Progress
    from avgn.runtime.manifest import read_manifest

    manifest = read_manifest(args.manifest, check_files=not args.skip_bad)
    protocols = _names(args.protocol)
    engine = load_engine(args.model, args.backend)
    thresholds = None
    if args.thresholds is not None:
        found = calibrate(engine, read_manifest(args.thresholds), disjoint_from=manifest)
        thresholds = (np.array(found.audio), np.array(found.visual))
    with Progress("items") as progress:
        results = evaluate(
            engine,
            manifest,
            protocols,
            _names(args.classes),
            thresholds=thresholds,
            bootstrap=args.bootstrap,
            skip_bad=args.skip_bad,
            progress=progress,
        )
    if args.json is not None:
        write_json(args.json, results)
    print(format_table(results))


def _export(argv: Sequence[str]) -> None:
    from avgn.export.formats import format_table

    parser = _parser("export", "Freeze a checkpoint into a bundle of verified graphs and engines.")
    parser.epilog = "formats:\n  " + "\n  ".join(format_table())
    parser.add_argument("checkpoint", type=str)
    parser.add_argument("bundle", type=str, help="new folder")
    parser.add_argument("--precision", type=str, default="fp32", help="comma-separated: fp32, fp16, int8-cpu, int8-gpu")
    parser.add_argument("--format", type=str, default="onnx", help="comma-separated: onnx, tensorrt, tensorrt-rtx")
    parser.add_argument("--calibration", type=str | None, default=None, help="manifest that int8 is calibrated on")
    parser.add_argument("--samples", type=int | None, default=None, help="how many of its items; default 64")
    parser.add_argument(
        "--guard", type=str | None, default=None, help="annotated manifest; default: what calibration leaves"
    )
    parser.add_argument(
        "--max-drop", type=float | None, default=None, help="points of CIoU@0.3 that a precision may cost; default 1"
    )
    parser.add_argument("--batch", type=str | None, default=None, help="MIN,OPT,MAX of an engine; default 1,1,16")
    parser.add_argument("--image-size", type=str | None, default=None, help="H,W; default: as trained")
    parser.add_argument("--compute-capability", type=str | None, default=None, help="for example 8.6,8.9,12.0")
    parser.add_argument("--opset", type=int | None, default=None, help="of the ONNX graphs; default 18")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is there")
    args = parser.parse_args(argv)
    from avgn.export.bundle import ExportOptions, export_bundle
    from avgn.runtime.manifest import read_manifest

    batch = None if args.batch is None else _integers("--batch", args.batch, 3)
    size = None if args.image_size is None else _integers("--image-size", args.image_size, 2)
    options = ExportOptions(
        precisions=tuple(_names(args.precision)),
        formats=tuple(_names(args.format)),
        opset=args.opset,
        calibration=None if args.calibration is None else read_manifest(args.calibration),
        samples=args.samples,
        guard=None if args.guard is None else read_manifest(args.guard),
        max_drop=args.max_drop,
        batch=None if batch is None else (batch[0], batch[1], batch[2]),
        image_size=None if size is None else (size[0], size[1]),
        compute_capabilities=None if args.compute_capability is None else tuple(_names(args.compute_capability)),
    )
    bundle = export_bundle(
        args.checkpoint,
        args.bundle,
        options,
        overwrite=args.overwrite,
        report=lambda message: print(message, file=sys.stderr),
    )
    for variant in bundle.info.variants:
        size_mb = sum((bundle.graph(variant, half)).stat().st_size for half in ("audio", "image")) / 1e6
        print(f"{variant.precision} {variant.engine} {variant.target} {size_mb:.1f} MB")
        if variant.verified is None:
            print("  not verified: it can't run here, and is compared with its ONNX graphs where it is first loaded")
        for name, value in (variant.verified or {}).items():
            print(f"  {name:26s} {value:.4g}")
    print(bundle.path)


def _verify(argv: Sequence[str]) -> None:
    parser = _parser("verify", "Compare the variants of a bundle with their model on every engine installed here.")
    parser.add_argument("bundle", type=str, help="bundle folder or the name tiny")
    parser.add_argument(
        "--checkpoint", type=str | None, default=None, help="the model; default: the bundle's fp32 ONNX graphs"
    )
    parser.add_argument("--manifest", type=str | None, default=None, help="annotated items to measure accuracy on")
    parser.add_argument("--json", type=str | None, default=None, help="write the rows to this file")
    args = parser.parse_args(argv)
    from avgn.export.recheck import recheck, recheck_table
    from avgn.runtime.manifest import read_manifest

    manifest = None if args.manifest is None else read_manifest(args.manifest)
    rows = recheck(args.bundle, checkpoint=args.checkpoint, manifest=manifest)
    if args.json is not None:
        write_json(args.json, rows)
    print("\n".join(recheck_table(rows)))
    bad = [row for row in rows if row["failure"]]
    if bad:
        raise FailureError("; ".join(str(row["failure"]) for row in bad))


def _deploy(argv: Sequence[str]) -> None:
    parser = _parser("deploy", "Lay a bundle out for a server: avgn deploy triton-server BUNDLE REPOSITORY.")
    parser.add_argument("server", type=str, help="triton-server")
    parser.add_argument("bundle", type=str, help="bundle folder or the name tiny")
    parser.add_argument("repository", type=str, help="the server's model repository")
    parser.add_argument("--precision", type=str | None, default=None)
    parser.add_argument("--engine", type=str, default="onnxruntime", help="onnxruntime or tensorrt")
    parser.add_argument("--max-batch", type=int, default=16)
    args = parser.parse_args(argv)
    if args.server != "triton-server":
        raise InputError(f"server {args.server!r} is not known: use triton-server")
    from avgn.export.triton_server import write_repository

    for folder in write_repository(
        args.bundle, args.repository, precision=args.precision, engine=args.engine, max_batch=args.max_batch
    ):
        print(folder)


def _convert(argv: Sequence[str]) -> None:
    parser = _parser("convert", "Turn a checkpoint in the published AVGN format into one of this package.")
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


def _localize(argv: Sequence[str]) -> None:
    parser = _parser("localize", "Find the sounding objects of a video file or a network stream.")
    parser.add_argument("bundle", type=str, help="bundle folder or the name tiny")
    parser.add_argument("video", type=str, help="file; an address: rtsp, udp, http ...; camera:0, camera:/dev/video0")
    parser.add_argument("--output", type=str | None, default=None, help="overlay video (MP4)")
    parser.add_argument(
        "--json", type=str | None, default=None, help="results, one JSON line a frame; - for standard output (streams)"
    )
    parser.add_argument("--csv", type=str | None, default=None, help="events: class, start, end, mean position")
    parser.add_argument("--seconds", type=float | None, default=None, help="end a live source after so long")
    parser.add_argument(
        "--microphone",
        type=str | None,
        default=None,
        help="beside a camera: index, name, or none; else the default",
    )
    parser.add_argument("--camera-size", type=str | None, default=None, help="WIDTHxHEIGHT to ask the camera for")
    parser.add_argument("--camera-fps", type=float | None, default=None, help="frames a second to ask the camera for")
    parser.add_argument("--audio", type=str | None, default=None, help="take the sound from this file")
    parser.add_argument("--backend", type=str, default="auto")
    parser.add_argument("--precision", type=str | None, default=None)
    parser.add_argument("--threads", type=int | None, default=None)
    args = parser.parse_args(argv)
    from avgn.runtime.localize import localize_file
    from avgn.runtime.sources.devices import is_camera
    from avgn.runtime.sources.url import is_url

    for name in () if is_camera(args.video) else ("microphone", "camera_size", "camera_fps"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} goes with a camera: give camera:0 in place of {args.video}")
    if is_url(args.video) or is_camera(args.video):
        _localize_live(args)
        return
    if args.seconds is not None:
        raise InputError("--seconds ends a live source: leave it out for a file")
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
    )
    for warning in summary.warnings:
        print(f"avgn: {warning}", file=sys.stderr)
    print("\n".join(summary.lines()))


def _localize_live(args: Any) -> None:
    from avgn.runtime.live_run import localize_live, stats_lines
    from avgn.runtime.sources.devices import PREFIX, CameraSource, is_camera

    for name in ("output", "audio"):
        if getattr(args, name) is not None:
            raise InputError(f"--{name} is for video files: leave it out for the stream {args.video}")
    source: str | CameraSource = args.video
    if is_camera(args.video):
        microphone = args.microphone
        source = CameraSource(
            args.video.removeprefix(PREFIX),
            int(microphone) if microphone is not None and microphone.isdigit() else microphone,
            size=None if args.camera_size is None else _size("--camera-size", args.camera_size),
            fps=args.camera_fps,
            sound=microphone != "none",
        )
    stats = localize_live(
        args.bundle,
        source,
        json_path=args.json,
        csv_path=args.csv,
        seconds=args.seconds,
        backend=args.backend,
        precision=args.precision,
        threads=args.threads,
        report=lambda message: print(message, file=sys.stderr),
    )
    print("\n".join(stats_lines(stats)), file=sys.stderr)


def _devices(argv: Sequence[str]) -> None:
    parser = _parser("devices", "The cameras and microphones of this machine.")
    parser.parse_args(argv)
    from avgn.runtime.sources.devices import list_devices

    found = list_devices()
    for device in found:
        print(f"{device.kind:11}{device.index:3}  {device.name}  {device.detail}".rstrip())
    for kind in ("camera", "microphone"):
        if not any(device.kind == kind for device in found):
            print(f"no {kind}")


def _demo(argv: Sequence[str]) -> None:
    parser = _parser("demo", "Localize the sources of a short rendered video.")
    parser.add_argument("--output", type=str, default="demo-out", help="folder for what the demo writes")
    parser.add_argument("--bundle", type=str, default="tiny")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args(argv)
    from avgn.demo import run_demo

    for line in run_demo(args.output, bundle=args.bundle, seconds=args.seconds, seed=args.seed):
        print(line)


def _doctor(argv: Sequence[str]) -> None:
    parser = _parser("doctor", "What is installed, and one test inference.")
    parser.add_argument("--bundle", type=str, default="tiny")
    args = parser.parse_args(argv)
    from avgn.doctor import examine

    for line in examine(args.bundle):
        print(line)


def load_engine(model: str, backend: str = "auto") -> Engine:
    """The engine of a checkpoint folder (PyTorch) or of a bundle (by `backend`)."""
    from avgn.runtime.bundle import BUNDLE_FILE, Bundle
    from avgn.runtime.engines import choose_engine

    folder = Path(model)
    if (folder / "config.json").is_file() and not (folder / BUNDLE_FILE).is_file():
        from avgn.checkpoint import load_model
        from avgn.engine import TorchEngine

        return TorchEngine(load_model(folder))
    return choose_engine(Bundle.load(model), backend)


def write_json(path: str, value: Any) -> None:
    """Write a JSON file that appears whole or not at all."""
    from avgn.runtime.files import write_whole

    write_whole(path, json.dumps(value, indent=1) + "\n")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _range(option: str, text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise InputError(f"{option} must be N or MIN-MAX, got {text!r}: for example 0-3") from None


def _size(option: str, text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise InputError(f"{option} must be WIDTHxHEIGHT, got {text!r}: for example 640x480") from None


def _integers(option: str, text: str, count: int) -> list[int]:
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        example = "1,4,16" if count == 3 else "224,224"
        raise InputError(f"{option} must be {count} whole numbers, got {text!r}: for example {example}")
    return values


def _dashes(argv: Sequence[str]) -> list[str]:
    """Options may be written with dashes or underscores; the configuration's own names have underscores."""
    return [
        "--" + part[2:].split("=")[0].replace("-", "_") + part[2 + len(part[2:].split("=")[0]) :]
        if part.startswith("--")
        else part
        for part in argv
    ]


COMMANDS: dict[str, Command] = {
    "synthesize": _synthesize,
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "verify": _verify,
    "deploy": _deploy,
    "convert": _convert,
    "localize": _localize,
    "devices": _devices,
    "demo": _demo,
    "doctor": _doctor,
}
