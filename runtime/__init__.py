"""Localizes sounding objects with an exported bundle, without PyTorch. Import this package as `avgn.runtime`."""

if __name__ != "avgn.runtime":
    raise ImportError(f"import this package as avgn.runtime, not as {__name__}")

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avgn.runtime.bundle import Bundle, BundleInfo, write_bundle_info
    from avgn.runtime.decision import DecisionConfig, Heard
    from avgn.runtime.engines import Engine, choose_engine
    from avgn.runtime.errors import FailureError, InputError, MissingExtraError
    from avgn.runtime.file_run import localize_file
    from avgn.runtime.live_run import localize_live
    from avgn.runtime.localizer import Localizer
    from avgn.runtime.manifest import Manifest, read_manifest, write_manifest
    from avgn.runtime.media import MediaFile, open_media
    from avgn.runtime.result import Result
    from avgn.runtime.stream import StreamLocalizer
    from avgn.runtime.summary import Summary

__all__ = [
    "Bundle",
    "BundleInfo",
    "DecisionConfig",
    "Engine",
    "FailureError",
    "Heard",
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
    "localize_live",
    "open_media",
    "read_manifest",
    "write_bundle_info",
    "write_manifest",
]

# where each name lives: `avgn --help` and whoever needs one part should not wait for all
_HOMES = {
    "Bundle": "bundle",
    "BundleInfo": "bundle",
    "DecisionConfig": "decision",
    "Engine": "engines",
    "FailureError": "errors",
    "Heard": "decision",
    "InputError": "errors",
    "Localizer": "localizer",
    "Manifest": "manifest",
    "MediaFile": "media",
    "MissingExtraError": "errors",
    "Result": "result",
    "StreamLocalizer": "stream",
    "Summary": "summary",
    "choose_engine": "engines",
    "localize_file": "file_run",
    "localize_live": "live_run",
    "open_media": "media",
    "read_manifest": "manifest",
    "write_bundle_info": "bundle",
    "write_manifest": "manifest",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
