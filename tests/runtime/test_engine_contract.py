"""What every engine owes its callers. Those that need a GPU are skipped without one; `make gpu` runs them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avgn.runtime import Bundle, FailureError, InputError
from avgn.runtime.bundle import Variant
from avgn.runtime.engines import ENGINES, Engine, _fitting, check_unverified, choose_engine, load_engine
from avgn.runtime.engines.base import check_image
from avgn.runtime.engines.first_load import check_first_load, compare_engines, parent_of, probes
from avgn.runtime.engines.gpu import find_gpu
from avgn.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine
from avgn.runtime.engines.onnxruntime_gpu import BoundEngine
from avgn.runtime.engines.tensorrt_engine import TensorRtEngine
from tests.commands import ROOT
from tests.runtime.simulated_gpu import simulated

# a bundle with TensorRT engines for this machine, exported by `make gpu`
GPU_BUNDLE = os.environ.get("AVGN_GPU_BUNDLE")
BOUND = "onnxruntime, bound"
SIMULATED = "tensorrt, simulated"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVGN_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(GPU_BUNDLE or "tiny")


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Engine:
    return choose_engine(bundle, "onnxruntime", "fp32")


@contextlib.contextmanager
def loaded(name: str, bundle: Bundle) -> Iterator[Engine]:
    """The engine `name` with the fp32 graphs of a bundle; skips where it can't run."""
    if name == BOUND:
        # the code of the GPU engine with buffers of the CPU
        yield BoundEngine(bundle, parent_of(bundle, fp32(bundle)))
        return
    if name == SIMULATED:
        # the code of the TensorRT engine with a device made of the CPU
        with simulated():
            yield TensorRtEngine(bundle, replace(parent_of(bundle, fp32(bundle)), engine="tensorrt"))
        return
    entry = ENGINES[name]
    if (obstacle := entry.obstacle()) is not None:
        pytest.skip(f"{name}: {obstacle}")
    held = [v for v in bundle.variants if v.engine in entry.reads and v.precision == "fp32"]
    if not held:
        pytest.skip(f"{name}: {bundle.path} holds no engine for it; make gpu exports one")
    yield load_engine(bundle, held[0], name)


@pytest.fixture(scope="module", params=[*ENGINES, BOUND, SIMULATED])
def engine(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Engine]:
    with loaded(request.param, bundle) as engine:
        yield engine


def fp32(bundle: Bundle) -> Variant:
    return next(variant for variant in bundle.variants if variant.precision == "fp32")


def test_it_agrees_with_the_graphs(engine: Engine, reference: Engine) -> None:
    measured = compare_engines(engine, reference)
    assert measured["cosine_maps"] >= 0.9999 and measured["max_abs_prob"] <= 1e-3, measured


def test_names_shapes_and_dtypes(engine: Engine, bundle: Bundle) -> None:
    assert isinstance(engine, Engine) and engine.name and engine.info.classes == bundle.classes
    waveform, image = probes(engine.info)
    count = len(bundle.classes)
    for batch in (1, 3):
        heard = engine.run_audio(waveform[:batch])
        assert list(heard) == ["sources", "audio_prob"]
        assert heard["sources"].shape[:2] == heard["audio_prob"].shape == (batch, count)
        seen = engine.run_image(image[:batch], heard["sources"])
        assert list(seen) == ["maps", "visual_prob"]
        assert seen["maps"].shape == (batch, count, *bundle.grid) and seen["visual_prob"].shape == (batch, count)
        assert all(value.dtype == np.float32 for value in (heard | seen).values())


def test_a_batch_is_its_items(engine: Engine) -> None:
    waveform, image = probes(engine.info)
    heard = engine.run_audio(waveform[:6])
    seen = engine.run_image(image[:6], heard["sources"])
    for at in range(6):
        one = engine.run_audio(waveform[at : at + 1])
        found = engine.run_image(image[at : at + 1], heard["sources"][at : at + 1])
        np.testing.assert_allclose(one["sources"][0], heard["sources"][at], atol=2e-4)
        np.testing.assert_allclose(found["maps"][0], seen["maps"][at], atol=2e-4)


