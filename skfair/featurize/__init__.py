"""Images to features: encoders that are used as they are, and the store of what they made."""

from skfair.featurize._featurizer import FrozenEncoderFeaturizer
from skfair.featurize._normalize import Normalize

__all__ = ["FrozenEncoderFeaturizer", "Normalize"]
