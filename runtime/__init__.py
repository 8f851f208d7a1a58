"""Localizes sounding objects with an exported bundle, without PyTorch. Import this package as `avgn.runtime`."""

if __name__ != "avgn.runtime":
    raise ImportError(f"import this package as avgn.runtime, not as {__name__}")