def test_results_are_the_callers_own(engine: Engine) -> None:
    waveform, image = probes(engine.info)
    first = engine.run_audio(waveform[:1])
    kept = {name: value.copy() for name, value in first.items()}
    seen = engine.run_image(image[:1], first["sources"])
    kept |= {name: value.copy() for name, value in seen.items()}
    engine.run_audio(waveform[1:2])
    engine.run_image(image[1:2], kept["sources"])
    for name, value in (first | seen).items():
        assert np.array_equal(value, kept[name]), name
        value[:] = 0


def test_the_same_input_gives_the_same_output_whatever_came_before(engine: Engine) -> None:
    """Bit for bit: after other shapes, and from other threads."""
    waveform, image = probes(engine.info)
    sources = engine.run_audio(waveform[:1])["sources"]
    maps = engine.run_image(image[:1], sources)["maps"]

    def again(_: int) -> bool:
        heard = engine.run_audio(waveform[:1])["sources"]
        return np.array_equal(heard, sources) and np.array_equal(engine.run_image(image[:1], sources)["maps"], maps)

    for batch in (4, 2, 3):
        engine.run_image(image[:batch], engine.run_audio(waveform[:batch])["sources"])
        assert again(batch)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(again, range(12)))


def test_inputs_in_any_layout(engine: Engine) -> None:
    waveform, image = probes(engine.info)
    heard = engine.run_audio(waveform[:2])
    again = engine.run_audio(np.asfortranarray(waveform[:2]))
    assert np.array_equal(heard["sources"], again["sources"])
    mirrored = np.ascontiguousarray(image[:2, :, ::-1])[:, :, ::-1]
    assert not mirrored.flags.c_contiguous
    plain = engine.run_image(image[:2], heard["sources"])
    strided = engine.run_image(mirrored, heard["sources"])
    assert np.array_equal(plain["maps"], strided["maps"])


def test_other_sizes_come_and_go(engine: Engine) -> None:
    """More shapes than any cache of buffers holds, and back to the first."""
    waveform, image = probes(engine.info)
    sources = engine.run_audio(waveform[:1])["sources"]
    expected = engine.run_image(image[:1], sources)["maps"]
    height, width = engine.info.image_size
    for grow in range(1, 11):
        shape = (1, height, width + 32 * grow, 3)
        assert np.isfinite(engine.run_image(np.full(shape, 90, np.uint8), sources)["maps"]).all()
    assert np.array_equal(engine.run_image(image[:1], sources)["maps"], expected)


def test_bound_outputs_stay_where_the_first_run_put_them(bundle: Bundle) -> None:
    engine = BoundEngine(bundle, fp32(bundle))
    waveform, _ = probes(engine.info)
    kept = []
    for at in range(3):
        engine.run_audio(waveform[at : at + 1])
        (binding,) = engine._shapes["audio"].values()
        # held, so that their memory can't be given out again by chance
        kept.append(binding._binding.get_outputs())
    assert len({tuple(value.data_ptr() for value in outputs) for outputs in kept}) == 1


def test_a_session_of_a_shape_has_no_open_axes(bundle: Bundle) -> None:
    """What an engine plans for a shape, a recorded graph too, is then all that it can run."""
    engine = BoundEngine(bundle, parent_of(bundle, fp32(bundle)))
    waveform, image = probes(engine.info)
    sources = engine.run_audio(waveform[:2])["sources"]
    engine.run_image(image[:2], sources)
    for half in ("audio", "image"):
        (binding,) = engine._shapes[half].values()
        for value in (*binding._session.get_inputs(), *binding._session.get_outputs()):
            assert all(isinstance(axis, int) for axis in value.shape), (value.name, value.shape)


# engines that end in the order in which they began, and on other threads than theirs
COMING_AND_GOING = """
import faulthandler, gc, os, signal, sys, threading
from tests.runtime.test_engine_contract import Bundle, loaded
faulthandler.enable()
signal.signal(signal.SIGTERM, lambda number, frame: handled.append(number))
handled, engines, bundle = [], [], Bundle.load(sys.argv[2])
def begin():
    with loaded(sys.argv[1], bundle) as engine:
        engines.append(engine)
def end():
    engines.pop(0)
    gc.collect()
def elsewhere(step):
    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
for steps in ((begin, begin, end, end), (begin, lambda: elsewhere(end)), (lambda: elsewhere(begin), begin, end, end)):
    for step in steps:
        step()
        os.kill(os.getpid(), signal.SIGTERM)
print(len(handled))
"""


