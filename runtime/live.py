"""The former place of `avgn.runtime.live_pipeline`, for one release."""

from avgn.runtime.live_pipeline import LivePipeline, LiveStats, ResultSink

__all__ = ["LivePipeline", "LiveStats", "ResultSink"]
