"""Keeps a reverse SSH tunnel up for years, and lets mosh cross it."""

__version__ = "0.1.0"
