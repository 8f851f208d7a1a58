"""Grouping attention: the assignment of cells to classes and the weighted sum of their values."""

from avgn.kernels.grouping_attention.public import grouping_attention

__all__ = ["grouping_attention"]