@pytest.mark.parametrize("name", ENGINES)
def test_signals_arrive_however_engines_come_and_go(name: str, bundle: Bundle) -> None:
    with loaded(name, bundle):
        command = [sys.executable, "-c", COMING_AND_GOING, name, str(bundle.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "10\n"), done.stderr


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    waveform, image = probes(engine.info)
    sources = engine.run_audio(waveform[:1])["sources"]
    for wrong in (waveform[:1, :-1], waveform[0], waveform[:0], waveform[:1].astype(np.float64)):
        with pytest.raises(ValueError, match="waveform must be float32"):
            engine.run_audio(wrong)  # type: ignore[arg-type]
    for picture, with_sources in (
        (image[:1, :-1], sources),
        (image[:1].astype(np.float32), sources),
        (image[:2], sources),
        (image[:1], sources[:, :-1]),
    ):
        with pytest.raises(ValueError, match="must be"):
            engine.run_image(picture, with_sources)  # type: ignore[arg-type]


def test_threads_share_it(engine: Engine) -> None:
    waveform, image = probes(engine.info)
    heard = [engine.run_audio(waveform[at : at + 1]) for at in range(6)]
    seen = [engine.run_image(image[at : at + 1], heard[at]["sources"])["maps"] for at in range(6)]

    def work(at: int) -> bool:
        sources = engine.run_audio(waveform[at % 6 : at % 6 + 1])["sources"]
        maps = engine.run_image(image[at % 6 : at % 6 + 1], heard[at % 6]["sources"])["maps"]
        return np.allclose(sources, heard[at % 6]["sources"], atol=1e-6) and np.allclose(maps, seen[at % 6], atol=1e-6)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(60)))


def check_that_other_graphs_are_refused(
    bundle: Bundle, load: Callable[[Bundle], contextlib.AbstractContextManager[object]]
) -> None:
    """What the graphs compute must be what bundle.json says; an engine that doesn't look would give other labels."""
    fewer_classes = replace(bundle, info=replace(bundle.info, classes=bundle.classes[:-1]))
    sentence = r"'(sources|audio_prob)' of the audio graph is .* the bundle's sizes ask for"
    with pytest.raises(InputError, match=sentence), load(fewer_classes):
        pass


@pytest.mark.parametrize("name", [*ENGINES, BOUND, SIMULATED])
def test_graphs_that_are_not_what_the_bundle_says_are_refused(name: str, bundle: Bundle) -> None:
    check_that_other_graphs_are_refused(bundle, lambda other: loaded(name, other))


def test_an_engine_that_never_looks_at_its_graphs_would_be_found_out(bundle: Bundle) -> None:
    @contextlib.contextmanager
    def load(other: Bundle) -> Iterator[Engine]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("avgn.runtime.engines.onnxruntime_engine.check_graph", lambda *_: None)
            yield OnnxRuntimeEngine(other, parent_of(other, fp32(other)))

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_that_other_graphs_are_refused(bundle, load)


def test_an_engine_that_can_not_run_here_says_why(bundle: Bundle) -> None:
    if isinstance(missing := find_gpu(), str):
        with pytest.raises(InputError, match=f"backend onnxruntime-cuda can't be used: {missing}"):
            choose_engine(bundle, "onnxruntime-cuda")
        assert ENGINES["aoti"].obstacle("sm_89") == missing or ENGINES["aoti"].missing()
    else:
        # by an engine whose library every machine with a GPU and these tests has
        assert "built for sm_10, this GPU" in str(ENGINES["aoti"].obstacle("sm_10"))
    with pytest.raises(InputError, match="backend 'dance' is not known"):
        choose_engine(bundle, "dance")


# the comparison at first load, of engines that run here


