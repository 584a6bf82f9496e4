"""Behaviour tests of fleet."""
