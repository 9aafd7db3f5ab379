"""Images to features: encoders that are used as they are, and the store of what they made."""

from skfair.featurize._featurizer import FrozenEncoderFeaturizer

__all__ = ["FrozenEncoderFeaturizer"]
