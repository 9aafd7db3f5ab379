"""Trained networks to fairer ones: the debiasers."""

from skfair.intraprocessing._adversarial import AdversarialFinetuneDebiaser
from skfair.intraprocessing._base import IntraprocessingDebiaser
from skfair.intraprocessing._bias_gradient import BiasGradientDebiaser
from skfair.intraprocessing._distillation import DistillationDebiaser
from skfair.intraprocessing._docstring import fill_docstring
from skfair.intraprocessing._finetuning import FinetuningDebiaser, TuningRows
from skfair.intraprocessing._group_dro import GroupDRODebiaser
from skfair.intraprocessing._layerwise import LayerwiseDebiaser
from skfair.intraprocessing._linear_post import LinearPostDebiaser
from skfair.intraprocessing._random_perturbation import RandomPerturbationDebiaser
from skfair.intraprocessing._search import Search
from skfair.intraprocessing._threshold import ThresholdDebiaser

__all__ = [
    "AdversarialFinetuneDebiaser",
    "BiasGradientDebiaser",
    "DistillationDebiaser",
    "FinetuningDebiaser",
    "GroupDRODebiaser",
    "IntraprocessingDebiaser",
    "LayerwiseDebiaser",
    "LinearPostDebiaser",
    "RandomPerturbationDebiaser",
    "Search",
    "ThresholdDebiaser",
    "TuningRows",
    "fill_docstring",
]
