"""Training as a module, for launchers that start several processes: torchrun --nproc-per-node 2 -m avgn.train ..."""

from __future__ import annotations

import sys

from avgn.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
