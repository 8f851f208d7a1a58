"""What waits for its turn, and who waits first where the machine has too much to do."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from avgn.runtime.web.inbox import WAITING, Inbox, Jpeg, Samples
from avgn.runtime.web.limits import Limits
from avgn.runtime.web.load import Budget, Load
from tests.patience import Clock


def test_the_inbox_gives_sound_in_portions_and_pictures_in_order() -> None:
    async def use() -> None:
        lost: list[int] = []
        inbox = Inbox(lambda: lost.append(1))
        for at in range(10):
            inbox.put(Samples(samples=np.zeros(2000, np.int16), rate=8000, at=at / 4))
            inbox.put(Jpeg(jpeg=b"", at=float(at), time=0.0, arrived=0.0))
        assert len(lost) == 10 - WAITING
        sound, picture = await inbox.take()
        assert [one.at for one in sound] == [0.0, 0.25] and picture is not None and picture.at == 2.0
        inbox.clear()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(inbox.take(), 0.05)

    asyncio.run(use())


def test_who_costs_most_waits_first_and_only_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avgn.runtime.web.load.clock", Clock())
    load = Load()
    limits = Limits(frames_per_second=6, pixels_per_second=600.0, fair_frames=3, fair_pixels=300.0)
    calm = Budget(limits, load)
    assert [calm.take(100) for _ in range(7)] == [True] * 6 + [False]
    assert [Budget(limits, load).take(400), Budget(limits, load).take(700)] == [True, False]
    for _ in range(100):
        load.note(0.05)
    busy = Budget(limits, load)
    assert load.is_high and [busy.take(100) for _ in range(4)] == [True, True, True, False]
    assert not Budget(limits, load).take(400)
    for _ in range(100):
        load.note(0.0)
    assert not load.is_high
