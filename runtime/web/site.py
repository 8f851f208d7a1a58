"""Lays a bundle out as a page that runs by itself: static files for any host, everything in the visitor's browser."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from avgn.runtime.bundle import BUNDLE_FILE, ONNX_ENGINES, Bundle, Variant, to_json
from avgn.runtime.contract import HALVES
from avgn.runtime.errors import InputError
from avgn.runtime.outputs import new_folder
from avgn.runtime.web.vendored import CLIENT, copy_runtime

PAGE = Path(__file__).parent / "page"
# of the served page, as they are
SHARED = (
    "capture.js",
    "devices.js",
    "feed.js",
    "icon.svg",
    "keep.js",
    "page.js",
    "reasons.js",
    "record.js",
    "style.css",
    "view.js",
    "webm.js",
    "words.js",
    "words-de.js",
    "words-en.js",
    "words-zh.js",
    "worklet.js",
)
# kept on the device once the page asks for it: the bundle, and what runs it on a GPU
LATER = ("bundle/", "ort/ort-webgpu")
BUILT = ("local.js", "worker.js")
STATIC = ("LICENSES.txt", "icon-192.png", "icon-512.png", "icon-maskable.png", "manifest.webmanifest")
EXACT, SMALL = "fp32", "int8-cpu"
# of float32's bytes: in WebAssembly 8 bits take longer than floats, and round as each engine does
WORTH = 0.75
INDEX, SERVICE_WORKER = "index.html", "sw.js"
# GitHub Pages leaves out what its own generator does not know, without it
NO_GENERATOR = ".nojekyll"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
# what differs from the served page: (there, here), each of which occurs once
CHANGES = (
    (
        '  <link rel="icon"',
        f'  <meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '  <meta name="referrer" content="no-referrer">\n'
        '  <link rel="manifest" href="manifest.webmanifest">\n'
        '  <link rel="icon"',
    ),
    ('src="app.js"', 'src="local.js"'),
    (
        'data-words="privacyServer"></span>',
        'data-words="privacyDevice"></span> <span id="online" data-words="notOffline" hidden></span>',
    ),
)
# the form for a server's token
FORM = ('      <form id="entrance"', "</form>\n")


def write_site(
    bundle: str | os.PathLike[str],
    site: str | os.PathLike[str],
    *,
    precision: str | None = None,
    runtime: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the page with a bundle into a new folder, which appears whole or not at all; returns it.

    `precision` chooses among the bundle's ONNX graphs (default: what suits browsers best), `runtime` is a folder with
    the files of onnxruntime-web (default: npm fetches them, once). Raises InputError for a bundle without ONNX graphs,
    a folder that is there, or where npm is missing; FailureError where it fails.
    """
    loaded = Bundle.load(bundle)
    variant = _choose(loaded, precision)
    with new_folder(site, "site", overwrite=overwrite) as folder:
        copy_runtime(folder / "ort", runtime)
        _copy_bundle(loaded, variant, folder / "bundle")
        for source, names in ((PAGE, SHARED), (CLIENT / "built", BUILT), (CLIENT / "site", STATIC)):
            for name in names:
                shutil.copyfile(source / name, folder / name)
        (folder / INDEX).write_text(index(), encoding="utf-8")
        (folder / SERVICE_WORKER).write_text(service_worker(folder), encoding="utf-8")
        (folder / NO_GENERATOR).touch()
    return Path(site)


def index() -> str:
    """Return the page's HTML: that of the served page, without what only a server needs."""
    html = (PAGE / INDEX).read_text(encoding="utf-8")
    for there, here in CHANGES:
        assert html.count(there) == 1, there
        html = html.replace(there, here)
    begin = html.index(FORM[0])
    return html[:begin] + html[html.index(FORM[1], begin) + len(FORM[1]) :]


def service_worker(folder: Path) -> str:
    """Return the text of the service worker for the files of a site: their names, and a version that is theirs."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    script = (CLIENT / "site" / SERVICE_WORKER).read_text(encoding="utf-8")
    digest.update(script.encode())
    for name in files:
        digest.update(f"{name}\0{hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    # the others are kept when the page asks for them, so that they are loaded once
    code = [name for name in files if not name.startswith(LATER) and not name.endswith(".wasm")]
    facts = {"version": digest.hexdigest()[:16], "code": code, "files": files, "policy": POLICY}
    return script.replace('"@SITE@"', json.dumps(facts))


def _choose(bundle: Bundle, precision: str | None) -> Variant:
    """Return the graphs of a precision, or those that suit browsers best."""
    graphs = {variant.precision: variant for variant in reversed(bundle.variants) if variant.engine in ONNX_ENGINES}
    if graphs and precision is None:
        return _best(bundle, graphs)
    if precision in graphs:
        return graphs[precision]
    held = ", ".join(reversed(graphs)) or "none"
    wanted = "no ONNX graphs" if precision is None else f"no ONNX graphs in {precision}"
    raise InputError(
        f"bundle {bundle.path} holds {wanted}, which browsers run (it holds {held}): export them with "
        "avgn export --format onnx"
    )


def _best(bundle: Bundle, graphs: dict[str, Variant]) -> Variant:
    """Return float32, or 8 bits where they were checked at export and save a visitor enough."""
    whole, small = graphs.get(EXACT), graphs.get(SMALL)
    if whole is None or small is None:
        return whole or small or graphs[next(reversed(graphs))]
    size = {
        variant.precision: sum(bundle.graph(variant, half).stat().st_size for half in HALVES)
        for variant in (whole, small)
    }
    return small if small.verified is not None and size[SMALL] <= WORTH * size[EXACT] else whole


def _copy_bundle(bundle: Bundle, variant: Variant, folder: Path) -> None:
    """Copy what a browser runs of a bundle: one variant, under names that every host takes."""
    folder.mkdir()
    names = {half: f"{half}.onnx" for half in HALVES}
    for half in HALVES:
        shutil.copyfile(bundle.graph(variant, half), folder / names[half])
    alone = replace(bundle.info, variants=(replace(variant, audio=names["audio"], image=names["image"]),))
    (folder / BUNDLE_FILE).write_text(to_json(alone), encoding="utf-8")
