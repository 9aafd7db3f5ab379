"""Saved estimators: a directory of JSON and safetensors, which holds data and no code."""

from skfair.utils._persistence._files import InvalidModelError
from skfair.utils._persistence._networks import load_weights
from skfair.utils._persistence._save import load, save
from skfair.utils._persistence._writer import fitted_state

__all__ = [
    "InvalidModelError",
    "fitted_state",
    "load",
    "load_weights",
    "save",
]
