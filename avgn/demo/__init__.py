"""The demo: a short video whose sources are known, and what the model says of it."""

from avgn.demo.run import run_demo

__all__ = ["run_demo"]
