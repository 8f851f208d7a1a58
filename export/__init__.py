"""Freezes a trained localizer into verified inference graphs. Import this package as `avgn.export`."""

if __name__ != "avgn.export":
    raise ImportError(f"import this package as avgn.export, not as {__name__}")
