"""Patch attribution: find where in images an attribute shows, and hide it from training."""

from skfair.attribution._display import AttributionDisplay
from skfair.attribution._masker import PatchAttributionMasker

__all__ = ["AttributionDisplay", "PatchAttributionMasker"]
