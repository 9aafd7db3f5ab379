"""Errors of their own class, so that a program can tell them from others by name."""


class InvalidModelError(ValueError):
    """A saved model that is not loaded: damaged, altered, of another version, or made to harm."""
