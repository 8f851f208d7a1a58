"""How fast, how large and how exact a bundle is in every engine of this machine, beside what the machine can do.

Every measurement runs in a process of its own; numpy suffices to import this package.
"""

from avgn.export.benchmarking.plan import BACKENDS, BenchmarkOptions
from avgn.export.benchmarking.run import run_benchmark
from avgn.export.benchmarking.tables import format_report

__all__ = ["BACKENDS", "BenchmarkOptions", "format_report", "run_benchmark"]
