"""skfair: reduce bias in trained models and image classifiers, the scikit-learn way."""

from skfair._version import __version__ as __version__
from skfair.adjustment import LogitAdjustedClassifier
from skfair.attribution import PatchAttributionMasker
from skfair.featurize import FrozenEncoderFeaturizer
from skfair.intraprocessing import (
    AdversarialFinetuneDebiaser,
    BiasGradientDebiaser,
    DistillationDebiaser,
    GroupDRODebiaser,
    LayerwiseDebiaser,
    LinearPostDebiaser,
    RandomPerturbationDebiaser,
    ThresholdDebiaser,
)
from skfair.margin import ClusterMarginClassifier
from skfair.persistence import load, save

__all__ = [
    "AdversarialFinetuneDebiaser",
    "BiasGradientDebiaser",
    "ClusterMarginClassifier",
    "DistillationDebiaser",
    "FrozenEncoderFeaturizer",
    "GroupDRODebiaser",
    "LayerwiseDebiaser",
    "LinearPostDebiaser",
    "LogitAdjustedClassifier",
    "PatchAttributionMasker",
    "RandomPerturbationDebiaser",
    "ThresholdDebiaser",
    "load",
    "save",
]
