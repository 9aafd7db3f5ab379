"""Saving and loading estimators: one file of JSON and tensors, without code."""

from skfair.persistence._save import load, save
from skfair.utils._errors import InvalidModelError

__all__ = ["InvalidModelError", "load", "save"]
