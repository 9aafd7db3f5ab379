"""skfair: reduce bias in trained models and image classifiers, the scikit-learn way."""

from typing import TYPE_CHECKING

from skfair._lazy import lazy_names
from skfair._version import __version__ as __version__

# Most of these names need torch, so Python imports each name at its first use. Type checkers, and
# programs that bundle an application, find the imports in the first block.
if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "adjustment": ["LogitAdjustedClassifier"],
            "attribution": ["PatchAttributionMasker"],
            "base": [],
            "datasets": [],
            "discovery": [],
            "estimator_checks": [],
            "featurize": ["FrozenEncoderFeaturizer"],
            "intraprocessing": [
                "AdversarialFinetuneDebiaser",
                "BiasGradientDebiaser",
                "DistillationDebiaser",
                "GroupDRODebiaser",
                "LayerwiseDebiaser",
                "LinearPostDebiaser",
                "RandomPerturbationDebiaser",
                "ThresholdDebiaser",
            ],
            "margin": ["ClusterMarginClassifier"],
            "metrics": [],
            "model_selection": [],
            "monitoring": [],
            "persistence": ["load", "save"],
            "utils": [],
        },
    )

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
