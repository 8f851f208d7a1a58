"""avgn export, verify, deploy."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from avgn.cli.options import Report, make_parser, parse_integers, split_names
from avgn.runtime.contract import HALVES
from avgn.runtime.errors import FailureError, InputError


def export(argv: Sequence[str]) -> None:
    from avgn.export.formats import format_table

    parser = make_parser("export", "Freeze a checkpoint into a bundle of verified graphs and engines.")
    parser.epilog = "formats:\n  " + "\n  ".join(format_table())
    parser.add_argument("checkpoint", type=str, help="folder that avgn train or avgn convert wrote")
    parser.add_argument("bundle", type=str, help="new folder")
    parser.add_argument("--precision", type=str, default="fp32", help="comma-separated: fp32, fp16, int8-cpu, int8-gpu")
    parser.add_argument(
        "--format", type=str, default="onnx", help="comma-separated: onnx, aoti, tensorrt, tensorrt-rtx"
    )
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

    batch = None if args.batch is None else parse_integers("--batch", args.batch, 3)
    size = None if args.image_size is None else parse_integers("--image-size", args.image_size, 2)
    options = ExportOptions(
        precisions=tuple(split_names(args.precision)),
        formats=tuple(split_names(args.format)),
        opset=args.opset,
        calibration=None if args.calibration is None else read_manifest(args.calibration),
        samples=args.samples,
        guard=None if args.guard is None else read_manifest(args.guard),
        max_drop=args.max_drop,
        batch=None if batch is None else (batch[0], batch[1], batch[2]),
        image_size=None if size is None else (size[0], size[1]),
        compute_capabilities=None if args.compute_capability is None else tuple(split_names(args.compute_capability)),
    )
    bundle = export_bundle(
        args.checkpoint,
        args.bundle,
        options,
        overwrite=args.overwrite,
        report=lambda message: print(message, file=sys.stderr),
    )
    for variant in bundle.info.variants:
        size_mb = sum((bundle.graph(variant, half)).stat().st_size for half in HALVES) / 1e6
        print(f"{variant.precision} {variant.engine} {variant.target} {size_mb:.1f} MB")
        if variant.verified is None:
            print("  not verified: it can't run here, and is compared with its ONNX graphs where it is first loaded")
        for name, value in (variant.verified or {}).items():
            print(f"  {name:26s} {value:.4g}")
    print(bundle.path)


def verify(argv: Sequence[str]) -> None:
    parser = make_parser("verify", "Compare the variants of a bundle with their model on every engine installed here.")
    parser.add_argument("bundle", type=str, help="bundle folder, or the name world or tiny")
    parser.add_argument(
        "--checkpoint", type=str | None, default=None, help="the model; default: the bundle's fp32 ONNX graphs"
    )
    parser.add_argument("--manifest", type=str | None, default=None, help="annotated items to measure accuracy on")
    parser.add_argument("--json", type=str | None, default=None, help="write the rows to this file")
    args = parser.parse_args(argv)
    from avgn.export.recheck import recheck, recheck_table
    from avgn.runtime.manifest import read_manifest

    report = Report(args.json)
    manifest = None if args.manifest is None else read_manifest(args.manifest)
    rows = recheck(args.bundle, checkpoint=args.checkpoint, manifest=manifest)
    report.write(rows)
    report.say("\n".join(recheck_table(rows)))
    bad = [row for row in rows if row["failure"]]
    if bad:
        raise FailureError("; ".join(str(row["failure"]) for row in bad))


def trust(argv: Sequence[str]) -> None:
    parser = make_parser(
        "trust", "Let the machine code of a bundle (its aoti packages) run on this machine, which has not built it."
    )
    parser.add_argument("bundle", type=str, help="bundle folder")
    parser.add_argument("--forget", action="store_true", help="refuse it again")
    args = parser.parse_args(argv)
    from avgn.runtime.bundle import Bundle
    from avgn.runtime.engines import trust as marks

    bundle = Bundle.load(args.bundle)
    count = (marks.forget if args.forget else marks.trust)(bundle.variants)
    if not count:
        raise InputError(f"bundle {bundle.path} holds no machine code: it runs without this command")
    what = f"{count} variant{'s' if count > 1 else ''} of machine code"
    say = ("is refused again" if count == 1 else "are refused again") if args.forget else "may run here"
    print(f"{what} {say}: {bundle.path}")


def deploy(argv: Sequence[str]) -> None:
    if argv and argv[0] == "web":
        deploy_web(argv[1:])
        return
    parser = make_parser(
        "deploy",
        "Lay a bundle out for a server, or as a web page that needs none.\n\n"
        "  avgn deploy triton-server BUNDLE REPOSITORY   the options below\n"
        "  avgn deploy web BUNDLE SITE                   avgn deploy web --help describes it",
    )
    parser.add_argument("server", type=str, help="triton-server")
    parser.add_argument("bundle", type=str, help="bundle folder, or the name world or tiny")
    parser.add_argument("repository", type=str, help="the server's model repository")
    parser.add_argument("--precision", type=str | None, default=None, help="the variants of this one alone; else all")
    parser.add_argument("--engine", type=str, default="onnxruntime", help="onnxruntime or tensorrt")
    parser.add_argument("--max-batch", type=int, default=16, help="largest batch that the server makes of requests")
    args = parser.parse_args(argv)
    if args.server != "triton-server":
        raise InputError(f"server {args.server!r} is not known: use triton-server or web")
    from avgn.export.triton_server import write_repository

    for folder in write_repository(
        args.bundle, args.repository, precision=args.precision, engine=args.engine, max_batch=args.max_batch
    ):
        print(folder)


def deploy_web(argv: Sequence[str]) -> None:
    parser = make_parser(
        "deploy web", "Lay a bundle out as a web page that runs in its visitor's browser: static files for any host."
    )
    parser.add_argument("bundle", type=str, help="bundle folder, or the name world or tiny")
    parser.add_argument("site", type=str, help="new folder")
    parser.add_argument(
        "--precision", type=str | None, default=None, help="which of its ONNX graphs; default: what suits browsers"
    )
    parser.add_argument(
        "--runtime",
        type=str | None,
        default=None,
        help="the folder dist of npm's onnxruntime-web; default: npm fetches it, once",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a site that is there")
    parser.add_argument("--serve", action="store_true", help="serve it on this machine when it is written, to try it")
    parser.add_argument("--port", type=int, default=8000, help="with --serve: port to listen on; 0 takes any free one")
    args = parser.parse_args(argv)
    from avgn.runtime.web.site import write_site
    from avgn.runtime.web.site_server import serve_site

    site = write_site(args.bundle, args.site, precision=args.precision, runtime=args.runtime, overwrite=args.overwrite)
    print(site, flush=True)
    if args.serve:
        serve_site(site, args.port, lambda message: print(message, flush=True))
