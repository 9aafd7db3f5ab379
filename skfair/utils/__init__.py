"""The lowest layer of skfair: devices, seeds, validation, groups, and words for messages."""

from skfair.utils._device import resolve_device
from skfair.utils._groups import Groups, encode_groups
from skfair.utils._imports import import_optional
from skfair.utils._random import draw_seed, seeded
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