def test_an_unverified_variant_is_compared_once(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load_engine(bundle, fp32(bundle), "openvino")
    with caplog.at_level("INFO", "avgn.runtime"):
        for _ in range(2):
            check_unverified(bundle, fp32(bundle), engine)
        assert sum("agrees with its ONNX graphs here" in record.message for record in caplog.records) == 1
    (mark,) = (tmp_path / "cache" / "verified").iterdir()
    assert json.loads(mark.read_text())["cosine_maps"] > 0.9999


class Off:
    """An engine that is off by a known amount: what a broken driver would give."""

    name = "off"

    def __init__(self, engine: Engine, *, prob: float = 0.0, maps: float = 0.0, nan: bool = False) -> None:
        self._engine, self._prob, self._maps, self._nan = engine, prob, maps, nan
        self.info = engine.info

    def run_audio(self, waveform: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        heard = self._engine.run_audio(waveform)
        return heard | {"audio_prob": heard["audio_prob"] + np.float32(self._prob)}

    def run_image(self, image: np.ndarray, sources: np.ndarray) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        seen = self._engine.run_image(image, sources)
        noise = self._maps * np.random.default_rng(0).standard_normal(seen["maps"].shape)
        maps = (seen["maps"] + noise).astype(np.float32)
        return seen | {"maps": np.full_like(maps, np.nan) if self._nan else maps}


@pytest.mark.parametrize("error", [{"prob": 0.01}, {"maps": 0.2}, {"nan": True}], ids=str)
def test_an_engine_that_differs_is_refused(bundle: Bundle, reference: Engine, error: dict[str, float]) -> None:
    off = Off(reference, **error)  # type: ignore[arg-type]
    with pytest.raises(FailureError, match="differs from its ONNX graphs on this GPU"):
        check_first_load(bundle, fp32(bundle), off, reference)
    # it is not remembered as good
    with pytest.raises(FailureError):
        check_first_load(bundle, fp32(bundle), off, reference)
    assert check_first_load(bundle, fp32(bundle), Off(reference), reference) is not None


def test_without_graphs_there_is_nothing_to_verify_with(bundle: Bundle, reference: Engine) -> None:
    lone = replace(fp32(bundle), precision="int8-gpu", engine="tensorrt", verified=None)
    with pytest.raises(InputError, match="no ONNX graphs to verify its int8-gpu tensorrt engine"):
        check_unverified(bundle, lone, reference)


def test_another_machines_verification_does_not_count(
    bundle: Bundle, reference: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that is shared over the network, or a machine with another GPU in it since."""
    for machine in ("no GPU: one machine", "no GPU: another machine"):
        monkeypatch.setattr("avgn.runtime.engines.first_load.find_gpu", lambda machine=machine: machine)
        assert check_first_load(bundle, fp32(bundle), Off(reference), reference) is not None
        assert check_first_load(bundle, fp32(bundle), Off(reference), reference) is None


@pytest.mark.parametrize("size", [(64, 33), (64, 65), (33, 64), (65, 64), (64, 31), (0, 64)], ids=str)
def test_both_sides_of_a_picture_are_multiples_of_32(bundle: Bundle, size: tuple[int, int]) -> None:
    count = len(bundle.classes)
    check_image(bundle.info, np.zeros((1, 64, 96, 3), np.uint8), np.zeros((1, count, 8), np.float32))
    with pytest.raises(ValueError, match="sides divisible by 32"):
        check_image(bundle.info, np.zeros((1, *size, 3), np.uint8), np.zeros((1, count, 8), np.float32))


def test_auto_takes_the_most_exact_precision(bundle: Bundle) -> None:
    """Whatever the order in bundle.json: fp32, fp16, int8-cpu, int8-gpu, and unknown ones last."""
    variant = fp32(bundle)
    names = ("int8-gpu", "dance", "fp16", "int8-cpu", "fp32")
    mixed = replace(
        bundle,
        info=replace(bundle.info, variants=tuple(replace(variant, precision=name, audio=name) for name in names)),
    )
    found = [each.precision for each in _fitting(mixed, ENGINES["onnxruntime"], None)]
    assert found == ["fp32", "fp16", "int8-cpu", "int8-gpu", "dance"]
    assert [each.precision for each in _fitting(mixed, ENGINES["onnxruntime"], "fp16")] == ["fp16"]
