"""What `/metrics` says, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named = {"registry": self.registry}
        self.sessions = Gauge("avgn_sessions_open", "Visitors with an open session.", **named)
        self.sessions_total = Counter("avgn_sessions_total", "Sessions opened.", **named)
        self.closed = Counter("avgn_closed_total", "Sessions that the server closed, by code.", ["code"], **named)
        self.refused = Counter(
            "avgn_refused_total", "Connections refused before a session, by reason.", ["reason"], **named
        )
        self.frames = Counter("avgn_frames_total", "Frames taken.", **named)
        self.results = Counter("avgn_results_total", "Results given.", **named)
        self.dropped = Counter("avgn_dropped_frames_total", "Frames passed over for newer ones.", **named)
        self.audio_seconds = Counter("avgn_audio_seconds_total", "Seconds of sound taken.", **named)
        self.latency = Histogram(
            "avgn_latency_seconds", "From a frame's arrival to its result.", buckets=BUCKETS, **named
        )

    def result(self, seconds: float, dropped: int) -> None:
        """Count one result."""
        self.results.inc()
        self.dropped.inc(dropped)
        self.latency.observe(seconds)

    def text(self) -> bytes:
        """Everything, for a scraper."""
        return generate_latest(self.registry)
