"""What every part stands on: devices, seeds, validation, groups, the torch-estimator base."""

from skfair.utils._device import resolve_device
from skfair.utils._imports import import_optional
from skfair.utils._random import draw_seed, seeded

__all__ = ["draw_seed", "import_optional", "resolve_device", "seeded"]
