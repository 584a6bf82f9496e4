"""Adds what pyproject.toml cannot say: an installed fleet carries remote_scripts/ inside its package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fleet", "fleet.*"]), "fleet.remote_scripts"],
    package_dir={"fleet.remote_scripts": "remote_scripts"},
    package_data={"fleet.remote_scripts": ["**/*"]},
    exclude_package_data={"fleet.remote_scripts": ["**/__pycache__/*"]},
)
