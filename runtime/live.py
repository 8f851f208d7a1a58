"""The former place of `avgn.runtime.live_pipeline`, for one release."""

from avgn.runtime.live_pipeline import LivePipeline, LiveStats
from avgn.runtime.sinks import ResultSink

__all__ = ["LivePipeline", "LiveStats", "ResultSink"]
