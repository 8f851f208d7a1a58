"""avgn figure: the paper's figures from checkpoints, bundles and manifests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from avgn.cli.options import Report, add_backend_option, load_engine, make_parser, split_names
from avgn.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What `avgn figure --help` says of a kind of figure, and the command that draws it."""

    arguments: str
    summary: str
    draw: Callable[[Sequence[str]], None]


def figure(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(describe_kinds())
        return
    kind, *rest = argv
    if kind not in KINDS:
        raise InputError(f"figure {kind!r} is not known: choose one of {', '.join(KINDS)}")
    KINDS[kind].draw(rest)


def describe_kinds() -> str:
    """Return the help text: every kind with its arguments."""
    usages = {f"{name} {kind.arguments}": kind.summary for name, kind in KINDS.items()}
    width = max(map(len, usages)) + 2
    rows = "\n".join(f"  {usage:{width}} {summary}" for usage, summary in usages.items())
    return (
        f"usage: avgn figure KIND ...\n\nkinds:\n{rows}\n\n"
        "avgn figure KIND --help describes a kind. The suffix of --output chooses PNG, PDF or SVG."
    )


def qualitative(argv: Sequence[str]) -> None:
    parser = make_parser("figure qualitative", "Image, ground truth and every source's heat map by every method.")
    parser.add_argument("manifest", type=str, help="manifest of the items that are shown")
    parser.add_argument("--model", action="append", help="NAME=checkpoint, bundle, world or tiny; may be repeated")
    parser.add_argument("-o", "--output", type=str, required=True, help="figure.png, .pdf or .svg")
    parser.add_argument("--items", type=str | None, default=None, help="comma-separated ids, in place of --count")
    parser.add_argument("--count", type=int, default=4, help="items drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of items")
    add_backend_option(parser)
    args = parser.parse_args(argv)
    from avgn.figures.page import check_output
    from avgn.figures.qualitative import draw_qualitative
    from avgn.runtime.manifest import read_manifest

    check_output(args.output)
    models = _split_models(args.model or [])
    manifest = read_manifest(args.manifest)
    shown = draw_qualitative(
        {name: load_engine(path, args.backend) for name, path in models.items()},
        manifest,
        args.output,
        # a namespace has a method of this name
        items=None if args["items"] is None else split_names(args["items"]),
        count=args.count,
        seed=args.seed,
    )
    print(f"items {', '.join(shown)}\n{args.output}")


def embeddings(argv: Sequence[str]) -> None:
    parser = make_parser("figure embeddings", "t-SNE of the embeddings of the sources that sound and are seen.")
    parser.add_argument("checkpoint", type=str, help="checkpoint folder of a model with class tokens")
    parser.add_argument("manifest", type=str, help="manifest of the items whose embeddings are drawn")
    parser.add_argument("-o", "--output", type=str, required=True, help="figure.png, .pdf or .svg")
    parser.add_argument("--seed", type=int, default=0, help="of the projection")
    parser.add_argument("--skip-bad", action="store_true", help="pass over unreadable items instead of stopping")
    parser.add_argument("--json", type=str | None, default=None, help="write the silhouette scores to this file")
    args = parser.parse_args(argv)
    from avgn.figures.page import check_output, import_matplotlib
    from avgn.runtime.bundle import BUNDLE_FILE, SHIPPED

    check_output(args.output)
    if args.checkpoint in SHIPPED or (Path(args.checkpoint) / BUNDLE_FILE).is_file():
        raise InputError(f"{args.checkpoint} is a bundle, whose graphs hide the embeddings: give its checkpoint folder")
    import_matplotlib()
    from avgn.checkpoint import load_model
    from avgn.figures.embeddings import collect_embeddings, draw_embeddings
    from avgn.progress import Progress
    from avgn.runtime.manifest import read_manifest

    report = Report(args.json, Path(args.manifest))
    model = load_model(args.checkpoint)
    manifest = read_manifest(args.manifest, check_files=not args.skip_bad)
    with Progress("items") as progress:
        found = collect_embeddings(model, manifest, seed=args.seed, skip_bad=args.skip_bad, progress=progress)
    scores = draw_embeddings(found, manifest.classes, args.output, seed=args.seed)
    counts = {"sources": len(found.labels), "classes": len(set(found.labels.tolist()))}
    report.write({"silhouette": scores, **counts, "seed": args.seed})
    report.say(f"{len(found.labels)} sources; silhouette (cosine) of their classes, and of the same classes elsewhere:")
    for kind in ("audio", "visual"):
        values = (scores[kind], scores[f"control_{kind}"])
        report.say(f"  {kind:7}" + "  ".join("n/a" if value is None else f"{value:.3f}" for value in values))
    report.say(args.output)


def _split_models(given: Sequence[str]) -> dict[str, str]:
    if not given:
        raise InputError("give at least one --model NAME=PATH: a checkpoint, a bundle or the name world")
    models: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise InputError(f"--model must be NAME=PATH, got {text!r}: for example AVGN=world")
        if name in models:
            raise InputError(f"--model {name!r} is given twice: names are the titles of the columns")
        models[name] = path
    return models


KINDS: dict[str, Kind] = {
    "qualitative": Kind(
        arguments="MANIFEST --model NAME=PATH",
        summary="image, ground truth and heat maps of the sources, a column a method",
        draw=qualitative,
    ),
    "embeddings": Kind(
        arguments="CHECKPOINT MANIFEST",
        summary="t-SNE of the class-aware audio and visual embeddings",
        draw=embeddings,
    ),
}
