"""Measures what the fused kernels cost: on a chip when compiled ahead of time, in bytes and operations, and here."""
