"""Builds one AOTInductor package: the process that `avgn.export.aoti` starts for each half.

python -m avgn.export.aoti_child '{"model": FILE, "half": "audio", "file": FILE.pt2, "device": "cpu", "settings": {}}'
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch
import torch._inductor
import torch._inductor.config
from torch import Tensor, nn

from avgn.export.halves import AudioHalf, ImageHalf
from avgn.model import LocalizerModel

# what a package may be asked for
MOST_BATCH, MOST_CELLS = 4096, 64


def main() -> None:
    order = json.loads(sys.argv[1])
    # the parent wrote it a moment ago, in a folder of its own
    model = torch.load(order["model"], map_location="cpu", weights_only=False)
    module, inputs, dynamic = half_of(model.to(order["device"]), order["half"], order["device"])
    known = torch._inductor.config.get_config_copy()
    settings = {name: value for name, value in order["settings"].items() if name in known}
    warnings.simplefilter("ignore")
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic)
        torch._inductor.aoti_compile_and_package(program, package_path=order["file"], inductor_configs=settings)


def half_of(model: LocalizerModel, half: str, device: str) -> tuple[nn.Module, tuple[Tensor, ...], Any]:
    """A half with example inputs on `device`, and the axes of these that stay open."""
    config = model.config
    batch = torch.export.Dim("batch", min=1, max=MOST_BATCH)
    if half == "audio":
        return (
            AudioHalf(model),
            (torch.zeros(2, config.patch_samples or config.window_samples, device=device),),
            ({0: batch},),
        )
    rows, columns = (torch.export.Dim(name, min=1, max=MOST_CELLS) for name in ("rows", "columns"))
    image = torch.zeros(2, *config.image_size, 3, dtype=torch.uint8, device=device)
    sources = torch.zeros(2, config.num_maps, config.source_dim, device=device)
    return ImageHalf(model), (image, sources), ({0: batch, 1: 32 * rows, 2: 32 * columns}, {0: batch})


if __name__ == "__main__":
    main()
