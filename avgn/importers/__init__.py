"""Importers: each reads one data set as its users have it on disk, and returns the items of a manifest."""

from avgn.importers.base import ImportOptions
from avgn.importers.registry import IMPORTERS, import_dataset

__all__ = ["IMPORTERS", "ImportOptions", "import_dataset"]
