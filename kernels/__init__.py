"""The two expensive operations of the method and their references: grouping attention and cosine similarity.

Import this package as `avgn.kernels`.
"""

if __name__ != "avgn.kernels":
    raise ImportError(f"import this package as avgn.kernels, not as {__name__}")
