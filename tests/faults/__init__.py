"""Faults that are injected for real, one topic a file; each test is marked with its rows of `tests.support.catalogue`."""
