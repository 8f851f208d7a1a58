"""Cosine maps of all classes of a sample."""

from avgn.kernels.cosine_maps.reference import cosine_maps

__all__ = ["cosine_maps"]
