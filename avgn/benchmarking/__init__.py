"""Measures how fast, large and exact a bundle is in every engine of this machine, beside what the machine can do.

Every measurement runs in a process of its own; numpy suffices to import this package.
"""

from avgn.benchmarking.plan import BACKENDS, BenchmarkOptions
from avgn.benchmarking.run import run_benchmark
from avgn.benchmarking.tables import format_report

__all__ = ["BACKENDS", "BenchmarkOptions", "format_report", "run_benchmark"]
