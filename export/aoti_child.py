"""Builds one AOTInductor package: the process that `avgn.export.aoti` starts for each half.

python -m avgn.export.aoti_child '{"model": FILE, "half": "audio", "file": FILE.pt2, "device": "cpu", "settings": {}}'
"""

from __future__ import annotations

import json
import sys
import warnings

import torch
import torch._inductor
import torch._inductor.config

from avgn.export.inputs import half_of


def main() -> None:
    order = json.loads(sys.argv[1])
    # the parent wrote it a moment ago, in a folder of its own
    optimized = torch.load(order["model"], map_location="cpu", weights_only=False)
    optimized.model.to(order["device"])
    module, inputs, dynamic = half_of(optimized, order["half"], order["device"])
    known = torch._inductor.config.get_config_copy()
    settings = {name: value for name, value in order["settings"].items() if name in known}
    warnings.simplefilter("ignore")
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=dynamic)
        torch._inductor.aoti_compile_and_package(program, package_path=order["file"], inductor_configs=settings)


if __name__ == "__main__":
    main()
