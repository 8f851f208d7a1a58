"""Measures what the fused kernels cost: on a chip by ahead-of-time compilation, in bytes and operations, and on this
machine."""
