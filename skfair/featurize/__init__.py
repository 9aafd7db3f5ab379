"""Turns images into features: frozen encoders, and a store of the features that they return."""

from skfair.featurize._featurizer import FrozenEncoderFeaturizer
from skfair.featurize._normalize import Normalize

__all__ = ["FrozenEncoderFeaturizer", "Normalize"]
