"""Localizes sounding objects with an exported bundle, without PyTorch. Import this package as `avgn.runtime`."""

if __name__ != "avgn.runtime":
    raise ImportError(f"import this package as avgn.runtime, not as {__name__}")

from avgn.runtime.bundle import Bundle, BundleInfo, write_bundle_info
from avgn.runtime.decision import DecisionConfig
from avgn.runtime.engines import Engine, choose_engine
from avgn.runtime.errors import FailureError, InputError, MissingExtraError
from avgn.runtime.localize import Summary, localize_file
from avgn.runtime.localizer import Localizer
from avgn.runtime.manifest import Manifest, read_manifest, write_manifest
from avgn.runtime.media import MediaFile, open_media
from avgn.runtime.result import Result
from avgn.runtime.stream import StreamLocalizer

__all__ = [
    "Bundle",
    "BundleInfo",
    "DecisionConfig",
    "Engine",
    "FailureError",
    "InputError",
    "Localizer",
    "Manifest",
    "MediaFile",
    "MissingExtraError",
    "Result",
    "StreamLocalizer",
    "Summary",
    "choose_engine",
    "localize_file",
    "open_media",
    "read_manifest",
    "write_bundle_info",
    "write_manifest",
]
