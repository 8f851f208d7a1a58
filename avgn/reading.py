"""Reads frames and sounds of manifest items, the same way for training and evaluation as for offline localization."""

from avgn.runtime.reading import read_clip, read_frame, read_part, read_through, read_wav

__all__ = ["read_clip", "read_frame", "read_part", "read_through", "read_wav"]
