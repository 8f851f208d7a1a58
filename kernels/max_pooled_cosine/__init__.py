"""Max-pooled cosine similarity between the sources of sounds and the cells of images."""

from avgn.kernels.max_pooled_cosine.public import max_pooled_cosine

__all__ = ["max_pooled_cosine"]
