"""Error classes of skfair, so that a program can catch them by name."""


class InvalidModelError(ValueError):
    """A saved model is refused: it is damaged, altered, of another version, or malicious."""
