"""Attacks that are tried for real, one topic a file; each test is marked with its rows of `tests.support.catalogue`."""
