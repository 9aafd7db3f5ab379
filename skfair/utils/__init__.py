"""The lowest layer of skfair: devices, seeds, validation, groups, and words for messages."""

from typing import TYPE_CHECKING

from skfair._lazy import lazy_names
from skfair.utils._groups import Groups, encode_groups
from skfair.utils._imports import import_optional
from skfair.utils._random_state import draw_seed
from skfair.utils._warnings import (
    AmplificationWarning,
    FairnessWarning,
    FallbackWarning,
    InfeasibleConstraintWarning,
    InterruptedSearchWarning,
    LabelOrderWarning,
    LeakageWarning,
    MissingGlyphWarning,
    OvercorrectionWarning,
    OverfitWarning,
    SmallGroupWarning,
    UninformativeAttributionWarning,
)

if TYPE_CHECKING:
    from skfair.utils._device import resolve_device
    from skfair.utils._random import seeded
else:  # these modules import torch
    __getattr__, __dir__ = lazy_names(
        __name__, {"_device": ["resolve_device"], "_random": ["seeded"]}
    )

__all__ = [
    "AmplificationWarning",
    "FairnessWarning",
    "FallbackWarning",
    "Groups",
    "InfeasibleConstraintWarning",
    "InterruptedSearchWarning",
    "LabelOrderWarning",
    "LeakageWarning",
    "MissingGlyphWarning",
    "OvercorrectionWarning",
    "OverfitWarning",
    "SmallGroupWarning",
    "UninformativeAttributionWarning",
    "draw_seed",
    "encode_groups",
    "import_optional",
    "resolve_device",
    "seeded",
]
