"""Measurements of Pyrope: the harness (`python -m benchmarks.run`) and micro-benchmarks."""
