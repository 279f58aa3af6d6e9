"""Palate turns human comparisons into reward models people can trust, and proves it."""

__version__ = "0.1.0"
