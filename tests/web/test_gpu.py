"""The page on a GPU: WebGPU in a real browser, whose adapter is software here, and what happens without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.web import beside, browser
from tests.web.test_page import results

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
# chromium's own, which computes on the processor: right, and far slower than WebAssembly
SOFTWARE = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
ADAPTER = "navigator.gpu?.requestAdapter().then((adapter) => adapter !== null) ?? false"
READY = 120_000
# largest difference of maps
MAPS = 2e-3


@pytest.mark.soak
def test_a_gpu_gives_what_python_gives(tiny_site: Path) -> None:
    frames, times, sound = beside.scene(20, 3)
    beside.write_scene(tiny_site, frames, sound)
    ours = beside.in_python("tiny", frames, times, sound)
    with beside.hosted(tiny_site, isolated=True) as url, browser.chromium(flags=SOFTWARE) as page:
        page.goto(f"{url}{beside.EMPTY}")
        if not page.evaluate(ADAPTER):
            pytest.skip("this chromium has no software adapter of WebGPU")
        theirs, facts = beside.in_browser(page, frames, times, threads=1, engine="webgpu")
    for name in (beside.SCENE, beside.EMPTY):
        (tiny_site / name).unlink()
    pairs = [beside.Pair(python=one, browser=other) for one, other in zip(ours, theirs, strict=True)]
    assert facts["engine"] == "webgpu"
    assert all(pair.same for pair in pairs) and max(pair.maps_apart for pair in pairs) <= MAPS, beside.table(pairs)


def test_without_a_gpu_or_with_one_that_hangs_it_runs_in_webassembly(tiny_site: Path) -> None:
    with beside.hosted(tiny_site, isolated=True) as url, browser.chromium(flags=["--disable-gpu"]) as page:
        page.add_init_script("if (navigator.gpu) navigator.gpu.requestAdapter = async () => null")
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}?engine=webgpu")
        page.wait_for_selector("#connection[data-state=ready]", timeout=READY)
        assert "avgn: WebGPU is not used (this browser has no GPU for it)" in said
        page.click("#start")
        results(page, 3, 60.0)
        page.add_init_script("if (navigator.gpu) navigator.gpu.requestAdapter = () => new Promise(() => {})")
        page.reload()
        page.wait_for_selector("#connection[data-state=ready]", timeout=READY)
        assert "avgn: WebGPU is not used (the GPU does not answer)" in said
        # nothing of it was loaded
        assert not [one for one in asked if "webgpu" in one.rsplit("/", 1)[1].split("?")[0]]
