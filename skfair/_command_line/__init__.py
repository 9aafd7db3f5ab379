"""The command line: fairness reports, checks and model cards from files of predictions."""

from skfair._command_line._main import main

__all__ = ["main"]
