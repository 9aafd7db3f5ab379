"""Where in images an attribute shows, and training images without it."""

from skfair.attribution._display import AttributionDisplay
from skfair.attribution._masker import PatchAttributionMasker

__all__ = ["AttributionDisplay", "PatchAttributionMasker"]
