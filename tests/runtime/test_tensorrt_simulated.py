"""How the TensorRT engine treats a device, seen on a simulated one (its results: test_engine_contract.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from avgn.runtime import Bundle
from avgn.runtime.engines.first_load import probes
from avgn.runtime.engines.slots import Slots
from avgn.runtime.engines.tensorrt_engine import SHAPES, SLOTS, TensorRtEngine
from tests.runtime.simulated_gpu import Cuda, simulated


@pytest.fixture
def device() -> Iterator[Cuda]:
    with simulated() as found:
        yield found


@pytest.fixture
def engine(device: Cuda) -> TensorRtEngine:
    bundle = Bundle.load("tiny")
    return TensorRtEngine(bundle, replace(bundle.variants[0], engine="tensorrt", target="sm_89"))


def test_after_the_first_call_of_a_shape_nothing_is_allocated_and_the_graph_is_replayed(
    engine: TensorRtEngine, device: Cuda
) -> None:
    waveform, image = probes(engine.info)
    sources = engine.run_audio(waveform[:1])["sources"]
    expected = engine.run_image(image[:1], sources)["maps"]
    # two inputs and two outputs, one and two of the audio half, each on the host and on the device
    assert device.calls == {"allocated": 14, "recorded": 2}
    for _ in range(5):
        again = engine.run_image(image[:1], sources)["maps"]
        assert np.array_equal(again, expected)
    assert device.calls == {"allocated": 14, "recorded": 2, "launched": 5}


def test_without_graphs_everything_is_queued_anew(device: Cuda) -> None:
    bundle = Bundle.load("tiny")
    engine = TensorRtEngine(bundle, replace(bundle.variants[0], engine="tensorrt"), cuda_graphs=False)
    waveform, _ = probes(engine.info)
    first, second = (engine.run_audio(waveform[:1])["sources"] for _ in range(2))
    assert np.array_equal(first, second) and set(device.calls) == {"allocated"}


def test_shapes_that_are_forgotten_give_their_memory_back(engine: TensorRtEngine, device: Cuda) -> None:
    waveform, image = probes(engine.info)
    sources = engine.run_audio(waveform[:1])["sources"]
    for width in range(1, SHAPES + 4):
        engine.run_image(np.zeros((1, 32, 32 * width, 3), np.uint8), sources)
    assert device.calls["destroyed"] == 3
    assert device.held == 6 + 8 * SHAPES


def test_threads_work_in_two_slots_with_buffers_of_their_own(engine: TensorRtEngine, device: Cuda) -> None:
    waveform, image = probes(engine.info)
    sources = [engine.run_audio(waveform[at : at + 1])["sources"] for at in range(6)]
    expected = [engine.run_image(image[at : at + 1], sources[at])["maps"] for at in range(6)]

    def work(at: int) -> bool:
        return np.array_equal(engine.run_image(image[at % 6 : at % 6 + 1], sources[at % 6])["maps"], expected[at % 6])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))
    assert len(device.streams) == 2 * SLOTS - 1


def test_a_batch_outside_of_the_profile_is_refused_and_the_slot_lives_on(engine: TensorRtEngine) -> None:
    waveform, _ = probes(engine.info)
    with pytest.raises(ValueError, match="outside of what the engine was built for"):
        engine.run_audio(np.zeros((1025, waveform.shape[1]), np.float32))
    assert np.isfinite(engine.run_audio(waveform[:1])["sources"]).all()


# the slots alone


@pytest.mark.timeout(20)
def test_one_caller_uses_one_slot_and_a_third_waits() -> None:
    made = iter(range(9))
    slots = Slots(lambda: next(made), 2)
    for _ in range(3):
        with slots.take() as slot:
            assert slot == 0
    with slots.take() as one, slots.take() as two:
        assert (one, two) == (0, 1)
        third: list[int] = []

        def wait() -> None:
            with slots.take() as slot:
                third.append(slot)

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        assert not third
    thread.join(60)
    assert third and next(made) == 2


# a slot that is lost would be waited for
@pytest.mark.timeout(20)
def test_a_slot_outlives_errors() -> None:
    calls: list[int] = []
    taken: list[int] = []

    def make() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("full")
        return len(calls)

    slots = Slots(make, 1)

    def use() -> None:
        with pytest.raises(MemoryError), slots.take():
            pass
        with pytest.raises(KeyError), slots.take():
            raise KeyError
        with slots.take() as slot:
            taken.append(slot)

    # who lost a slot would wait for ever
    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(60)
    assert taken == [2]


def test_who_waits_for_a_slot_that_could_not_be_made_tries_itself() -> None:
    waiting = threading.Event()
    taken: list[int] = []

    def make() -> int:
        if not waiting.is_set():
            waiting.set()
            time.sleep(0.3)
            raise MemoryError("full")
        return 7

    slots = Slots(make, 1)

    def first() -> None:
        with pytest.raises(MemoryError), slots.take():
            pass

    def second() -> None:
        with slots.take() as slot:
            taken.append(slot)

    threads = [threading.Thread(target=work, daemon=True) for work in (first, second)]
    threads[0].start()
    assert waiting.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert taken == [7]
