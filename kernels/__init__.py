"""The two expensive operations of the method and their references: grouping attention and cosine similarity.

Import this package as `avgn.kernels`.
"""

if __name__ != "avgn.kernels":
    raise ImportError(f"import this package as avgn.kernels, not as {__name__}")

from avgn.kernels.cosine_maps import cosine_maps
from avgn.kernels.grouping_attention import grouping_attention
from avgn.kernels.max_pooled_cosine import max_pooled_cosine

__all__ = ["cosine_maps", "grouping_attention", "max_pooled_cosine"]
