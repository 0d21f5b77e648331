"""Measured ratios: every benchmark runs the plain way and ours in turn, in one process, and compares them.

`python -m benchmarks` runs all of them, `python -m benchmarks targets` one. Absolute times depend on the machine, and
are shown beside the ratio only.
"""
