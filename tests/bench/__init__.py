"""Benchmarks: `python -m tests.bench` prints tables of ratios against plain ssh and rsync on the same machine and hosts."""
