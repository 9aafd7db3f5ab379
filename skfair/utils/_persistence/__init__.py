"""Saved estimators: a directory of JSON and safetensors, which holds data and no code."""

from skfair.utils._persistence._files import InvalidModelError
from skfair.utils._persistence._save import (
    check_probe,
    fitted_state,
    load,
    load_weights,
    probe,
    save,
)

__all__ = [
    "InvalidModelError",
    "check_probe",
    "fitted_state",
    "load",
    "load_weights",
    "probe",
    "save",
]
