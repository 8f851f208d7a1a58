"""Audio-visual grouping network: which things sound in a video, and where each is in the picture."""

__version__ = "0.1.0"
