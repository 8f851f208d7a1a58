"""Adapters: each reads one data set as its users have it on disk and gives the items of a manifest."""

from avgn.datasets.base import Options
from avgn.datasets.registry import IMPORTERS, import_dataset

__all__ = ["IMPORTERS", "Options", "import_dataset"]
