"""The version, which the package and the keys of stored features name."""

__version__ = "0.2.0"
