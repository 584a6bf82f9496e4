"""Run exactly one SWE-bench-style eval per SSH host, never twice, and trust every result."""

__version__ = "0.1.0"
